"""The picture of one run: what was predicted, and how far off it is."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from diffhash.results.figures.style import (
    BLACK,
    SYMBOLS,
    TEXT,
    VERMILION,
    drawable,
    dress,
    log_y,
    new_figure,
    say,
)

_SLAB = 0.25  # of the points, where more than two axes are looked at from one side
_TINY = 1e-300  # an error of zero, on a logarithmic axis


def run_figure(predictions: pd.DataFrame, title: str) -> Figure:
    """Draw the predictions of one run against the exact solution, and the pointwise error.

    One axis: u, u_x and u_xx as curves. More: u over the first two axes as a scatter map; with
    more than two, of the quarter of the points nearest to the middle of the others. Where there
    is no exact solution (no ``exact_…`` column, or nothing but NaN in it) the error is left out;
    where predictions are not finite nothing is drawn. The figure says either.

    Args:
        predictions: as `diffhash.results.read_predictions` gives them.
        title: of the figure.

    Raises:
        ValueError: no coordinate column ``x`` or ``x0`` and ``x1``, or no column ``u``.
    """
    maps = {"x0", "x1"} <= set(predictions.columns)
    if "u" not in predictions or not (maps or "x" in predictions):
        raise ValueError(
            f"predictions with columns {', '.join(map(str, predictions.columns))}: expected u, "
            "and x or x0, x1, …"
        )
    figure = _maps(predictions) if maps else _curves(predictions)
    figure.suptitle(title, fontsize=TEXT)
    return figure


def abs_error(predictions: pd.DataFrame, name: str) -> np.ndarray | None:
    """|prediction - exact| of a column, NaN where it cannot be drawn; None without an exact one."""
    exact = _exact(predictions, name)
    return None if exact is None else np.abs(drawable(predictions[name].to_numpy()) - exact)


def _exact(predictions: pd.DataFrame, name: str) -> np.ndarray | None:
    column = f"exact_{name}"
    if column not in predictions:
        return None
    exact = drawable(predictions[column].to_numpy())
    return None if np.isnan(exact).all() else exact


def _curves(predictions: pd.DataFrame) -> Figure:
    predictions = predictions.sort_values("x")
    names = [name for name in SYMBOLS if name in predictions]
    known = any(_exact(predictions, name) is not None for name in names)
    figure = new_figure(height=3.6 if known else 2.1)
    grid = figure.subplots(1 + known, len(names), squeeze=False, sharex=True)
    x = predictions["x"].to_numpy()
    for column, name in enumerate(names):
        ax = dress(grid[0, column])
        exact = _exact(predictions, name)
        if exact is not None:
            ax.plot(x, exact, color=BLACK, linewidth=0.9, label="exact")
        style = {"color": VERMILION, "linewidth": 1.1, "linestyle": (0, (4, 1.5))}
        ax.plot(x, drawable(predictions[name].to_numpy()), label="predicted", **style)
        ax.set_title(SYMBOLS[name], fontsize=TEXT)
        _say_gaps(ax, predictions[name])
        if known:
            _error_curve(dress(grid[1, column]), x, abs_error(predictions, name))
        grid[-1, column].set_xlabel("$x$", fontsize=TEXT)
    grid[0, 0].set_ylabel("value", fontsize=TEXT)
    if known:
        grid[1, 0].set_ylabel("absolute error", fontsize=TEXT)
    else:
        say(grid[0, -1], "no exact solution")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=2, fontsize=TEXT, frameon=False)
    return figure


def _error_curve(ax: Axes, x: np.ndarray, error: np.ndarray | None) -> None:
    if error is None:
        say(ax, "no exact solution", centre=True)
    elif np.isnan(error).all():
        say(ax, "not finite", centre=True)
    else:
        log_y(ax).plot(x, np.maximum(error, _TINY), color=VERMILION, linewidth=0.7)
        floor = error[error > 0].min(initial=np.inf)
        if np.isfinite(floor):  # a single point that is hit exactly must not stretch the axis
            ax.set_ylim(bottom=max(floor, np.nanmax(error) * 1e-8) / 2)
        say(ax, f"MSE {np.nanmean(error**2):.1e}")


def _maps(predictions: pd.DataFrame) -> Figure:
    note = ""
    if others := [c for c in predictions if str(c)[0] == "x" and c not in ("x0", "x1")]:
        middle = predictions[others] - (predictions[others].max() + predictions[others].min()) / 2
        away = (middle.abs() / middle.abs().max()).max(axis="columns")
        predictions = predictions.loc[away <= away.quantile(_SLAB)]
        note = f"\n(points near the middle of {', '.join(map(str, others))})"
    u, exact = drawable(predictions["u"].to_numpy()), _exact(predictions, "u")
    error = abs_error(predictions, "u")
    panels = [("predicted $u$", u), ("exact $u$", exact), ("absolute error", error)]
    figure = new_figure(height=2.5)
    for ax, (label, values) in zip(figure.subplots(1, 3, sharey=True), panels, strict=True):
        dress(ax).set_title(label + note, fontsize=TEXT)
        ax.set_xlabel("$x_0$", fontsize=TEXT)
        if values is None:
            say(ax, "no exact solution", centre=True)
            continue
        _map(figure, ax, predictions, values, log=values is error)
        if values is u:
            ax.set_ylabel("$x_1$", fontsize=TEXT)
            _say_gaps(ax, predictions["u"])
    return figure


def _map(figure: Figure, ax: Axes, points: pd.DataFrame, values: np.ndarray, log: bool) -> None:
    good = ~np.isnan(values)
    ax.set_xlim(points["x0"].min(), points["x0"].max())
    ax.set_ylim(points["x1"].min(), points["x1"].max())
    if not good.any():
        say(ax, "not finite", centre=True)
        return
    norm = None
    if log and values[good].max() > 0:
        top = values[good].max()
        norm = LogNorm(max(np.quantile(values[good], 0.05), top * 1e-8), top)
    size = np.clip(2e4 / good.sum(), 2, 40)
    dots = ax.scatter(
        points["x0"].to_numpy()[good], points["x1"].to_numpy()[good], c=values[good], s=size,
        cmap="cividis" if log else "viridis", norm=norm, linewidths=0, rasterized=True,
    )  # fmt: skip
    figure.colorbar(dots, ax=ax, pad=0.02).ax.tick_params(labelsize=7, length=2)


def _say_gaps(ax: Axes, values: pd.Series) -> None:
    bad = int(np.isnan(drawable(values.to_numpy())).sum())
    if bad == len(values):
        say(ax, "not finite", centre=True)
    elif bad:
        say(ax, f"not finite at {bad} of {len(values)} points")
