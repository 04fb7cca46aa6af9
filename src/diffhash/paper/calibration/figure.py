"""The picture of a calibration: which parameters matter, and where the good values lie."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diffhash.results.figures import style

_COLUMNS = 4
_LOG_FROM = 50.0  # of the largest value to the smallest
_ROW_HEIGHT = 1.6  # inches


def calibration_figure(trials: pd.DataFrame, importances: pd.DataFrame) -> Figure:
    """Draw the importance of each parameter, and the objective over each.

    Of a grid also over its finest resolution, which follows from three of them. Trials that were
    stopped early have no objective: they are drawn at the upper edge. So are
    those of the worse half that would crowd the better one out.

    Args:
        trials: as `diffhash.paper.calibration.outcome.read_trials` gives them.
        importances: columns ``parameter`` and ``importance``.
    """
    trials = _with_finest(trials)
    names = parameters(trials)
    n_rows = -(-(len(names) + 1) // _COLUMNS)
    figure = style.new_figure(height=0.5 + _ROW_HEIGHT * n_rows)
    axes = figure.subplots(n_rows, _COLUMNS, squeeze=False).ravel()
    _draw_importances(style.style_axes(axes[0]), importances)
    top = _top(trials)
    axes[1].set_ylabel("objective", fontsize=style.TEXT)
    for ax, name in zip(axes[1:], names, strict=False):
        _draw_parameter(style.style_axes(ax), trials, name, top)
    for ax in axes[1 + len(names) :]:
        ax.set_axis_off()
    style.add_legend(figure, axes[1 : 1 + len(names)], loc="outside lower center")
    return figure


def parameters(trials: pd.DataFrame) -> list[str]:
    """The columns that are settings, such as ``trainer.learning_rate``."""
    return [name for name in trials.columns if "." in name]


def _with_finest(trials: pd.DataFrame) -> pd.DataFrame:
    """With N_max = N_min b^(L - 1) (Section II) as a column, where these are searched."""
    grid = "encoder.encoding."
    names = [grid + name for name in ("base_resolution", "per_level_scale", "n_levels")]
    if not set(names) <= set(trials.columns):
        return trials
    coarsest, growth, n_levels = (trials[name] for name in names)
    return trials.assign(**{f"{grid}finest_resolution": coarsest * growth ** (n_levels - 1)})


def _draw_importances(ax: Axes, importances: pd.DataFrame) -> None:
    ax.set_title("importance", fontsize=style.TEXT)
    if importances.empty:
        style.annotate_empty(ax, "too few trials")
        return
    ordered = importances.sort_values("importance")
    labels = [_short(name) for name in ordered["parameter"]]
    ax.barh(np.arange(len(ordered)), ordered["importance"], color=style.BLUE, height=0.6)
    ax.set_yticks(np.arange(len(ordered)), labels, fontsize=style.SMALL)


def _top(trials: pd.DataFrame) -> float:
    """The end of the y axes: the median, with as much room above it as is below it."""
    values = trials["objective"].dropna().to_numpy(dtype=float)
    if not len(values):
        return 0.0
    room = float(np.median(values) - values.min())
    return float(np.median(values)) + (room or 1.0)


def _draw_parameter(ax: Axes, trials: pd.DataFrame, name: str, top: float) -> None:
    ax.set_title(_short(name), fontsize=style.TEXT)
    known = trials.dropna(subset=["so_far", name])
    if known.empty:
        style.annotate_empty(ax, "no trials")
        return
    x = _positions(ax, list(known[name]))
    objective = known["objective"].to_numpy(dtype=float)
    finished = np.isfinite(objective)
    y = np.where(finished, np.minimum(objective, top), top)
    hollow = {"facecolor": "none", "edgecolor": style.GREY, "linewidth": 0.6}
    ax.scatter(x[~finished], y[~finished], s=8, label="stopped early", **hollow)
    ax.scatter(x[finished], y[finished], s=8, color=style.BLUE, label="ran all rows")
    if finished.any():
        best = int(np.nanargmin(objective))
        ax.scatter(
            x[best], y[best], s=40, marker="*", color=style.VERMILION, zorder=3, label="best"
        )


def _positions(ax: Axes, values: list[Any]) -> np.ndarray:
    """Where values stand on the x axis; names side by side, in alphabetical order."""
    if any(isinstance(value, str) for value in values):
        names = sorted({str(value) for value in values})
        ax.set_xticks(np.arange(len(names)), names, fontsize=style.SMALL)
        ax.set_xlim(-0.5, len(names) - 0.5)
        return np.array([names.index(str(value)) for value in values], dtype=float)
    x = np.array(values, dtype=float)
    if x.min() > 0 and x.max() / x.min() >= _LOG_FROM:
        ax.set_xscale("log")
    return x


def _short(name: str) -> str:
    return name.rpartition(".")[2].replace("_", " ")
