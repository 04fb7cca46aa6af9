"""The quantities that claims compare, computed from the runs of a row."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd

from diffhash.paper.printed import LABELS_END
from diffhash.paper.rows import Files, Row
from diffhash.paper.table import Table
from diffhash.results.formats import format_decades, format_share, format_value
from diffhash.results.metrics import TASKS, metric
from diffhash.results.record import HISTORY_FILE, PREDICTIONS_FILE

ACCURATE = 0.01
"""An MSE of at most this share of the zero predictor's MSE is accurate."""
NO_SKILL = 0.5
"""An MSE of this share of the zero predictor's MSE or more has no skill."""
COST_MARGIN = 0.1
"""Two costs that differ by less than this share, or than the chunks of their timing, are equal."""

_TASKS = {"table1": TASKS["data"], "table2": TASKS["pinn"]}
_REGIONS = {
    "everywhere": "",
    "labelled": f" for x <= {LABELS_END}",
    "unknown": f" for x > {LABELS_END}",
}

Tables = Mapping[str, Table]


class MissingError(Exception):
    """A quantity of a claim has not been recorded; the message names it."""


@dataclass(frozen=True)
class Quantity:
    """A quantity of a row. Comparing it with another quantity or with a bound gives a `Part`.

    Attributes:
        values: a function of the row, and of ``other``, that returns a value for each seed that
            counts, ``[n]``, infinite for a diverged run. For a quantity that does not depend on the
            seed (``fixed``) it returns a lower end, a value and an upper end; any number between
            the ends counts as equal to the value.
        group: the name of the quantity for any row; ``{}`` stands for the name of ``other``.
        other: the table and the row to which the quantity is relative; None for none.
        show: a function that returns a value as text.
        factor: the factor by which the values are multiplied before they are compared.
    """

    table: str
    row: str
    values: Callable[..., np.ndarray]
    group: str
    other: tuple[str, str] | None = None
    show: Callable[[float], str] = lambda value: format_value("mse_u", value)
    fixed: bool = False
    factor: float = 1.0

    def sample(self, tables: Tables) -> np.ndarray:
        """The values; raises `MissingError` if they have not been recorded."""
        keys = filter(None, ((self.table, self.row), self.other))
        return self.values(*(_find(tables, *key) for key in keys))

    def what(self, tables: Tables) -> str:
        """The task and ``group``."""
        name = _find(tables, *self.other, finished=False).label if self.other else ""
        return f"{_TASKS[self.table]} {self.group.format(name)}"

    def label(self, tables: Tables) -> str:
        """The paper's name of the row with its budget: ``MLP 10k``."""
        return _find(tables, self.table, self.row, finished=False).label

    def __rmul__(self, factor: float) -> Quantity:
        return replace(self, factor=factor)

    def __lt__(self, other: Quantity) -> Part:
        return Part(self, "<", other)

    def __le__(self, bound: float) -> Part:
        return Part(self, "<=", bound)

    def __gt__(self, bound: float) -> Part:
        return Part(self, ">", bound)


@dataclass(frozen=True)
class Part:
    """A comparison: a quantity tends to be below another one, or on one side of a bound, which
    means that more than half of the seeds are on that side.
    """

    of: Quantity
    sign: Literal["<", "<=", ">"]
    than: Quantity | float


def _find(tables: Tables, table: str, row: str, *, finished: bool = True) -> Row:
    """A row that has a run, or with ``finished`` a run that counts as a seed."""
    found = tables[table].rows.get(row)
    if found is None or (finished and not found.seeds):
        what = f"run of {row}" if found is None else f"finished run of {found.label}"
        raise MissingError(f"no {what} in {table}")
    return found


# ------------------------------------------------------------------------------------ quantities


def error(table: str, row: str, column: str = "mse_u") -> Quantity:
    """A metric at the end of training."""
    return Quantity(table, row, lambda r: _errors(r, column), metric(column).quantity)


def relative(table: str, row: str, column: str = "mse_u", region: str = "everywhere") -> Quantity:
    """An MSE at the end as a fraction of the MSE of predicting 0, which is mean(exact²), in a
    region of the domain."""
    name = metric(column).quantity

    def values(row: Row) -> np.ndarray:
        if region != "everywhere":
            return _by_seed(row, row.predicted, PREDICTIONS_FILE, score)
        errors = _errors(row, column)
        for _, frame in row.predicted:  # all have the same points
            return errors / _mean_square(frame[f"exact_{name}"])
        raise MissingError(f"no {PREDICTIONS_FILE} of {row.label} in {row.table}")

    def score(frame: pd.DataFrame) -> float:
        part = frame.loc[(frame["x"] <= LABELS_END) == (region == "labelled")]
        exact = part[f"exact_{name}"]
        return _mean_square(part[name] - exact) / _mean_square(exact)

    return Quantity(table, row, values, name + _REGIONS[region], show=format_share)


