"""The run that stands for each row of a table in a figure: that of the lowest seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from diffhash.results.aggregate import aggregate, row_records
from diffhash.results.paper import PAPER_DIRECTORY
from diffhash.results.record import RunRecord, read_history, read_predictions
from diffhash.results.tables import format_epochs


@dataclass(frozen=True)
class Row:
    """A row of a table, with the run that is drawn of it, if there is one.

    Attributes:
        row: its key, e.g. ``mlp_10k``.
        label: ``MLP 10k``; the epochs are the run's budget, or the paper's without a run.
        record: of the run with the lowest seed; None without a run.
        directory: of that record.
    """

    row: str
    label: str
    record: RunRecord | None = None
    directory: Path | None = None

    @property
    def remark(self) -> str:
        """What a reader must know of the run: empty for a completed one."""
        if self.record is None:
            return "no record"
        if self.record.status == "diverged":
            return f"diverged at epoch {self.record.diverged_epoch}"
        if self.record.status == "interrupted":
            return f"interrupted at epoch {self.record.epochs}"
        return ""

    @cached_property
    def predictions(self) -> pd.DataFrame | None:
        """The run's predictions, or None where none were written.

        Raises:
            RecordError: the file is corrupt.
        """
        return self._read(read_predictions)

    @cached_property
    def history(self) -> pd.DataFrame | None:
        """The run's history, or None where none was written.

        Raises:
            RecordError: the file is corrupt.
        """
        return self._read(read_history)

    def _read(self, read: Callable[[Path], pd.DataFrame]) -> pd.DataFrame | None:
        if self.directory is None:
            return None
        try:
            return read(self.directory)
        except FileNotFoundError:
            return None


def table_rows(table: str, runs: Path | str, paper: Path | str = PAPER_DIRECTORY) -> list[Row]:
    """The paper's rows in printed order, then any other row that has records.

    Raises:
        RecordError, FileNotFoundError: see `diffhash.results.aggregate`.
    """
    found = row_records(table, runs)
    rows = []
    for line in aggregate(table, runs, paper).to_dict("records"):
        epochs = line["paper_epochs"] if pd.isna(line["epochs"]) else line["epochs"]
        directory, record = next(iter(found.get(line["row"], [])), (None, None))
        label = f"{line['model']} {format_epochs(int(epochs))}"
        rows.append(Row(line["row"], label, record, directory))
    return rows
