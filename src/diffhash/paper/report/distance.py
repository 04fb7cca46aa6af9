"""How far from the paper every number is, at a glance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from diffhash.paper.printed import METRICS, VALUES
from diffhash.paper.report.plots import Control, Option, Plot, axis, markup, trace
from diffhash.paper.table import Table, decades
from diffhash.results.formats import format_decades, format_value

_MARKS = {
    "mse_u": ("circle", "--series-6"),
    "mse_ux": ("square", "--series-7"),
    "mse_uxx": ("diamond", "--series-5"),
    "loss": ("cross", "--series-2"),
    "train_seconds": ("line-ns-open", "--series-0"),
}
_LABELS = {name: markup(name) for name in METRICS} | {"train_seconds": "train seconds"}


def distance_plot(tables: Sequence[Table]) -> Plot:
    """Decades from each printed number to ours: a large mark for the row, small ones for seeds."""
    names = [_name(table, line["row"]) for table in tables for line in table.printed()]
    traces: list[dict[str, Any]] = []
    for value in VALUES:
        for table in tables:
            traces += _traces(table, value)
    options = [Option(v, _LABELS[v], colour=_MARKS[v][1]) for v in VALUES]
    return Plot(
        id="distance",
        title="Distance from the paper",
        caption="log10(ours / paper) of every number the paper prints: to the left of 0 ours is "
        "smaller (better); shaded is within a decade. Small marks: single seeds.",
        description="Points of log10(ours / paper) by row of Tables I and II. "
        + "; ".join(
            f"{name}: {format_decades(line[f'decades_{METRICS[0]}'])} for u"
            for name, line in zip(
                names, [line for t in tables for line in t.printed()], strict=True
            )
            if not pd.isna(line[f"decades_{METRICS[0]}"])
        ),
        controls=[Control("value", "Numbers", options, list(METRICS), many=True)],
        traces=traces,
        layout={
            "xaxis": axis("decades: log10(ours / paper)", zeroline=True, zerolinecolor="--muted",
                          zerolinewidth=1.5, dtick=1),
            "yaxis": axis("", type="category", categoryorder="array", categoryarray=names[::-1],
                          range=[-0.6, len(names) - 0.4], automargin=True),
            "shapes": [{"type": "rect", "xref": "x", "yref": "paper", "x0": -1, "x1": 1, "y0": 0,
                        "y1": 1, "layer": "below", "line": {"width": 0}, "fillcolor": "--shade"}],
            "annotations": _remarks(tables),
        },
        height=110 + 25 * max(len(names), 4),
    )  # fmt: skip


def _remarks(tables: Sequence[Table]) -> list[dict[str, Any]]:
    """In the place of the numbers of a row that has none, why."""
    return [
        {"x": 0.01, "xref": "paper", "xanchor": "left", "y": _name(table, line["row"]),
         "text": table.notes[line["row"]], "showarrow": False, "font": {"color": "--bad"}}
        for table in tables
        for line in table.printed()
        if not line["seeds"]
    ]  # fmt: skip


def _traces(table: Table, value: str) -> list[dict[str, Any]]:
    symbol, colour = _MARKS[value]
    rows = {"name": [], "decades": [], "text": []}
    seeds = {"name": [], "decades": [], "text": []}
    for line in table.printed():
        printed = line[f"paper_{value}"]
        if pd.isna(printed):
            continue
        label = _LABELS[value]
        text = f"{label}: {format_value(value, line[value])}, paper {format_value(value, printed)}"
        _add(rows, table, line["row"], line[f"decades_{value}"], text)
        runs = table.runs.get(line["row"], [])
        for _, record in runs if len(runs) > 1 and value in METRICS else []:
            number = record.metrics.get(value)
            if record.status == "completed" and number is not None:
                text = f"{label}, seed {record.seed}: {format_value(value, number)}"
                _add(seeds, table, line["row"], float(decades(number, printed)), text)
    when = {"value": value}
    return [
        _points(seeds, when, {"symbol": symbol, "size": 6, "color": colour}, opacity=0.45),
        _points(rows, when, {"symbol": symbol, "size": 11, "color": colour,
                             "line": {"width": 1, "color": "--background"}
                             if not symbol.endswith("open") else {"width": 3}}),
    ]  # fmt: skip


def _add(columns: dict[str, list], table: Table, row: str, distance: float, text: str) -> None:
    if np.isfinite(distance):
        columns["name"].append(_name(table, row))
        columns["decades"].append(distance)
        columns["text"].append(text)


def _points(columns: dict, when: dict, marker: dict[str, Any], **style: Any) -> dict[str, Any]:
    return trace(
        columns, "decades", "name", "", when, mode="markers", marker=marker, cliponaxis=False,
        hovertemplate="%{y}<br>%{text}<br>%{x:+.2f} decades<extra></extra>", **style,
    )  # fmt: skip


def _name(table: Table, row: str) -> str:
    return f"{table.number.removeprefix('Table ')} · {table.labels[row]}"
