"""The plots of the report: the figures of the paper, and the distance from its numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from diffhash.paper.continuity import GRIDS, RESOLUTION
from diffhash.paper.figures import Row, table_rows
from diffhash.paper.printed import LABELS_END, METRICS, VALUES
from diffhash.paper.report.plots import (
    AGAINST,
    Control,
    Option,
    Plot,
    axis,
    log_axis,
    markup,
    row_options,
    shade,
    thin_out,
    trace,
)
from diffhash.paper.table import NO_RECORD, Table, decades
from diffhash.results.formats import format_decades, format_value
from diffhash.results.metrics import metric, metric_names

_ORDERS = ("u", "u_x", "u_xx")
_POINTS = 90_000  # of all predictions of a table together
_MOST, _FEWEST = 2000, 200  # points of one curve
_EVALUATIONS = 120  # of a history, and up to twice that
_TINY = 1e-37  # stands for an error of zero on a logarithmic axis, and is a float32
_MARKS = {
    "mse_u": ("circle", "--series-6"),
    "mse_ux": ("square", "--series-7"),
    "mse_uxx": ("diamond", "--series-5"),
    "loss": ("cross", "--series-2"),
    "train_seconds": ("line-ns-open", "--series-0"),
}
_NUMBERS = {name: markup(name) for name in METRICS} | {"train_seconds": "train seconds"}
# Colours as of the rows of a table that have the same names.
_GRID_COLOURS = {"linear": 4, "cubic": 6, "s1": 2, "s2": 5, "offset": 1}


def _quantities(chosen: str) -> Control:
    options = [Option(name, markup(f"mse_{name}")) for name in _ORDERS]
    return Control("quantity", "Quantity", options, [chosen])


# -------------------------------------------------------------------- the distance from the paper


def distance_plot(tables: Sequence[Table]) -> Plot:
    """Decades from each printed number to ours: a large mark for the row, small ones for seeds."""
    lines = {
        f"{table.number.removeprefix('Table ')} · {table.labels[line['row']]}": (table, line)
        for table in tables
        for line in table.printed()
    }
    names = list(lines)
    first = f"decades_{METRICS[0]}"
    options = [Option(value, _NUMBERS[value], colour=_MARKS[value][1]) for value in VALUES]
    return Plot(
        id="distance",
        title="Distance from the paper",
        caption="log10(ours / paper) of every number the paper prints: to the left of 0 ours is "
        "smaller (better); shaded is within a decade. Small marks: single seeds.",
        description="Points of log10(ours / paper) by row of Tables I and II. "
        + "; ".join(
            f"{name}: {format_decades(line[first])} for u"
            for name, (_, line) in lines.items()
            if not pd.isna(line[first])
        ),
        controls=[Control("value", "Numbers", options, list(METRICS), many=True)],
        traces=[
            one
            for value in VALUES
            for table in tables
            for one in _distances({k: v for k, v in lines.items() if v[0] is table}, value)
        ],
        layout={
            "xaxis": axis("decades: log10(ours / paper)", zeroline=True, zerolinecolor="--muted",
                          zerolinewidth=1.5, dtick=1),
            "yaxis": axis("", type="category", categoryorder="array", categoryarray=names[::-1],
                          range=[-0.6, len(names) - 0.4], automargin=True),
            "shapes": [shade(-1, 1)],
            "annotations": [  # in the place of the numbers of a row that has none, why
                {"x": 0.01, "xref": "paper", "xanchor": "left", "y": name,
                 "text": table.notes[line["row"]], "showarrow": False, "font": {"color": "--bad"}}
                for name, (table, line) in lines.items() if not line["seeds"]
            ],
        },
        height=110 + 25 * max(len(names), 4),
    )  # fmt: skip


def _distances(lines: dict[str, tuple[Table, Any]], value: str) -> Iterator[dict[str, Any]]:
    """Of one number of a table: the seeds, then the rows."""
    (symbol, colour), label = _MARKS[value], _NUMBERS[value]
    points: dict[str, list[Any]] = {"name": [], "decades": [], "text": [], "size": []}

    def add(size: int, name: str, distance: float, text: str) -> None:
        if np.isfinite(distance):
            for key, each in zip(points, (name, distance, f"{label}{text}", size), strict=True):
                points[key].append(each)

    for name, (table, line) in lines.items():
        printed = line[f"paper_{value}"]
        if pd.isna(printed):
            continue
        ours = f": {format_value(value, line[value])}, paper {format_value(value, printed)}"
        add(11, name, line[f"decades_{value}"], ours)
        runs = table.runs.get(line["row"], [])
        for _, record in runs if len(runs) > 1 and value in METRICS else []:
            number = record.metrics.get(value)
            if record.status == "completed" and number is not None:
                text = f", seed {record.seed}: {format_value(value, number)}"
                add(6, name, float(decades(number, printed)), text)
    frame = pd.DataFrame(points)
    edge = {"width": 3} if symbol.endswith("open") else {"width": 1, "color": "--background"}
    for size, style, line in ((6, {"opacity": 0.45}, {}), (11, {}, {"line": edge})):
        part = frame[frame["size"] == size]
        yield trace(
            {key: list(part[key]) for key in ("name", "decades", "text")},
            "decades", "name", "", {"value": value}, mode="markers", cliponaxis=False,
            marker={"symbol": symbol, "size": size, "color": colour} | line,
            hovertemplate="%{y}<br>%{text}<br>%{x:+.2f} decades<extra></extra>", **style,
        )  # fmt: skip


# ------------------------------------------------------------------------------ Figures 1 and 2


def continuity_plot() -> Plot:
    """Figures 1 and 2 in one: u, u_x and u_xx of single grids of each interpolation."""
    curves = {name: grid.curve() for name, grid in GRIDS.items()}
    options = [
        Option(name, grid.label, colour=f"--series-{_GRID_COLOURS[name]}")
        for name, grid in GRIDS.items()
    ]
    exact = {name: curves["linear"].exact[order].ravel() for order, name in enumerate(_ORDERS)}
    line = {"width": 7, "color": "--exact"}
    columns = {"x": curves["linear"].x.ravel()} | exact
    traces = [trace(columns, "x", "{quantity}", "exact, u = sin x", line=line)]
    for option in options:
        curve, when = curves[option.value], {"grid": option.value}
        fitted = {key: curve.broken(order)[1] for order, key in enumerate(_ORDERS)}
        line = {"width": 1.6, "color": option.colour}
        columns = {"x": curve.broken(0)[0]} | fitted
        traces.append(trace(columns, "x", "{quantity}", option.label, when, line=line))
    ticks = {"tickvals": [i * 1.5707963 for i in range(5)],
             "ticktext": ["0", "π/2", "π", "3π/2", "2π"]}  # fmt: skip
    return Plot(
        id="continuity",
        title="Figures 1 and 2. Continuity of the interpolations",
        caption=f"One grid of {RESOLUTION} cells that was given the values of sin x alone, and its "
        "exact derivatives; a line breaks where it is discontinuous. Offset: four such grids of S2 "
        "added up, each a quarter of a cell from the last.",
        description="Line plots over x from 0 to 2 pi of u, u_x and u_xx of grids fitted to a "
        f"sine, for {', '.join(option.label for option in options)}: u_x of Linear is a "
        "staircase and its u_xx is zero, those of Cubic lie on the exact curve, those of the "
        "smoothsteps oscillate about it.",
        controls=[
            _quantities("u_x"),
            Control("grid", "Interpolation", options, ["linear", "cubic"], many=True),
        ],
        traces=traces,
        layout={"xaxis": axis("x", **ticks), "yaxis": axis("{quantity}")},
        height=400,
        key={"exact": "--exact"},
    )


# --------------------------------------------------------------------------------- Figures 3 to 5


def predictions_plot(table: Table, number: int) -> Plot:
    """The paper's Figure ``number``: every run's predictions, the exact solution, the errors."""
    rows = table_rows(table, every=True)
    n_runs = sum(len(row.runs) for row in rows)
    n = int(np.clip(_POINTS / max(1, n_runs * len(_ORDERS)), _FEWEST, _MOST))
    options = row_options(table.labels, table.notes)
    traces: list[dict[str, Any]] = []
    drawn: list[str] = []
    exact: pd.DataFrame | None = None
    for row, option in zip(rows, options, strict=True):
        for record, frame in row.each_prediction():
            frame = frame.sort_values("x")
            exact = frame if exact is None else exact
            style = {
                "opacity": 0.55 if row.has_band else 1.0,
                "line": {"width": 1.1 if row.has_band else 1.8, "color": option.colour},
            }
            name = f"{row.label}, seed {record.seed}"
            for columns, panel in _prediction_columns(frame, n):
                traces.append(trace(columns, "x:{quantity}", "{quantity}", name, {"row": row.row},
                                    **style, **panel))  # fmt: skip
                drawn.append(row.row)
    if exact is not None:
        line = {"width": 7, "color": "--exact"}
        columns = _exact_columns(exact)
        traces.insert(0, trace(columns, "x:{quantity}", "{quantity}", "exact", line=line))
    # To begin with the paper's baseline and what it proposes, or what there is.
    chosen = list(dict.fromkeys(drawn))
    chosen = list(dict.fromkeys([chosen[0], "cubic"])) if "cubic" in chosen else chosen[:2]
    pinn = table.name == "table2"
    return Plot(
        id=f"predictions-{table.name}",
        title=f"Figure {number}. {table.subject}: predictions and their errors",
        caption="Above, predictions beside the exact solution, below, the absolute error; a line "
        "per seed. Lines are thinned out so that no peak is lost; errors show the largest of "
        "neighbouring points."
        + (" Values of u are known in the shaded region, beyond it only the equation." * pinn),
        description=f"Line plots over x for {_spoken(table)}: predicted and exact u, u_x and u_xx, "
        "and the absolute error on a logarithmic axis.",
        controls=[_quantities("u"), Control("row", "Models", options, chosen, many=True)],
        traces=traces,
        layout={
            "xaxis": axis("x", anchor="y2"),
            "yaxis": axis("{quantity}", domain=[0.436, 1]),
            "yaxis2": log_axis("absolute error", domain=[0, 0.376]),
            "shapes": [shade(0, LABELS_END)] if pinn else [],
        },
        height=560,
        key={"exact": "--exact"} | ({"labels of u given": "--shade"} if pinn else {}),
    )


def _prediction_columns(frame: pd.DataFrame, n: int) -> Iterator[tuple[dict, dict]]:
    """Of a run: above its predictions, below their errors, with the panel that each is in."""
    x = frame["x"].to_numpy()
    above: dict[str, np.ndarray] = {}
    below: dict[str, np.ndarray] = {}
    for name in _ORDERS:
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
    if above:
        yield above, {}
    if below:
        yield below, {"yaxis": "y2"}


def _exact_columns(frame: pd.DataFrame) -> dict[str, np.ndarray]:
    x, columns = frame["x"].to_numpy(), {}
    for name in _ORDERS:
        if f"exact_{name}" in frame:
            values = frame[f"exact_{name}"].to_numpy(dtype=float)
            kept = thin_out(x, [values], _MOST // 2)
            columns |= {f"x:{name}": x[kept], name: values[kept]}
    return columns


def _largest(values: np.ndarray, n: int) -> np.ndarray:
    """The index of the largest of each of ``n`` groups of neighbours; of all if there are fewer."""
    if len(values) <= n:
        return np.arange(len(values))
    known = np.nan_to_num(values, nan=-np.inf)
    groups = np.array_split(np.arange(len(values)), n)
    return np.array([group[np.argmax(known[group])] for group in groups])


def histories_plot(table: Table, number: int | None) -> Plot:
    """Errors and loss of every run in training: the paper's Figure ``number``, if it has one."""
    rows, options = table_rows(table, every=True), row_options(table.labels, table.notes)
    each = {row.row: list(_histories(table, row)) for row in rows}
    traces = [
        one
        for row, option in zip(rows, options, strict=True)
        for one in _history_traces(option, row.label, each[row.row])
    ]
    quantities = [_quantity(name) for name in table.metrics]
    several = any(row.has_band for row in rows)
    timed = "Seconds are epochs times the seconds of an epoch alone on the machine."
    return Plot(
        id=f"histories-{table.name}",
        title=f"Figure {number}. " * bool(number)
        + f"{table.subject}: errors by epochs and by seconds",
        caption=("A thin line per seed, a thick one for the median of the completed. " * several)
        + "A cross ends a run that diverged. "
        + (timed if table.timings else "Seconds are those inside training steps."),
        description=f"Line plots of the mean squared errors of u, u_x and u_xx and of the loss "
        f"against epochs or seconds, both axes logarithmic, for {_spoken(table)}.",
        controls=[
            Control("quantity", "Quantity", quantities, ["mse_u"]),
            AGAINST,
            Control("row", "Models", options, [row for row, found in each.items() if found], True),
        ],
        traces=traces,
        layout={"xaxis": log_axis("{against}"), "yaxis": log_axis("{quantity}")},
        height=460,
    )


