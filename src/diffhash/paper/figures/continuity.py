"""Figures 1 and 2: how smooth each interpolation is."""

from __future__ import annotations

from collections.abc import Sequence
from math import pi

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diffhash.paper.continuity import Curve, fit_sine
from diffhash.results.figures.style import (
    BLACK,
    LIGHT,
    SKY,
    TEXT,
    VERMILION,
    add_legend,
    dress,
    new_figure,
)
from diffhash.results.metrics import symbol


def figure1() -> Figure:
    """Linear (top) and cubic (bottom) interpolation: u, u_x and u_xx of a single level."""
    return _figure([("Linear", fit_sine("linear")), ("Cubic", fit_sine("cubic"))])


def figure2() -> Figure:
    """Smoothsteps S1 (top) and S2 (middle), and four levels of S2 offset to each other (bottom)."""
    rows = [
        ("$S_1$", fit_sine("s1")),
        ("$S_2$", fit_sine("s2")),
        ("$S_2$, 4 levels, offset", fit_sine("s2", n_levels=4, level_offset=True)),
    ]
    return _figure(rows)


def _figure(rows: Sequence[tuple[str, Curve]]) -> Figure:
    figure = new_figure(height=0.5 + 1.6 * len(rows))
    grid = figure.subplots(len(rows), 3, sharex=True)
    for axes, (label, curve) in zip(grid, rows, strict=True):
        for order, ax in enumerate(axes):
            _panel(dress(ax), curve, order)
        axes[0].set_ylabel(label, fontsize=TEXT)
    for top, bottom, name in zip(grid[0], grid[-1], ("u", "u_x", "u_xx"), strict=True):
        top.set_title(symbol(name), fontsize=TEXT)
        bottom.set_xlabel("$x$", fontsize=TEXT)
        bottom.set_xticks([0, pi / 2, pi, 3 * pi / 2, 2 * pi], ["0", "π/2", "π", "3π/2", "2π"])
    add_legend(figure, grid[0, :1])
    return figure


def _panel(ax: Axes, curve: Curve, order: int) -> None:
    exact, fitted = curve.exact[order], curve.fitted[order]
    if len(curve.vertices) == 1:
        ax.vlines(
            curve.vertices[0], 0, 1, color=LIGHT, linewidth=0.4, zorder=0,
            transform=ax.get_xaxis_transform(),
        )  # fmt: skip
    # Wide and pale, so that it shows on both sides of a fit that covers it.
    ax.plot(curve.x.ravel(), exact.ravel(), color=SKY, linewidth=2.6, label="exact, $u = \\sin x$")
    # What is discontinuous is drawn so.
    ax.plot(*curve.broken(order), color=VERMILION, linewidth=0.9, label="fitted grid")
    # A row of ticks per level, in a strip of its own below the curves.
    strip = 0.05 * len(curve.vertices)
    low, high = min(exact.min(), fitted.min()), max(exact.max(), fitted.max())
    height = (high - low) / (0.92 - strip)
    ax.set_ylim(high + 0.04 * height - height, high + 0.04 * height)
    ax.margins(x=0.02)
    for level, vertices in enumerate(curve.vertices):
        ax.plot(
            vertices, np.full_like(vertices, 0.025 + 0.045 * level), color=BLACK, marker="|",
            markersize=3.5, markeredgewidth=0.7, linestyle="none",
            transform=ax.get_xaxis_transform(), label=None if level else "vertices",
        )  # fmt: skip
