"""Where the entries of a multiresolution grid live: scales, resolutions, table rows, hashing.

A point x falls on level l of a grid of d axes at

    pos = scale_l · x + shift_l,    cell = floor(pos),    t = pos - cell,

    row = Σ_j vertex_j · resolution_l^j                          dense level (axis 0 fastest)
        = (⊕_j vertex_j · P_j mod 2³²) mod rows_l                hashed level

with rows_l = min(next_multiple(resolution_l^d, 8), 2^log2_hashmap_size); a level is hashed where
its resolution_l^d vertices do not fit. There are two conventions for scale and resolution.

*Nested* (the paper's x·N_l; Müller et al., 2022, Eq. 2):

    N_l = floor(base_resolution · per_level_scale^l),  scale_l = N_l,  shift_l = 0 or l/L

Vertices lie at 0, 1/N_l, … 1, so that with a growth of 2 each level's function space contains the
coarser ones: cubic fields then train to errors two decades lower than with tiny-cuda-nn's
half-cell shift. A dense level owns every vertex its stencils touch, resolution_l = cells + taps
- 1; nothing wraps.

*tiny-cuda-nn's*, to the letter, for what it offers (linear and s1 in two or more dimensions,
without level offsets), so that tables can be exchanged:

    scale_l = exp2f(l·log2f(per_level_scale)) · base_resolution - 1            (float32, as there)
    resolution_l = ceil(scale_l) + 1,  shift_l = 0.5

There, as in the original, the last vertex wraps around at x = 1 on dense levels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffhash.ops.interpolation import Interpolation
from diffhash.ops.interpolation import interpolation as find_interpolation
from diffhash.ops.single_precision import exp2f, log2f

PRIMES = (1, 2654435761, 805459861, 3674653429)
MAX_ROWS = 2**31 - 1


@dataclass(frozen=True)
class Level:
    """One level of the grid; see the module's formulas."""

    scale: float
    shift: float
    resolution: int  # vertices per axis
    max_cell: int  # the last cell that reaches into [0, 1]
    pad: int  # vertices below vertex 0
    hashed: bool
    n_rows: int
    first_row: int


@dataclass(frozen=True, eq=False)  # compared and hashed by identity: `grid_layout` makes each once
class GridLayout:
    """All levels of a grid of ``n_input_dims`` axes, for one interpolation.

    Attributes:
        settings: the arguments of `grid_layout`, with the interpolation's name.
        tcnn: whether the convention is tiny-cuda-nn's; see the module.
        levels: dense ones first, then hashed ones.
    """

    settings: tuple[int, str, int, int, int, float, bool]
    tcnn: bool
    interpolation: Interpolation
    levels: tuple[Level, ...]

    def __reduce__(self) -> tuple[Any, ...]:
        return grid_layout, self.settings  # a copy is the layout itself

    @property
    def n_input_dims(self) -> int:
        """Axes of a point."""
        return self.settings[0]

    @property
    def n_dense(self) -> int:
        """How many levels are dense: resolutions grow, so these are the first."""
        return sum(not level.hashed for level in self.levels)

    @property
    def n_rows(self) -> int:
        """Rows of the whole table."""
        return self.levels[-1].first_row + self.levels[-1].n_rows

    @property
    def n_taps(self) -> int:
        """Vertices a point touches per level: taps^d."""
        return self.interpolation.taps**self.n_input_dims

    def rows(self, level: Level, vertices: Tensor) -> Tensor:
        """Table rows of integer ``vertices [..., d]``; padded levels have negative ones."""
        v = vertices + level.pad
        if level.hashed:
            row = v[..., 0] * PRIMES[0]
            for j in range(1, self.n_input_dims):
                row = row ^ (v[..., j] * PRIMES[j])
            row = (row & 0xFFFFFFFF) % level.n_rows
        else:
            row = v[..., 0]
            for j in range(1, self.n_input_dims):
                row = row + v[..., j] * level.resolution**j
            row = row % level.n_rows  # tiny-cuda-nn's wrap; a nested level has a row for each
        return row + level.first_row


@cache
def grid_layout(
    n_input_dims: int,
    interpolation: str,
    n_levels: int,
    log2_hashmap_size: int,
    base_resolution: int,
    per_level_scale: float,
    level_offset: bool = False,
) -> GridLayout:
    """Lay a grid out; arguments as in `diffhash.GridEncoding`, which validates them.

    Raises:
        ValueError: an unknown interpolation, or a table of more than 2³¹ - 1 rows.
    """
    stencil = find_interpolation(interpolation)
    tcnn = interpolation in ("linear", "s1") and n_input_dims >= 2 and not level_offset
    levels: list[Level] = []
    first_row = 0
    for index in range(n_levels):
        if tcnn:
            growth = exp2f(float(np.float32(index) * log2f(per_level_scale)))
            scale = float(growth * np.float32(base_resolution) - np.float32(1))
            shift, pad = 0.5, 0
            max_cell = math.floor(scale + shift)
            resolution = math.ceil(scale) + 1
        else:
            # The small term undoes rounding: 1.4^2 · 100 is 196 cells, not 195.
            scale = float(math.floor(base_resolution * per_level_scale**index + 1e-6))
            # Fig. 2: another constant at each level, so that levels do not share their vertices.
            shift = index / n_levels if level_offset else 0.0
            pad = -stencil.first_tap
            max_cell = math.ceil(scale + shift) - 1  # x = 1 is the end of this cell
            resolution = max_cell + stencil.taps
        dense_rows = resolution**n_input_dims
        n_rows = min(-(-dense_rows // 8) * 8, 2**log2_hashmap_size)
        hashed = n_rows < dense_rows
        levels.append(Level(scale, shift, resolution, max_cell, pad, hashed, n_rows, first_row))
        first_row += n_rows
    if first_row > MAX_ROWS:
        raise ValueError(
            f"the grid needs {first_row} table rows, more than {MAX_ROWS}: lower log2_hashmap_size "
            f"({log2_hashmap_size}), n_levels ({n_levels}) or the resolutions"
        )
    settings = (
        int(n_input_dims),
        interpolation,
        int(n_levels),
        int(log2_hashmap_size),
        int(base_resolution),
        float(per_level_scale),
        bool(level_offset),
    )
    return GridLayout(settings, tcnn, stencil, tuple(levels))


def locate(level: Level, x: Tensor) -> tuple[Tensor, Tensor]:
    """Cell (int64) and fraction t of coordinates ``x`` ``[N, d]`` on one level.

    Outside [0, 1] the cell is the nearest one inside and t leaves [0, 1): the edge cell's
    polynomial continues. NaN coordinates get cell 0 and t = NaN.
    """
    pos = level.scale * x + level.shift
    cell = pos.detach().floor().nan_to_num(0.0).clamp(0, level.max_cell)
    return cell.to(torch.int64), pos - cell
