"""One table of the paper with the runs of its rows, as the report's parts read it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from diffhash.results.aggregate import RowRecords, aggregate, row_records, row_timing
from diffhash.results.formats import format_epochs
from diffhash.results.paper import TITLES
from diffhash.results.record import RunRecord
from diffhash.results.tables.notes import Row
from diffhash.results.timing import Timing

NO_RECORD = "no record"


@dataclass(frozen=True)
class Table:
    """A table: the aggregated frame, and the records it was made of.

    Attributes:
        table: ``table1`` or ``table2``.
        frame: of `diffhash.results.aggregate`.
        runs: the records of each row that has any.
        timings: of each row that was timed alone.
    """

    table: str
    frame: pd.DataFrame
    runs: RowRecords
    timings: dict[str, Timing]

    @property
    def number(self) -> str:
        """``Table I``."""
        return TITLES[self.table].partition(".")[0]

    @property
    def subject(self) -> str:
        """``Data-driven learning``."""
        return TITLES[self.table].partition(". ")[2]

    @cached_property
    def lines(self) -> dict[str, Row]:
        """The frame's lines by row."""
        return {line["row"]: line for line in self.frame.to_dict("records")}

    @cached_property
    def labels(self) -> dict[str, str]:
        """Rows as the paper names them, with their budget: ``MLP 10k``."""
        return {row: f"{line['model']} {_epochs(line)}" for row, line in self.lines.items()}

    @cached_property
    def notes(self) -> dict[str, str]:
        """What a reader must know of a row: empty where every run completed."""
        return {row: _note(line["status"]) for row, line in self.lines.items()}

    @property
    def records(self) -> list[tuple[Path, RunRecord]]:
        """All of them, row by row."""
        return [item for row in self.lines for item in self.runs.get(row, [])]

    def printed(self) -> list[Row]:
        """The lines that the paper has too."""
        return [line for line in self.lines.values() if not pd.isna(line["paper_epochs"])]


def load_table(table: str, runs: Path | str, paper: Path | str) -> Table:
    """Read the records of a table.

    Raises:
        RecordError, FileNotFoundError: see `diffhash.results.aggregate`.
    """
    found = row_records(table, runs)
    timings = {row: t for row, items in found.items() if (t := row_timing(runs, items))}
    return Table(table, aggregate(table, runs, paper), found, timings)


def _epochs(line: dict[Any, Any]) -> str:
    epochs = line["paper_epochs"] if pd.isna(line["epochs"]) else line["epochs"]
    return format_epochs(int(epochs))


def _note(status: str) -> str:
    if status == "missing":
        return NO_RECORD
    return status.removeprefix("completed").removeprefix("; ")
