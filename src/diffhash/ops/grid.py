"""The grid operator: two linear primitives in the table, closed under differentiation.

For a multi-index α (a derivative order per axis), table θ and points x:

    gather   G_α(x)·θ = s_l^|α| Σ_k Π_j B_{k_j}^(α_j)(t_j) · θ[row_l(cell + k)]
    scatter  S_α(x)·g = G_α(x)ᵀ g

    ∂/∂x_j G_α = G_{α+e_j}    ∂/∂θ G_α = S_α    ∂/∂x_j S_α = S_{α+e_j}    ∂/∂g S_α = G_α

so each backward pass is written in the same two primitives, and autograd gives every order in
x, in the table, and in both. Both take several α at once and touch the table once for all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.forward_ad import _set_fwd_grad_enabled, unpack_dual

from diffhash.ops.layout import GridLayout, locate

MultiIndex = tuple[int, ...]


def gather(x: Tensor, params: Tensor, layout: GridLayout, alphas: tuple[MultiIndex, ...]) -> Tensor:
    """G_α(x)·θ for every α: ``x [N, d]``, flat ``params [n_rows·F]`` → ``[A, N, L·F]``."""
    return _Gather.apply(x, params, layout, alphas)


def _stencil(
    x: Tensor, layout: GridLayout, alphas: tuple[MultiIndex, ...]
) -> tuple[Tensor, Tensor]:
    """Rows ``[N, L, K]`` and weights ``[A, N, L, K]`` of the K = taps^d vertices of each point."""
    table = layout.interpolation
    d = layout.n_input_dims
    taps = torch.tensor(list(product(range(table.taps), repeat=d)), device=x.device)  # [K, d]
    rows, weights = [], []
    for level in layout.levels:
        cell, t = locate(level, x)
        rows.append(layout.rows(level, cell[:, None] + taps + table.first_tap))
        # B^(m) of every axis for each order m in use: a product over axes then serves every α.
        axis = {m: table.weights(t, m) for m in {m for alpha in alphas for m in alpha}}
        per_alpha = []
        for alpha in alphas:
            weight = axis[alpha[0]][:, 0, taps[:, 0]]
            for j in range(1, d):
                weight = weight * axis[alpha[j]][:, j, taps[:, j]]
            per_alpha.append(weight * level.scale ** sum(alpha))
        weights.append(torch.stack(per_alpha))
    return torch.stack(rows, dim=1), torch.stack(weights, dim=2)


def _raise(alphas: tuple[MultiIndex, ...], axis: int) -> tuple[MultiIndex, ...]:
    """α + e_axis for every α."""
    return tuple(tuple(m + (j == axis) for j, m in enumerate(alpha)) for alpha in alphas)


def _gradient_in_x(
    x: Tensor, params: Tensor, g: Tensor, layout: GridLayout, alphas: tuple[MultiIndex, ...]
) -> Tensor:
    """∂/∂x_j ⟨g, G_α(x)·θ⟩ = ⟨g, G_{α+e_j}(x)·θ⟩, summed over α; it serves gather and scatter.

    ``g [A, N, L·F]`` → ``[N, d]``.
    """
    columns = [
        (g * gather(x, params, layout, _raise(alphas, axis))).sum(dim=(0, 2))
        for axis in range(layout.n_input_dims)
    ]
    return torch.stack(columns, dim=1)


def _batch_first(in_dims: tuple[int | None, ...], *tensors: Tensor) -> list[Tensor]:
    """Move the dimension that vmap maps over to the front, where a tensor has one."""
    return [
        t if dim is None else t.movedim(dim, 0)
        for t, dim in zip(tensors, in_dims[: len(tensors)], strict=True)
    ]


@contextmanager
def _outer_forward_mode(*saved: Tensor) -> Iterator[list[Tensor]]:
    """The tensors without this level's tangents, with forward mode on for the levels outside.

    torch turns it off while a Function's jvp runs: forward mode over forward mode would then
    give zeros, without an error.
    """
    with _set_fwd_grad_enabled(True):
        yield [unpack_dual(t).primal for t in saved]


class _GridFunction(Function):
    """What gather and scatter remember: the points, and the tensor they are linear in."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, operand, ctx.layout, ctx.alphas = inputs
        ctx.save_for_backward(x, operand)
        ctx.save_for_forward(x, operand)


