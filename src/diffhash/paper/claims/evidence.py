"""What the records say about the rows of the tables, seed by seed, as the claims ask for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from diffhash.paper.table import Line, Table
from diffhash.results.metrics import metric
from diffhash.results.record import (
    HISTORY_FILE,
    PREDICTIONS_FILE,
    RunRecord,
    read_history,
    read_predictions,
)
from diffhash.results.seeds import counted, over_seeds

LABELS_END = 0.5
"""Where the labelled region of the physics-informed task ends (Section III-B)."""

Region = Literal["everywhere", "labelled", "unknown"]


class MissingError(Exception):
    """What a claim needs has not been recorded; the message says what."""


class Evidence:
    """Errors, histories and costs of the rows.

    What differs from seed to seed comes as ``[n]``, one value for each seed that counts: a
    completed or a diverged run, whose value is infinite. Methods raise :class:`MissingError`
    where nothing was recorded.
    """

    def __init__(self, tables: Mapping[str, Table]) -> None:
        self._tables = tables
        self._predictions = cache(read_predictions)
        self._histories = cache(read_history)

    def rows(self, table: str) -> list[str]:
        """The rows of a table: the paper's, then ours that have records."""
        return list(self._tables[table].lines)

    def budget(self, table: str, row: str) -> int:
        """Epochs of a row's runs."""
        epochs = self._line(table, row)["epochs"]
        if pd.isna(epochs):
            raise MissingError(f"no run of {self.name(table, row)} in {table}")
        return int(epochs)

    def name(self, table: str, row: str) -> str:
        """The row as the paper names it, with its budget: ``MLP 10k``."""
        self._line(table, row)
        return self._tables[table].labels[row]

    def printed(self, table: str, row: str, column: str) -> float:
        """The paper's number; NaN where it prints none."""
        return float(self._line(table, row)[f"paper_{column}"])

    def errors(self, table: str, row: str, column: str) -> np.ndarray:
        """A metric at the end of training."""
        values = over_seeds((record for _, record in self._seeds(table, row)), column)
        if not len(values):
            raise MissingError(f"no {column} of {self.name(table, row)} in {table}")
        return values

    def relative(self, table: str, row: str, column: str, region: Region) -> np.ndarray:
        """MSE as a fraction of that of predicting 0, mean(exact²), in a region of the domain."""
        name = metric(column).quantity
        exact_name = f"exact_{name}"
        if region == "everywhere":
            return self.errors(table, row, column) / self._zero(table, exact_name)
        scores = []
        for directory, record in self._seeds(table, row):
            if record.status == "diverged":
                scores.append(math.inf)
                continue
            frame = self._read(self._predictions, PREDICTIONS_FILE, directory, table, row)
            part = frame.loc[(frame["x"] <= LABELS_END) == (region == "labelled")]
            exact = part[exact_name].to_numpy()
            error = _mean_square(part[name].to_numpy() - exact) / _mean_square(exact)
            scores.append(error if math.isfinite(error) else math.inf)
        return np.array(scores)

    def history(
        self, table: str, row: str, *, epoch: float = math.inf, seconds: float = math.inf
    ) -> np.ndarray:
        """MSE of u at the last evaluation no later than ``epoch`` and ``seconds``.

        ``seconds`` are such as the table gives: of epochs timed alone, if they were.
        """
        timing = self._tables[table].timings.get(row)
        scores = []
        for directory, record in self._seeds(table, row):
            if record.status == "diverged":
                scores.append(math.inf)
                continue
            frame = self._read(self._histories, HISTORY_FILE, directory, table, row)
            spent = frame["epoch"] * timing.seconds_per_epoch if timing else frame["seconds"]
            early = frame.loc[(frame["epoch"] <= epoch) & (spent <= seconds), "mse_u"].to_numpy()
            if not len(early):
                raise MissingError(
                    f"no {HISTORY_FILE} that early of {self.name(table, row)} in {table}"
                )
            scores.append(early[-1] if math.isfinite(early[-1]) else math.inf)
        return np.array(scores)

    def loss_jump(self, table: str, row: str) -> np.ndarray:
        """Largest factor between the losses of neighbouring evaluations, second half of training.

        Only of runs that have three evaluations there or more.
        """
        jumps = []
        for directory, record in self._seeds(table, row):
            if record.status == "diverged":
                jumps.append(math.inf)
                continue
            frame = self._read(self._histories, HISTORY_FILE, directory, table, row)
            late = frame.loc[frame["epoch"] > record.epochs / 2, "loss"].to_numpy()
            if len(late) < 3 or not (late > 0).all():
                raise MissingError(f"too short a history of {self.name(table, row)} in {table}")
            steps = np.abs(np.diff(np.log10(late)))
            jumps.append(10 ** float(steps.max()) if np.isfinite(steps).all() else math.inf)
        return np.array(jumps)

    def step_seconds(self, table: str, row: str) -> np.ndarray:
        """Seconds per epoch: of each chunk of the row's timing, or of each completed run."""
        timing = self._tables[table].timings.get(row)
        completed = [r for _, r in self._seeds(table, row) if r.status == "completed"]
        if not completed:
            raise MissingError(f"no completed run of {self.name(table, row)} in {table}")
        if timing is not None:
            return np.array(timing.chunks)
        return np.array([record.train_seconds / record.epochs for record in completed])

    def seconds(self, table: str, row: str) -> float:
        """Train seconds of a row, as in the table."""
        return float(np.median(self.step_seconds(table, row))) * self.budget(table, row)

    def peak_memory(self, table: str, row: str) -> float:
        """MB that the largest of our runs of a row needed."""
        peak = float(self._line(table, row)["peak_memory_mb"])
        if math.isnan(peak):
            raise MissingError(f"no run of {self.name(table, row)} in {table}")
        return peak

    def _line(self, table: str, row: str) -> Line:
        lines = self._tables[table].lines
        if row not in lines:
            raise MissingError(f"no run of {row} in {table}")
        return lines[row]

    def _seeds(self, table: str, row: str) -> list[tuple[Path, RunRecord]]:
        self._line(table, row)
        found = counted(self._tables[table].runs.get(row, []))
        if not found:
            raise MissingError(f"no finished run of {self.name(table, row)} in {table}")
        return found

    def _zero(self, table: str, exact_name: str) -> float:
        for directory, record in self._tables[table].records:
            if record.status == "completed" and (directory / PREDICTIONS_FILE).exists():
                frame = self._predictions(directory)
                if exact_name in frame:
                    return _mean_square(frame[exact_name].to_numpy())
        raise MissingError(f"no run of {table} with {PREDICTIONS_FILE}")

    def _read(
        self,
        read: Callable[[Path], pd.DataFrame],
        name: str,
        directory: Path,
        table: str,
        row: str,
    ) -> pd.DataFrame:
        try:
            return read(directory)
        except FileNotFoundError:
            raise MissingError(f"no {name} of {self.name(table, row)} in {table}") from None


def _mean_square(values: np.ndarray) -> float:
    with np.errstate(over="ignore"):
        return float(np.mean(np.square(values)))
