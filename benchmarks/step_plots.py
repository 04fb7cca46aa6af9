"""Pictures of `benchmarks.steps`, `benchmarks.growth` and `benchmarks.time_to_accuracy`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter

from benchmarks.ours import OURS
from benchmarks.steps import FLOOR, JAX
from benchmarks.straightforward import STRAIGHTFORWARD
from diffhash.results.figures import style
from diffhash.results.metrics import ENCODERS

_LOOKS = {
    STRAIGHTFORWARD: (style.VERMILION, "s"),
    JAX: (style.ORANGE, "D"),
    OURS: (style.BLUE, "o"),
    FLOOR: (style.GREY, "_"),
}
_ENCODERS = {"mlp": style.BLACK, "ff": style.SKY, "siren": style.PURPLE, "linear": style.ORANGE,
             "s2": style.GREEN, "cubic": style.BLUE}  # fmt: skip
_SPANS_PER_DECADE = 40
_AXES = {
    "points": "residual points",
    "levels": "levels",
    "dimensions": "axes",
    "replicas": "seeds in one program",
}


def plot_steps(frame: pd.DataFrame, stem: Path) -> list[Path]:
    """Plot the milliseconds per step, with a panel for each task."""
    figure = style.new_figure(height=2.6)
    tasks = list(dict.fromkeys(frame["task"]))
    axes = figure.subplots(1, len(tasks), sharey=True, squeeze=False)[0]
    for ax, task in zip(axes, tasks, strict=True):
        part = frame.query(f"task == {task!r}")
        encoders = list(dict.fromkeys(part["encoder"]))
        style.style_axes(ax)
        for name, (colour, marker) in _LOOKS.items():
            rows = part.query(f"contender == {name!r}").set_index("encoder").reindex(encoders)
            ax.plot(range(len(encoders)), rows["ms"], marker, color=colour, label=name,
                    markersize=9 if marker == "_" else 5, markeredgewidth=1.6)  # fmt: skip
        style.log_y(ax)
        ax.set_xticks(range(len(encoders)), [ENCODERS[e] for e in encoders], fontsize=style.TEXT)
        ax.set_xlim(-0.5, len(encoders) - 0.5)
        ax.grid(axis="y", color=style.LIGHT, linewidth=0.5)
        ax.set_title(f"{task} task", fontsize=style.TEXT)
    axes[0].set_ylabel("ms per step", fontsize=style.TEXT)
    _legend(axes[0])
    _where(figure, frame)
    return style.write_figure(figure, stem)


def plot_growth(frame: pd.DataFrame, stem: Path) -> list[Path]:
    """Plot the milliseconds per step, with a panel for each series."""
    figure = style.new_figure(height=2.2)
    names = list(dict.fromkeys(frame["series"]))
    axes = figure.subplots(1, len(names), squeeze=False)[0]
    for ax, series in zip(axes, names, strict=True):
        part = frame.query(f"series == {series!r}")
        style.style_axes(ax)
        for name, (colour, marker) in _LOOKS.items():
            rows = part.query(f"contender == {name!r}").sort_values("value")
            if rows.empty:
                continue
            marker = "." if marker == "_" else marker
            ax.plot(rows["value"], rows["ms"], marker=marker, color=colour, label=name,
                    markersize=4, linewidth=1.2)  # fmt: skip
        if series in ("points", "replicas"):
            ax.set_xscale("log", base=2 if series == "replicas" else 10)
            ax.set_yscale("log")
        else:
            ax.set_ylim(bottom=0)
            ax.set_xticks(sorted(set(part["value"])))
        if series == "replicas":  # the axis spans less than two decades: plain numbers
            ax.yaxis.set_major_formatter("{x:g}")
            ax.yaxis.set_minor_formatter(NullFormatter())
        ax.set_xlabel(_AXES[series], fontsize=style.TEXT)
    axes[0].set_ylabel("ms per step, cubic PINN", fontsize=style.TEXT)
    _legend(axes[0])
    _where(figure, frame)
    return style.write_figure(figure, stem)


def plot_accuracy(curves: pd.DataFrame, runs: pd.DataFrame, stem: Path) -> list[Path]:
    """Plot the MSE of u over seconds of training, with a line for each seed.

    A line is the median over short spans of equal length on the logarithmic axis. The band around
    it is from the smallest to the largest error in each span.
    """
    figure = style.new_figure(height=3.0)
    ax = style.log_y(style.style_axes(figure.subplots()))
    for encoder, colour in _ENCODERS.items():
        for index, seed in enumerate(dict.fromkeys(curves["seed"])):
            curve = curves.query(f"encoder == {encoder!r} and seed == {seed}")
            label = None if index else ENCODERS[encoder]
            span = (np.log10(curve["seconds"]) * _SPANS_PER_DECADE).round()
            seconds = np.asarray(curve.groupby(span)["seconds"].mean())
            errors = curve.groupby(span)["mse_u"].agg(["median", "min", "max"])
            median, low, high = np.asarray(errors).T
            ax.plot(seconds, median, color=colour, label=label, linewidth=1.0)
            ax.fill_between(seconds, low, high, color=colour, alpha=0.12, lw=0)
    ax.set_xscale("log")
    mark = float(runs["mark"].iloc[0])
    ax.axhline(mark, color=style.GREY, linewidth=0.8, linestyle=":")
    ax.text(0.01, mark, f"the paper's MLP 50k: {mark:.1e}", transform=ax.get_yaxis_transform(),
            ha="left", va="bottom", fontsize=style.SMALL, color=style.GREY)  # fmt: skip
    ax.set_xlabel("seconds in training steps", fontsize=style.TEXT)
    ax.set_ylabel("MSE of u, PINN task", fontsize=style.TEXT)
    _legend(ax)
    _where(figure, runs)
    return style.write_figure(figure, stem)


def _legend(ax: Axes) -> None:
    ax.legend(fontsize=style.SMALL, frameon=False)


def _where(figure: style.Figure, frame: pd.DataFrame) -> None:
    row = frame.iloc[0]
    threads = f", threads: {row['threads']}" if row["device"] == "cpu" else ""
    text = f"{row['device_name']}{threads}, torch {row['torch']}"
    if row["jax"]:
        text += f", JAX {row['jax']}"
    figure.supxlabel(text, fontsize=style.SMALL, color="#555555")