class _Gather(_GridFunction):
    @staticmethod
    def forward(
        x: Tensor, params: Tensor, layout: GridLayout, alphas: tuple[MultiIndex, ...]
    ) -> Tensor:
        rows, weights = _stencil(x, layout, alphas)
        table = params.view(layout.n_rows, -1)
        vertices = table[rows]  # [N, L, K, F]
        return torch.einsum("anlk,nlkf->anlf", weights, vertices).flatten(2)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (g,) = grads
        x, params = ctx.saved_tensors
        grad_x = grad_params = None
        if ctx.needs_input_grad[0]:
            grad_x = _gradient_in_x(x, params, g, ctx.layout, ctx.alphas)
        if ctx.needs_input_grad[1]:
            grad_params = _Scatter.apply(x, g, ctx.layout, ctx.alphas)
        return grad_x, grad_params, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        dx, dparams = tangents[:2]
        with _outer_forward_mode(*ctx.saved_tensors) as (x, params):
            parts = []
            if dx is not None:
                for axis in range(ctx.layout.n_input_dims):
                    slope = _Gather.apply(x, params, ctx.layout, _raise(ctx.alphas, axis))
                    parts.append(slope * dx[:, axis, None])
            if dparams is not None:
                parts.append(_Gather.apply(x, dparams, ctx.layout, ctx.alphas))
            return sum(parts[1:], parts[0])

    @staticmethod
    def vmap(
        info: Any,
        in_dims: tuple[int | None, ...],
        x: Tensor,
        params: Tensor,
        layout: GridLayout,
        alphas: tuple[MultiIndex, ...],
    ) -> tuple[Tensor, int]:
        x, params = _batch_first(in_dims, x, params)
        if in_dims[1] is None:  # batches of points are more points
            y = gather(x.flatten(0, 1), params, layout, alphas)
            return y.unflatten(1, x.shape[:2]), 1
        if in_dims[0] is None:  # several tables are one with more features
            table = params.unflatten(1, (layout.n_rows, -1)).movedim(0, 1)
            y = gather(x, table.flatten(), layout, alphas)
            y = y.unflatten(2, (len(layout.levels), *table.shape[1:]))
            return y.movedim(3, 0).flatten(3), 0
        pairs = zip(x, params, strict=True)
        return torch.stack([gather(xi, p, layout, alphas) for xi, p in pairs]), 0


class _Scatter(_GridFunction):
    """S: ``x [N, d]``, ``g [A, N, L·F]`` → ``[n_rows·F]``, summed over points and α."""

    @staticmethod
    def forward(x: Tensor, g: Tensor, layout: GridLayout, alphas: tuple[MultiIndex, ...]) -> Tensor:
        rows, weights = _stencil(x, layout, alphas)
        features = g.shape[2] // len(layout.levels)
        g = g.reshape(len(alphas), len(x), len(layout.levels), features)
        contributions = torch.einsum("anlk,anlf->nlkf", weights, g).reshape(-1, features)
        table = g.new_zeros(layout.n_rows, features)
        return table.index_add(0, rows.flatten(), contributions).flatten()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (h,) = grads
        x, g = ctx.saved_tensors
        grad_x = grad_g = None
        if ctx.needs_input_grad[0]:
            grad_x = _gradient_in_x(x, h, g, ctx.layout, ctx.alphas)
        if ctx.needs_input_grad[1]:
            grad_g = _Gather.apply(x, h, ctx.layout, ctx.alphas)
        return grad_x, grad_g, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        dx, dg = tangents[:2]
        with _outer_forward_mode(*ctx.saved_tensors) as (x, g):
            parts = []
            if dx is not None:
                for axis in range(ctx.layout.n_input_dims):
                    raised = _raise(ctx.alphas, axis)
                    parts.append(_Scatter.apply(x, g * dx[:, axis, None], ctx.layout, raised))
            if dg is not None:
                parts.append(_Scatter.apply(x, dg, ctx.layout, ctx.alphas))
            return sum(parts[1:], parts[0])

    @staticmethod
    def vmap(
        info: Any,
        in_dims: tuple[int | None, ...],
        x: Tensor,
        g: Tensor,
        layout: GridLayout,
        alphas: tuple[MultiIndex, ...],
    ) -> tuple[Tensor, int]:
        x, g = _batch_first(in_dims, x, g)
        if in_dims[0] is None:  # gradients of several tables are those of one with more features
            features = g.unflatten(3, (len(layout.levels), -1)).movedim(0, 3)
            table = _Scatter.apply(x, features.flatten(2), layout, alphas)
            return table.view(layout.n_rows, *features.shape[3:]).movedim(1, 0).flatten(1), 0
        gs = g.expand(len(x), *g.shape) if in_dims[1] is None else g
        return torch.stack(
            [_Scatter.apply(xi, gi, layout, alphas) for xi, gi in zip(x, gs, strict=True)]
        ), 0


