"""Figures 3 to 5: the models of Tables I and II beside each other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diffhash.paper.figures.rows import Row
from diffhash.paper.printed import LABELS_END, METRICS
from diffhash.results.figures.curves import (
    absolute_error,
    draw_band,
    draw_error,
    draw_prediction,
    error_limits,
    exact_values,
)
from diffhash.results.figures.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    LIGHT,
    ORANGE,
    PURPLE,
    SKY,
    SMALL,
    TEXT,
    VERMILION,
    add_legend,
    drawable,
    dress,
    log_y,
    new_figure,
    plain,
    say,
)
from diffhash.results.formats import format_value
from diffhash.results.metrics import metric, symbol
from diffhash.results.seeds import band_labels

FIGURE3_ROWS = ("mlp_10k", "linear", "s2", "cubic")
"""The four models of Fig. 3; of the MLP's two budgets the one that the others have."""

_ERRORS = {metric(name).quantity: name for name in METRICS if name != "loss"}
_PANELS = ("loss", *_ERRORS.values())
_LINES = {
    "mlp_10k": (BLACK, "-"),
    "mlp_100k": (GREY, (0, (4, 1.5))),
    "siren": (ORANGE, "-"),
    "ff": (PURPLE, (0, (4, 1.5))),
    "linear": (SKY, "-"),
    "s2": (GREEN, (0, (4, 1.5))),
    "cubic": (VERMILION, "-"),
    "cubic_best": (BLUE, "-"),
    "cubic_compact": (BLUE, (0, (4, 1.5))),
}
_OTHER_LINE = (BLUE, (0, (1, 1)))
_COLUMNS = 4  # of Fig. 5


def figure3(rows: Sequence[Row]) -> Figure:
    """Data-driven predictions of u, u_x and u_xx of four models against the exact solution.

    Args:
        rows: of Table I.
    """
    figure = new_figure(height=6.2)
    grid = figure.subplots(len(FIGURE3_ROWS), len(_ERRORS), sharex=True)
    drawn = [row for key in FIGURE3_ROWS for row in rows if row.row == key]
    bands = band_labels(row.n_predictions for row in drawn)
    for axes, name in zip(grid.T, _ERRORS, strict=True):
        limits = _exact_limits(drawn, name)
        for ax, row in zip(axes, drawn, strict=True):
            _prediction(dress(ax), row, name, limits, bands)
        axes[0].set_title(
            symbol(name), fontsize=TEXT, loc="left" if drawn[0].has_band else "center"
        )
        axes[-1].set_xlabel("$x$", fontsize=TEXT)
    for ax, row in zip(grid[:, 0], drawn, strict=True):
        ax.set_ylabel(plain(row.label), fontsize=TEXT)
    add_legend(figure, grid.flat)
    return figure


def figure4(rows: Sequence[Row]) -> Figure:
    """Histories of the loss and of the MSE of u, u_x and u_xx of every model.

    Args:
        rows: of Table I.
    """
    figure = new_figure(height=4.6)
    grid = figure.subplots(2, 2, sharex=True)
    for ax, column in zip(grid.flat, _PANELS, strict=True):
        log_y(dress(ax)).set_xscale("log")
        ax.set_title(metric(column).title, fontsize=TEXT)
        for row in rows:
            _history(ax, row, column)
        _history_bands(ax, rows, column)
    for ax in grid[-1]:
        ax.set_xlabel("epoch", fontsize=TEXT)
    add_legend(figure, [grid[0, 0]], n_columns=2 if any(row.remark for row in rows) else 4)
    return figure


