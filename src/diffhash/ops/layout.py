"""The layout of a multiresolution grid: scales, resolutions, table rows, hashing.

On level l of a grid of d axes, a point x lies along axis j at

    pos_j = scale_lj · x_j + shift_l,    cell_j = floor(pos_j),    t_j = pos_j - cell_j,

    row = Σ_j vertex_j · Π_{i<j} resolution_li                   dense level (axis 0 fastest)
        = (⊕_j vertex_j · P_j mod 2³²) mod rows_l                hashed level

times dofs^d, because a vertex has dofs^d consecutive table rows (dofs = 1 except for hermite);
rows_l = min(next_multiple(Π_j resolution_lj, 8), 2^log2_hashmap_size); a level is hashed where its
Π_j resolution_lj vertices do not fit. There are two conventions for scale and resolution.

*nested* (the paper's x·N_l; Müller et al., 2022, Eq. 2), where each axis may have another base
resolution:

    N_lj = floor(base_resolution_j · per_level_scale^l),  scale_lj = N_lj,  shift_l = 0 or l/L

Vertices lie at 0, 1/N_l, … 1, so that with a growth of 2 each level's function space contains those
of the coarser levels: cubic fields then train to errors two decades lower than with tiny-cuda-nn's
half-cell shift. A dense level has a row for every vertex of its stencils, resolution_lj = cells +
taps - 1; nothing wraps.

On a *periodic* axis (nested alone) there are N_lj vertices, the vertices of a stencil are counted
modulo N_lj, and x is taken modulo 1: the field and all its derivatives have period 1 there.

*tcnn* is exactly tiny-cuda-nn's, so that tables can be exchanged:

    scale_l = exp2f(l·log2f(per_level_scale)) · base_resolution - 1            (float32, as there)
    resolution_l = ceil(scale_l) + 1,  shift_l = 0.5

There, as in the original, the last vertex wraps around at x = 1 on dense levels. The convention
allows interpolations between two vertices per axis, in two or more dimensions, with one resolution
for all axes and without level offsets.

*auto* is tcnn for linear and s1 where tcnn allows the grid, else nested.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffhash.ops.constants import constant
from diffhash.ops.interpolation import Interpolation
from diffhash.ops.interpolation import interpolation as find_interpolation
from diffhash.ops.settings import integer
from diffhash.ops.single_precision import exp2f, log2f

PRIMES = (1, 2654435761, 805459861, 3674653429)
MAX_ROWS = 2**31 - 1
_MAX_BASE = 2**20  # the largest base resolution
CONVENTIONS = ("auto", "nested", "tcnn")
Resolution = int | tuple[int, ...]  # one for all axes, or one for each axis
Settings = tuple[int, str, int, int, Resolution, float, bool, str, tuple[int, ...]]


@dataclass(frozen=True)
class Level:
    """One level of the grid; see the module's formulas. Tuples are by axis."""

    scales: tuple[float, ...]
    shift: float
    resolutions: tuple[int, ...]  # numbers of vertices; on a periodic axis those in a period
    max_cells: tuple[int, ...]  # the last cell that reaches into [0, 1]
    pad: int  # vertices below vertex 0
    hashed: bool
    n_rows: int  # table rows of the level, dofs^d for each vertex
    first_row: int