def over_paper(table: str, row: str, column: str = "mse_u", paper_row: str = "") -> Quantity:
    """A metric at the end, divided by the paper's value for the same row or another row."""
    printed, group = paper_row or row, f"{metric(column).quantity} from the printed number"

    def show(value: float) -> str:
        with np.errstate(divide="ignore"):
            return "diverged" if np.isinf(value) else f"{format_decades(np.log10(value))} decades"

    return Quantity(
        table, row, lambda r: _errors(r, column) / r.paper[printed][column], group, show=show
    )


def at_budget_of(table: str, row: str, other: str) -> Quantity:
    """The MSE of u after as many epochs as another row's budget."""
    group = "u after the epochs of {}"
    return Quantity(table, row, lambda r, o: _early(r, epoch=o.epochs), group, (table, other))


def in_time_of(table: str, row: str, other: str) -> Quantity:
    """The MSE of u within another row's train seconds in the table, which are those of epochs timed
    alone if there is a timing."""
    return Quantity(
        table, row, lambda r, o: _early(r, seconds=float(np.median(_step_seconds(o))) * o.epochs),
        "u within the train seconds of {}", (table, other),
    )  # fmt: skip


def epochs_over(table: str, row: str, other: str) -> Quantity:
    """The budget of a row, divided by the budget of another row of its table."""
    return Quantity(
        table, row, lambda r, o: np.repeat(r.epochs / o.epochs, 3),
        "epochs over those of {}", (table, other), "{:.2f}".format, fixed=True,
    )  # fmt: skip


def step_over(table: str, row: str, other_table: str, other: str) -> Quantity:
    """The train seconds per epoch, divided by those of another row of any table.

    The ends are the smallest and largest ratio of chunks of the two timings, and at least
    ``COST_MARGIN`` apart from the value.
    """

    def values(row: Row, other: Row) -> np.ndarray:
        a, b = _step_seconds(row), _step_seconds(other)
        with np.errstate(divide="ignore", invalid="ignore"):  # a clock may show 0 s
            value = float(np.median(a) / np.median(b))
            low, high = float(a.min() / b.max()), float(a.max() / b.min())
        low, high = min(low, value * (1 - COST_MARGIN)), max(high, value * (1 + COST_MARGIN))
        return np.array([low, value, high])

    task = "" if other_table == table else f"{_TASKS[other_table]} "
    group = f"cost of an epoch over that of {task}{{}}"
    return Quantity(table, row, values, group, (other_table, other), "{:.2f}".format, fixed=True)


def peak_memory(table: str, row: str) -> Quantity:
    """The largest peak memory of a row's runs, in MB."""
    return Quantity(
        table, row, lambda r: np.repeat(r.line["peak_memory_mb"], 3),
        "peak MB", show="{:.0f}".format, fixed=True,
    )  # fmt: skip


# --------------------------------------------------------------------------- values by seed


def _errors(row: Row, column: str) -> np.ndarray:
    """A metric at the end of training for each seed; infinite for a diverged run."""
    if not len(values := row.values(column)):
        raise MissingError(f"no {column} of {row.label} in {row.table}")
    return values


def _early(row: Row, epoch: float = math.inf, seconds: float = math.inf) -> np.ndarray:
    """The MSE of u at the last evaluation no later than ``epoch`` and ``seconds``, by seed."""

    def score(frame: pd.DataFrame) -> float:
        early = frame.loc[(frame["epoch"] <= epoch) & (frame["seconds"] <= seconds), "mse_u"]
        if early.empty:
            raise MissingError(f"no {HISTORY_FILE} that early of {row.label} in {row.table}")
        return early.iloc[-1]

    return _by_seed(row, row.histories, HISTORY_FILE, score)


def _by_seed(
    row: Row, files: Files, name: str, score: Callable[[pd.DataFrame], float]
) -> np.ndarray:
    """A score of each seed's file; infinite for a diverged seed or a score that is not finite."""
    frames, scores = {record.seed: frame for record, frame in files}, []
    for _, record in row.seeds:
        if record.status != "diverged" and record.seed not in frames:
            raise MissingError(f"no {name} of {row.label} in {row.table}")
        scores.append(math.inf if record.status == "diverged" else score(frames[record.seed]))
    return np.where(np.isfinite(scores), scores, math.inf)


def _step_seconds(row: Row) -> np.ndarray:
    """The seconds per epoch of each chunk of the row's timing, or of each completed run."""
    if not row.completed:
        raise MissingError(f"no completed run of {row.label} in {row.table}")
    if row.timing:
        return np.array(row.timing.chunks)
    return np.array([record.train_seconds / record.epochs for record in row.completed])


def _mean_square(values: Any) -> float:
    with np.errstate(over="ignore"):
        return float(np.mean(np.square(np.asarray(values))))
