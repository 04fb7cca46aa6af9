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
_TIMING = {"epochs": 120, "chunk": 20}


def run_row(cfg: DictConfig, seconds: float | None) -> list[RunRecord]:
    """Train all seeds of ``cfg`` as one program; the records alone are kept.

    Args:
        cfg: with ``seeds`` and ``run_dir``.
        seconds: what one seed alone may train: that many of ``trainer.epochs`` are run as fit.

    Raises:
        ConfigError: values that cannot be run.
        KeyboardInterrupt: asked to stop.
    """
    folder = Path(cfg.run_dir)
    with _silenced(folder):
        if seconds is not None:
            fitting = max(1, int(seconds / _seconds_per_epoch(cfg, folder)))
            cfg.trainer.epochs = min(cfg.trainer.epochs, fitting)
        records = [record for _, record in run(cfg)]
        shutil.rmtree(folder)
        _check_uninterrupted(records)
    return records


def row_seconds(cfg: DictConfig) -> float:
    """What one seed of ``cfg`` takes to train for all of its epochs, of a short run of it.

    Raises:
        ConfigError: values that cannot be run.
        KeyboardInterrupt: asked to stop.
    """
    folder = Path(cfg.run_dir)
    with _silenced(folder):
        return _seconds_per_epoch(cfg, folder) * cfg.trainer.epochs


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


def _seconds_per_epoch(cfg: DictConfig, folder: Path) -> float:
    """Of the first seed alone, measured now."""
    short = seed_configs(cfg)[0].copy()
    short.run_dir = str(folder.with_name(f"{folder.name}.timing"))
    short.trainer.epochs, short.trainer.chunk = _TIMING["epochs"], _TIMING["chunk"]
    [(directory, record)] = run(short)
    cost = median(chunk_seconds(directory))
    shutil.rmtree(directory)
    _check_uninterrupted([record])
    return cost


def _check_uninterrupted(records: list[RunRecord]) -> None:
    if any(record.status == "interrupted" for record in records):
        raise KeyboardInterrupt