@dataclass(frozen=True, eq=False)  # compared and hashed by identity: `grid_layout` makes each once
class GridLayout:
    """All levels of a grid of ``n_input_dims`` axes, for one interpolation.

    Attributes:
        settings: the arguments of `grid_layout`, with the names of interpolation and convention.
        periodic: for each axis whether it is periodic; `periodic_axes` are the numbers of those.
        levels: dense ones first, then hashed ones.
    """

    settings: Settings
    interpolation: Interpolation
    periodic: tuple[bool, ...]
    levels: tuple[Level, ...]

    def __reduce__(self) -> tuple[Any, ...]:
        return grid_layout, self.settings  # a copy is the layout itself

    @property
    def n_input_dims(self) -> int:
        """The number d of axes."""
        return self.settings[0]

    @property
    def tcnn(self) -> bool:
        """Whether the convention is tcnn; see the description of this module."""
        return self.settings[7] == "tcnn"

    @property
    def periodic_axes(self) -> tuple[int, ...]:
        return self.settings[8]

    @property
    def n_dense(self) -> int:
        """The number of dense levels, which are the first ones, because resolutions grow."""
        return sum(not level.hashed for level in self.levels)

    @property
    def n_rows(self) -> int:
        """The number of rows of the whole table."""
        return self.levels[-1].first_row + self.levels[-1].n_rows

    @property
    def n_dofs(self) -> int:
        """The number of rows of a vertex: dofs^d."""
        return self.interpolation.dofs**self.n_input_dims

    @property
    def n_taps(self) -> int:
        """The number of rows that a point reads on a level: (taps · dofs)^d."""
        return self.interpolation.columns**self.n_input_dims

    def factors(self, level: Level) -> tuple[int, ...]:
        """The factor of a vertex's number on each axis, before the axes are added or hashed."""
        strides = (math.prod(level.resolutions[:j]) for j in range(self.n_input_dims))
        return tuple(n * self.n_dofs for n in (PRIMES if level.hashed else strides))[
            : self.n_input_dims
        ]

    def rows(self, level: Level, vertices: Tensor) -> Tensor:
        """The first table rows of integer ``vertices [..., d]``; vertices in a level's padding are
        negative."""
        terms = []
        for j, factor in enumerate(self.factors(level)):
            v = vertices[..., j] + level.pad
            terms.append((v % level.resolutions[j] if self.periodic[j] else v) * factor)
        row = terms[0]
        for term in terms[1:]:
            row = row ^ term if level.hashed else row + term
        # The modulo of a hash, and of tcnn's dense levels, which wrap. It has no effect on nested
        # dense levels, which have rows for every vertex.
        return row % level.n_rows + level.first_row

    def places(self, level: Level) -> Tensor:
        """The centres of the splines of a level's table rows, ``[n_rows, d]`` float64, in [0, 1] up
        to half a stencil; NaN for rows of hashed levels and unused rows.
        """
        d = self.n_input_dims
        places = torch.full((level.n_rows, d), math.nan, dtype=torch.float64)
        if level.hashed:
            return places
        axes = [torch.arange(n) - level.pad for n in level.resolutions]
        vertices = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, d)
        first = self.rows(level, vertices) - level.first_row
        # The cells that read a vertex are consecutive; there are `taps` of them.
        middle = self.interpolation.first_tap + self.interpolation.taps / 2 - 1
        scales = torch.tensor(level.scales, dtype=torch.float64)
        centres = (vertices.double() - middle - level.shift) / scales
        centres = torch.where(torch.tensor(self.periodic), centres.remainder(1.0), centres)
        for dof in range(self.n_dofs):
            places[first + dof] = centres
        return places


def grid_layout(
    n_input_dims: int,
    interpolation: str,
    n_levels: int,
    log2_hashmap_size: int,
    base_resolution: int | Iterable[int],
    per_level_scale: float,
    level_offset: bool = False,
    convention: str = "auto",
    periodic: Iterable[int] = (),
) -> GridLayout:
    """Compute the layout of a grid. The arguments are those of `diffhash.GridEncoding`, which
    checks their sizes.

    Raises:
        ValueError: an interpolation or convention is unknown, the convention does not allow the
            grid, a periodic axis does not exist, the number of base resolutions is wrong, or the
            table has more than 2³¹ - 1 rows.
    """
    base = base_resolutions(base_resolution, n_input_dims)
    stencil = find_interpolation(interpolation)
    settings = (
        int(n_input_dims),
        stencil.name,
        int(n_levels),
        int(log2_hashmap_size),
        base if len({*base}) > 1 else base[0],
        float(per_level_scale),
        bool(level_offset),
    )
    axes = periodic_axes(periodic, n_input_dims)
    resolved = _convention(convention, stencil, base, level_offset, axes)
    return _laid_out((*settings, resolved, axes))


def base_resolutions(value: int | Iterable[int], n_input_dims: int) -> tuple[int, ...]:
    """The base resolution of each axis, from one number or one number for each axis.

    Raises:
        ValueError: there is another number of resolutions, or one is no integer from 1 to 2²⁰.
    """
    each = list(value) if isinstance(value, Iterable) and not isinstance(value, str) else None
    if each is None:
        each = [value] * n_input_dims
    elif len(each) != n_input_dims:
        raise ValueError(
            f"base_resolution={each}: give one number, or one for each of the {n_input_dims} axes"
        )
    return tuple(integer("base_resolution", one, 1, _MAX_BASE) for one in each)


def periodic_axes(periodic: Iterable[int], n_input_dims: int) -> tuple[int, ...]:
    """The numbers of periodic axes, in ascending order.

    Raises:
        ValueError: a number is no integer, occurs twice, or is no axis of the grid.
    """
    try:
        axes = sorted(integer("an axis", axis, 0, n_input_dims - 1) for axis in periodic)
    except (TypeError, ValueError):
        axes = [-1, -1]
    if len({*axes}) < len(axes):
        raise ValueError(
            f"periodic={periodic!r}: give the numbers of axes, each once and from 0 to "
            f"{n_input_dims - 1}, as (0,); none is ()"
        )
    return tuple(axes)


