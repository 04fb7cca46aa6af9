"""A table of the paper with the records of its rows, from which tables, claims and plots are
made."""

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
    """A table of the paper, with the records of its rows.

    Attributes:
        name: the name ``table1`` or ``table2``.
        number: the paper's number, such as ``Table I``.
        subject: the subject, such as ``Data-driven learning``.
        rows: the paper's rows in printed order, then any other rows with records.
    """

    name: str
    number: str
    subject: str
    rows: dict[str, Row]

    @cached_property
    def frame(self) -> pd.DataFrame:
        """One line per row.

        Each error is the median over the ``n`` seeds that count, whose runs completed or diverged;
        ``<value>_low`` and ``<value>_high`` are the ends of its interval
        (`diffhash.results.statistics.median_interval`; NaN for one seed). A diverged run, or an
        error that was not finite, counts as infinite and is never dropped. ``n_diverged`` is the
        number of diverged runs, ``seeds`` the list of the completed ones (space-separated).
        ``paper_<value>`` is the printed value, and ``decades_<value>`` is log10(ours / paper) of
        the median. Values without counterpart are NaN. ``status`` is ``completed``,
        ``diverged @ epoch N``, ``interrupted @ epoch N`` or ``missing``; with several seeds it
        names the seeds that did not complete. ``epochs`` is the budget of our runs. If the row was
        timed alone on the machine, ``timed_alone`` is true, ``train_seconds`` are the seconds of an
        epoch times the epochs, and their ends are from the smallest and the largest chunk of that
        timing; otherwise they are the seconds of the completed runs themselves.
        ``peak_memory_mb`` is the largest of any run.
        """
        lines = pd.DataFrame([row.line for row in self.rows.values()])
        return lines.astype({"epochs": "Int64", "paper_epochs": "Int64"})

    @property
    def records(self) -> list[Found]:
        """The records of all rows, row by row."""
        return [item for row in self.rows.values() for item in row.runs]

    @cached_property
    def metrics(self) -> list[str]:
        """The metrics that the paper prints, and any others that a run has recorded."""
        return metric_names([dict.fromkeys(METRICS), *(r.metrics for _, r in self.records)])


def load_tables(runs: Path | str, on_problem: OnProblem = raise_problem) -> dict[str, Table]:
    """Read the records of both tables, by name.

    Args:
        runs: the folder of the records of all rows.
        on_problem: a function that is called with the error of each record or timing that cannot be
            used, which is left out; the default raises the error.

    Raises:
        RecordError: there is no record, or a record cannot be used (see `diffhash.paper.rows`).
        FileNotFoundError: the paper's tables do not exist, because this is no clone.
    """
    tables: dict[str, Table] = {}
    for name, found in row_records(runs, on_problem).items():
        printed, rows = load_paper_table(name).to_dict("index"), {}
        for key in map(str, dict.fromkeys((*printed, *found))):
            timing, items = None, found.get(key, [])
            try:  # the timing of the first run that has one
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
    """The train seconds of each of the paper's rows: ``ours`` (NaN without a completed run) and
    ``paper``."""
    columns = {"train_seconds": "ours", "paper_train_seconds": "paper"}
    lines: Any = pd.concat([table.frame[list(columns)] for table in tables])
    return lines.rename(columns=columns).dropna(subset="paper")
