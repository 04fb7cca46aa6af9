"""Gather, scatter and plans as Triton kernels, for CUDA devices.

Gather and scatter are one launch each, whatever the number of levels, multi-indices and replicas;
no row or weight is written to memory. Scatter adds atomically, in an order that varies from run to
run. Under `torch.use_deterministic_algorithms`, and in a plan, it lists the summands of every
vertex and adds them row by row, in a fixed order. The first call for a layout copies its level
tables to the device; afterwards calls can be captured in a CUDA graph.

On a CPU the kernels run in Triton's interpreter, if TRITON_INTERPRET=1 was set when they were
imported. This is slow, and for tests.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from diffhash.ops.backends import torch_backend
from diffhash.ops.backends.backend import MultiIndex
from diffhash.ops.backends.triton_kernels import (
    gather_kernel,
    rows_kernel,
    scatter_kernel,
    segment_kernel,
)
from diffhash.ops.layout import GridLayout

_INTERPRETED = not isinstance(gather_kernel, triton.JITFunction)
# The points of a program, one for each thread.
WARPS = 4
BLOCK = 32 * WARPS
# 32-bit registers of a thread that hold sums over vertices, or gradients.
_REGISTERS = 64
# The largest number of unrolled columns: two axes of a quintic spline.
_UNROLLED = 36
# The largest number of values per feature and replica that are listed at a time, which bounds the
# memory of a reproducible scatter.
LISTED = 2**25


def check(layout: GridLayout, dtype: torch.dtype, device: torch.device | None) -> None:
    """See `Backend.check`."""
    if layout.interpolation.step is not None:
        raise ValueError(
            f"interpolation={layout.interpolation.name!r} is not a product over the axes, which "
            "backend='triton' needs; use backend='torch'"
        )
    torch_backend.check(layout, dtype, device)
    if device is not None and device.type != "cuda" and not _INTERPRETED:
        raise ValueError(
            f"device={str(device)!r}: backend='triton' needs a CUDA device; use backend='torch' "
            "(or set TRITON_INTERPRET=1 to run the kernels in Triton's slow interpreter)"
        )


@cache
def launch_constants(
    layout: GridLayout, alphas: tuple[MultiIndex, ...], n_features: int, dtype: torch.dtype
) -> dict[str, Any]:
    """The constants with which `gather_kernel` and (with ATOMIC) `scatter_kernel` are compiled."""
    stencil = layout.interpolation
    orders = range(max(m for alpha in alphas for m in alpha) + 1)
    unrolled = 1
    while unrolled < layout.n_input_dims and stencil.columns ** (unrolled + 1) <= _UNROLLED:
        unrolled += 1
    if layout.n_input_dims == 4 and unrolled == 3:
        unrolled = 2  # a quadratic spline: with three axes, LLVM aborts in Triton 3.7.1
    # A vector is at most 16 bytes, and aligned if its length divides F.
    budget = max(_REGISTERS * 4 // dtype.itemsize // len(alphas), 1)
    vector = min(n_features & -n_features, 16 // dtype.itemsize, 1 << (budget.bit_length() - 1))
    groups = n_features // vector
    while groups * vector > budget and groups > 1:
        groups = max(i for i in range(1, groups) if groups % i == 0)
    return {
        "ALPHAS": alphas,
        "COLUMNS": stencil.columns,
        "DOFS": stencil.dofs,
        "PERIODIC": layout.periodic,
        "TABLES": tuple(
            tuple(float(c) for c in row) for m in orders for row in stencil.derivative(m)
        ),
        "TCNN": layout.tcnn,
        "F": n_features,
        "VECTOR": vector,
        "GROUPS": groups,
        "BLOCK": BLOCK,
        "UNROLLED": unrolled,
    }


def rows_constants(layout: GridLayout) -> dict[str, Any]:
    """The constants with which `rows_kernel` is compiled."""
    return {
        "COLUMNS": layout.interpolation.columns,
        "DOFS": layout.interpolation.dofs,
        "PERIODIC": layout.periodic,
        "TCNN": layout.tcnn,
        "BLOCK": BLOCK,
    }


def segment_constants(n_features: int, dtype: torch.dtype, chunk: int) -> dict[str, Any]:
    """The constants with which `segment_kernel` is compiled: 32 bytes of sums for each thread."""
    block_f = 1 << (n_features - 1).bit_length()
    tile = max(32 * BLOCK // (dtype.itemsize * block_f), 1)
    chunk = min(chunk, tile)
    return {"F": n_features, "BLOCK_F": block_f, "ROWS": tile // chunk, "CHUNK": chunk}


class _Levels(NamedTuple):
    """The level tables of the kernels."""

    reals: Tensor
    integers: Tensor


@cache
def _levels(layout: GridLayout, dtype: torch.dtype, device: torch.device) -> _Levels:
    # Cached, because a copy to the device would stall it, and could not be captured in a graph.
    reals = [(level.shift, *level.scales, *level.max_cells) for level in layout.levels]
    integers = []
    for level in layout.levels:
        first_vertex = level.pad + layout.interpolation.first_tap
        place = (level.first_row, level.n_rows, first_vertex, level.hashed)
        integers.append((*place, *level.resolutions, *layout.factors(level)))
    with torch.no_grad(), torch.inference_mode(False):
        return _Levels(
            torch.tensor(reals, dtype=dtype, device=device),
            torch.tensor(integers, dtype=torch.int64, device=device),
        )


def launch(kernel: Any, grid: tuple[int, ...], *tensors_and_counts: Any, **constants: Any) -> None:
    """Launch a kernel on the device of the first tensor, which need not be the current device."""
    with torch.cuda.device_of(tensors_and_counts[0]):
        kernel[grid](*tensors_and_counts, **constants, num_warps=WARPS)


def _grid(
    n_points: int, n_levels: int, n_replicas: int, constants: dict[str, Any]
) -> tuple[int, int, int]:
    parts = constants["F"] // (constants["VECTOR"] * constants["GROUPS"])
    return -(-n_points // BLOCK), n_levels, n_replicas * parts


def gather(x: Tensor, table: Tensor, layout: GridLayout, alphas: tuple[MultiIndex, ...]) -> Tensor:
    """See `Backend.gather`."""
    n_replicas, n_rows, n_features = table.shape
    n_levels = len(layout.levels)
    out = table.new_empty(n_replicas, len(alphas), len(x), n_levels * n_features)
    if out.numel():
        constants = launch_constants(layout, alphas, n_features, table.dtype)
        launch(
            gather_kernel,
            _grid(len(x), n_levels, n_replicas, constants),
            x.contiguous(),
            table.contiguous(),
            out,
            *_levels(layout, x.dtype, x.device),
            len(x),
            n_rows,
            **constants,
        )
    return out


def scatter(x: Tensor, g: Tensor, layout: GridLayout, alphas: tuple[MultiIndex, ...]) -> Tensor:
    """See `Backend.scatter`; reproducible under `torch.use_deterministic_algorithms`."""
    if torch.are_deterministic_algorithms_enabled():
        return _sorted_scatter(x, g, layout, alphas, _segments(x, layout))
    n_levels = len(layout.levels)
    out = g.new_zeros(len(g), layout.n_rows, g.shape[3] // n_levels)
    if g.numel():
        _contribute(x, g, out, layout, alphas, (0, n_levels), atomic=True)
    return out


def _contribute(
    x: Tensor,
    g: Tensor,
    out: Tensor,
    layout: GridLayout,
    alphas: tuple[MultiIndex, ...],
    levels: tuple[int, int],
    atomic: bool,
) -> None:
    """Launch `scatter_kernel` for a range of levels."""
    n_levels = len(layout.levels)
    constants = launch_constants(layout, alphas, g.shape[3] // n_levels, g.dtype)
    first, last = levels
    launch(
        scatter_kernel,
        _grid(len(x), last - first, len(g), constants),
        x.contiguous(),
        g.contiguous(),
        out,
        *_levels(layout, x.dtype, x.device),
        len(x),
        layout.n_rows,
        first,
        n_levels,
        **constants,
        ATOMIC=atomic,
    )


class _Segment(NamedTuple):
    """A range of levels whose vertices are listed together and sorted by row.

    The summands of row first_row + i are the listed values ``order[starts[i] : starts[i + 1]]``.
    """

    levels: tuple[int, int]
    first_row: int
    chunk: int  # the number of a row's listed values that are added up at a time
    order: Tensor  # int32
    starts: Tensor  # int64


def _segments(x: Tensor, layout: GridLayout) -> tuple[_Segment, ...]:
    """All levels, in ranges that fit in memory and whose rows have similar numbers of summands."""
    per_level = len(x) * layout.n_taps
    if per_level > torch.iinfo(torch.int32).max:
        raise ValueError(
            f"{len(x)} points touch {per_level} vertices of a level, more than 2^31 - 1 can be "
            "sorted: plan, or scatter reproducibly, fewer points at a time"
        )
    chunks = [_chunk(per_level / level.n_rows) for level in layout.levels]
    segments = []
    first = 0
    for last in range(1, len(chunks) + 1):
        if (
            last == len(chunks)
            or chunks[last] != chunks[first]
            or (last + 1 - first) * per_level > LISTED
        ):
            segments.append(_segment(x, layout, (first, last), chunks[first]))
            first = last
    return tuple(segments)


def _chunk(mean: float) -> int:
    """4, 32 or 256: about the mean number of a row's summands."""
    return 4 if mean < 16 else 32 if mean < 128 else 256


