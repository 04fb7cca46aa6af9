"""Figures 1 to 5, made of the records of runs alone (Figures 1 and 2: of single grids)."""

from __future__ import annotations

import diffhash.results.figures  # noqa: F401  # before any import of matplotlib
from diffhash.paper.figures.make import NoRecordsError, check_records, make_figures

__all__ = ["NoRecordsError", "check_records", "make_figures"]
