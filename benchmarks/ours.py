"""The library's own step, trained as by ``train.py``."""

from __future__ import annotations

import time
from collections.abc import Callable

import lightning as L
from lightning.pytorch.callbacks import Callback
from omegaconf import DictConfig

from benchmarks.sample import Sample
from diffhash.experiment.build import build
from diffhash.training import FieldTraining
from diffhash.training import fit as fit_training

OURS = "ours"

Readings = tuple[float, ...]


class Ours:
    """Training of the config's run under Lightning's ``fit``, chunk by chunk.

    The first chunk is a warm-up. The time of the others counts with all that is between their
    steps, Lightning's loop included, except for the evaluations.
    """

    name = OURS

    def __init__(self, cfg: DictConfig) -> None:
        self._cfg = cfg

    def sample(self, seconds: float) -> Sample:
        """Train in chunks for at least ``seconds``; the training is new each time."""
        setup = build(self._cfg)
        training = setup.training
        assert isinstance(training, FieldTraining)

        def read() -> Readings:
            return time.perf_counter(), training.train_seconds, training.evaluation_seconds

        clock = Clock(1, seconds, read)
        fit(training, setup.accelerator, clock)
        wall, train, evaluation = clock.elapsed
        steps = clock.n_batches * self._cfg.trainer.chunk
        return Sample(1e3 * (wall - evaluation) / steps, 1e3 * train / steps)


class Clock(Callback):
    """Reads clocks after ``skip`` batches and after each later one; stops when time is up.

    Args:
        skip: the number of batches that do not count.
        seconds: the shortest total time of the other batches.
        read: returns the readings of the clocks, the first in seconds; it waits for the device.
    """

    def __init__(self, skip: int, seconds: float, read: Callable[[], Readings]) -> None:
        self._skip, self._seconds, self._read = skip, seconds, read
        self._first: Readings = ()
        self.n_batches = -skip  # batches that count
        self.elapsed: Readings = ()  # time on each clock

    def on_train_batch_end(self, trainer: L.Trainer, *_: object) -> None:
        self.n_batches += 1
        if self.n_batches < 0:
            return
        now = self._read()
        if self.n_batches == 0:
            self._first = now
            return
        self.elapsed = tuple(b - a for a, b in zip(self._first, now, strict=True))
        if self.elapsed[0] >= self._seconds:
            trainer.should_stop = True


def fit(module: L.LightningModule, accelerator: str, *callbacks: Callback) -> None:
    """Call `diffhash.training.fit`; an interrupt raises Python's own exception.

    Raises:
        KeyboardInterrupt: the process was interrupted; Lightning turns this into `SystemExit`.
    """
    try:
        fit_training(module, accelerator, callbacks)
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from error
        raise
