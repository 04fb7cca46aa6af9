"""Callbacks between chunks of epochs: progress, logging, checkpoints, and stopping on signals."""

from __future__ import annotations

import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from types import FrameType
from typing import Any, Protocol, Self

import lightning as L
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from diffhash.training.checkpoint import LOGGERS
from diffhash.training.module import FieldTraining

SECONDS_BETWEEN_LINES = 10.0
# Ctrl-C, and the signals of schedulers and terminals before they end a job.
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
_MAY_BE_IGNORED = (signal.SIGUSR1, signal.SIGHUP)  # nohup ignores SIGHUP


def progress_bar(console: Console) -> Progress:
    """Make a bar for tasks with a field ``status``; nothing is drawn without a terminal."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[status]}", markup=False),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )


class ProgressReport(Callback):
    """Shows a progress bar on a terminal, or plain lines elsewhere; both on standard error.

    Args:
        title: a name for what is trained.
    """

    def __init__(self, title: str) -> None:
        self._title = title
        self._bar: Progress | None = None
        self._next_line = 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        module = _field_training(pl_module)
        console = Console(stderr=True)
        if console.is_terminal:
            self._bar = progress_bar(console)
            self._bar.add_task(self._title, total=module.epochs, status="")
            self._bar.start()
        self._next_line = time.monotonic() + SECONDS_BETWEEN_LINES

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        module = _field_training(pl_module)
        status = _status(module)
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=module.epochs_done, status=status)
        elif time.monotonic() >= self._next_line or trainer.should_stop:
            self._next_line = time.monotonic() + SECONDS_BETWEEN_LINES
            print(f"{self._title}: {status}  {module.train_seconds:.0f} s", file=sys.stderr)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._stop()

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()


def _status(module: FieldTraining) -> str:
    """The number of completed epochs, and the loss and error of the replica, or their median over
    replicas that have not diverged."""
    done = f"{module.epochs_done}/{module.epochs}"
    rows = [r.history[-1] for r in module.replicas if r.diverged_epoch is None]
    if not rows:
        return f"{done}  diverged"
    name = module.evaluation.names[0]
    loss, first = (median(row[key] for row in rows) for key in ("loss", name))
    diverged = len(module.replicas) - len(rows)
    error = "" if math.isnan(first) else f"  {name} {first:.1e}"  # the solution is not known
    return f"{done}  loss {loss:.1e}{error}" + (f"  {diverged} diverged" if diverged else "")


class RegularCheckpoints(Callback):
    """Writes a checkpoint every few chunks, and one at the end, before the run is evaluated.

    Args:
        path: the file, which is replaced each time. A file that exists when training begins is the
            one from which training was resumed.
        every: the number of chunks between two checkpoints.
    """

    def __init__(self, path: Path, every: int) -> None:
        self._path = path
        self._every = every
        self._chunks = 0
        self._saved_epochs: int | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._path.is_file():
            self._saved_epochs = _field_training(pl_module).epochs_done

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._chunks += 1
        if self._chunks % self._every == 0:
            self._save(trainer, pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._save(trainer, pl_module)

    def _save(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        done = _field_training(pl_module).epochs_done
        if done != self._saved_epochs:
            trainer.save_checkpoint(self._path)
            self._saved_epochs = done


class HistoryLogger(Callback):
    """Hands each new row of the histories to loggers; the step is the epoch.

    A logger that fails is left out from then on, with a warning, and training continues.
    Checkpoints name the loggers' runs (their ``version``), so that a resumed run can continue them.

    Args:
        loggers: the loggers of each replica, by name.
        row_of: a function of a row that returns what is logged of it, as `WindowedTraining.row`;
            None for the row itself.
    """

    def __init__(
        self,
        loggers: Sequence[Mapping[str, Logger]],
        row_of: Callable[[Mapping[str, float]], Mapping[str, float]] | None = None,
    ) -> None:
        self._loggers = loggers
        self._row_of = row_of or dict
        self._logged = [0] * len(loggers)
        self._failed: list[Logger] = []

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._logged = [len(r.history) for r in _field_training(pl_module).replicas]

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        replicas = _field_training(pl_module).replicas
        for index, (replica, loggers) in enumerate(zip(replicas, self._loggers, strict=True)):
            for row in map(self._row_of, replica.history[self._logged[index] :]):
                for name, logger in loggers.items():
                    if logger in self._failed:
                        continue
                    metrics = {f"history/{k}": v for k, v in row.items() if k != "epoch"}
                    try:
                        logger.log_metrics(metrics, step=int(row["epoch"]))
                        logger.save()
                    except Exception as error:  # any error of the logger's server or disk
                        self._failed.append(logger)
                        print(f"warning: logger.{name} logs no more: {error}", file=sys.stderr)
            self._logged[index] = len(replica.history)

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint[LOGGERS] = [
            {key: one.version for key, one in loggers.items() if one.version is not None}
            for loggers in self._loggers
        ]


class Stoppable(Protocol):
    """A training that can be stopped after the present epoch."""

    @property
    def stop_requested(self) -> bool:
        """Whether a stop has been requested."""
        ...

    @stop_requested.setter
    def stop_requested(self, value: bool) -> None: ...


class GracefulStop(Callback):
    """SIGINT, SIGTERM, SIGUSR1 and SIGHUP end training after the present epoch.

    A second SIGINT ends training at once. SIGUSR1 and SIGHUP stay ignored if they were ignored
    before. The callback is a context manager, which is entered around training and any code after
    it that must not be interrupted.

    Args:
        module: the training.

    Attributes:
        is_terminated: whether SIGTERM has arrived.
    """

    def __init__(self, module: Stoppable) -> None:
        self._module, self.is_terminated = module, False
        self._interrupted = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        # Only the main thread may set signal handlers.
        if threading.current_thread() is threading.main_thread():
            self._previous = {
                s: signal.signal(s, self._request)
                for s in _STOP_SIGNALS
                if not (s in _MAY_BE_IGNORED and signal.getsignal(s) is signal.SIG_IGN)
            }
        return self

    def __exit__(self, *_: object) -> None:
        self._hold(False)
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._hold(True)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # Lightning has replaced these handlers by its own. A signal that arrived in between was
        # held back.
        for signum in self._previous:
            signal.signal(signum, self._request)
        self._hold(False)

    def _hold(self, hold: bool) -> None:
        if self._previous:
            how = signal.SIG_BLOCK if hold else signal.SIG_UNBLOCK
            signal.pthread_sigmask(how, set(self._previous) - {signal.SIGINT})

    def _request(self, signum: int, frame: FrameType | None) -> None:
        if signum == signal.SIGINT and self._interrupted:
            print("stopped at once: nothing is recorded", file=sys.stderr)
            raise SystemExit(128 + signum)
        self._interrupted = self._interrupted or signum == signal.SIGINT
        self.is_terminated = self.is_terminated or signum == signal.SIGTERM
        if not self._module.stop_requested:
            print("stopping after this epoch; Ctrl-C again stops at once", file=sys.stderr)
        self._module.stop_requested = True


def _field_training(module: L.LightningModule) -> FieldTraining:
    if not isinstance(module, FieldTraining):
        raise TypeError(f"this callback reports on FieldTraining, got {type(module).__name__}")
    return module
