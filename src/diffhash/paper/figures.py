"""Figures 1 to 5 for print, from records of runs alone (Figures 1 and 2: from single grids)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import pi
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from diffhash.paper.continuity import Curve, fit_sine
from diffhash.paper.printed import ERRORS, FOUR_ROWS, LABELS_END
from diffhash.paper.rows import Row
from diffhash.paper.table import Table
from diffhash.results.figures import style
from diffhash.results.formats import format_value
from diffhash.results.metrics import metric, symbol
from diffhash.results.seeds import band_labels
from diffhash.results.statistics import median_interval

# By row: the colour, and whether the line is dashed, if another line has the same colour or hue.
LINES = {
    "mlp_10k": (style.BLACK, False), "mlp_100k": (style.GREY, True), "mlp_50k": (style.GREY, True),
    "siren": (style.ORANGE, False), "ff": (style.PURPLE, True), "linear": (style.SKY, False),
    "s2": (style.GREEN, True), "cubic": (style.VERMILION, False),
    "cubic_best": (style.BLUE, False), "cubic_compact": (style.BLUE, True),
}  # fmt: skip
OTHER_LINE = (style.BLUE, True)
_DASHED = (0, (4, 1.5))
_COLUMNS = 4  # columns of Fig. 5
_TINY = 1e-300  # stands for an error of zero on a logarithmic axis


# ------------------------------------------------------------------------------------- all figures


def make_figures(tables: Mapping[str, Table], output_dir: Path | str) -> list[Path]:
    """Write ``figure1`` … ``figure5`` as ``.png`` and ``.pdf`` and return their paths.

    Figures 1 and 2 show fits of single grids, the others are drawn from the tables' records. A row
    with several seeds has the pointwise median, and as a band the interval of the tables. The panel
    of a row without a record has a remark. Figures of a table without any records are not written;
    an earlier figure stays.

    Raises:
        RecordError: a file is corrupt, or predictions do not fit each other.
        OSError: ``output_dir`` cannot be written.
    """
    written = []
    for name, (table, draw) in _FIGURES.items():
        if table is None or tables[table].records:
            drawn = draw() if table is None else draw(list(tables[table].rows.values()))
            written += style.write_figure(drawn, Path(output_dir) / name)
    return written


# ------------------------------------------------------------------------------- Figures 1 and 2


def figure1() -> style.Figure:
    """Linear (top) and cubic (bottom) interpolation: u, u_x and u_xx of a single level."""
    return _continuity({"Linear": fit_sine("linear"), "Cubic": fit_sine("cubic")})


def figure2() -> style.Figure:
    """Smoothsteps S1 (top) and S2 (middle), and four levels of S2 offset to each other (bottom)."""
    offset = fit_sine("s2", n_levels=4, level_offset=True)
    single = {"$S_1$": fit_sine("s1"), "$S_2$": fit_sine("s2")}
    return _continuity(single | {"$S_2$, 4 levels, offset": offset})


def _continuity(curves: Mapping[str, Curve]) -> style.Figure:
    figure = style.new_figure(height=0.5 + 1.6 * len(curves))
    grid = figure.subplots(len(curves), 3, sharex=True)
    for axes, (name, curve) in zip(grid, curves.items(), strict=True):
        for order, ax in enumerate(axes):
            _continuity_panel(style.style_axes(ax), curve, order)
        axes[0].set_ylabel(name, fontsize=style.TEXT)
    for top, bottom, quantity in zip(grid[0], grid[-1], ERRORS, strict=True):
        top.set_title(symbol(quantity), fontsize=style.TEXT)
        bottom.set_xlabel("$x$", fontsize=style.TEXT)
        bottom.set_xticks([0, pi / 2, pi, 3 * pi / 2, 2 * pi], ["0", "π/2", "π", "3π/2", "2π"])
    style.add_legend(figure, grid[0, :1])
    return figure


def _continuity_panel(ax: style.Axes, curve: Curve, order: int) -> None:
    exact, fitted = curve.exact[order], curve.fitted[order]
    in_axes = ax.get_xaxis_transform()
    if len(curve.vertices) == 1:
        thin = {"color": style.LIGHT, "linewidth": 0.4, "zorder": 0}
        ax.vlines(curve.vertices[0], 0, 1, transform=in_axes, **thin)
    # Wide and pale, so that it is visible on both sides of a fit that covers it.
    ax.plot(
        curve.x.ravel(), exact.ravel(), color=style.SKY, linewidth=2.6, label="exact, $u = \\sin x$"
    )
    # Discontinuous functions are drawn with gaps.
    ax.plot(*curve.broken(order), color=style.VERMILION, linewidth=0.9, label="fitted grid")
    # A row of ticks for each level, in a strip of its own below the curves.
    strip = 0.05 * len(curve.vertices)
    low, high = min(exact.min(), fitted.min()), max(exact.max(), fitted.max())
    height = (high - low) / (0.92 - strip)
    ax.set_ylim(high + 0.04 * height - height, high + 0.04 * height)
    ax.margins(x=0.02)
    ticks = {"color": style.BLACK, "marker": "|", "markersize": 3.5, "markeredgewidth": 0.7}
    for level, vertices in enumerate(curve.vertices):
        place, label = np.full_like(vertices, 0.025 + 0.045 * level), None if level else "vertices"
        ax.plot(vertices, place, linestyle="none", transform=in_axes, label=label, **ticks)


# -------------------------------------------------------------------------------- Figures 3 to 5


def figure3(rows: Sequence[Row]) -> style.Figure:
    """Table I: predictions of u, u_x and u_xx of four models against the exact solution."""
    figure = style.new_figure(height=6.2)
    grid = figure.subplots(len(FOUR_ROWS), len(ERRORS), sharex=True)
    drawn = [row for key in FOUR_ROWS for row in rows if row.row == key]
    for axes, name in zip(grid.T, ERRORS, strict=True):
        _predictions(axes, drawn, name)
        where = "left" if drawn[0].has_band else "center"
        axes[0].set_title(symbol(name), fontsize=style.TEXT, loc=where)
        axes[-1].set_xlabel("$x$", fontsize=style.TEXT)
    for ax, row in zip(grid[:, 0], drawn, strict=True):
        ax.set_ylabel(style.plain(row.label), fontsize=style.TEXT)
    style.add_legend(figure, grid.flat)
    return figure


def figure4(rows: Sequence[Row]) -> style.Figure:
    """Table I: histories of the loss and of the MSE of u, u_x and u_xx of every model."""
    figure = style.new_figure(height=4.6)
    grid = figure.subplots(2, 2, sharex=True)
    for ax, column in zip(grid.flat, ("loss", *ERRORS.values()), strict=True):
        style.log_y(style.style_axes(ax)).set_xscale("log")
        ax.set_title(metric(column).title, fontsize=style.TEXT)
        for row in rows:
            _history(ax, row, column)
        _history_bands(ax, rows, column)
    for ax in grid[-1]:
        ax.set_xlabel("epoch", fontsize=style.TEXT)
    style.add_legend(figure, [grid[0, 0]], n_columns=2 if any(map(_remark, rows)) else 4)
    return figure


def figure5(rows: Sequence[Row]) -> style.Figure:
    """Table II: predictions over the whole domain and their pointwise absolute errors.

    Values of u are known in the shaded region (Section III-B); outside it only the equation is.
    """
    n_bands = -(-len(rows) // _COLUMNS)
    figure = style.new_figure(height=0.4 + 3.0 * n_bands)
    grid = figure.subplots(2 * n_bands, _COLUMNS, sharex=True, squeeze=False)
    values, errors = list(grid[0::2].flat), list(grid[1::2].flat)
    for ax in (*values[len(rows) :], *errors[len(rows) :]):
        ax.remove()
    values, errors = values[: len(rows)], errors[: len(rows)]
    _predictions(values, rows, "u")
    for index, (row, upper, lower) in enumerate(zip(rows, values, errors, strict=True)):
        above_mse = f"{style.plain(row.label)}\n"
        upper.set_title(above_mse, fontsize=style.TEXT, loc="left", pad=3)
        style.style_axes(lower).set_xlabel("$x$", fontsize=style.TEXT)
        lower.tick_params(labelbottom=True)
        if row.predictions is not None:
            _error(lower, row.predictions, row.has_band)
        else:
            style.annotate(lower, _remark(row) or "no predictions", "bottom")
        for ax in (upper, lower):
            shade = {"color": style.LIGHT, "alpha": 0.5, "linewidth": 0, "zorder": 0}
            ax.axvspan(0, LABELS_END, label="labels of $u$ given", **shade)
            ax.set_xlim(0, 1)
            ax.set_xticks([0, LABELS_END, 1], ["0", f"{LABELS_END:g}", "1"])
        if index % _COLUMNS == 0:
            upper.set_ylabel("$u$", fontsize=style.TEXT)
            lower.set_ylabel("absolute error of $u$", fontsize=style.TEXT)
    if frames := [row.predictions for row in rows if row.predictions is not None]:
        limits = error_limits(*(style.drawable(frame["error_u"]) for frame in frames))
        for ax in errors:
            style.log_y(ax).set_ylim(*limits)
    style.add_legend(figure, values)
    return figure


# The table from whose records each figure is drawn.
_FIGURES: dict[str, tuple[str | None, Callable[..., style.Figure]]] = {
    "figure1": (None, figure1),
    "figure2": (None, figure2),
    "figure3": ("table1", figure3),
    "figure4": ("table1", figure4),
    "figure5": ("table2", figure5),
}


def _remark(row: Row) -> str:
    """The remark in a panel about a row's runs; empty if all completed."""
    if row.has_band:
        return f"{row.n_diverged} of {len(row.seeds)} diverged" if row.n_diverged else ""
    return row.note


