"""The quantities that claims compare, taken of the runs of a row."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from diffhash.paper.printed import LABELS_END
from diffhash.paper.rows import Row
from diffhash.paper.table import Table
from diffhash.results.formats import format_decades, format_share, format_value
from diffhash.results.metrics import TASKS, metric
from diffhash.results.record import PREDICTIONS_FILE, read_history, read_predictions

ACCURATE = 0.01
"""At most this share of the zero predictor's MSE."""
NO_SKILL = 0.5
"""This share of it or more."""
COST_MARGIN = 0.1
"""Two costs nearer to each other than this share, or than the chunks of their timing, are equal."""

_TASKS = {"table1": TASKS["data"], "table2": TASKS["pinn"]}
_REGIONS = {
    "everywhere": "",
    "labelled": f" for x <= {LABELS_END}",
    "unknown": f" for x > {LABELS_END}",
}


class MissingError(Exception):
    """What a claim needs has not been recorded; the message says what."""


class Evidence:
    """The rows of both tables and the files of their runs, each read once.

    What is asked of a row raises `MissingError` where it has not been recorded.
    """

    def __init__(self, tables: Mapping[str, Table]) -> None:
        self.tables = tables
        self._predictions, self._histories = cache(read_predictions), cache(read_history)

    def row(self, table: str, row: str, *, finished: bool = True) -> Row:
        """A row with a run, and if it is to be finished, with one that counts as a seed."""
        found = self.tables[table].rows.get(row)
        if found is None or (finished and not found.seeds):
            what = f"run of {row}" if found is None else f"finished run of {found.label}"
            raise MissingError(f"no {what} in {table}")
        return found

    def errors(self, table: str, row: str, column: str = "mse_u") -> np.ndarray:
        """A metric at the end of training, by seed; infinite for a diverged run."""
        found = self.row(table, row)
        values = found.values(column)
        if not len(values):
            raise MissingError(f"no {column} of {found.label} in {table}")
        return values

    def relative(self, table: str, row: str, column: str, region: str) -> np.ndarray:
        """MSE as a fraction of that of predicting 0, mean(exact²), in a region of the domain."""
        name = metric(column).quantity
        if region == "everywhere":
            return self.errors(table, row, column) / self._zero(table, f"exact_{name}")

        def score(frame: pd.DataFrame) -> float:
            part = frame.loc[(frame["x"] <= LABELS_END) == (region == "labelled")]
            exact = part[f"exact_{name}"]
            return _mean_square(part[name] - exact) / _mean_square(exact)

        return self._each(table, row, self._predictions, score)

    def history(
        self, table: str, row: str, *, epoch: float = math.inf, seconds: float = math.inf
    ) -> np.ndarray:
        """MSE of u at the last evaluation no later than ``epoch`` and ``seconds``, by seed.

        ``seconds`` are such as the table gives: of epochs timed alone, if they were.
        """
        found = self.row(table, row)

        def score(frame: pd.DataFrame) -> float:
            spent = frame["seconds"]
            if found.timing:
                spent = frame["epoch"] * found.timing.seconds_per_epoch
            early = frame.loc[(frame["epoch"] <= epoch) & (spent <= seconds), "mse_u"]
            if early.empty:
                raise MissingError(f"no history.csv that early of {found.label} in {table}")
            return early.iloc[-1]

        return self._each(table, row, self._histories, score)

    def step_seconds(self, table: str, row: str) -> np.ndarray:
        """Seconds per epoch: of each chunk of the row's timing, or of each completed run."""
        found = self.row(table, row)
        if not found.completed:
            raise MissingError(f"no completed run of {found.label} in {table}")
        if found.timing:
            return np.array(found.timing.chunks)
        return np.array([record.train_seconds / record.epochs for record in found.completed])

    def _zero(self, table: str, exact_name: str) -> float:
        for directory, record in self.tables[table].records:
            if record.status == "completed" and (directory / PREDICTIONS_FILE).exists():
                frame = self._predictions(directory)
                if exact_name in frame:
                    return _mean_square(frame[exact_name])
        raise MissingError(f"no run of {table} with {PREDICTIONS_FILE}")

    def _each(
        self, table: str, row: str, read: Callable[[Any], pd.DataFrame],
        score: Callable[[pd.DataFrame], float],
    ) -> np.ndarray:  # fmt: skip
        """A score of a file of each run; infinite for one that diverged or is not finite."""
        found = self.row(table, row)
        scores = []
        for directory, record in found.seeds:
            try:
                scores.append(math.inf if record.status == "diverged" else score(read(directory)))
            except FileNotFoundError as error:
                file = str(error.filename).rpartition("/")[2]
                raise MissingError(f"no {file} of {found.label} in {table}") from None
        return np.where(np.isfinite(scores), scores, math.inf)


