"""Figures 3 to 5 to be read closely: predictions, their errors, and the course of training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from diffhash.paper.printed import LABELS_END, METRICS
from diffhash.paper.report.plots import (
    Control,
    Option,
    Plot,
    axis,
    log_axis,
    markup,
    panels,
    row_options,
    thin_out,
    trace,
)
from diffhash.paper.table import NO_RECORD, Table
from diffhash.results.metrics import metric, metric_names
from diffhash.results.record import RunRecord, read_history, read_predictions

_VALUES = {name: markup(f"mse_{name}") for name in ("u", "u_x", "u_xx")}
_POINTS = 90_000  # of all predictions of a table together
_MOST, _FEWEST = 2000, 200  # points of one curve
_EVALUATIONS = 120  # of a history, and up to twice that
_TINY = 1e-37  # stands for an error of zero on a logarithmic axis, and is a float32


def predictions_plot(table: Table, number: int) -> Plot:
    """Predictions of every run of a table against the exact solution, and their errors.

    Args:
        table: the table.
        number: of the paper's figure.
    """
    runs = [(row, *item) for row in table.labels for item in table.runs.get(row, [])]
    n = int(np.clip(_POINTS / max(1, len(runs) * len(_VALUES)), _FEWEST, _MOST))
    traces: list[dict[str, Any]] = []
    options = row_options(table.labels, table.notes)
    styles = {option.value: option for option in options}
    drawn: set[str] = set()
    exact: pd.DataFrame | None = None
    for row, directory, record in runs:
        frame = _read(read_predictions, directory)
        if frame is None or "x" not in frame:
            continue
        frame = frame.sort_values("x")
        exact = frame if exact is None else exact
        name = f"{table.labels[row]}, seed {record.seed}"
        several = len(table.runs[row]) > 1
        for panel in _prediction_traces(frame, n, several):
            line = {"width": 1.1 if several else 1.8, "color": styles[row].colour}
            traces.append(trace(name=name, when={"row": row}, line=line, **panel))
            drawn.add(row)
    if exact is not None:
        traces.insert(0, _exact_trace(exact))
    chosen = [row for row in table.labels if row in drawn]
    chosen = chosen if exact is None or not chosen else _first_choice(chosen)
    pinn = table.name == "table2"
    top, bottom = panels([3, 2])
    layout = {
        "xaxis": axis("x", anchor="y2"),
        "yaxis": axis("{quantity}", domain=top),
        "yaxis2": log_axis("absolute error", domain=bottom),
        "shapes": [_label_region()] if pinn else [],
    }
    return Plot(
        id=f"predictions-{table.name}",
        title=f"Figure {number}. {table.subject}: predictions and their errors",
        caption="Above, predictions beside the exact solution, below, the absolute error; a line "
        "per seed. Lines are thinned out so that no peak is lost; errors show the largest of "
        "neighbouring points."
        + (" Values of u are known in the shaded region, beyond it only the equation." * pinn),
        description=f"Line plots over x for {_spoken(table)}: predicted and exact u, u_x and u_xx, "
        "and the absolute error on a logarithmic axis.",
        controls=[
            Control("quantity", "Quantity", [Option(k, v) for k, v in _VALUES.items()], ["u"]),
            Control("row", "Models", options, chosen, many=True),
        ],
        traces=traces,
        layout=layout,
        height=560,
        key={"exact": "--exact"}
        | ({"labels of u given": "--shade"} if pinn else {}),
    )  # fmt: skip


def histories_plot(table: Table, number: int | None) -> Plot:
    """Errors and loss of every run of a table in the course of its training.

    Args:
        table: the table.
        number: of the paper's figure; None where the paper shows none.
    """
    options = row_options(table.labels, table.notes)
    traces: list[dict[str, Any]] = []
    drawn: list[str] = []
    for option in options:
        row = option.value
        histories = [
            (record, history)
            for directory, record in table.runs.get(row, [])
            if (history := _history(table, row, directory)) is not None and len(history)
        ]
        traces += _history_traces(option, table.labels[row], histories)
        drawn += [row] if histories else []
    quantities = [_quantity(name) for name in table.metrics]
    heading = f"Figure {number}. " if number else ""
    several = any(len(items) > 1 for items in table.runs.values())
    timed = "Seconds are epochs times the seconds of an epoch alone on the machine."
    return Plot(
        id=f"histories-{table.name}",
        title=f"{heading}{table.subject}: errors by epochs and by seconds",
        caption=("A thin line per seed, a thick one for the median of the completed. " * several)
        + "A cross ends a run that diverged. "
        + (timed if table.timings else "Seconds are those inside training steps."),
        description=f"Line plots of the mean squared errors of u, u_x and u_xx and of the loss "
        f"against epochs or seconds, both axes logarithmic, for {_spoken(table)}.",
        controls=[
            Control("quantity", "Quantity", quantities, ["mse_u"]),
            Control("against", "Against", [Option("epoch", "epochs"), Option("seconds", "seconds")],
                    ["seconds"]),
            Control("row", "Models", options, drawn, many=True),
        ],
        traces=traces,
        layout={
            "xaxis": log_axis("{against}"),
            "yaxis": log_axis("{quantity}"),
        },
        height=460,
    )  # fmt: skip


def _quantity(name: str) -> Option:
    what, of = metric(name), markup(name)
    label = of if name in METRICS or not what.kind else Markup(f"{what.kind} of {of}")
    return Option(name, label, f"{what.spoken} of {of}" if what.kind else "")


def _prediction_traces(frame: pd.DataFrame, n: int, several: bool) -> Iterator[dict[str, Any]]:
    """The arguments of traces of a run: above its predictions, below their errors."""
    x = frame["x"].to_numpy()
    above: dict[str, np.ndarray] = {}
    below: dict[str, np.ndarray] = {}
    for name in _VALUES:
        if name not in frame:
            continue
        values = frame[name].to_numpy(dtype=float)
        if np.isfinite(values).any():
            kept = thin_out(x, [values], n)
            above |= {f"x:{name}": x[kept], name: values[kept]}
        error = np.abs(values - frame.get(f"exact_{name}", pd.Series(np.nan, frame.index)))
        if np.isfinite(error).any():
            kept = _largest(error.to_numpy(), n // 2)
            below |= {f"x:{name}": x[kept], name: np.maximum(error.to_numpy()[kept], _TINY)}
    opacity = 0.55 if several else 1.0
    if above:
        yield {"columns": above, "x": "x:{quantity}", "y": "{quantity}", "opacity": opacity}
    if below:
        yield {"columns": below, "x": "x:{quantity}", "y": "{quantity}", "opacity": opacity,
               "yaxis": "y2"}  # fmt: skip


def _largest(values: np.ndarray, n: int) -> np.ndarray:
    """The index of the largest of each of ``n`` groups of neighbours; of all if there are fewer."""
    if len(values) <= n:
        return np.arange(len(values))
    known = np.nan_to_num(values, nan=-np.inf)
    groups = np.array_split(np.arange(len(values)), n)
    return np.array([group[np.argmax(known[group])] for group in groups])


def _exact_trace(frame: pd.DataFrame) -> dict[str, Any]:
    x, columns = frame["x"].to_numpy(), {}
    for name in _VALUES:
        if f"exact_{name}" in frame:
            values = frame[f"exact_{name}"].to_numpy(dtype=float)
            kept = thin_out(x, [values], _MOST // 2)
            columns |= {f"x:{name}": x[kept], name: values[kept]}
    line = {"width": 7, "color": "--exact"}
    return trace(columns, "x:{quantity}", "{quantity}", "exact", line=line)


def _first_choice(rows: list[str]) -> list[str]:
    """Two models to begin with: the paper's baseline and what it proposes, or what there is."""
    proposed = [row for row in rows if row == "cubic"]
    return list(dict.fromkeys([rows[0], *proposed])) if proposed else rows[:2]


