"""What the records say about the rows of the tables, as the checks of the claims ask for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd

from diffhash.results.aggregate import aggregate, decades, row_records, row_timing
from diffhash.results.paper import PAPER_DIRECTORY, TABLES
from diffhash.results.record import (
    HISTORY_FILE,
    PREDICTIONS_FILE,
    read_history,
    read_predictions,
)
from diffhash.results.tables import Row, format_epochs, format_value

ACCURATE = 0.01
NO_SKILL = 0.5
LABELS_END = 0.5
"""Where the labelled region of the physics-informed task ends (Section III-B)."""

SYMBOLS = {"mse_u": "u", "mse_ux": "u_x", "mse_uxx": "u_xx", "loss": "loss"}
_EXACT = {"mse_u": "exact_u", "mse_ux": "exact_u_x", "mse_uxx": "exact_u_xx"}


class UndecidedError(Exception):
    """What a claim needs has not been recorded; the message says what."""


class Evidence:
    """Values, regional errors and histories of the rows; MSEs are medians over seeds.

    Methods raise :class:`UndecidedError` where nothing was recorded, and give infinity for a row
    whose runs all diverged.
    """

    def __init__(self, runs: Path | str, paper: Path | str = PAPER_DIRECTORY) -> None:
        self._lines = {
            table: {line["row"]: line for line in aggregate(table, runs, paper).to_dict("records")}
            for table in TABLES
        }
        self._records = {t: row_records(t, runs) for t in TABLES}
        self._timings = {
            table: {row: row_timing(runs, found) for row, found in rows.items()}
            for table, rows in self._records.items()
        }

    def rows(self, table: str) -> list[str]:
        """The paper's rows of a table."""
        lines = self._lines[table].values()
        return [line["row"] for line in lines if not pd.isna(line["paper_epochs"])]

    def epochs(self, table: str, row: str) -> int:
        """Our budget of a row."""
        epochs = self._line(table, row)["epochs"]
        if pd.isna(epochs):
            raise UndecidedError(f"no run of {self.name(table, row)} in {table}")
        return int(epochs)

    def name(self, table: str, row: str) -> str:
        """The row as the paper names it, with its budget: ``MLP 10k``."""
        line = self._line(table, row)
        epochs = line["paper_epochs"] if pd.isna(line["epochs"]) else line["epochs"]
        return f"{line['model']} {format_epochs(epochs)}"

    def value(self, table: str, row: str, column: str) -> float:
        """A value of our table."""
        if self._diverged(table, row):
            return math.inf
        value = float(self._line(table, row)[column])
        if math.isnan(value):
            raise UndecidedError(f"no {column} of {self.name(table, row)} in {table}")
        return value

    def peak_memory(self, table: str, row: str) -> float:
        """MB that the largest of our runs of a row needed."""
        peak = float(self._line(table, row)["peak_memory_mb"])
        if math.isnan(peak):
            raise UndecidedError(f"no run of {self.name(table, row)} in {table}")
        return peak

    def distance(self, table: str, row: str, column: str, *, paper_row: str) -> float:
        """Decades from a printed value to ours, log10(ours / paper)."""
        printed = self._line(table, paper_row)[f"paper_{column}"]
        return float(decades(self.value(table, row, column), printed))

    def relative(self, table: str, row: str, column: str) -> float:
        """MSE over the whole domain as a fraction of the zero predictor's, mean(exact²)."""
        for candidate in self.rows(table):
            for frame in self._files(read_predictions, table, candidate):
                if _EXACT[column] in frame:
                    return self.value(table, row, column) / _mean_square(
                        frame[_EXACT[column]].to_numpy()
                    )
        raise UndecidedError(f"no run of {table} with {PREDICTIONS_FILE}")

    def region_relative(self, row: str, *, labelled: bool) -> float:
        """MSE of u of a Table II row in or beyond the labelled region, as such a fraction."""
        if self._diverged("table2", row):
            return math.inf
        scores = []
        for frame in self._files(read_predictions, "table2", row):
            part = frame.loc[(frame["x"] <= LABELS_END) == labelled]
            exact = part["exact_u"].to_numpy()
            error = _mean_square(part["u"].to_numpy() - exact)
            scores.append(error / _mean_square(exact))
        if not scores:
            raise UndecidedError(f"no {PREDICTIONS_FILE} of {self.name('table2', row)} in table2")
        return median(scores)

    def history(
        self, table: str, row: str, *, epoch: float = math.inf, seconds: float = math.inf
    ) -> float:
        """MSE of u at the last evaluation no later than ``epoch`` and ``seconds``.

        ``seconds`` are such as the table gives: of epochs timed alone, if they were.
        """
        if self._diverged(table, row):
            return math.inf
        scores = []
        for frame in self._files(read_history, table, row):
            timing = self._timings[table][row]
            spent = frame["epoch"] * timing.seconds_per_epoch if timing else frame["seconds"]
            early = frame.loc[(frame["epoch"] <= epoch) & (spent <= seconds), "mse_u"]
            scores += [float(score) for score in early.to_numpy()[-1:]]
        if not scores:
            raise UndecidedError(
                f"no {HISTORY_FILE} that early of {self.name(table, row)} in {table}"
            )
        return median(scores)

    def values(self, table: str, rows: Iterable[str], columns: Iterable[str]) -> str:
        """Values of several rows as text."""
        return self._text(
            table, rows, columns, lambda row, c: format_score(c, self.value(table, row, c))
        )

    def shares(self, table: str, rows: Iterable[str], columns: Iterable[str]) -> str:
        """The same relative to the zero predictor's."""
        return self._text(
            table, rows, columns, lambda row, c: format_share(self.relative(table, row, c))
        )

    def _text(
        self,
        table: str,
        rows: Iterable[str],
        columns: Iterable[str],
        text: Callable[[str, str], str],
    ) -> str:
        rows = list(rows)
        return "; ".join(
            f"{SYMBOLS[c]}: " + ", ".join(f"{self.name(table, row)} {text(row, c)}" for row in rows)
            for c in columns
        )

    def _line(self, table: str, row: str) -> Row:
        if row not in self._lines[table]:
            raise UndecidedError(f"no run of {row} in {table}")
        return self._lines[table][row]

    def _files(
        self, read: Callable[[Path], pd.DataFrame], table: str, row: str
    ) -> Iterable[pd.DataFrame]:
        """The given file of each completed run of a row that has it."""
        for directory, record in self._records[table].get(row, []):
            if record.status == "completed":
                try:
                    yield read(directory)
                except FileNotFoundError:
                    continue

    def _diverged(self, table: str, row: str) -> bool:
        found = self._records[table].get(row, [])
        return bool(found) and all(record.status == "diverged" for _, record in found)


def format_score(column: str, value: float) -> str:
    """As in the tables, but infinity is what it stands for."""
    return "diverged" if math.isinf(value) else format_value(column, value)


def format_share(fraction: float) -> str:
    """``0.016`` as ``1.6 %``."""
    if math.isinf(fraction):
        return "diverged"
    percent = 100 * fraction
    return f"{percent:.0f} %" if 10 <= percent < 1e6 else f"{percent:.2g} %"


Check = Callable[[Evidence], tuple[bool, str]]


@dataclass(frozen=True)
class Statement:
    """A claim, where it stands, the criterion made of it and the function that checks it.

    ``check`` returns whether it holds and the figures it rests on.
    """

    source: str
    text: str
    criterion: str
    check: Check


class Statements(list[Statement]):
    """Claims in the order of their definition."""

    def add(self, source: str, text: str, criterion: str) -> Callable[[Check], Check]:
        """Decorator: append the claim that the decorated function checks."""

        def register(check: Check) -> Check:
            self.append(Statement(source, text, criterion, check))
            return check

        return register


def _mean_square(values: np.ndarray) -> float:
    return float(np.mean(np.square(values)))
