"""The common style of all figures: sizes, colours, axes, and saving.

Figures are drawn without pyplot and without matplotlib's global settings, so that any thread may
draw them and no display is needed. Sizes are in inches in print, where text is never below 7 pt.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from diffhash._files import write_bytes_atomically

TWO_COLUMNS = 7.0
TEXT, SMALL = 8.0, 7.0  # pt
PNG_DPI = 200

# Okabe & Ito (2008): colours that can be distinguished with any colour vision. Yellow is left out,
# because it is too pale for lines.
BLACK, BLUE, SKY, GREEN = "#000000", "#0072B2", "#56B4E9", "#009E73"
ORANGE, VERMILION, PURPLE = "#E69F00", "#D55E00", "#CC79A7"
GREY, LIGHT = "#8c8c8c", "#d9d9d9"

_PLACES = {
    "top": (0.03, 0.97, "left", "top"),
    "centre": (0.5, 0.5, "center", "center"),
    "bottom": (0.5, 0.06, "center", "bottom"),
}

DRAWABLE = 1e30
"""Larger absolute values are not drawn: axes overflow near the end of float64, and float32 ends at
3e38."""


def new_figure(height: float) -> Figure:
    """An empty figure, two columns wide and ``height`` inches high, with a layout without
    overlaps."""
    figure = Figure(figsize=(TWO_COLUMNS, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.03, h_pad=0.03, wspace=0.02, hspace=0.03)  # type: ignore[union-attr]
    return figure


def style_axes(ax: Axes) -> Axes:
    """Set the common style of linear axes, and return them."""
    ax.tick_params(labelsize=SMALL, length=2.5, width=0.6, pad=2)
    for side, spine in ax.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_linewidth(0.6)
    ax.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
    ax.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
    ax.yaxis.get_offset_text().set_fontsize(SMALL)
    return ax


def log_y(ax: Axes) -> Axes:
    """Make the y axis logarithmic, with ticks at regular decades, and return the axes."""
    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(10, numticks=5))
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.tick_params(axis="y", which="minor", left=False)
    ax.grid(axis="y", which="major", color=LIGHT, linewidth=0.4)
    ax.set_axisbelow(True)
    return ax


def plain(text: str) -> str:
    """A record's text for matplotlib, with dollars escaped, because they would begin formulas."""
    return text.replace("$", r"\$")


def add_legend(figure: Figure, axes: Iterable[Axes], n_columns: int = 4) -> None:
    """Add one legend for the whole figure, above its panels, of all labelled artists in ``axes``.

    It has fewer columns than ``n_columns`` if these are wider than the figure.
    """
    handles: dict[str, Artist] = {}
    for ax in axes:
        handles |= {str(handle.get_label()): handle for handle in ax.get_legend_handles_labels()[0]}
    for columns in range(n_columns, 0, -1):
        legend = figure.legend(
            handles=list(handles.values()), loc="outside upper center", ncols=columns,
            fontsize=TEXT, frameon=False, borderaxespad=0.1,
        )  # fmt: skip
        if columns == 1 or legend.get_window_extent().width <= figure.bbox.width:
            return
        legend.remove()


def annotate(ax: Axes, text: str, where: Literal["top", "centre", "bottom"] = "top") -> None:
    """Write text into axes on a pale background: in the upper left corner, the centre, or at the
    bottom."""
    x, y, ha, va = _PLACES[where]
    ground = {"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1.0}
    ax.text(x, y, text, ha=ha, va=va, transform=ax.transAxes, fontsize=SMALL, bbox=ground, zorder=5)


def drawable(values: Any) -> np.ndarray:
    """``values`` as float64, with NaN for values that no axis can show: infinities, |v| > 1e30."""
    values = np.asarray(values, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        return np.where(np.abs(values) <= DRAWABLE, values, np.nan)


def write_figure(figure: Figure, stem: Path) -> list[Path]:
    """Write ``stem.png`` (200 dpi) and ``stem.pdf`` atomically; equal figures give equal bytes.

    Raises:
        OSError: the directory cannot be written.
    """
    png, pdf = stem.with_suffix(".png"), stem.with_suffix(".pdf")
    write_bytes_atomically(png, rendered_png(figure))
    content = io.BytesIO()  # on a full disk matplotlib's writer fails with another error
    # Publishers refuse matplotlib's default Type 3 fonts.
    with mpl.rc_context({"pdf.fonttype": 42}):
        figure.savefig(content, format="pdf", dpi=PNG_DPI, metadata={"CreationDate": None})
    write_bytes_atomically(pdf, content.getvalue())
    return [png, pdf]


def rendered_png(figure: Figure, dpi: int = PNG_DPI) -> bytes:
    """The PNG file of a figure, in memory; ``figure.savefig`` would draw the figure twice."""
    figure.set_dpi(dpi)
    content = io.BytesIO()
    FigureCanvasAgg(figure).print_png(content)
    return content.getvalue()
