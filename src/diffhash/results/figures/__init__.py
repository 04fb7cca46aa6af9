"""Figures, made of the records of runs alone."""

from __future__ import annotations

from diffhash.results.figures import _backend  # noqa: F401  # before any import of matplotlib
from diffhash.results.figures.run import run_figure

__all__ = ["run_figure"]