@dataclass(frozen=True)
class GridPlan:
    """G_α at fixed points, as one sparse matrix: rows and weights are computed once.

    Attributes:
        matrix: CSR ``[A·N·L, n_rows]``.
        transpose: CSR of its transpose, so that the backward pass is a product as well.
    """

    matrix: Tensor
    transpose: Tensor
    shape: tuple[int, int, int]  # A, N, L

    def gather(self, params: Tensor) -> Tensor:
        """The same as `gather` at the plan's points; differentiable in ``params`` alone."""
        n_alphas, n_points, n_levels = self.shape
        table = params.view(self.matrix.shape[1], -1)
        columns = _Planned.apply(table, self.matrix, self.transpose)
        return columns.view(n_alphas, n_points, n_levels * table.shape[1])


def grid_plan(
    x: Tensor, layout: GridLayout, alphas: tuple[MultiIndex, ...], dtype: torch.dtype
) -> GridPlan:
    """Build a `GridPlan`; weights are evaluated in the dtype of ``x`` and stored in ``dtype``.

    Raises:
        ValueError: more than 2³¹ - 1 weights.
    """
    n_weights = len(alphas) * len(x) * len(layout.levels) * layout.n_taps
    if n_weights > torch.iinfo(torch.int32).max:
        raise ValueError(
            f"a plan of {len(x)} points needs {n_weights} weights, more than 2^31 - 1: plan fewer "
            "points, or use jet(x) without a plan"
        )
    rows, weights = _stencil(x, layout, alphas)
    n_alphas, n_points, n_levels, n_taps = weights.shape
    n_rows = n_alphas * n_points * n_levels
    size = (n_rows, layout.n_rows)
    # 32-bit indices: on a CPU they reach the vendor's sparse kernels, 64-bit ones do not.
    columns = rows.expand(n_alphas, -1, -1, -1).reshape(-1)
    starts = torch.arange(0, columns.numel() + 1, n_taps, device=x.device)
    values = weights.reshape(-1).to(dtype)
    # Sorted by column (stable), the same entries are the transpose in CSR form.
    order = torch.argsort(columns, stable=True)
    ends = torch.bincount(columns, minlength=layout.n_rows).cumsum(0)
    t_starts = torch.cat([ends.new_zeros(1), ends])
    return GridPlan(
        _csr(starts, columns, values, size),
        _csr(t_starts, order // n_taps, values[order], size[::-1]),
        (n_alphas, n_points, n_levels),
    )


def _csr(starts: Tensor, columns: Tensor, values: Tensor, size: tuple[int, ...]) -> Tensor:
    return torch.sparse_csr_tensor(
        starts.to(torch.int32), columns.to(torch.int32), values, size, check_invariants=False
    )


class _Planned(Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, matrix: Tensor, transpose: Tensor) -> Tensor:
        ctx.matrix, ctx.transpose = matrix, transpose
        return matrix @ table

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        # The product is linear: its backward is the same function with the roles exchanged.
        return _Planned.apply(grads[0], ctx.transpose, ctx.matrix), None, None
