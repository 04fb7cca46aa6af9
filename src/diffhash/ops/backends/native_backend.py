"""Gather and scatter on a CPU in C, compiled on this machine at the first use."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import Any

import torch
from torch import Tensor

from diffhash.native import C_NAMES, C_TYPES, Argument, call, compiled, n_threads
from diffhash.ops.backends import torch_backend
from diffhash.ops.backends.backend import MultiIndex
from diffhash.ops.layout import GridLayout

_FLOOR = {torch.float32: "__builtin_floorf", torch.float64: "__builtin_floor"}
_MAX_ORDERS = 16  # as in the C source
# A plan stores weights if a point has no more than this number of taps, or the plan no more than
# this number of weights. Larger plans would take as long to read weights as to compute them.
PLANNED_TAPS, PLANNED_WEIGHTS = 16, 2**24
_Points = Tensor | tuple[Tensor, Tensor]  # x, or a plan's rows and weights


def check(layout: GridLayout, dtype: torch.dtype, device: torch.device | None) -> None:
    """See `Backend.check`."""
    if layout.interpolation.step is not None:
        raise ValueError(
            f"interpolation={layout.interpolation.name!r} is not in backend='native': choose "
            "backend='torch'"
        )
    torch_backend.check(layout, dtype, device)
    if device is not None and device.type != "cpu":
        raise ValueError(
            f"backend='native' runs on CPUs, not on {device}: choose backend='triton' or 'torch'"
        )


def prepare(layout: GridLayout, dtype: torch.dtype) -> None:
    """Compile the kernels for a grid.

    Raises:
        CompilerError: there is no C compiler here, or it failed.
    """
    _library(layout, dtype, dtype)


def gather(x: Tensor, table: Tensor, layout: GridLayout, alphas: tuple[MultiIndex, ...]) -> Tensor:
    """See `Backend.gather`."""
    return _gather(x, _n_points(x, layout), table, layout, alphas)


def scatter(x: Tensor, g: Tensor, layout: GridLayout, alphas: tuple[MultiIndex, ...]) -> Tensor:
    """See `Backend.scatter`."""
    return _scatter(x, _n_points(x, layout), g, layout, alphas)


@dataclass(frozen=True)
class NativePlan:
    """The rows and weights of fixed points, or the points alone where that is faster."""

    x: Tensor
    layout: GridLayout
    alphas: tuple[MultiIndex, ...]
    points: _Points
    backend: str = "native"

    @property
    def rows_and_weights(self) -> tuple[Tensor, Tensor] | None:
        """Rows ``[N, L, n_taps]`` and weights ``[N, L, A, n_taps]``; None if not stored."""
        return None if isinstance(self.points, Tensor) else self.points

    def at(self, index: Tensor) -> NativePlan:
        """A plan of some of the points, by their indices."""
        x, points = self.x[index], self.points
        if isinstance(points, Tensor):
            return replace(self, x=x, points=x)
        rows, weights = points
        return replace(self, x=x, points=(rows[index], weights[index]))

    def gather(self, table: Tensor) -> Tensor:
        """See `BackendPlan.gather`."""
        return _gather(self.points, len(self.x), table, self.layout, self.alphas)

    def scatter(self, g: Tensor) -> Tensor:
        """See `BackendPlan.scatter`."""
        return _scatter(self.points, len(self.x), g, self.layout, self.alphas)


def plan(
    x: Tensor, layout: GridLayout, alphas: tuple[MultiIndex, ...], dtype: torch.dtype
) -> NativePlan:
    """See `Backend.plan`; weights are evaluated in the dtype of ``x`` and stored in ``dtype``.

    Points of less precision than float32 are converted to float32.
    """
    if x.is_floating_point() and x.dtype not in C_NAMES:
        x = x.float()
    n_points, n_levels = _n_points(x, layout), len(layout.levels)
    if not keeps_weights(n_points, layout, len(alphas)):
        return NativePlan(x, layout, alphas, x)
    rows = x.new_empty(n_points, n_levels, layout.n_taps, dtype=torch.int32)
    weights = x.new_empty(n_points, n_levels, len(alphas), layout.n_taps, dtype=dtype)
    settings = _grid_settings(
        n_points, 1, 1, layout, alphas, x.dtype, _n_threads(n_points, layout, alphas)
    )
    x_argument, *kept = _arguments(x, rows, weights, n_points, layout, len(alphas), dtype)
    call(_library(layout, dtype, x.dtype).plan, [settings], [x_argument], kept)
    return NativePlan(x, layout, alphas, (rows, weights))


def keeps_weights(n_points: int, layout: GridLayout, n_alphas: int) -> bool:
    """Whether a plan stores the rows and weights of its points, and not the points alone."""
    n_weights = n_points * len(layout.levels) * n_alphas * layout.n_taps
    return layout.n_taps <= PLANNED_TAPS or n_weights <= PLANNED_WEIGHTS


def _n_points(x: Tensor, layout: GridLayout) -> int:
    if x.ndim != 2 or x.shape[1] != layout.n_input_dims or x.dtype not in C_NAMES:
        raise ValueError(
            f"points must be a float32 or float64 tensor of shape [N, {layout.n_input_dims}], "
            f"got {x.dtype} of shape {list(x.shape)}"
        )
    return len(x)


def _arguments(
    x: Tensor | None,
    rows: Tensor | None,
    weights: Tensor | None,
    n_points: int,
    layout: GridLayout,
    n_alphas: int,
    dtype: torch.dtype,
) -> tuple[Argument, Argument, Argument]:
    """The kernels' arguments: the points, or their rows and weights; the others are None."""
    shape = (n_points, len(layout.levels))
    return (
        ("x", x, dtype if x is None else x.dtype, (n_points, layout.n_input_dims)),
        ("a plan's rows", rows, torch.int32, (*shape, layout.n_taps)),
        ("a plan's weights", weights, dtype, (*shape, n_alphas, layout.n_taps)),
    )