def _label_region() -> dict[str, Any]:
    return {"type": "rect", "xref": "x", "yref": "paper", "x0": 0, "x1": LABELS_END, "y0": 0,
            "y1": 1, "layer": "below", "line": {"width": 0}, "fillcolor": "--shade"}  # fmt: skip


def _history(table: Table, row: str, directory: Path) -> pd.DataFrame | None:
    """A run's history; its seconds are those of a row timed alone, if it was."""
    history = _read(read_history, directory)
    if history is not None and (timing := table.timings.get(row)):
        history["seconds"] = history["epoch"] * timing.seconds_per_epoch
    return history


def _history_traces(
    option: Any, label: str, histories: list[tuple[RunRecord, pd.DataFrame]]
) -> Iterator[dict[str, Any]]:
    several = len(histories) > 1
    style = {"color": option.colour, "dash": option.dash}
    when = {"row": option.value}
    for record, history in histories:
        line = style | ({"width": 0.9, "dash": "solid"} if several else {"width": 2})
        name = f"{label}, seed {record.seed}"
        yield _history_trace(history, name, when, line=line, opacity=0.4 if several else 1.0)
        if record.status == "diverged":
            marker = {"symbol": "x", "size": 9, "color": option.colour}
            name += f", diverged at epoch {record.diverged_epoch}"
            yield _history_trace(history.tail(1), name, when, mode="markers", marker=marker)
    completed = [history for record, history in histories if record.status == "completed"]
    if several and completed:
        joined = pd.concat(completed, ignore_index=True)
        evaluations = joined.groupby("epoch")["epoch"].transform("size")
        common = joined.loc[evaluations == len(completed)].groupby("epoch").median().reset_index()
        line = style | {"width": 2.6}
        yield _history_trace(common, f"{label}, median", when, line=line)


def _history_trace(
    history: pd.DataFrame, name: str, when: dict[str, str], **style: Any
) -> dict[str, Any]:
    numbers = {name: np.asarray(history[name], dtype=float) for name in ("epoch", "seconds")}
    metrics = [m for m in metric_names([dict.fromkeys(map(str, history))]) if metric(m).is_positive]
    values = {m: np.asarray(history[m], dtype=float) for m in metrics}
    positive = {m: np.where(each > 0, each, np.nan) for m, each in values.items()}
    kept = thin_out(numbers["epoch"], positive.values(), _EVALUATIONS, log=True)
    columns = {key: values[kept] for key, values in (numbers | positive).items()}
    return trace(columns, "{against}", "{quantity}", name, when, **style)


def _spoken(table: Table) -> str:
    rows = [label for row, label in table.labels.items() if table.notes[row] != NO_RECORD]
    return ", ".join(rows) or "no model yet"


def _read(read: Callable[[Path], pd.DataFrame], directory: Path) -> pd.DataFrame | None:
    try:
        return read(directory)
    except FileNotFoundError:
        return None
