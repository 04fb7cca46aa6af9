"""Gather, scatter and plans in plain torch: any device, float32 and float64.

`diffhash.ops.reference` is a readable version of the same computation. Here all levels are computed
together, and the points are the last dimension of every intermediate tensor, because CPUs are fast
on long vectors.

On a CPU, gather is a sparse product: the weights of N points are a CSR matrix ``[A·N·L, n_rows]``
with (taps · dofs)^d entries a row, and no table rows are copied. Scatter adds up one feature at a
time, which is faster on a CPU than rows of features. A plan also has the transpose of the matrix,
so that scatter is a product as well.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from diffhash.ops.backends.backend import MultiIndex
from diffhash.ops.constants import constant
from diffhash.ops.interpolation import differentiate, evaluate
from diffhash.ops.layout import GridLayout, Level, wrapped
from diffhash.ops.modes import own_precision

# The number of weights of a block of points: large enough for the overhead of a call not to matter,
# small enough for the caches and, with many points, for the memory.
_BLOCK = 2**18


def check(layout: GridLayout, dtype: torch.dtype, device: torch.device | None) -> None:
    """Raise `ValueError` unless the dtype is float32 or float64."""
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(f"dtype={dtype}: allowed are torch.float32 and torch.float64")


def gather(x: Tensor, table: Tensor, layout: GridLayout, alphas: tuple[MultiIndex, ...]) -> Tensor:
    """See `Backend.gather`."""
    points = _blocks(x, layout, len(alphas))
    if x.device.type != "cpu":
        blocks = [differentiable_gather(block, table, layout, alphas) for block in points]
    else:
        blocks = []
        folded = fold(table)
        for block in points:
            rows, weights = _stencil(block, layout, alphas, table.dtype)
            y = torch.stack([m @ folded for m in _matrices(rows, weights, layout)])
            blocks.append(unfold(y, len(layout.levels), len(table)))
    return blocks[0] if len(blocks) == 1 else torch.cat(blocks, dim=2)


def differentiable_gather(
    x: Tensor, table: Tensor, layout: GridLayout, alphas: tuple[MultiIndex, ...]
) -> Tensor:
    """`gather` by operations that torch's own autograd and compiler can differentiate."""
    rows, weights = _stencil(x, layout, alphas, table.dtype)
    vertices = table[:, rows.to(torch.int64)]  # [R, K, L, N, F]
    with own_precision(x):
        return torch.einsum("akln,rklnf->ranlf", torch.stack(weights), vertices).flatten(3)


def scatter(x: Tensor, g: Tensor, layout: GridLayout, alphas: tuple[MultiIndex, ...]) -> Tensor:
    """See `Backend.scatter`."""
    n_levels = len(layout.levels)
    n_replicas, n_features = g.shape[0], g.shape[3] // n_levels
    g = g.unflatten(3, (n_levels, n_features))
    columns = g.permute(0, 4, 1, 3, 2).flatten(0, 1).contiguous()  # [R·F, A, L, N]
    sums = g.new_zeros(len(columns), layout.n_rows)
    first = 0
    for block in _blocks(x, layout, len(alphas)):
        rows, weights = _stencil(block, layout, alphas, g.dtype)
        flat_rows = rows.flatten().to(torch.int64)
        for column, total in zip(columns[..., first : first + len(block)], sums, strict=True):
            contributions = weights[0] * column[0]
            for weight, values in zip(weights[1:], column[1:], strict=True):
                contributions.addcmul_(weight, values)
            total.scatter_add_(0, flat_rows, contributions.flatten())
        first += len(block)
    return sums.unflatten(0, (n_replicas, n_features)).transpose(1, 2).contiguous()


@dataclass(frozen=True)
class Csr:
    """A sparse matrix with 32-bit indices, as a CPU's vendor kernels require."""

    starts: Tensor
    columns: Tensor
    values: Tensor
    n_columns: int

    @cached_property
    def tensor(self) -> Tensor:
        """The matrix as torch's own type, which `torch.compile` does not support."""
        size = (len(self.starts) - 1, self.n_columns)
        parts = (self.starts, self.columns, self.values)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
            return torch.sparse_csr_tensor(*parts, size, check_invariants=False)

    def __reduce__(self) -> tuple[Any, ...]:
        return Csr, (self.starts, self.columns, self.values, self.n_columns)

    def __matmul__(self, dense: Tensor) -> Tensor:
        # In place into new memory, because torch's own product fills its result with zeros twice.
        result = dense.new_empty(len(self.starts) - 1, dense.shape[1])
        with own_precision(dense):
            return result.addmm_(self.tensor, dense, beta=0)


