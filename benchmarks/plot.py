"""The picture of `benchmarks.ops`: time over N, one panel per dimension and operation."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import LogFormatterMathtext, LogLocator, NullLocator

from benchmarks.baselines import (
    COMPILED,
    DIFFHASH,
    GRID_SAMPLE,
    LOOP,
    PLANNED,
    TINY_CUDA_NN,
)
from benchmarks.ops import MAX_BYTES, MAX_SECONDS, OPERATIONS
from diffhash.results.figures import style

_LOOKS = {  # colour and marker
    LOOP: (style.VERMILION, "s"),
    DIFFHASH: (style.BLUE, "o"),
    PLANNED: (style.GREEN, "^"),
    COMPILED: (style.SKY, "D"),
    GRID_SAMPLE: (style.ORANGE, "v"),
    TINY_CUDA_NN: (style.PURPLE, "P"),
}
_LINES: dict[str, Literal["-", ":"]] = {"cubic": "-", "linear": ":"}
_TITLES = {"forward": "$u$", "first": "$u,\\ u_x$", "second": "$u,\\ u_x,\\ u_{xx}$"}


def plot(frame: pd.DataFrame, stem: Path) -> list[Path]:
    """Write ``stem.png`` and ``stem.pdf`` from the table of `benchmarks.ops.measure`.

    Raises:
        OSError: the directory cannot be written.
    """
    frame = frame.query("status == 'ok' and table_gradient")
    dims = sorted(frame["d"].unique()) or [1]
    figure = style.new_figure(height=1.0 + 1.75 * len(dims))
    axes = figure.subplots(len(dims), len(OPERATIONS), sharex=True, sharey="row", squeeze=False)
    for i, d in enumerate(dims):
        for j, operation in enumerate(OPERATIONS):
            ax = _dress(axes[i][j])
            _draw(ax, frame.query(f"d == {d} and operation == {operation!r}"))
            if i == 0:
                ax.set_title(f"{_TITLES[operation]} and table gradient", fontsize=style.TEXT)
            if i == len(dims) - 1:
                ax.set_xlabel("points $N$", fontsize=style.TEXT)
            if j == 0:
                ax.set_ylabel(f"{d}-D: ms per call", fontsize=style.TEXT)
    _legend(figure, [name for name in _LOOKS if name in set(frame["contender"])])
    note = "A line ends before a call would need more than "
    note += f"{MAX_BYTES / 1e9:g} GB or {MAX_SECONDS:g} s."
    figure.supxlabel(_where(frame) + note, fontsize=style.SMALL, color="#555555")
    return style.write_figure(figure, stem)


def _dress(ax: Axes) -> Axes:
    style.log_y(style.style_axes(ax))
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_locator(LogLocator(4))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(LogFormatterMathtext(2))
    return ax


def _draw(ax: Axes, frame: pd.DataFrame) -> None:
    for name, (colour, marker) in _LOOKS.items():
        for interpolation, line in _LINES.items():
            chosen = frame.query(f"contender == {name!r} and interpolation == {interpolation!r}")
            chosen = chosen.sort_values("n")
            filled = interpolation == "cubic"
            ax.plot(
                chosen["n"],
                chosen["p50_ms"],
                color=colour,
                linestyle=line,
                marker=marker,
                linewidth=1.2,
                markersize=3,
                markerfacecolor=colour if filled else "white",
                markeredgewidth=0.8,
            )


def _legend(figure: style.Figure, names: list[str]) -> None:
    handles = [
        Line2D([], [], color=_LOOKS[n][0], marker=_LOOKS[n][1], markersize=4, label=n)
        for n in names
    ]
    for interpolation, line in _LINES.items():
        face = "black" if interpolation == "cubic" else "white"
        handles.append(
            Line2D(
                [], [], color="black", linestyle=line, marker="o", markersize=4,
                markerfacecolor=face, label=interpolation,
            )
        )  # fmt: skip
    figure.legend(
        handles=handles, loc="outside upper center", ncols=len(handles), fontsize=style.TEXT,
        frameon=False, handlelength=2.4, columnspacing=1.2, borderaxespad=0.1,
    )  # fmt: skip


def _where(frame: pd.DataFrame) -> str:
    if frame.empty:
        return ""
    row = frame.iloc[0]
    threads = f", threads: {row['threads']}" if row["device"] == "cpu" else ""
    return f"{row['device_name']}{threads}. "