def _segment(x: Tensor, layout: GridLayout, levels: tuple[int, int], chunk: int) -> _Segment:
    first, last = levels
    rows = x.new_empty((last - first) * layout.n_taps * len(x), dtype=torch.int32)
    if len(rows):
        launch(
            rows_kernel,
            (-(-len(x) // BLOCK), last - first),
            x.contiguous(),
            rows,
            *_levels(layout, x.dtype, x.device),
            len(x),
            first,
            **rows_constants(layout),
        )
    ordered, order = rows.sort(stable=True)
    first_row = layout.levels[first].first_row
    end = layout.levels[last - 1].first_row + layout.levels[last - 1].n_rows
    bounds = torch.arange(first_row, end + 1, dtype=torch.int32, device=x.device)
    starts = torch.searchsorted(ordered, bounds)
    return _Segment(levels, first_row, chunk, order.to(torch.int32), starts)


def _sorted_scatter(
    x: Tensor,
    g: Tensor,
    layout: GridLayout,
    alphas: tuple[MultiIndex, ...],
    segments: tuple[_Segment, ...],
) -> Tensor:
    """`scatter` without atomic additions: values are listed, then summed row by row."""
    n_replicas, n_features = len(g), g.shape[3] // len(layout.levels)
    out = g.new_empty(n_replicas, layout.n_rows, n_features)
    if not g.numel():
        return out.zero_()
    for segment in segments:
        n_values, n_rows = len(segment.order), len(segment.starts) - 1
        values = g.new_empty(n_replicas, n_values, n_features)
        _contribute(x, g, values, layout, alphas, segment.levels, atomic=False)
        constants = segment_constants(n_features, g.dtype, segment.chunk)
        launch(
            segment_kernel,
            (-(-n_rows // constants["ROWS"]), n_replicas),
            values,
            segment.order,
            segment.starts,
            out,
            n_values,
            layout.n_rows,
            segment.first_row,
            n_rows,
            **constants,
        )
    return out


@dataclass(frozen=True)
class TritonPlan:
    """Fixed points, and their rows in sorted order for scatter. Gather computes rows and weights
    anew, which is faster than reading them."""

    x: Tensor
    layout: GridLayout
    alphas: tuple[MultiIndex, ...]
    segments: tuple[_Segment, ...]
    backend: str = "triton"

    def gather(self, table: Tensor) -> Tensor:
        """See `BackendPlan.gather`."""
        return gather(self.x, table, self.layout, self.alphas)

    def scatter(self, g: Tensor) -> Tensor:
        """See `BackendPlan.scatter`; reproducible."""
        return _sorted_scatter(self.x, g, self.layout, self.alphas, self.segments)


def plan(
    x: Tensor, layout: GridLayout, alphas: tuple[MultiIndex, ...], dtype: torch.dtype
) -> TritonPlan:
    """See `Backend.plan`; weights are evaluated in the dtype of ``x``, then rounded.

    Raises:
        ValueError: the points read more than 2³¹ - 1 vertices of a level.
    """
    return TritonPlan(x, layout, alphas, _segments(x, layout))