def _predictions(axes: Iterable[style.Axes], rows: Sequence[Row], name: str) -> None:
    """A panel for each row: its prediction, and its MSE as in the tables."""
    frames = [row.predictions for row in rows if row.predictions is not None]
    limits = None
    if frames:  # for all rows: the range of the exact values, and a quarter of it on either side
        low, high = (float(end) for end in frames[0][f"exact_{name}"].agg(["min", "max"]))
        limits = low - 0.25 * (high - low), high + 0.25 * (high - low)
    bands = band_labels(len(row.seeds) - row.n_diverged for row in rows)
    for ax, row in zip(axes, rows, strict=True):
        style.style_axes(ax)
        if limits is not None:
            ax.set_ylim(*limits)
            band = bands.get(len(row.seeds) - row.n_diverged, "")
            if row.predictions is not None:
                _prediction(ax, row.predictions, name, limits, band)
        if _remark(row) or row.predictions is None:
            style.annotate(ax, _remark(row) or "no predictions", "bottom")
        if len(values := row.values(ERRORS[name])):
            mse = format_value("mse_u", float(median_interval(values)[0]))
            text = f"{'median ' if len(values) > 1 else ''}MSE {mse}"
            ax.set_title(text, fontsize=style.SMALL, loc="right", pad=3)


