"""What is drawn of a row of a table: its run, or the median of its seeds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from diffhash.paper.table import Table
from diffhash.results.record import RunRecord, read_history, read_predictions
from diffhash.results.seeds import combine_histories, combine_predictions, counted, over_seeds
from diffhash.results.statistics import median_interval


@dataclass(frozen=True)
class Row:
    """A row of a table, with the runs that are drawn of it.

    Attributes:
        row: its key, e.g. ``mlp_10k``.
        label: ``MLP 10k``; the epochs are the runs' budget, or the paper's without a run.
        runs: directory and record of each seed that counts, or of the one there is.
    """

    row: str
    label: str
    runs: tuple[tuple[Path, RunRecord], ...] = ()

    @property
    def has_band(self) -> bool:
        """Whether it is a median, with a band around it; a single run is drawn as it is."""
        return len(self.runs) > 1

    @property
    def n_predictions(self) -> int:
        """How many of the runs predict something: those that did not diverge."""
        return len(self.runs) - self.n_diverged

    @property
    def n_diverged(self) -> int:
        """How many of the runs diverged."""
        return sum(record.status == "diverged" for _, record in self.runs)

    @property
    def remark(self) -> str:
        """What a reader must know of the runs: empty if they completed."""
        if not self.runs:
            return "no record"
        record = self.runs[0][1]
        if self.has_band:
            return f"{self.n_diverged} of {len(self.runs)} diverged" if self.n_diverged else ""
        if record.status == "diverged":
            return f"diverged at epoch {record.diverged_epoch}"
        if record.status == "interrupted":
            return f"interrupted at epoch {record.epochs}"
        return ""

    def metric(self, name: str) -> float | None:
        """A metric at the end, the median over seeds, infinite where that diverged.

        None where there is none, as of a single run that diverged.
        """
        if len(self.runs) == 1:
            return self.runs[0][1].metrics.get(name)
        values = over_seeds((record for _, record in self.runs), name)
        return float(median_interval(values)[0]) if len(values) else None

    @cached_property
    def predictions(self) -> pd.DataFrame | None:
        """The run's predictions; over seeds see :func:`.seeds.combine_predictions`.

        None where none were written, or all of several runs diverged.

        Raises:
            RecordError: a file is corrupt, or they do not fit each other.
        """
        if len(self.runs) == 1:
            return _read(read_predictions, self.runs[0][0])
        frames = self._frames(read_predictions, "completed")
        return combine_predictions(frames, self.n_diverged) if frames else None

    @cached_property
    def history(self) -> pd.DataFrame | None:
        """The run's history; over seeds see :func:`.seeds.combine_histories`.

        None where none was written.

        Raises:
            RecordError: a file is corrupt.
        """
        if len(self.runs) == 1:
            return _read(read_history, self.runs[0][0])
        completed, diverged = (self._frames(read_history, s) for s in ("completed", "diverged"))
        return combine_histories(completed, diverged) if completed or diverged else None

    def _frames(self, read: Callable[[Path], pd.DataFrame], status: str) -> list[pd.DataFrame]:
        found = [_read(read, directory) for directory, r in self.runs if r.status == status]
        return [frame for frame in found if frame is not None]


def _read(read: Callable[[Path], pd.DataFrame], directory: Path) -> pd.DataFrame | None:
    try:
        return read(directory)
    except FileNotFoundError:
        return None


def table_rows(table: Table) -> list[Row]:
    """The paper's rows in printed order, then any other row that has records."""
    found = {row: table.runs.get(row, []) for row in table.labels}
    return [
        Row(row, label, tuple(counted(found[row]) or found[row][:1]))
        for row, label in table.labels.items()
    ]
