"""The library's own step, trained as ``train.py`` trains it."""

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
    """Lightning's ``fit`` of what the config describes, chunk by chunk.

    The first chunk is warm-up. What is between the steps of the others counts, Lightning's loop
    included, but for the evaluations.
    """

    name = OURS

    def __init__(self, cfg: DictConfig) -> None:
        self._cfg = cfg

    def sample(self, seconds: float) -> Sample:
        """Chunks for at least so long, of a training that is new each time."""
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
    """Reads clocks after ``skip`` batches, and again when enough time has passed; then it stops.

    Args:
        skip: batches that do not count.
        seconds: how long the others go on, at least.
        read: the readings, the first in seconds; it waits for the device.
    """

    def __init__(self, skip: int, seconds: float, read: Callable[[], Readings]) -> None:
        self._skip, self._seconds, self._read = skip, seconds, read
        self._first: Readings = ()
        self.n_batches = -skip  # that count
        self.elapsed: Readings = ()  # on each clock

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
    """`diffhash.training.fit`, interrupted as Python is.

    Raises:
        KeyboardInterrupt: interrupted, of which Lightning would make an exit.
    """
    try:
        fit_training(module, accelerator, callbacks)
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from error
        raise