@dataclass(frozen=True)
class TorchPlan:
    """G_α at fixed points as one sparse matrix ``[A·N·L, n_rows]``; its transpose for S_α."""

    x: Tensor
    layout: GridLayout
    alphas: tuple[MultiIndex, ...]
    matrix: Csr
    transpose: Csr
    backend: str = "torch"

    def gather(self, table: Tensor) -> Tensor:
        """See `BackendPlan.gather`."""
        y = (self.matrix @ fold(table)).unflatten(0, (len(self.alphas), -1))
        return unfold(y, len(self.layout.levels), len(table))

    def scatter(self, g: Tensor) -> Tensor:
        """See `BackendPlan.scatter`."""
        n_levels = len(self.layout.levels)
        n_replicas, n_features = g.shape[0], g.shape[3] // n_levels
        rows = g.unflatten(3, (n_levels, n_features)).permute(1, 2, 3, 0, 4)
        sums = self.transpose @ rows.reshape(-1, n_replicas * n_features)
        return sums.unflatten(1, (n_replicas, n_features)).transpose(0, 1)


def plan(
    x: Tensor, layout: GridLayout, alphas: tuple[MultiIndex, ...], dtype: torch.dtype
) -> TorchPlan:
    """See `Backend.plan`; weights are evaluated in the dtype of ``x`` and stored in ``dtype``.

    Raises:
        ValueError: there are more than 2³¹ - 1 weights.
    """
    n_weights = len(alphas) * len(x) * len(layout.levels) * layout.n_taps
    if n_weights > torch.iinfo(torch.int32).max:
        raise ValueError(
            f"a plan of {len(x)} points needs {n_weights} weights, more than 2^31 - 1: plan fewer "
            "points, or use jet(x) without a plan"
        )
    rows, weights = _stencil(x, layout, alphas, dtype)
    matrices = _matrices(rows, weights, layout)
    columns = torch.cat([m.columns for m in matrices])
    values = torch.cat([m.values for m in matrices])
    starts = _arange(len(columns), layout.n_taps, x.device)
    # Sorted stably by column, the same entries are the transpose in CSR form.
    order = torch.argsort(columns, stable=True)
    ends = torch.bincount(columns, minlength=layout.n_rows).cumsum(0)
    t_starts = torch.cat([ends.new_zeros(1), ends]).to(torch.int32)
    t_columns = (order // layout.n_taps).to(torch.int32)
    return TorchPlan(
        x,
        layout,
        alphas,
        Csr(starts, columns, values, layout.n_rows),
        Csr(t_starts, t_columns, values[order], len(starts) - 1),
    )


def _blocks(x: Tensor, layout: GridLayout, n_alphas: int) -> Iterator[Tensor]:
    """Points in blocks of about `_BLOCK` weights; one empty block if there are none."""
    per_point = n_alphas * len(layout.levels) * layout.n_taps
    return iter(x.split(max(1, _BLOCK // per_point)))


def _stencil(
    x: Tensor, layout: GridLayout, alphas: tuple[MultiIndex, ...], dtype: torch.dtype
) -> tuple[Tensor, list[Tensor]]:
    """The K rows (int32) of each point and level, and their weights for each α: ``[K, L, N]`` each.

    Weights are evaluated in the dtype of ``x``, and then converted to ``dtype``.
    """
    levels = layout.levels
    shift = constant(tuple(level.shift for level in levels), x)[:, None]
    scale = _by_axis(tuple(level.scales for level in levels), x)
    max_cell = _by_axis(tuple(level.max_cells for level in levels), x)
    # The same as `layout.locate`, for all levels: cell and t are [d, L, N].
    pos = torch.addcmul(shift, wrapped(x, layout.periodic_axes).T[:, None], scale)
    cell = pos.detach().floor().nan_to_num(0.0).clamp_min(0).minimum(max_cell)
    weights = [weight.to(dtype) for weight in _weights(pos - cell, layout, alphas)]
    return _rows(cell.to(torch.int64), layout), weights


def _by_axis(numbers: tuple[tuple[float, ...], ...], like: Tensor) -> Tensor:
    """Numbers of each level and axis, ``[L][d]`` → ``[d, L, 1]``."""
    return constant(tuple(zip(*numbers, strict=True)), like)[..., None]


def _rows(cell: Tensor, layout: GridLayout) -> Tensor:
    """`GridLayout.rows` for all vertices of a cell's stencil: ``[d, L, N]`` → ``[K, L, N]``."""
    n = layout.n_dense
    parts = []
    if n:
        parts.append(_dense_rows(cell[:, :n], layout, layout.levels[:n]))
    if n < len(layout.levels):
        parts.append(_hashed_rows(cell[:, n:], layout, layout.levels[n:]))
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def _steps(cell: Tensor, layout: GridLayout, levels: tuple[Level, ...]) -> Tensor:
    """Each axis' summand of a row, or of its hash: ``[d, L, N]`` → ``[columns, d, L, N]``."""
    stencil, axes = layout.interpolation, range(layout.n_input_dims)
    first = constant(tuple(level.pad + stencil.first_tap for level in levels), cell)
    taps = constant(tuple(c // stencil.dofs for c in range(stencil.columns)), cell)
    vertices = (cell + first[:, None]) + taps[:, None, None, None]
    if any(layout.periodic):
        period = _by_axis(tuple(level.resolutions for level in levels), cell)
        periodic = constant(layout.periodic, cell, torch.bool)[:, None, None]
        vertices = torch.where(periodic, vertices % period, vertices)
    steps = vertices * _by_axis(tuple(layout.factors(level) for level in levels), cell)
    if stencil.dofs > 1:
        columns = range(stencil.columns)
        dofs = tuple(tuple(c % stencil.dofs * stencil.dofs**j for j in axes) for c in columns)
        steps = steps + constant(dofs, cell)[..., None, None]
    return steps


def _dense_rows(cell: Tensor, layout: GridLayout, levels: tuple[Level, ...]) -> Tensor:
    first_row = constant(tuple(level.first_row for level in levels), cell, torch.int32)[:, None]
    steps = _steps(cell, layout, levels).to(torch.int32)
    rows = _over_axes(steps.unbind(1), torch.add)
    if layout.tcnn:  # the last vertex wraps around, once
        n_rows = constant(tuple(level.n_rows for level in levels), cell, torch.int32)[:, None]
        rows = torch.where(rows >= n_rows, rows - n_rows, rows)
    return rows + first_row


def _hashed_rows(cell: Tensor, layout: GridLayout, levels: tuple[Level, ...]) -> Tensor:
    # A hashed level has a power of two of rows: the remainder is a mask, applied before the xor.
    mask = levels[0].n_rows - 1
    hashes = (_steps(cell, layout, levels) & mask).to(torch.int32)
    rows = _over_axes(hashes.unbind(1), torch.bitwise_xor)
    return rows + constant(tuple(level.first_row for level in levels), cell, torch.int32)[:, None]


def _weights(t: Tensor, layout: GridLayout, alphas: tuple[MultiIndex, ...]) -> list[Tensor]:
    """s_l^|α| ∂^α of the weights, for each α: ``t [d, L, N]`` → ``[K, L, N]``."""
    scales = {
        m: _by_axis(tuple(tuple(s**m for s in level.scales) for level in layout.levels), t)
        for m in sorted({m for alpha in alphas for m in alpha})
    }
    totals: list[Tensor] = []
    for factor, table in layout.interpolation.separable:
        # s^m P^(m) of every axis for each order m in use; their products give every α's weights.
        axes = {m: evaluate(differentiate(table, m), t) for m in scales}
        axes = {m: axis * scales[m] if m else axis for m, axis in axes.items()}
        for i, alpha in enumerate(alphas):
            term = _over_axes([axes[m][:, j] for j, m in enumerate(alpha)], torch.mul)
            if factor != 1:
                term = term * float(factor)
            if i == len(totals):
                totals.append(term)
            else:
                totals[i] = totals[i] + term
    return totals


def _over_axes(axes: Sequence[Tensor], combine: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Combine d tensors ``[C, ...]`` to ``[C^d, ...]``: every choice of a column for each axis,
    with axis 0 slowest."""
    result = axes[0]
    for axis in axes[1:]:
        result = combine(result[:, None], axis).flatten(0, 1)
    return result


def _matrices(rows: Tensor, weights: list[Tensor], layout: GridLayout) -> list[Csr]:
    """For each α, the matrix ``[N·L, n_rows]`` of a stencil."""
    columns = rows.permute(2, 1, 0).flatten()
    starts = _arange(len(columns), layout.n_taps, rows.device)
    values = [weight.permute(2, 1, 0).flatten() for weight in weights]
    return [Csr(starts, columns, v, layout.n_rows) for v in values]


def _arange(end: int, step: int, device: torch.device) -> Tensor:
    return torch.arange(0, end + 1, step, device=device, dtype=torch.int32)


def fold(table: Tensor) -> Tensor:
    """Replicas side by side, as more features: ``[R, n_rows, F]`` → ``[n_rows, R·F]``."""
    return table.transpose(0, 1).reshape(table.shape[1], -1)


def unfold(y: Tensor, n_levels: int, n_replicas: int) -> Tensor:
    """The inverse for results: ``[A, N·L, R·F]`` → ``[R, A, N, L·F]``."""
    y = y.unflatten(1, (-1, n_levels)).unflatten(3, (n_replicas, -1))
    return y.permute(3, 0, 1, 2, 4).flatten(3)
