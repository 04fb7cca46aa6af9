"""A table of the paper with the records of its rows: what tables, claims and plots are made of."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from diffhash.paper.aggregate import aggregate
from diffhash.paper.printed import METRICS, PAPER_DIRECTORY, TABLES, TITLES, load_paper_table
from diffhash.paper.rows import RowRecords, row_records, row_timing
from diffhash.paper.timing import Timing
from diffhash.results.formats import format_epochs
from diffhash.results.metrics import metric_names
from diffhash.results.record import OnProblem, RecordError, RunRecord

NO_RECORD = "no record"
Line = dict[Any, Any]
"""One line of an `diffhash.paper.aggregate.aggregate` frame."""


@dataclass(frozen=True)
class Table:
    """A table: the aggregated frame, and the records it was made of.

    Attributes:
        name: ``table1`` or ``table2``.
        folder: of the records of all tables.
        frame: of `diffhash.paper.aggregate.aggregate`.
        runs: the records of each row that has any.
        timings: of each row that was timed alone.
    """

    name: str
    folder: Path
    frame: pd.DataFrame
    runs: RowRecords
    timings: dict[str, Timing]

    @property
    def number(self) -> str:
        """``Table I``."""
        return TITLES[self.name].partition(". ")[0]

    @property
    def subject(self) -> str:
        """``Data-driven learning``."""
        return TITLES[self.name].partition(". ")[2]

    @cached_property
    def lines(self) -> dict[str, Line]:
        """The frame's lines by row: the paper's rows in printed order, then ours with records."""
        return {line["row"]: line for line in self.frame.to_dict("records")}

    @cached_property
    def labels(self) -> dict[str, str]:
        """Rows as the paper names them, with their budget: ``MLP 10k``."""
        return {row: f"{line['model']} {line_epochs(line)}" for row, line in self.lines.items()}

    @cached_property
    def notes(self) -> dict[str, str]:
        """What a reader must know of a row: empty where every run completed."""
        return {row: _note(line["status"]) for row, line in self.lines.items()}

    @property
    def records(self) -> list[tuple[Path, RunRecord]]:
        """All of them, row by row."""
        return [item for row in self.lines for item in self.runs.get(row, [])]

    @property
    def several_seeds(self) -> bool:
        """Whether any row stands on several seeds, so that there are intervals to show."""
        return bool((self.frame["n"] > 1).any())

    @cached_property
    def metrics(self) -> list[str]:
        """Those that the paper prints, and any other that a run has recorded."""
        return metric_names([dict.fromkeys(METRICS), *(r.metrics for _, r in self.records)])

    def printed(self) -> list[Line]:
        """The lines that the paper has too."""
        return [line for line in self.lines.values() if not pd.isna(line["paper_epochs"])]


def line_epochs(line: Line) -> str:
    """The budget of our runs; of a missing row the paper's, to tell it from the others."""
    epochs = line["paper_epochs"] if pd.isna(line["epochs"]) else line["epochs"]
    return format_epochs(int(epochs))


def load_table(
    name: str,
    runs: Path | str,
    paper: Path | str = PAPER_DIRECTORY,
    on_problem: OnProblem | None = None,
) -> Table:
    """Read the records of a table.

    Args:
        name: ``table1`` or ``table2``.
        runs: folder of the records of all rows.
        paper: folder of the paper's tables.
        on_problem: is told of each record or timing that cannot be used, which is left out.

    Raises:
        RecordError: unusable records, see `diffhash.paper.rows`; not with ``on_problem``.
        FileNotFoundError: no transcription of the paper's table, or, without ``on_problem``, a
            timing without history.
    """
    printed = load_paper_table(name, paper)
    found = row_records(name, runs, on_problem)
    timings = {}
    for row, items in found.items():
        try:
            timing = row_timing(runs, items)
        except (RecordError, FileNotFoundError) as error:
            if on_problem is None:
                raise
            on_problem(RecordError(f"timing of {name}/{row}: {error}"))
            continue
        if timing:
            timings[row] = timing
    return Table(name, Path(runs), aggregate(printed, found, timings), found, timings)


def load_tables(
    runs: Path | str, paper: Path | str = PAPER_DIRECTORY, on_problem: OnProblem | None = None
) -> dict[str, Table]:
    """Both tables by name; arguments and errors as of `load_table`, each problem told once."""
    told: set[str] = set()

    def tell(problem: RecordError) -> None:
        if str(problem) not in told and on_problem is not None:
            told.add(str(problem))
            on_problem(problem)

    report = None if on_problem is None else tell
    return {name: load_table(name, runs, paper, report) for name in TABLES}


def check_any_records(tables: Iterable[Table]) -> None:
    """Refuse to make anything of nothing.

    Raises:
        RecordError: not a single record.
    """
    tables = list(tables)
    if not any(table.runs for table in tables):
        folders = " and ".join(dict.fromkeys(str(table.folder) for table in tables))
        raise RecordError(f"no records under {folders}: run `make reproduce-tables` first")


def _note(status: str) -> str:
    if status == "missing":
        return NO_RECORD
    return status.removeprefix("completed").removeprefix("; ")
