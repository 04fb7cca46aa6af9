"""Figures, made of the records of runs alone (Figures 1 and 2: of single grids)."""

from __future__ import annotations

from diffhash.results.figures import _backend  # noqa: F401  # before any import of matplotlib
from diffhash.results.figures.make import NoRecordsError, check_records, make_figures
from diffhash.results.figures.run import run_figure

__all__ = ["NoRecordsError", "check_records", "make_figures", "run_figure"]
