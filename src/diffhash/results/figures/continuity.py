"""Figures 1 and 2: how smooth each interpolation is, shown on one grid that learns u = sin(x)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import pi

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from diffhash.encodings import GridEncoding
from diffhash.ops.layout import Level
from diffhash.results.figures.style import (
    BLACK,
    LIGHT,
    SKY,
    SYMBOLS,
    TEXT,
    VERMILION,
    add_legend,
    dress,
    new_figure,
)

DOMAIN = (0.0, 2 * pi)
RESOLUTION = 16
"""N_l of every level (Section II)."""

_MAX_ROWS = 24  # of a level's table: its vertices, to a multiple of 8
_FIT_POINTS = 64 * RESOLUTION
_POINTS_PER_PIECE = 33
_SIDE = 1e-9  # how near a vertex its two sides are looked at, in widths of the domain


@dataclass(frozen=True)
class Curve:
    """A fitted grid and its derivatives, piece by piece between neighbouring vertices.

    Attributes:
        x: ``[pieces, points]``; a piece begins and ends just inside its two vertices.
        fitted: u, u_x and u_xx at ``x``: ``[3, pieces, points]``.
        exact: the same of sin.
        vertices: of each level, in the domain.
    """

    x: np.ndarray
    fitted: np.ndarray
    exact: np.ndarray
    vertices: tuple[np.ndarray, ...]

    def jumps(self, order: int) -> np.ndarray:
        """Right minus left limit of the ``order``-th derivative at each inner vertex."""
        return self.fitted[order, 1:, 0] - self.fitted[order, :-1, -1]


def fit_sine(interpolation: str, n_levels: int = 1, level_offset: bool = False) -> Curve:
    """Fit the table of a grid to u = sin(x) on [0, 2π] and differentiate it exactly.

    The domain is scaled onto the grid's [0, 1], so that N = 16 cells share one period: on x in
    [0, 1] itself sin is nearly straight, and there would be little to see. Every level has N = 16
    (growth 1), and u = Σ_l y_l is their sum. That is linear in the table, so the best fit of the
    values of u, which are all that it is told, is a least-squares problem over 1024 evenly spread
    points; of all solutions the one of least norm is taken. Deterministic; float64.

    Args:
        interpolation: as in `diffhash.GridEncoding`.
        n_levels: levels to add up.
        level_offset: shift level l by l/L of a cell.
    """
    encoding = GridEncoding(
        n_input_dims=1, n_levels=n_levels, n_features_per_level=_MAX_ROWS,
        base_resolution=RESOLUTION, per_level_scale=1.0, interpolation=interpolation,
        level_offset=level_offset, dtype=torch.float64, seed=0,
    )  # fmt: skip
    # A unit vector in each row of the table: the features are the functions that u is made of.
    levels = encoding.layout.levels
    units = [torch.eye(level.n_rows, _MAX_ROWS) for level in levels]
    with torch.no_grad():
        encoding.params.copy_(torch.cat(units).flatten())
    low, width = DOMAIN[0], DOMAIN[1] - DOMAIN[0]
    points = torch.linspace(0, 1, _FIT_POINTS, dtype=torch.float64)[:, None]
    target = torch.sin(low + width * points)
    # gelsd: rows that no point touches, and constants that every level offers, cost rank.
    fit = torch.linalg.lstsq(encoding(points).detach(), target, driver="gelsd").solution

    vertices = [_vertices(level) for level in levels]
    x = _pieces(vertices)
    jet = (encoding.jet(x.reshape(-1, 1), order=2).data.detach() @ fit).reshape(3, *x.shape)
    scale = torch.tensor([1, 1 / width, 1 / width**2], dtype=torch.float64)  # chain rule
    x = low + width * x
    return Curve(
        x=x.numpy(),
        fitted=(jet * scale[:, None, None]).numpy(),
        exact=torch.stack([x.sin(), x.cos(), -x.sin()]).numpy(),
        vertices=tuple((low + width * v).numpy() for v in vertices),
    )


def _vertices(level: Level) -> Tensor:
    """Vertices of a level in [0, 1]."""
    vertices = torch.arange(level.max_cell + 2, dtype=torch.float64)
    vertices = (vertices - level.shift) / level.scale
    return vertices[(vertices >= 0) & (vertices <= 1)]


def _pieces(vertices: Sequence[Tensor]) -> Tensor:
    """Points between neighbouring vertices, of whatever level, in [0, 1]: ``[pieces, points]``."""
    ends = torch.cat([*vertices, torch.tensor([0.0, 1.0], dtype=torch.float64)])
    ends = torch.unique(ends.mul(2**40).round().div(2**40))  # shared vertices, but for rounding
    left, right = ends[:-1, None] + _SIDE, ends[1:, None] - _SIDE
    return left + (right - left) * torch.linspace(0, 1, _POINTS_PER_PIECE, dtype=torch.float64)


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
    for top, bottom, symbol in zip(grid[0], grid[-1], SYMBOLS.values(), strict=True):
        top.set_title(symbol, fontsize=TEXT)
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
    # The line ends where a piece ends: what is discontinuous is drawn so.
    gap = np.full((len(curve.x), 1), np.nan)
    x, y = np.hstack([curve.x, gap]), np.hstack([fitted, gap])
    ax.plot(x.ravel(), y.ravel(), color=VERMILION, linewidth=0.9, label="fitted grid")
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