def figure5(rows: Sequence[Row]) -> Figure:
    """Physics-informed predictions over the whole domain and their pointwise absolute errors.

    Values of u are known in the shaded region (Section III-B), beyond it only the equation.

    Args:
        rows: of Table II.
    """
    n_bands = -(-len(rows) // _COLUMNS)
    figure = new_figure(height=0.4 + 3.0 * n_bands)
    grid = figure.subplots(2 * n_bands, _COLUMNS, sharex=True, squeeze=False)
    values, errors = list(grid[0::2].flat), list(grid[1::2].flat)
    for ax in (*values[len(rows) :], *errors[len(rows) :]):
        ax.remove()
    values, errors = values[: len(rows)], errors[: len(rows)]
    limits = _exact_limits(rows, "u")
    bands = band_labels(row.n_predictions for row in rows)
    for index, (row, upper, lower) in enumerate(zip(rows, values, errors, strict=True)):
        _prediction(dress(upper), row, "u", limits, bands)
        upper.set_title(f"{plain(row.label)}\n", fontsize=TEXT, loc="left", pad=3)  # above the MSE
        dress(lower).set_xlabel("$x$", fontsize=TEXT)
        lower.tick_params(labelbottom=True)
        if (predictions := row.predictions) is not None:
            draw_error(lower, predictions, "u", row.has_band)
        else:
            say(lower, row.remark or "no predictions", "bottom")
        for ax in (upper, lower):
            shade = {"color": LIGHT, "alpha": 0.5, "linewidth": 0, "zorder": 0}
            ax.axvspan(0, LABELS_END, label="labels of $u$ given", **shade)
            ax.set_xlim(0, 1)
            ax.set_xticks([0, LABELS_END, 1], ["0", f"{LABELS_END:g}", "1"])
        if index % _COLUMNS == 0:
            upper.set_ylabel("$u$", fontsize=TEXT)
            lower.set_ylabel("absolute error of $u$", fontsize=TEXT)
    _share_error_limits(errors, rows)
    add_legend(figure, values)
    return figure


def _prediction(
    ax: Axes,
    row: Row,
    name: str,
    limits: tuple[float, float] | None,
    bands: Mapping[int, str],
) -> None:
    """Prediction of a row with its MSE as in the tables; what is wrong with the run is said."""
    predictions = row.predictions
    if predictions is not None:
        draw_prediction(ax, predictions, name, limits, bands.get(row.n_predictions, ""))
    elif limits is not None:
        ax.set_ylim(*limits)
    if row.remark or predictions is None:
        say(ax, row.remark or "no predictions", "bottom")
    mse = row.metric(_ERRORS[name])
    if mse is not None:
        text = f"{'median ' if row.has_band else ''}MSE {format_value('mse_u', mse)}"
        ax.set_title(text, fontsize=SMALL, loc="right", pad=3)


def _exact_limits(rows: Iterable[Row], name: str) -> tuple[float, float] | None:
    """The range of the exact values and a quarter of it on either side, one for all rows."""
    frames = [row.predictions for row in rows]
    exact = [e for f in frames if f is not None and (e := exact_values(f, name)) is not None]
    if not exact:
        return None
    low, high = float(np.nanmin(exact[0])), float(np.nanmax(exact[0]))
    margin = 0.25 * (high - low)
    return low - margin, high + margin


def _share_error_limits(axes: Iterable[Axes], rows: Sequence[Row]) -> None:
    frames = [row.predictions for row in rows]
    errors = [e for f in frames if f is not None and (e := absolute_error(f, "u")) is not None]
    if errors:
        low, high = error_limits(*errors)
        for ax in axes:
            log_y(ax).set_ylim(low, high)


def _history(ax: Axes, row: Row, column: str) -> None:
    color, style = _LINES.get(row.row, _OTHER_LINE)
    history = row.history
    remark = row.remark or ("no history" if history is None else "")
    label = plain(f"{row.label} ({remark})" if remark else row.label)
    epochs = values = np.empty(0)
    if history is not None:
        values = drawable(history[column].to_numpy())
        epochs, values = history["epoch"].to_numpy()[values > 0], values[values > 0]
    ax.plot(epochs, values, color=color, linestyle=style, linewidth=1.0, label=label)
    if row.n_diverged == len(row.runs) == 1:
        ax.plot(epochs[-1:], values[-1:], color=color, marker="x", markersize=5)


def _history_bands(ax: Axes, rows: Iterable[Row], column: str) -> None:
    """Bands of the rows that have them, within limits that their finite ends set."""
    bands = [(row, row.history) for row in rows if row.has_band and row.history is not None]
    if not bands:
        return
    ends = [drawable(h[f"{column}_{end}"].to_numpy()) for _, h in bands for end in ("low", "high")]
    low, high = ax.get_ylim()
    finite = np.concatenate([[low, high], *(end[end > 0] for end in ends)])
    ax.set_ylim(finite.min(), finite.max())
    labels = band_labels(len(row.runs) for row, _ in bands)
    for row, history in bands:
        color, _ = _LINES.get(row.row, _OTHER_LINE)
        draw_band(ax, history["epoch"].to_numpy(), history, column, color)
        label = labels[len(row.runs)]
        ax.fill_between([], [], color=GREY, alpha=0.25, linewidth=0, label=label)
