"""A table of the paper with the records of its rows: what tables, claims and plots are made of."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from diffhash.paper.printed import METRICS, TITLES, load_paper_table
from diffhash.paper.rows import Found, Row, row_records
from diffhash.paper.timing import find_timing
from diffhash.results.metrics import metric_names
from diffhash.results.record import OnProblem, RecordError, raise_problem


@dataclass(frozen=True)
class Table:
    """A table of the paper, and the records it was made of.

    Attributes:
        name: ``table1`` or ``table2``.
        number: ``Table I``.
        subject: ``Data-driven learning``.
        rows: the paper's in printed order, then any other row with records.
    """

    name: str
    number: str
    subject: str
    rows: dict[str, Row]

    @cached_property
    def frame(self) -> pd.DataFrame:
        """One line per row.

        Each error is the median over the ``n`` seeds that count, those whose run completed or
        diverged, and ``<value>_low`` and ``<value>_high`` are the ends of its interval
        (`diffhash.results.statistics.median_interval`; NaN for one seed). A diverged run, or an
        error that was not finite, is infinite there and never dropped. ``n_diverged`` counts the
        diverged runs, ``seeds`` lists the completed ones (space-separated). ``paper_<value>`` is
        the printed one, ``decades_<value>`` = log10(ours / paper) that of the median. Values
        without counterpart are NaN. ``status`` is ``completed``, ``diverged @ epoch N``,
        ``interrupted @ epoch N`` or ``missing``; with several seeds it names those that did not
        complete. ``epochs`` is the budget of our runs. ``train_seconds`` are those of an epoch
        alone on the machine times the epochs, with the smallest and largest chunk of that timing
        as ends, and ``timed_alone`` is true; or those that the completed runs themselves took.
        ``peak_memory_mb`` is the largest of any run.
        """
        lines = pd.DataFrame([row.line for row in self.rows.values()])
        return lines.astype({"epochs": "Int64", "paper_epochs": "Int64"})

    @property
    def records(self) -> list[Found]:
        """All of them, row by row."""
        return [item for row in self.rows.values() for item in row.runs]

    @cached_property
    def metrics(self) -> list[str]:
        """Those that the paper prints, and any other that a run has recorded."""
        return metric_names([dict.fromkeys(METRICS), *(r.metrics for _, r in self.records)])


def load_tables(runs: Path | str, on_problem: OnProblem = raise_problem) -> dict[str, Table]:
    """Read the records of both tables, by name.

    Args:
        runs: folder of the records of all rows.
        on_problem: is told of each record or timing that cannot be used, which is left out.

    Raises:
        RecordError: not a single record; unusable ones, see `diffhash.paper.rows`, but not with
            ``on_problem``.
        FileNotFoundError: the paper's tables are not there: this is no clone.
    """
    tables: dict[str, Table] = {}
    for name, found in row_records(runs, on_problem).items():
        printed, rows = load_paper_table(name).to_dict("index"), {}
        for key in map(str, dict.fromkeys((*printed, *found))):
            timing, items = None, found.get(key, [])
            try:  # that of the first run which has one
                timings = (find_timing(runs, record) for _, record in items)
                timing = next(filter(None, timings), None)
            except (RecordError, FileNotFoundError) as error:
                on_problem(RecordError(f"timing of {name}/{key}: {error}"))
            rows[key] = Row(name, key, printed, items, timing)
        tables[name] = Table(name, *TITLES[name], rows)
    if not any(table.records for table in tables.values()):
        raise RecordError(f"no records under {runs}: run `make reproduce-tables` first")
    return tables


def train_seconds(tables: Iterable[Table]) -> pd.DataFrame:
    """Of each of the paper's rows, ``ours`` (NaN of one without a completed run) and ``paper``."""
    columns = {"train_seconds": "ours", "paper_train_seconds": "paper"}
    lines: Any = pd.concat([table.frame[list(columns)] for table in tables])
    return lines.rename(columns=columns).dropna(subset="paper")