def _mean_square(values: Any) -> float:
    with np.errstate(over="ignore"):
        return float(np.mean(np.square(np.asarray(values))))


# ------------------------------------------------------------------------------------ quantities


@dataclass(frozen=True)
class Quantity:
    """What a claim compares of a row.

    Attributes:
        values: ``[n]``, one a seed, infinite for a diverged run; of what does not depend on the
            seed (``fixed``) its lower end, value and upper end: what lies between is as good as
            equal.
        group: what it is, whichever row it is of; ``{}`` stands for the name of ``other``.
        other: table and row that it refers to.
        show: one of the values as text.
    """

    table: str
    row: str
    values: Callable[[Evidence], np.ndarray]
    group: str
    other: tuple[str, str] | None = None
    show: Callable[[float], str] = lambda value: format_value("mse_u", value)
    fixed: bool = False

    def what(self, evidence: Evidence) -> str:
        """``group``, after the task."""
        name = evidence.row(*self.other, finished=False).label if self.other else ""
        return f"{_TASKS[self.table]} {self.group.format(name)}"

    def label(self, evidence: Evidence) -> str:
        """The row as the paper names it, with its budget: ``MLP 10k``."""
        return evidence.row(self.table, self.row, finished=False).label


def error(table: str, row: str, column: str = "mse_u") -> Quantity:
    """A metric at the end of training."""
    return Quantity(table, row, lambda e: e.errors(table, row, column), metric(column).quantity)


def relative(table: str, row: str, column: str = "mse_u", region: str = "everywhere") -> Quantity:
    """An MSE at the end as a fraction of that of predicting 0, in a region of the domain."""
    group = metric(column).quantity + _REGIONS[region]
    return Quantity(
        table, row, lambda e: e.relative(table, row, column, region), group, show=format_share
    )


def over_paper(table: str, row: str, column: str = "mse_u", paper_row: str = "") -> Quantity:
    """A metric at the end over what the paper prints, of the same row or of another."""

    def values(evidence: Evidence) -> np.ndarray:
        printed = evidence.tables[table].rows[paper_row or row].printed
        assert printed is not None
        return evidence.errors(table, row, column) / printed[column]

    def show(value: float) -> str:
        with np.errstate(divide="ignore"):
            return "diverged" if np.isinf(value) else f"{format_decades(np.log10(value))} decades"

    group = f"{metric(column).quantity} from the printed number"
    return Quantity(table, row, values, group, show=show)


def at_budget_of(table: str, row: str, other: str) -> Quantity:
    """MSE of u after as many epochs as another row trains for."""
    return Quantity(
        table, row, lambda e: e.history(table, row, epoch=e.row(table, other).epochs),
        "u after the epochs of {}", (table, other),
    )  # fmt: skip


def in_time_of(table: str, row: str, other: str) -> Quantity:
    """MSE of u within another row's train seconds."""

    def values(evidence: Evidence) -> np.ndarray:
        each = np.median(evidence.step_seconds(table, other))
        seconds = float(each) * evidence.row(table, other).epochs
        return evidence.history(table, row, seconds=seconds)

    return Quantity(table, row, values, "u within the train seconds of {}", (table, other))


def epochs_over(table: str, row: str, other: str) -> Quantity:
    """Budget of a row over that of another of its table."""
    return Quantity(
        table, row, lambda e: np.repeat(e.row(table, row).epochs / e.row(table, other).epochs, 3),
        "epochs over those of {}", (table, other), "{:.2f}".format, fixed=True,
    )  # fmt: skip


def step_over(table: str, row: str, other_table: str, other: str) -> Quantity:
    """Train seconds per epoch over those of another row, of any table.

    The ends are the most that the chunks of the two timings allow, or ``COST_MARGIN``.
    """

    def values(evidence: Evidence) -> np.ndarray:
        a, b = evidence.step_seconds(table, row), evidence.step_seconds(other_table, other)
        with np.errstate(divide="ignore", invalid="ignore"):  # a clock that has not moved
            value = float(np.median(a) / np.median(b))
            low, high = float(a.min() / b.max()), float(a.max() / b.min())
        low, high = min(low, value * (1 - COST_MARGIN)), max(high, value * (1 + COST_MARGIN))
        return np.array([low, value, high])

    task = "" if other_table == table else f"{_TASKS[other_table]} "
    group = f"cost of an epoch over that of {task}{{}}"
    return Quantity(table, row, values, group, (other_table, other), "{:.2f}".format, fixed=True)


def peak_memory(table: str, row: str) -> Quantity:
    """MB of the largest of a row's runs."""

    def values(evidence: Evidence) -> np.ndarray:
        runs = evidence.row(table, row).runs
        return np.repeat(max(record.peak_memory_mb for _, record in runs), 3)

    return Quantity(table, row, values, "peak MB", show="{:.0f}".format, fixed=True)
