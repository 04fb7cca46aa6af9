"""The smoothness of each interpolation: one grid fitted to u = sin(x), differentiated exactly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import pi

import numpy as np
import torch
from torch import Tensor

from diffhash.encodings import GridEncoding
from diffhash.ops.layout import Level

DOMAIN = (0.0, 2 * pi)
RESOLUTION = 16
"""N_l of every level (Section II)."""

_MAX_ROWS = 24  # rows of a level's table: its vertices, rounded up to a multiple of 8
_FIT_POINTS = 64 * RESOLUTION
_POINTS_PER_PIECE = 33
_SIDE = 1e-9  # the distance from a vertex at which its two sides are evaluated, in domain widths


@dataclass(frozen=True)
class Curve:
    """A fitted grid and its derivatives, piece by piece between neighbouring vertices.

    Attributes:
        x: points ``[pieces, points]``; a piece begins and ends just inside its two vertices.
        fitted: u, u_x and u_xx at ``x``: ``[3, pieces, points]``.
        exact: the exact values of these, for sin.
        vertices: the vertices of each level in the domain.
    """

    x: np.ndarray
    fitted: np.ndarray
    exact: np.ndarray
    vertices: tuple[np.ndarray, ...]

    def broken(self, order: int) -> tuple[np.ndarray, np.ndarray]:
        """x and the ``order``-th derivative as one line, with NaN wherever a piece ends."""
        gap = np.full((len(self.x), 1), np.nan)
        return np.hstack([self.x, gap]).ravel(), np.hstack([self.fitted[order], gap]).ravel()


def fit_sine(interpolation: str, n_levels: int = 1, level_offset: bool = False) -> Curve:
    """Fit the table of a grid to u = sin(x) on [0, 2π] and differentiate it exactly.

    The domain is scaled to the grid's [0, 1], so that one period has N = 16 cells: for x in [0, 1]
    sin is nearly straight, and differences would hardly be visible. Every level has N = 16 (growth
    1), and u = Σ_l y_l is their sum, which is linear in the table. The fit is therefore a linear
    least-squares problem for the values of u at 1024 evenly spread points, of which the solution of
    least norm is taken. It is deterministic and in float64.

    Args:
        interpolation: as in `diffhash.GridEncoding`.
        n_levels: the number of levels whose outputs are added.
        level_offset: whether level l is shifted by l/L of a cell.
    """
    encoding = GridEncoding(
        n_input_dims=1, n_levels=n_levels, n_features_per_level=_MAX_ROWS,
        base_resolution=RESOLUTION, per_level_scale=1.0, interpolation=interpolation,
        level_offset=level_offset, dtype=torch.float64, seed=0,
    )  # fmt: skip
    # With a unit vector in each row of the table, the features are the basis functions of u.
    levels = encoding.layout.levels
    units = [torch.eye(level.n_rows, _MAX_ROWS) for level in levels]
    with torch.no_grad():
        encoding.params.copy_(torch.cat(units).flatten())
    low, width = DOMAIN[0], DOMAIN[1] - DOMAIN[0]
    points = torch.linspace(0, 1, _FIT_POINTS, dtype=torch.float64)[:, None]
    target = torch.sin(low + width * points)
    # gelsd, because unused rows and the constants of every level make the matrix rank-deficient.
    fit = torch.linalg.lstsq(encoding(points).detach(), target, driver="gelsd").solution

    vertices = [_vertices(level) for level in levels]
    x = _pieces(vertices)
    jet = (encoding.jet(x.reshape(-1, 1), 2).data.detach() @ fit).reshape(3, *x.shape)
    scale = torch.tensor([1, 1 / width, 1 / width**2], dtype=torch.float64)  # chain rule
    x = low + width * x
    return Curve(
        x=x.numpy(),
        fitted=(jet * scale[:, None, None]).numpy(),
        exact=torch.stack([x.sin(), x.cos(), -x.sin()]).numpy(),
        vertices=tuple((low + width * v).numpy() for v in vertices),
    )


def _vertices(level: Level) -> Tensor:
    """The vertices of a level in [0, 1]."""
    vertices = torch.arange(level.max_cells[0] + 2, dtype=torch.float64)
    vertices = (vertices - level.shift) / level.scales[0]
    return vertices[(vertices >= 0) & (vertices <= 1)]


def _pieces(vertices: Sequence[Tensor]) -> Tensor:
    """Points between neighbouring vertices of all levels, in [0, 1]: ``[pieces, points]``."""
    ends = torch.cat([*vertices, torch.tensor([0.0, 1.0], dtype=torch.float64)])
    ends = torch.unique(ends.mul(2**40).round().div(2**40))  # shared vertices differ by rounding
    left, right = ends[:-1, None] + _SIDE, ends[1:, None] - _SIDE
    return left + (right - left) * torch.linspace(0, 1, _POINTS_PER_PIECE, dtype=torch.float64)