@dataclass(frozen=True)
class _Tables:
    """The arrays to which settings have pointers; they must exist as long as the settings."""

    levels: Any
    n_orders: int
    coefficients: Any
    factors: Any
    alphas: Any


class _GridSettings(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in ("n_points", "n_replicas", "n_rows", "n_levels")),
        *((name, ctypes.c_int64) for name in ("n_features", "n_orders", "n_alphas", "n_threads")),
        *((name, ctypes.c_void_p) for name in ("levels", "coefficients", "factors", "alphas")),
    ]


@cache
def _level_type(dtype: torch.dtype, n_input_dims: int) -> type[ctypes.Structure]:
    class Level(ctypes.Structure):
        _fields_ = [
            ("shift", C_TYPES[dtype]),
            *((name, C_TYPES[dtype] * n_input_dims) for name in ("scales", "max_cells")),
            ("resolutions", ctypes.c_int64 * n_input_dims),
            *((name, ctypes.c_int64) for name in ("first_vertex", "n_rows", "first_row")),
            *((name, ctypes.c_int64) for name in ("hashed", "wraps")),
        ]

    return Level


@cache
def _tables(layout: GridLayout, alphas: tuple[MultiIndex, ...], dtype: torch.dtype) -> _Tables:
    stencil = layout.interpolation
    level_type = _level_type(dtype, layout.n_input_dims)
    levels = (level_type * len(layout.levels))()
    for entry, level in zip(levels, layout.levels, strict=True):
        for name in ("shift", "n_rows", "first_row", "hashed"):
            setattr(entry, name, getattr(level, name))
        for name in ("scales", "max_cells", "resolutions"):
            getattr(entry, name)[:] = getattr(level, name)
        entry.first_vertex = level.pad + stencil.first_tap
        entry.wraps = layout.tcnn
    d = layout.n_input_dims
    if any(len(alpha) != d or min(alpha) < 0 for alpha in alphas):
        raise ValueError(f"alphas={alphas}: give {d} derivative orders of at least 0 in each")
    orders = sorted({m for alpha in alphas for m in alpha})
    if len(orders) > _MAX_ORDERS:
        raise ValueError(f"backend='native' takes {_MAX_ORDERS} orders at once, not {len(orders)}")
    # Arrays of ctypes, because tensors would be on torch's default device.
    real, size = C_TYPES[dtype], (stencil.degree + 1) * stencil.columns
    coefficients = (real * (len(orders) * size))()
    for i, m in enumerate(orders):
        for k, polynomial in enumerate(stencil.derivative(m)):
            for power, c in enumerate(polynomial):
                coefficients[i * size + power * stencil.columns + k] = float(c)
    factors = [scale**m for m in orders for level in layout.levels for scale in level.scales]
    indices = [orders.index(m) for alpha in alphas for m in alpha]
    return _Tables(
        levels,
        len(orders),
        coefficients,
        (real * len(factors))(*factors),
        (ctypes.c_int32 * len(indices))(*indices),
    )


