"""Panels along one axis: a prediction beside the exact solution, and its error."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from diffhash.results.figures.style import (
    DRAWABLE,
    SKY,
    VERMILION,
    drawable,
    log_y,
    say,
    say_instead,
)

_TINY = 1e-300  # stands for an error of zero on a logarithmic axis


def exact_values(predictions: pd.DataFrame, name: str) -> np.ndarray | None:
    """The exact u, u_x or u_xx (``name``); None where there is no exact solution."""
    column = f"exact_{name}"
    if column not in predictions:
        return None
    exact = drawable(predictions[column].to_numpy())
    return None if np.isnan(exact).all() else exact


def absolute_error(predictions: pd.DataFrame, name: str) -> np.ndarray | None:
    """|predicted - exact|, NaN where it cannot be drawn; None without an exact solution.

    Over seeds the median of it, which is not the error of the median.
    """
    exact = exact_values(predictions, name)
    if exact is not None and (median := f"error_{name}") in predictions:
        return drawable(predictions[median].to_numpy())
    return None if exact is None else np.abs(drawable(predictions[name].to_numpy()) - exact)


def draw_prediction(
    ax: Axes,
    predictions: pd.DataFrame,
    name: str,
    limits: tuple[float, float] | None = None,
    band: str = "",
) -> None:
    """Exact and predicted values over x; says where the prediction is not finite.

    Args:
        ax: axes to draw in.
        predictions: of one run; columns ``x``, ``name`` and ``exact_<name>``.
        name: ``u``, ``u_x`` or ``u_xx``.
        limits: of the y axis. A prediction that leaves them gets a range of its own, which the
            axes say, and goes behind the exact curve, which it could otherwise hide.
        band: what ``<name>_low`` to ``<name>_high`` is, drawn around the median; empty for one run.
    """
    x, values = predictions["x"].to_numpy(), drawable(predictions[name].to_numpy())
    exact = exact_values(predictions, name)
    leaves = limits is not None and bool(((values < limits[0]) | (values > limits[1])).any())
    if exact is not None:
        # Wide and pale, so that it shows on both sides of a prediction that covers it.
        width, layer = (1.2, 3) if leaves else (2.4, 1)
        ax.plot(x, exact, color=SKY, linewidth=width, zorder=layer, label="exact")
    label = "median prediction" if band else "predicted"
    ax.plot(x, values, color=VERMILION, linewidth=0.4 if leaves else 0.9, label=label)
    if band:
        draw_band(ax, x, predictions, name, VERMILION, band)
    if leaves:
        ax.margins(y=0.2)
        say(ax, "wider scale")
    elif limits is not None:
        ax.set_ylim(*limits)
    say_gaps(ax, values)


def draw_error(ax: Axes, predictions: pd.DataFrame, name: str, has_band: bool = False) -> None:
    """The absolute error over x on a logarithmic axis; says so where there is none to show.

    Args:
        ax: axes to draw in.
        predictions: of one run, or of several combined.
        name: ``u``, ``u_x`` or ``u_xx``.
        has_band: whether to fill between its ``_low`` and ``_high``.
    """
    error = absolute_error(predictions, name)
    if error is None:
        say_instead(ax, "no exact solution")
    elif np.isnan(error).all():
        say_instead(ax, "not finite")
    else:
        x = predictions["x"].to_numpy()
        log_y(ax).plot(x, np.maximum(error, _TINY), color=VERMILION, linewidth=0.6)
        ax.set_ylim(*error_limits(error))
        if has_band:
            draw_band(ax, x, predictions, f"error_{name}", VERMILION)


def draw_band(
    ax: Axes, x: np.ndarray, frame: pd.DataFrame, name: str, color: str, label: str | None = None
) -> None:
    """Fill from ``<name>_low`` to ``<name>_high``; where that is infinite, out of the axes.

    Set the limits of the y axis first, if any end may be infinite.
    """
    low, high = (frame[f"{name}_{end}"].to_numpy(dtype=np.float64) for end in ("low", "high"))
    low, high = (np.where(np.isposinf(end), DRAWABLE, drawable(end)) for end in (low, high))
    if ax.get_yscale() == "log":
        low = np.maximum(low, _TINY)
    # As pixels: a band's outline has every point of the grid, megabytes in a PDF.
    ax.fill_between(
        x, low, high, color=color, alpha=0.25, linewidth=0, label=label, rasterized=True
    )


def error_limits(*errors: np.ndarray) -> tuple[float, float]:
    """Limits of a logarithmic axis for errors, NaN aside.

    Where an error changes its sign it dips as deep as the points are dense, which says nothing:
    the lowest percent may run out of the axes.
    """
    values = np.concatenate([error[~np.isnan(error)] for error in errors])
    values = values[values > 0]
    if not len(values):
        return 1e-16, 1.0
    return float(np.quantile(values, 0.01)) / 2, 2 * float(values.max())


def say_gaps(ax: Axes, values: np.ndarray) -> None:
    """Say in the axes how many of the drawable ``values`` are NaN."""
    bad = int(np.isnan(values).sum())
    if bad and bad == len(values):
        say(ax, "not finite", "centre")
    elif bad:
        say(ax, f"not finite at {bad} of {len(values)} points")
