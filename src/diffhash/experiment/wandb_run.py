"""Weights & Biases: offline unless logged in; one W&B run per run."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig

from diffhash.results.record import RunRecord


def make_loggers(cfg: DictConfig, directory: Path) -> list[Logger]:
    """The loggers that ``cfg.logger`` asks for."""
    return []


def log_final(loggers: list[Logger], record: RunRecord, figure: Path) -> None:
    """Final metrics as summary, the run's figure as image."""


def finish_loggers(loggers: list[Logger]) -> None:
    """Close every logger."""