def _quantity(name: str) -> Option:
    what, of = metric(name), markup(name)
    label = of if name in METRICS or not what.kind else Markup(f"{what.kind} of {of}")
    return Option(name, label, f"{what.spoken} of {of}" if what.kind else "")


def _histories(table: Table, row: Row) -> Iterator[tuple[Any, pd.DataFrame]]:
    """Those of a row; their seconds are those of a row timed alone, if it was."""
    for record, history in row.each_history():
        if timing := table.timings.get(row.row):
            history["seconds"] = history["epoch"] * timing.seconds_per_epoch
        if len(history):
            yield record, history


def _history_traces(
    option: Option, label: str, histories: list[tuple[Any, pd.DataFrame]]
) -> Iterator[dict[str, Any]]:
    several, when = len(histories) > 1, {"row": option.value}
    style = {"color": option.colour, "dash": option.dash}
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
        yield _history_trace(common, f"{label}, median", when, line=style | {"width": 2.6})


def _history_trace(
    history: pd.DataFrame, name: str, when: dict[str, str], **style: Any
) -> dict[str, Any]:
    metrics = [m for m in metric_names([dict.fromkeys(map(str, history))]) if metric(m).is_positive]
    numbers = {name: np.asarray(history[name], float) for name in ("epoch", "seconds", *metrics)}
    columns = {k: np.where((each > 0) | (k not in metrics), each, np.nan)
               for k, each in numbers.items()}  # fmt: skip
    kept = thin_out(columns["epoch"], [columns[m] for m in metrics], _EVALUATIONS, log=True)
    columns = {key: values[kept] for key, values in columns.items()}
    return trace(columns, "{against}", "{quantity}", name, when, **style)


def _spoken(table: Table) -> str:
    rows = [label for row, label in table.labels.items() if table.notes[row] != NO_RECORD]
    return ", ".join(rows) or "no model yet"