@cache
def _library(layout: GridLayout, dtype: torch.dtype, x_dtype: torch.dtype) -> ctypes.CDLL:
    return compiled("grid.c", **kernel_constants(layout, dtype, x_dtype))


def kernel_constants(
    layout: GridLayout, dtype: torch.dtype, x_dtype: torch.dtype
) -> dict[str, str | int]:
    """The constants with which the kernels of a grid are compiled, for the types of table and
    points."""
    return {
        "REAL": C_NAMES[dtype],
        "COORD": C_NAMES[x_dtype],
        "FLOOR": _FLOOR[x_dtype],
        "DIM": layout.n_input_dims,
        "PERIODIC": sum(wraps << j for j, wraps in enumerate(layout.periodic)),
        "TAPS": layout.interpolation.taps,
        "DOFS": layout.interpolation.dofs,
        "COEFFICIENTS": layout.interpolation.degree + 1,
    }


def _gather(
    points: _Points,
    n_points: int,
    table: Tensor,
    layout: GridLayout,
    alphas: tuple[MultiIndex, ...],
) -> Tensor:
    if table.ndim != 3:
        raise ValueError(f"a table must have the shape [R, rows, F], got {list(table.shape)}")
    n_replicas, _, n_features = table.shape
    columns = len(layout.levels) * n_features
    y = table.new_empty(n_replicas, len(alphas), n_points, columns)
    _call("gather", points, n_points, ("the table", table), y, layout, alphas, n_features)
    return y


def _scatter(
    points: _Points, n_points: int, g: Tensor, layout: GridLayout, alphas: tuple[MultiIndex, ...]
) -> Tensor:
    n_levels = len(layout.levels)
    if g.ndim != 4 or g.shape[3] % n_levels:
        raise ValueError(
            f"a gradient must have the shape [R, A, N, {n_levels} F], got {list(g.shape)}"
        )
    n_features = g.shape[3] // n_levels
    table = g.new_zeros(len(g), layout.n_rows, n_features)
    _call("scatter", points, n_points, ("the gradient", g), table, layout, alphas, n_features)
    return table


def _call(
    name: str,
    points: _Points,
    n_points: int,
    source: tuple[str, Tensor],
    result: Tensor,
    layout: GridLayout,
    alphas: tuple[MultiIndex, ...],
    n_features: int,
) -> None:
    if isinstance(points, Tensor):
        x, rows, weights = points, None, None
        dtype = source[1].dtype
        x_dtype = x.dtype
    else:
        x, (rows, weights) = None, points
        dtype = x_dtype = weights.dtype  # any type, because no stencil is computed
    if dtype not in C_NAMES:
        raise ValueError(f"{source[0]} must be float32 or float64, got {dtype}")
    n_replicas, n_alphas = len(source[1]), len(alphas)
    table = (n_replicas, layout.n_rows, n_features)
    jet = (n_replicas, n_alphas, n_points, len(layout.levels) * n_features)
    from_shape, to_shape = (table, jet) if name == "gather" else (jet, table)
    threads = _n_threads(n_points, layout, alphas)
    failed = call(
        getattr(_library(layout, dtype, x_dtype), name),
        [_grid_settings(n_points, n_replicas, n_features, layout, alphas, x_dtype, threads)],
        [
            *_arguments(x, rows, weights, n_points, layout, n_alphas, dtype),
            (*source, dtype, from_shape),
        ],
        [("the result", result, dtype, to_shape)],
    )
    if failed:
        raise MemoryError(f"{name} of {n_points} points")


def _n_threads(n_points: int, layout: GridLayout, alphas: tuple[MultiIndex, ...]) -> int:
    return n_threads(len(alphas) * n_points * len(layout.levels) * layout.n_taps)


@lru_cache(maxsize=256)
def _grid_settings(
    n_points: int,
    n_replicas: int,
    n_features: int,
    layout: GridLayout,
    alphas: tuple[MultiIndex, ...],
    x_dtype: torch.dtype,
    threads: int,
) -> _GridSettings:
    tables = _tables(layout, alphas, x_dtype)
    settings = _GridSettings(
        n_points,
        n_replicas,
        layout.n_rows,
        len(layout.levels),
        n_features,
        tables.n_orders,
        len(alphas),
        threads,
        ctypes.addressof(tables.levels),
        ctypes.addressof(tables.coefficients),
        ctypes.addressof(tables.factors),
        ctypes.addressof(tables.alphas),
    )
    settings.tables = tables  # keeps the arrays as long as the pointers to them
    return settings
