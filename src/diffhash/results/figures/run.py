"""The picture of one run, and its panels: predictions beside the exact solution, and the error."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.colors import LogNorm, Normalize

from diffhash.results.figures import style
from diffhash.results.formats import format_value
from diffhash.results.metrics import symbol

_TINY = 1e-300  # stands for an error of zero on a logarithmic axis
_MAPS = ("u", "u_x0", "u_x1", "u_x0x0", "u_x1x1")
_SLAB = 0.25  # of the points, where more than two axes are looked at from one side


def run_figure(predictions: pd.DataFrame, title: str) -> style.Figure:
    """Draw the predictions of one run against the exact solution, and the pointwise error.

    One axis: u, u_x and u_xx as curves. More: u over the first two axes as a scatter map; with
    more than two, of the quarter of the points nearest to the middle of the others. Where there
    is no exact solution (no ``exact_…`` column, or nothing but NaN in it) there is no error, and
    the maps are of u and its derivatives;
    where predictions are not finite nothing is drawn. The figure says either.

    Args:
        predictions: as `diffhash.results.read_predictions` gives them.
        title: of the figure.

    Raises:
        ValueError: no coordinate column ``x``, or ``x0`` and ``x1``, or no column ``u``.
    """
    maps = {"x0", "x1"} <= set(predictions.columns)
    if "u" not in predictions or not (maps or "x" in predictions):
        raise ValueError(
            f"predictions with columns {', '.join(map(str, predictions.columns))}: expected u, "
            "and x or x0, x1, …"
        )
    figure = _maps(predictions) if maps else _curves(predictions)
    figure.suptitle(title, fontsize=style.TEXT, parse_math=False)  # whatever the run is called
    return figure


def _curves(predictions: pd.DataFrame) -> style.Figure:
    predictions = predictions.sort_values("x")
    names = [str(c) for c in predictions if str(c) == "u" or str(c).startswith("u_")]
    known = any(exact_values(predictions, name) is not None for name in names)
    figure = style.new_figure(height=3.6 if known else 2.3)
    grid = figure.subplots(1 + known, len(names), squeeze=False, sharex=True)
    for axes, name in zip(grid.T, names, strict=True):
        draw_prediction(style.style_axes(axes[0]), predictions, name)
        axes[0].set_title(symbol(name), fontsize=style.TEXT)
        axes[-1].set_xlabel("$x$", fontsize=style.TEXT)
        if known:
            draw_error(style.style_axes(axes[1]), predictions, name)
            error = absolute_error(predictions, name)
            if error is not None and not np.isnan(error).any():
                mse = format_value("mse_u", float(np.mean(error**2)))
                axes[1].set_title(f"MSE {mse}", fontsize=style.SMALL, loc="right", pad=2)
    if known:
        grid[1, 0].set_ylabel("absolute error", fontsize=style.TEXT)
    else:
        style.annotate(grid[0, -1], "no exact solution")
    style.add_legend(figure, grid[0], loc="outside lower center")
    return figure


def _maps(predictions: pd.DataFrame) -> style.Figure:
    """u, the exact u and the error; without an exact u, u and its derivatives along two axes."""
    points, note = predictions, ""
    others = [c for c in predictions if str(c)[:1] == "x" and c not in ("x0", "x1")]
    if others:
        middle = (predictions[others].max() + predictions[others].min()) / 2
        away = (predictions[others] - middle).abs()
        away = (away / away.max().replace(0, 1)).max(axis="columns")
        points = predictions.loc[away <= away.quantile(_SLAB)]
        note = f"the quarter of the points nearest to the middle of {', '.join(map(str, others))}"
    exact, u = exact_values(points, "u"), style.drawable(points["u"].to_numpy())
    if exact is not None:
        error = np.abs(u - exact)
        positive = error[error > 0]
        low, high = (np.quantile(positive, 0.02), positive.max()) if len(positive) else (0, 0)
        both = Normalize(*_ends(np.concatenate([u, exact])))  # one colour scale for both maps of u
        panels = {
            "predicted $u$": (u, both, "viridis"),
            "exact $u$": (exact, both, "viridis"),
            "absolute error": (error, LogNorm(low, high) if low < high else Normalize(), "cividis"),
        }
    else:
        note = f"no exact solution; {note}" if note else "no exact solution"
        each = {name: style.drawable(points[name].to_numpy()) for name in _MAPS if name in points}
        panels = {
            f"predicted {symbol(name)}" if name == "u" else symbol(name): (
                values, Normalize(*_ends(values)), "viridis",
            )
            for name, values in each.items()
        }  # fmt: skip
    n_rows = -(-len(panels) // 3)
    figure = style.new_figure(height=2.7 * n_rows)
    grid = figure.subplots(n_rows, min(3, len(panels)), sharex=True, sharey=True, squeeze=False)
    for ax in list(grid.flat)[len(panels) :]:
        ax.remove()
    for ax, (title, panel) in zip(grid.flat, panels.items(), strict=False):
        ax.set_title(title, fontsize=style.TEXT)
        _map(figure, ax, points, *panel)
        style.style_axes(ax).set_xlabel("$x_0$", fontsize=style.TEXT)
    if exact is not None:
        annotate_gaps(grid[0, 0], u)
    for ax in grid[:, 0]:
        ax.set_ylabel("$x_1$", fontsize=style.TEXT)
    if note:
        figure.supxlabel(note, fontsize=style.SMALL)
    return figure


def _ends(values: np.ndarray) -> tuple[Any, Any]:
    good = values[~np.isnan(values)]
    return (good.min(), good.max()) if len(good) else (None, None)


def _map(
    figure: style.Figure, ax: style.Axes, points: pd.DataFrame,
    values: np.ndarray, norm: Normalize, colours: str,
) -> None:  # fmt: skip
    good = ~np.isnan(values)
    if not good.any():
        style.annotate_empty(ax, "not finite")
        return
    x0, x1 = points["x0"].to_numpy(), points["x1"].to_numpy()
    size = float(np.clip(2e4 / good.sum(), 2, 40))
    dots = ax.scatter(
        x0[good], x1[good], c=values[good], s=size, cmap=colours, norm=norm, linewidths=0,
        rasterized=True,
    )  # fmt: skip
    ax.margins(0.01)
    bar = figure.colorbar(dots, ax=ax, location="bottom", pad=0.02, aspect=25)
    bar.ax.tick_params(labelsize=style.SMALL, length=2)


# ------------------------------------------------------------------------------------ the panels


def exact_values(predictions: pd.DataFrame, name: str) -> np.ndarray | None:
    """The exact u, u_x or u_xx (``name``); None where there is no exact solution."""
    column = f"exact_{name}"
    if column not in predictions:
        return None
    exact = style.drawable(predictions[column].to_numpy())
    return None if np.isnan(exact).all() else exact


def absolute_error(predictions: pd.DataFrame, name: str) -> np.ndarray | None:
    """|predicted - exact|, NaN where it cannot be drawn; None without an exact solution.

    Over seeds the median of it, which is not the error of the median.
    """
    exact = exact_values(predictions, name)
    if exact is not None and (median := f"error_{name}") in predictions:
        return style.drawable(predictions[median].to_numpy())
    return None if exact is None else np.abs(style.drawable(predictions[name].to_numpy()) - exact)


def draw_prediction(
    ax: style.Axes,
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
    x, values = predictions["x"].to_numpy(), style.drawable(predictions[name].to_numpy())
    exact = exact_values(predictions, name)
    leaves = limits is not None and bool(((values < limits[0]) | (values > limits[1])).any())
    if exact is not None:
        # Wide and pale, so that it shows on both sides of a prediction that covers it.
        width, layer = (1.2, 3) if leaves else (2.4, 1)
        ax.plot(x, exact, color=style.SKY, linewidth=width, zorder=layer, label="exact")
    label = "median prediction" if band else "predicted"
    ax.plot(x, values, color=style.VERMILION, linewidth=0.4 if leaves else 0.9, label=label)
    if band:
        draw_band(ax, x, predictions, name, style.VERMILION, band)
    if leaves:
        ax.margins(y=0.2)
        style.annotate(ax, "wider scale")
    elif limits is not None:
        ax.set_ylim(*limits)
    annotate_gaps(ax, values)


def draw_error(
    ax: style.Axes, predictions: pd.DataFrame, name: str, has_band: bool = False
) -> None:
    """The absolute error over x on a logarithmic axis; says so where there is none to show.

    Args:
        ax: axes to draw in.
        predictions: of one run, or of several combined.
        name: ``u``, ``u_x`` or ``u_xx``.
        has_band: whether to fill between its ``_low`` and ``_high``.
    """
    error = absolute_error(predictions, name)
    if error is None:
        style.annotate_empty(ax, "no exact solution")
    elif np.isnan(error).all():
        style.annotate_empty(ax, "not finite")
    else:
        x = predictions["x"].to_numpy()
        style.log_y(ax).plot(x, np.maximum(error, _TINY), color=style.VERMILION, linewidth=0.6)
        ax.set_ylim(*error_limits(error))
        if has_band:
            draw_band(ax, x, predictions, f"error_{name}", style.VERMILION)


def draw_band(
    ax: style.Axes,
    x: np.ndarray,
    frame: pd.DataFrame,
    name: str,
    color: str,
    label: str | None = None,
) -> None:
    """Fill from ``<name>_low`` to ``<name>_high``; where that is infinite, out of the axes.

    Set the limits of the y axis first, if any end may be infinite.
    """
    low, high = (frame[f"{name}_{end}"].to_numpy(dtype=np.float64) for end in ("low", "high"))
    low, high = (
        np.where(np.isposinf(end), style.DRAWABLE, style.drawable(end)) for end in (low, high)
    )
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


def annotate_gaps(ax: style.Axes, values: np.ndarray) -> None:
    """Say in the axes how many of the drawable ``values`` are NaN."""
    bad = int(np.isnan(values).sum())
    if bad and bad == len(values):
        style.annotate(ax, "not finite", "centre")
    elif bad:
        style.annotate(ax, f"not finite at {bad} of {len(values)} points")
