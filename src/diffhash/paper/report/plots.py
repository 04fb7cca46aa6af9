"""The report's plots by plotly, for the same rows as the printed figures.

A panel has one quantity, and a line for each run; the legend turns models on and off.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.express as px
from plotly.graph_objects import Figure

from diffhash.paper.figures import LINES, OTHER_LINE
from diffhash.paper.printed import ERRORS, LABELS_END, METRICS, VALUES
from diffhash.paper.rows import Row, decades
from diffhash.paper.table import Table
from diffhash.results.figures.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    PURPLE,
    VERMILION,
    drawable,
)
from diffhash.results.formats import format_value
from diffhash.results.metrics import metric
from diffhash.results.record import RunRecord

_POINTS = 120_000  # the number of points of all curves of a plot together
_MOST, _FEWEST = 500, 40  # the most and the fewest points of one curve
_EXACT, _PALE = "exact", "#86bde8"
_SHADE = "rgba(128, 128, 128, 0.18)"
_ON_ANY_GROUND = {BLACK: "#a6761d"}  # instead of black, which is invisible on a dark page
_MARKS = dict(zip(VALUES, (VERMILION, BLUE, GREEN, PURPLE, GREY), strict=True))


def distance_plot(tables: Sequence[Table]) -> Figure:
    """Decades from each printed number to ours: a large mark for a row, small marks for seeds."""
    rows = [row for table in tables for row in table.rows.values() if row.printed is not None]
    notes = {_row_name(row): "" if row.completed else row.note for row in rows}
    numbers = {value: _html(value) for value in VALUES} | {"train_seconds": "train seconds"}
    marks = pd.DataFrame(
        [mark for row in rows for mark in _distances(row)],
        columns=["row", "number", "decades", "seed", "ours", "printed"],
    ).replace({"number": numbers})
    marks = marks[np.isfinite(marks["decades"].astype(float))]
    figure = Figure()
    for of_row, size, opacity in ((False, 6, 0.4), (True, 11, 1.0)):
        points = px.scatter(
            marks[(marks["seed"] == "all") == of_row], x="decades", y="row",
            opacity=opacity, render_mode="svg",
            color="number", symbol="number", hover_data=["seed", "ours", "printed"],
            color_discrete_map={numbers[value]: colour for value, colour in _MARKS.items()},
            category_orders={"number": list(numbers.values())},
        )  # fmt: skip
        figure.add_traces(points.update_traces(marker_size=size, showlegend=of_row).data)
    figure.update_traces(selector={"name": "train seconds"}, visible="legendonly")
    for name in filter(notes.get, notes):  # the reason why there are no numbers
        figure.add_annotation(x=0, xref="paper", xanchor="left", y=name, text=notes[name],
                              showarrow=False)  # fmt: skip
    figure.add_vrect(-1, 1, fillcolor=_SHADE, line_width=0, layer="below")
    figure.update_yaxes(
        type="category", categoryarray=list(notes)[::-1], range=[-0.6, len(notes) - 0.4]
    )
    figure.update_xaxes(title="decades: log10(ours / paper)", dtick=1, zeroline=True)
    return _style(figure, 160 + 25 * len(notes))


def _row_name(row: Row) -> str:
    return row.full_label.removeprefix("Table ").replace(", ", " · ", 1)


def _distances(row: Row) -> Iterator[tuple[Any, ...]]:
    for value in VALUES:
        paper = row.line[f"paper_{value}"]
        numbers = [("all", row.line[value])]
        if row.has_band and value in METRICS:
            numbers += [(str(r.seed), r.metrics.get(value)) for r in row.completed]
        for seed, ours in numbers:
            shown = format_value(value, ours), format_value(value, paper)
            ours = np.nan if ours is None else ours
            yield _row_name(row), value, decades(ours, paper), seed, *shown


def predictions_plot(table: Table) -> Figure | None:
    """Every run's predictions beside the exact solution, and their errors; None without any."""
    rows = list(table.rows.values())
    n = _n_points(rows, 2 * len(ERRORS))
    parts = [part for row in rows for part in _predictions(row, n)]
    if not parts:
        return None
    [(_, exact), *_] = (found for row in rows for found in row.predicted)
    exact = exact.sort_values("x")[:: -(-len(exact) // _MOST)]
    parts[:0] = [
        _curve(name, _EXACT, exact["x"], exact[f"exact_{name}"], panel="prediction")
        for name in ERRORS
    ]
    figure = _lines(pd.concat(parts), rows, x="x", facet_row="panel")
    figure.update_traces(selector={"name": _EXACT}, line={"width": 6, "dash": "solid"})
    figure.update_yaxes(type="log", row=1)  # plotly counts from below
    if table.name == "table2":
        figure.add_vrect(0, LABELS_END, fillcolor=_SHADE, line_width=0, layer="below")
    # Visible at first are the paper's baseline and its proposed model, or the available models; a
    # click on the legend shows the others.
    drawn = list(dict.fromkeys(part["model"].iloc[0] for part in parts))[1:]
    cubic = [row.label for row in rows if row.row == "cubic" and row.label in drawn]
    shown = (_EXACT, drawn[0], *(cubic or drawn[1:2]))
    figure.for_each_trace(lambda t: t.update(visible=t.name in shown or "legendonly"))
    return _style(figure, 620)


def _predictions(row: Row, n: int) -> Iterator[pd.DataFrame]:
    for record, frame in row.predicted:
        frame = frame.sort_values("x", ignore_index=True)
        for name in (name for name in ERRORS if name in frame):
            error = (frame[name] - frame[f"exact_{name}"]).abs()
            kept = _largest(error, n * frame.index / len(frame))
            for panel, values in (("prediction", frame[name]), ("absolute error", error)):
                curve = frame["x"][kept], values[kept]
                yield _curve(name, row.label, *curve, panel=panel, run=_run_name(record))


def histories_plot(table: Table) -> Figure | None:
    """Errors and loss of every run by seconds or by epochs; None without any."""
    rows = list(table.rows.values())
    n = _n_points(rows, len(table.metrics))
    parts = [part for row in rows for part in _histories(table, row, n)]
    if not parts:
        return None
    by: list[Any] = [
        _lines(pd.concat(parts), rows, x=x, facet_col_wrap=2, log_x=True, log_y=True)
        for x in ("seconds", "epoch")
    ]
    figure = by[0]
    buttons = [
        {"label": label, "method": "restyle", "args": [{"x": [trace.x for trace in each.data]}]}
        for label, each in zip(("by seconds", "by epochs"), by, strict=True)
    ]
    menu = {"type": "buttons", "direction": "right", "x": 0, "y": 1.06, "xanchor": "left",
            "yanchor": "bottom", "buttons": buttons}  # fmt: skip
    return _style(figure.update_layout(updatemenus=[menu]), 760).update_layout(margin_t=70)


def _histories(table: Table, row: Row, n: int) -> Iterator[pd.DataFrame]:
    for record, frame in row.histories:
        place = n * np.log(frame["epoch"]) / np.log(max(frame["epoch"].max(), 2))
        for name in (name for name in table.metrics if name in frame and metric(name).is_positive):
            kept = frame.loc[_largest(frame[name].where(frame[name] > 0), place)]
            curve = _curve(_html(name), row.label, kept["epoch"], kept[name],
                           run=_run_name(record), seconds=kept["seconds"])  # fmt: skip
            yield curve.rename(columns={"x": "epoch"})


def suite_plot(folder: Path) -> Figure | None:
    """Errors of each problem by each method of ``make suite``, and published errors.

    The menu selects a problem, the legend turns methods on and off.

    Args:
        folder: a folder with ``tables/suite.csv`` and ``published.csv``.
    """
    path = folder / "tables" / "suite.csv"
    if not path.is_file():
        return None
    table = pd.read_csv(path)
    errors: Any = table[table["error"].gt(0) & ~table["quantity"].astype(str).str.contains("_")]
    cases = list(errors["case"].unique())
    figure: Any = px.scatter(
        errors, x="case", y="error", color="method", symbol="optimizer", render_mode="svg",
        log_y=True, category_orders={"case": cases},
        hover_data=["quantity", "seeds", "train_seconds", "parameters", "floor_error"],
        color_discrete_sequence=[*_MARKS.values(), _PALE, _ON_ANY_GROUND[BLACK], "#e69f00"],
    )  # fmt: skip
    figure.update_traces(marker_size=8)
    published = pd.read_csv(folder / "published.csv")
    known = published[published["case"].isin(cases) & (published["comparable"] == "yes")]
    figure.add_scatter(
        x=known["case"], y=known["error"], mode="markers", name="published",
        marker={"symbol": "line-ew-open", "size": 16, "color": GREY, "line_width": 3},
        hovertext=known["method"] + ", " + known["quantity"],
    )  # fmt: skip
    both = pd.concat([errors, known]).groupby("case")["error"].agg(["min", "max"])
    views: dict[str, Any] = {
        "all problems": {"xaxis.range": [-0.6, len(cases) - 0.4], "yaxis.autorange": True}
    }
    for index, case in enumerate(cases):
        low, high = np.log10(both.loc[case])
        view = {"yaxis.range": [low - 1, high + 1]}
        views[case] = {"xaxis.range": [index - 0.5, index + 0.5]} | view
    buttons = [{"label": k, "method": "relayout", "args": [view]} for k, view in views.items()]
    menu = {"x": 0, "y": 1.02, "xanchor": "left", "yanchor": "bottom", "buttons": buttons}
    figure.update_xaxes(title="", tickangle=90, automargin=True)
    figure.update_yaxes(title="relative L2 error")
    return _style(figure.update_layout(updatemenus=[menu]), 760).update_layout(margin_t=70)


# --------------------------------------------------------------------------------- common parts


def _html(name: str) -> str:
    what = metric(name)
    return f"{what.kind} {what.html}" if what.kind else what.html


def _run_name(record: RunRecord) -> str:
    diverged = f", diverged at epoch {record.diverged_epoch}" * (record.status == "diverged")
    return f"seed {record.seed}{diverged}"


def _curve(quantity: str, model: str, x: Any, value: Any, **others: Any) -> pd.DataFrame:
    """A curve as a tidy table, with a last line without a value, which separates it from the next
    curve."""
    curve = {"quantity": quantity, "model": _text(model), "run": ""}
    frame = pd.DataFrame(curve | {"x": np.asarray(x), "value": drawable(value)} | others)
    numbers = {name: np.float32 for name in ("x", "value", "seconds") if name in frame}
    return pd.concat([frame, frame.tail(1).assign(value=np.nan)]).astype(numbers)


def _lines(frame: pd.DataFrame, rows: Iterable[Row], **settings: Any) -> Any:
    """Draw curves by panel and model; each panel has an axis of values of its own."""
    styles = {_text(row.label): LINES.get(row.row, OTHER_LINE) for row in rows}
    figure = px.line(
        frame, y="value", color="model", line_dash="model",
        hover_data=["run"], facet_col="quantity", render_mode="svg",
        color_discrete_map={_EXACT: _PALE}
        | {name: _ON_ANY_GROUND.get(colour, colour) for name, (colour, _) in styles.items()},
        line_dash_map={name: "dash" if dashed else "solid" for name, (_, dashed) in styles.items()},
        **settings,
    )  # fmt: skip
    figure.update_traces(line_width=1.2)
    return figure.update_xaxes(title="").update_yaxes(title="", matches=None, showticklabels=True)


def _style(figure: Figure, height: int) -> Figure:
    """Set the style of all plots, which suits a light and a dark page."""
    axes = {"gridcolor": _SHADE, "linecolor": GREY, "zerolinecolor": GREY, "showline": True}
    figure.update_xaxes(**axes, exponentformat="power")
    figure.update_yaxes(**axes, exponentformat="power", automargin=True)
    figure.for_each_annotation(lambda note: note.update(text=note.text.rpartition("=")[2]))
    return figure.update_layout(
        template="none", height=height, margin={"l": 56, "r": 16, "t": 30, "b": 90},
        paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)",
        font={"size": 12},
        legend={"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom", "title": ""},
    )  # fmt: skip


def _text(label: str) -> str:
    """A record's name for plotly, with ``<`` escaped, because plotly reads it as HTML."""
    return label.replace("<", "&lt;")


def _n_points(rows: Iterable[Row], n_panels: int) -> int:
    """The number of points of a curve, depending on the number of runs and panels."""
    n_curves = n_panels * max(1, sum(len(row.runs) for row in rows))
    return int(np.clip(_POINTS / n_curves, _FEWEST, _MOST))


def _largest(values: Any, place: Any) -> pd.Index:
    """The index of the largest value in each interval of ``place`` between whole numbers."""
    known = values.replace(np.inf, np.nan).dropna()
    return pd.Index(known.groupby(np.floor(pd.Series(place, values.index))[known.index]).idxmax())
