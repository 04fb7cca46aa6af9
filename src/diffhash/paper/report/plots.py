"""Interactive plots as data: plotly's traces with choices that a reader can make.

A `Plot` is drawn by ``script.js``. Its controls choose among options; a trace is shown if what it
stands ``when`` for is chosen, and reads the columns that its ``x`` and ``y`` name, in which
``{control}`` stands for the option's value. In the texts of ``layout`` it stands for its title.
Colours are names of CSS variables (``--series-0``), so that plots follow the page's theme.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from markupsafe import Markup

from diffhash.paper.table import NO_RECORD
from diffhash.results.figures.style import drawable
from diffhash.results.metrics import metric

N_COLOURS = 8
_DASHES = ("solid", "dash", "dot", "dashdot")
_DECADES = {"type": "log", "exponentformat": "power", "showexponent": "all", "nticks": 8}


@dataclass(frozen=True)
class Option:
    """One choice: ``value`` is what traces name, ``label`` is text, or HTML if it is Markup.

    ``title`` is what it is called in the plot's layout, if that is longer.
    """

    value: str
    label: str
    title: str = ""
    colour: str = ""
    dash: str = "solid"
    disabled: bool = False


@dataclass(frozen=True)
class Control:
    """A question to the reader: one option is chosen, or any number of them (``many``)."""

    name: str
    label: str
    options: list[Option]
    chosen: list[str]
    many: bool = False


AGAINST = Control(
    "against", "Against", [Option("epoch", "epochs"), Option("seconds", "seconds")], ["seconds"]
)


@dataclass(frozen=True)
class Plot:
    """An interactive plot with its heading, caption and the text for those who cannot see it.

    Attributes:
        traces: as :func:`trace` makes them.
        layout: plotly's.
        key: HTML of what is drawn besides the coloured options, with its CSS variable.
    """

    id: str
    title: str
    caption: str
    description: str
    controls: list[Control]
    traces: list[dict[str, Any]]
    layout: dict[str, Any]
    height: int = 420
    key: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        """What the script needs."""
        controls = [asdict(control) for control in self.controls]
        content = {"controls": controls, "traces": self.traces, "layout": self.layout}
        return json.dumps(content, allow_nan=False, separators=(",", ":"))


def markup(name: str) -> Markup:
    """What a metric is of, as HTML: ``u<sub>x</sub>``."""
    return Markup(metric(name).html)


def trace(
    columns: Mapping[str, Any],
    x: str,
    y: str,
    name: str,
    when: Mapping[str, str] | None = None,
    **style: Any,
) -> dict[str, Any]:
    """A trace over columns, which are lists (of words, say) or arrays of numbers."""
    encoded = {
        key: encode(value) if isinstance(value, np.ndarray) else value
        for key, value in columns.items()
    }
    if not isinstance(name, Markup):
        name = name.replace("<", "&lt;")  # plotly takes names for HTML
    style = {"type": "scatter", "mode": "lines", "name": name} | style
    return {"when": dict(when or {}), "columns": encoded, "x": x, "y": y, "style": style}


def encode(values: np.ndarray) -> str:
    """float32, little-endian, as base64; NaN for what cannot be drawn."""
    return base64.b64encode(drawable(values).astype("<f4").tobytes()).decode()


def thin_out(x: np.ndarray, columns: Iterable[np.ndarray], n: int, *, log: bool = False):
    """Indices of at most about ``n`` points that show the same curves, per column.

    ``n / 2`` intervals of x (of equal width, or of equal ratio with ``log``) keep their first and
    last point and, of each column, their smallest and largest one: no peak is lost.
    """
    if len(x) <= n:
        return np.arange(len(x))
    place = np.log(x) if log else x
    edges = np.linspace(place[0], place[-1], max(1, n // 2) + 1)[1:-1]
    bins = np.split(np.arange(len(x)), np.searchsorted(place, edges))
    kept = {0, len(x) - 1}
    for part in bins:
        for column in columns:
            good = part[np.isfinite(column[part])]
            if len(good):
                kept |= {good[np.argmin(column[good])], good[np.argmax(column[good])]}
    return np.array(sorted(kept))


def row_options(labels: Mapping[str, str], notes: Mapping[str, str]) -> list[Option]:
    """Rows by their labels, each with a colour of its own while there are enough.

    ``notes`` is what a reader must know of some; one with ``no record`` cannot be chosen.
    """
    return [
        Option(
            row,
            f"{label} ({notes[row]})" if notes.get(row) else label,
            colour=f"--series-{index % N_COLOURS}",
            dash=_DASHES[(index // N_COLOURS + index % 2) % len(_DASHES)],
            disabled=notes.get(row) == NO_RECORD,
        )
        for index, (row, label) in enumerate(labels.items())
    ]


def axis(title: str, **settings: Any) -> dict[str, Any]:
    """A linear axis."""
    return {"title": {"text": title}, **settings}


def log_axis(title: str, **settings: Any) -> dict[str, Any]:
    """A logarithmic axis."""
    return axis(title, **_DECADES, **settings)


def shade(x0: float, x1: float) -> dict[str, Any]:
    """A shaded region between two values of x."""
    return {"type": "rect", "xref": "x", "yref": "paper", "x0": x0, "x1": x1, "y0": 0, "y1": 1,
            "layer": "below", "line": {"width": 0}, "fillcolor": "--shade"}  # fmt: skip
