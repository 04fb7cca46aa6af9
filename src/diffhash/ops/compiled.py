"""Gather as `torch.compile` takes it: no graph break, forward and backward.

The compiler does not trace a `torch.autograd.Function` with a jvp. The torch backend's gather is
differentiable as it is, and fuses; a kernel of another backend, and a plan's sparse product,
become opaque operators with their derivatives registered. `torch.func` inside a compiled function
does not take opaque operators: it needs the torch backend.
"""

from __future__ import annotations

from ast import literal_eval
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.library import custom_op

from diffhash.ops.backends import BackendPlan, MultiIndex, load_backend, raised, torch_backend
from diffhash.ops.layout import GridLayout, grid_layout


def gather(
    x: Tensor,
    params: Tensor,
    layout: GridLayout,
    alphas: tuple[MultiIndex, ...],
    backend: str,
) -> Tensor:
    """`diffhash.ops.grid.gather`, differentiable once by the compiler: ``params [R, n_rows·F]``."""
    if backend == "torch":
        table = params.unflatten(1, (layout.n_rows, -1))
        return torch_backend.differentiable_gather(x, table, layout, alphas)
    return _gather(x, params, repr(layout.settings), _flat(alphas), backend)


def planned_gather(params: Tensor, plan: BackendPlan) -> Tensor:
    """`GridPlan.gather`, as `gather`."""
    if not isinstance(plan, torch_backend.Plan):
        return gather(plan.x, params, plan.layout, plan.alphas, plan.backend)
    table = torch_backend.fold(params.unflatten(1, (plan.layout.n_rows, -1)))
    parts = [
        part
        for matrix in (plan.matrix, plan.transpose)
        for part in (matrix.starts, matrix.columns, matrix.values)
    ]
    y = _sparse_product(table, *parts).unflatten(0, (len(plan.alphas), -1))
    return torch_backend.unfold(y, len(plan.layout.levels), len(params))


@cache
def _layout(settings: str) -> GridLayout:
    return grid_layout(*literal_eval(settings))


def _flat(alphas: tuple[MultiIndex, ...]) -> list[int]:
    return [m for alpha in alphas for m in alpha]


def _indices(flat: Sequence[int], d: int) -> tuple[MultiIndex, ...]:
    return tuple(tuple(flat[i : i + d]) for i in range(0, len(flat), d))


@custom_op("diffhash::gather", mutates_args=())
def _gather(
    x: Tensor, params: Tensor, settings: str, alphas: Sequence[int], backend: str
) -> Tensor:
    layout = _layout(settings)
    table = params.unflatten(1, (layout.n_rows, -1))
    return load_backend(backend).gather(x, table, layout, _indices(alphas, x.shape[1]))


@_gather.register_fake
def _(x: Tensor, params: Tensor, settings: str, alphas: Sequence[int], backend: str) -> Tensor:
    layout = _layout(settings)
    n_features = params.shape[1] // layout.n_rows
    columns = len(layout.levels) * n_features
    return x.new_empty(len(params), len(alphas) // x.shape[1], len(x), columns)


@custom_op("diffhash::scatter", mutates_args=())
def _scatter(x: Tensor, g: Tensor, settings: str, alphas: Sequence[int], backend: str) -> Tensor:
    layout = _layout(settings)
    table = load_backend(backend).scatter(x, g, layout, _indices(alphas, x.shape[1]))
    return table.flatten(1).contiguous()


@_scatter.register_fake
def _(x: Tensor, g: Tensor, settings: str, alphas: Sequence[int], backend: str) -> Tensor:
    layout = _layout(settings)
    return g.new_empty(len(g), layout.n_rows * (g.shape[3] // len(layout.levels)))


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, operand, *ctx.rest = inputs
    ctx.save_for_backward(x, operand)


def _gather_backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
    x, params = ctx.saved_tensors
    settings, alphas, backend = ctx.rest
    grad_x = grad_params = None
    if ctx.needs_input_grad[0]:
        d = x.shape[1]
        indices = [_flat(raised(_indices(alphas, d), axis)) for axis in range(d)]
        slopes = [_gather(x, params, settings, flat, backend) for flat in indices]
        grad_x = torch.stack([(g * slope).sum((0, 1, 3)) for slope in slopes], dim=1)
    if ctx.needs_input_grad[1]:
        grad_params = _scatter(x, g, settings, alphas, backend)
    return grad_x, grad_params, None, None, None


_gather.register_autograd(_gather_backward, setup_context=_remember)


@custom_op("diffhash::sparse_product", mutates_args=())
def _sparse_product(
    dense: Tensor,
    starts: Tensor,
    columns: Tensor,
    values: Tensor,
    t_starts: Tensor,
    t_columns: Tensor,
    t_values: Tensor,
) -> Tensor:
    return torch_backend.Csr(starts, columns, values, len(t_starts) - 1) @ dense


@_sparse_product.register_fake
def _(dense: Tensor, starts: Tensor, *rest: Tensor) -> Tensor:
    return dense.new_empty(len(starts) - 1, dense.shape[1])


def _remember_matrix(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[1:])


def _sparse_product_backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
    matrix, transpose = ctx.saved_tensors[:3], ctx.saved_tensors[3:]
    return _sparse_product(g.contiguous(), *transpose, *matrix), *[None] * 6


_sparse_product.register_autograd(_sparse_product_backward, setup_context=_remember_matrix)
