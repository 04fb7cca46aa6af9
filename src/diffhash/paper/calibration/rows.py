"""One row with one set of values: run in a process that may be another one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from statistics import median

from omegaconf import DictConfig

from diffhash.experiment.build import seed_configs
from diffhash.experiment.run import run
from diffhash.paper.timing import chunk_seconds
from diffhash.results.record import RunRecord

# Chunks enough for a median that one hiccup does not move; the first warms up.
_EPOCHS, _CHUNK = 120, 20


def run_row(cfg: DictConfig, seconds: float | None) -> list[RunRecord]:
    """Train all seeds of ``cfg`` as one program; the records alone are kept.

    Args:
        cfg: with ``seeds`` and ``run_dir``.
        seconds: what one seed alone may train: that many of ``trainer.epochs`` are run as fit.

    Raises:
        ConfigError: values that cannot be run.
        KeyboardInterrupt: asked to stop.
    """
    with _silenced(Path(cfg.run_dir)):
        if seconds is not None:
            fitting = max(1, int(seconds / _seconds_per_epoch(cfg)))
            cfg.trainer.epochs = min(cfg.trainer.epochs, fitting)
        return _run(cfg)


def row_seconds(cfg: DictConfig) -> float:
    """What one seed of ``cfg`` takes for all epochs, of a short run; raises as `run_row`."""
    with _silenced(Path(cfg.run_dir)):
        return _seconds_per_epoch(cfg) * cfg.trainer.epochs


def _run(cfg: DictConfig, cost: list[float] | None = None) -> list[RunRecord]:
    found = run(cfg)
    if cost is not None:
        cost.append(median(chunk_seconds(found[0][0])))
    shutil.rmtree(cfg.run_dir)
    if any(record.status == "interrupted" for _, record in found):
        raise KeyboardInterrupt
    return [record for _, record in found]


def _seconds_per_epoch(cfg: DictConfig) -> float:
    """Of the first seed alone, measured now."""
    short, cost = seed_configs(cfg)[0].copy(), []
    short.run_dir = f"{cfg.run_dir}.timing"
    short.trainer.epochs, short.trainer.chunk = _EPOCHS, _CHUNK
    _run(short, cost)
    return cost[0]


@contextmanager
def _silenced(folder: Path) -> Iterator[None]:
    """What is printed goes to a log beside ``folder``, which stays if the block fails."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    log = folder.with_suffix(".log")
    with log.open("w") as file, redirect_stdout(file), redirect_stderr(file):
        yield
    log.unlink()
    with suppress(OSError):  # other rows have left something there
        folder.parent.rmdir()