def _prediction(
    ax: style.Axes, frame: pd.DataFrame, name: str, limits: tuple[float, float], band: str
) -> None:
    """Draw exact and predicted values over x, with a remark if the prediction is not finite.

    A prediction that leaves the limits gets its own range, which is written into the axes, and is
    drawn behind the exact curve, which it could otherwise hide.
    """
    x, values = frame["x"], style.drawable(frame[name])
    leaves = bool(((values < limits[0]) | (values > limits[1])).any())
    # The exact curve is wide and pale, visible on both sides of a prediction that covers it.
    width, layer = (1.2, 3) if leaves else (2.4, 1)
    exact = {"color": style.SKY, "linewidth": width, "zorder": layer, "label": "exact"}
    ax.plot(x, frame[f"exact_{name}"], **exact)
    label = "median prediction" if band else "predicted"
    ax.plot(x, values, color=style.VERMILION, linewidth=0.4 if leaves else 0.9, label=label)
    if band:
        _band(ax, x, frame, name, style.VERMILION, band)
    if leaves:
        ax.autoscale(axis="y")
        ax.margins(y=0.2)
        style.annotate(ax, "wider scale")
    n_bad = int(np.isnan(values).sum())
    if n_bad == len(values):
        style.annotate(ax, "not finite", "centre")
    elif n_bad:
        style.annotate(ax, f"not finite at {n_bad} of {len(values)} points")