def _convention(
    name: str,
    stencil: Interpolation,
    base: tuple[int, ...],
    level_offset: bool,
    axes: tuple[int, ...],
) -> str:
    """The convention, ``"nested"`` or ``"tcnn"``."""
    if name not in CONVENTIONS:
        raise ValueError(f"layout={name!r} is unknown; choose one of {', '.join(CONVENTIONS)}")
    lacks = [
        what
        for what, is_so in (
            (f"interpolation={stencil.name!r}", stencil.taps > 2),
            ("n_input_dims=1", len(base) == 1),
            (f"base_resolution={base}", len({*base}) > 1),
            ("level_offset=True", level_offset),
            (f"periodic={axes}", bool(axes)),
        )
        if is_so
    ]
    if name == "tcnn" and lacks:
        raise ValueError(
            f"layout='tcnn' has no {lacks[0]}: tiny-cuda-nn's grids interpolate between two "
            "vertices an axis, in 2 or more dimensions, alike on all, without offsets; choose "
            "layout='nested'"
        )
    if name == "auto":
        return "tcnn" if stencil.name in ("linear", "s1") and not lacks else "nested"
    return name


@cache
def _laid_out(settings: Settings) -> GridLayout:
    n_input_dims, name, n_levels, log2_hashmap_size, base, growth, offset, convention, axes = (
        settings
    )
    stencil = find_interpolation(name)
    n_dofs = stencil.dofs**n_input_dims
    bases = base_resolutions(base, n_input_dims)
    periodic = tuple(j in axes for j in range(n_input_dims))
    levels: list[Level] = []
    first_row = 0
    for index in range(n_levels):
        if convention == "tcnn":
            grown = exp2f(float(np.float32(index) * log2f(growth)))
            scales = [float(grown * np.float32(base) - np.float32(1)) for base in bases]
            shift, pad = 0.5, 0
            max_cells = [math.floor(scale + shift) for scale in scales]
            resolutions = [math.ceil(scale) + 1 for scale in scales]
        else:
            # The small term corrects rounding: 1.4^2 · 100 is 196 cells, not 195.
            scales = [float(math.floor(base * growth**index + 1e-6)) for base in bases]
            # Fig. 2: another shift at each level, so that levels do not share their vertices.
            shift = index / n_levels if offset else 0.0
            pad = -stencil.first_tap
            max_cells = [math.ceil(scale + shift) - 1 for scale in scales]  # ends at x = 1
            resolutions = [
                int(scale) if wraps else max_cell + stencil.taps
                for scale, max_cell, wraps in zip(scales, max_cells, periodic, strict=True)
            ]
        dense = math.prod(resolutions)
        vertices = min(-(-dense // 8) * 8, 2**log2_hashmap_size)
        n_rows = vertices * n_dofs
        hashed = vertices < dense
        levels.append(
            Level(
                tuple(scales),
                shift,
                tuple(resolutions),
                tuple(max_cells),
                pad,
                hashed,
                n_rows,
                first_row,
            )
        )
        first_row += n_rows
    if first_row > MAX_ROWS:
        raise ValueError(
            f"the grid needs {first_row} table rows, more than {MAX_ROWS}: lower log2_hashmap_size "
            f"({log2_hashmap_size}), n_levels ({n_levels}) or the resolutions"
        )
    return GridLayout(settings, stencil, periodic, tuple(levels))


def locate(level: Level, x: Tensor, periodic: tuple[int, ...] = ()) -> tuple[Tensor, Tensor]:
    """The cell (int64) and fraction t of coordinates ``x [N, d]`` on one level, ``[N, d]`` each.

    Outside [0, 1] the cell is the nearest cell inside, and t is outside [0, 1): the polynomial of
    the edge cell continues. Coordinates on the axes ``periodic`` are taken modulo 1 first. NaN
    coordinates get cell 0 and t = NaN.
    """
    pos = constant(level.scales, x) * wrapped(x, periodic) + level.shift
    cell = pos.detach().floor().nan_to_num(0.0).clamp_min(0).minimum(constant(level.max_cells, x))
    return cell.to(torch.int64), pos - cell


def wrapped(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Coordinates ``[N, d]``, modulo 1 on the given axes and unchanged on the others."""
    if not axes:
        return x
    wraps = constant(tuple(j in axes for j in range(x.shape[1])), x, torch.bool)
    return x - torch.where(wraps, x.detach().floor(), 0.0)
