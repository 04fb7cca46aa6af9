"""What happens between chunks: progress, logging, and stopping when asked to."""

from __future__ import annotations

import signal
import sys
import time
from types import FrameType
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from diffhash.training.module import FieldTraining

_SECONDS_BETWEEN_LINES = 10.0


class ProgressReport(Callback):
    """A progress bar on a terminal, plain lines elsewhere; both on standard error.

    Args:
        title: what is being trained.
    """

    def __init__(self, title: str) -> None:
        self._title = title
        self._bar: Progress | None = None
        self._next_line = 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        module = _field_training(pl_module)
        console = Console(stderr=True)
        if console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.fields[status]}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=console,
            )
            self._bar.add_task(self._title, total=module.epochs, status="")
            self._bar.start()
        self._next_line = time.monotonic() + _SECONDS_BETWEEN_LINES

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        module = _field_training(pl_module)
        row = module.history[-1]
        done = f"{module.epochs_done}/{module.epochs}"
        status = f"{done}  loss {row['loss']:.1e}  mse_u {row['mse_u']:.1e}"
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=module.epochs_done, status=status)
        elif time.monotonic() >= self._next_line or trainer.should_stop:
            self._next_line = time.monotonic() + _SECONDS_BETWEEN_LINES
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


class HistoryLogger(Callback):
    """Hands each row of the history to the trainer's loggers; the step is the epoch."""

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        row = dict(_field_training(pl_module).history[-1])
        epoch = int(row.pop("epoch"))
        for logger in trainer.loggers:
            logger.log_metrics({f"history/{name}": v for name, v in row.items()}, step=epoch)


class GracefulStop(Callback):
    """SIGINT and SIGTERM end training after the present step; a second SIGINT ends it at once."""

    def __init__(self) -> None:
        self._previous: dict[int, Any] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        module = _field_training(pl_module)

        def request(signum: int, frame: FrameType | None) -> None:
            if module.stop_requested and signum == signal.SIGINT:
                raise KeyboardInterrupt
            module.stop_requested = True
            print("stopping after this step; once more to stop at once", file=sys.stderr)

        try:
            for signum in (signal.SIGINT, signal.SIGTERM):
                self._previous[signum] = signal.signal(signum, request)
        except ValueError:  # only the main thread may; another one is stopped by its own means
            self._previous = {}

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)


def _field_training(module: L.LightningModule) -> FieldTraining:
    if not isinstance(module, FieldTraining):
        raise TypeError(f"this callback reports on FieldTraining, got {type(module).__name__}")
    return module