def _error(ax: style.Axes, frame: pd.DataFrame, has_band: bool) -> None:
    """Draw the absolute error of u over x."""
    error = style.drawable(frame["error_u"])
    if np.isnan(error).all():
        style.annotate(ax, "not finite", "centre")
        ax.set_yticks([])
        return
    style.log_y(ax).plot(frame["x"], np.maximum(error, _TINY), color=style.VERMILION, linewidth=0.6)
    if has_band:
        _band(ax, frame["x"], frame, "error_u", style.VERMILION)


def error_limits(*errors: np.ndarray) -> tuple[float, float]:
    """The limits of a logarithmic axis for errors, without NaN.

    Where an error changes its sign, its depth depends on the density of points alone, so that the
    lowest percent of the errors may lie outside the axes.
    """
    values = np.concatenate(errors)
    values = values[values > 0]
    if not len(values):
        return 1e-16, 1.0
    return float(np.quantile(values, 0.01)) / 2, 2 * float(values.max())


def _band(
    ax: style.Axes, x: Any, frame: pd.DataFrame, name: str, color: str, label: str | None = None
) -> None:
    """Fill the band from ``<name>_low`` to ``<name>_high``, which may be infinite."""
    low, high = (frame[f"{name}_{end}"].clip(upper=style.DRAWABLE) for end in ("low", "high"))
    if ax.get_yscale() == "log":
        low = low.clip(lower=_TINY)
    # Drawn as pixels, because a band's outline has every point of the grid: megabytes in a PDF.
    look = {"color": color, "alpha": 0.25, "linewidth": 0, "label": label, "rasterized": True}
    ax.fill_between(x, low, high, **look)


def _history(ax: style.Axes, row: Row, column: str) -> None:
    color, dashed = LINES.get(row.row, OTHER_LINE)
    history = row.history
    remark = _remark(row) or ("no history" if history is None else "")
    label = style.plain(f"{row.label} ({remark})" if remark else row.label)
    epochs = values = np.empty(0)
    if history is not None:
        values = style.drawable(history[column].to_numpy())
        epochs, values = history["epoch"].to_numpy()[values > 0], values[values > 0]
    dashes = _DASHED if dashed else "-"
    ax.plot(epochs, values, color=color, linestyle=dashes, linewidth=1.0, label=label)


def _history_bands(ax: style.Axes, rows: Iterable[Row], column: str) -> None:
    """Draw the bands of the rows that have several seeds, with limits from their finite ends."""
    bands = [(row, h) for row in rows if row.has_band and (h := row.history) is not None]
    if not bands:
        return
    ends = [
        style.drawable(h[f"{column}_{end}"].to_numpy()) for _, h in bands for end in ("low", "high")
    ]
    finite = np.concatenate([ax.get_ylim(), *(end[end > 0] for end in ends)])
    ax.set_ylim(finite.min(), finite.max())
    labels = band_labels(len(row.seeds) for row, _ in bands)
    for row, history in bands:
        color, _ = LINES.get(row.row, OTHER_LINE)
        _band(ax, history["epoch"], history, column, color)
        label = labels[len(row.seeds)]
        ax.fill_between([], [], color=style.GREY, alpha=0.25, linewidth=0, label=label)
