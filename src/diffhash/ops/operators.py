"""Gather, scatter and plans as operators of torch's dispatcher: ``diffhash::gather`` and others.

Backends read and write memory directly, which torch cannot trace. As operators they work with all
of torch's transforms: compilers and tracers record them, fake tensors get their shapes, vmap
batches them, and views with a negative bit are resolved first. Each is registered once, and
`diffhash.ops.grid` uses it both in eager execution and under `torch.compile`.

The compiler does not trace a `torch.autograd.Function` with a jvp, so the operators have their
derivatives registered here, too. The torch backend's gather consists of differentiable operations,
which the compiler fuses. Forward mode inside a compiled function needs that backend.
"""

from __future__ import annotations

from ast import literal_eval
from collections.abc import Callable
from functools import cache
from itertools import count
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor
from torch.library import Library, register_autograd, register_vmap

from diffhash.ops.backends import (
    BackendPlan,
    MultiIndex,
    increment_order,
    load_backend,
    torch_backend,
)
from diffhash.ops.layout import GridLayout, grid_layout

_LIBRARY = Library("diffhash", "FRAGMENT")
# The last argument is one text with the table's settings, the multi-indices, and the backend. The
# dispatcher handles a text faster than lists.
_GRID = "str of"


def gather(
    x: Tensor,
    params: Tensor,
    layout: GridLayout,
    alphas: tuple[MultiIndex, ...],
    backend: str,
) -> Tensor:
    """``params [R, n_rows·F]`` → ``[R, A, N, L·F]``, without autograd."""
    with torch._C._AutoDispatchBelowAutograd():
        return _gather(x, params, _text(layout, alphas, backend))


def scatter(
    x: Tensor,
    g: Tensor,
    layout: GridLayout,
    alphas: tuple[MultiIndex, ...],
    backend: str,
) -> Tensor:
    """``g [R, A, N, L·F]`` → ``[R, n_rows·F]``, without autograd."""
    with torch._C._AutoDispatchBelowAutograd():
        return _scatter(x, g, _text(layout, alphas, backend))


def planned(operand: Tensor, plan: int, transposed: bool) -> Tensor:
    """`gather` of a plan, or `scatter` if ``transposed``, without autograd."""
    with torch._C._AutoDispatchBelowAutograd():
        return _planned(operand, plan, transposed)


def differentiable_gather(
    x: Tensor,
    params: Tensor,
    layout: GridLayout,
    alphas: tuple[MultiIndex, ...],
    backend: str,
) -> Tensor:
    """`gather`, differentiable by compilers and tracers."""
    if backend == "torch":
        table = params.unflatten(1, (layout.n_rows, -1))
        return torch_backend.differentiable_gather(x, table, layout, alphas)
    return _gather(x, params, _uncached_text(layout, alphas, backend))


def differentiable_scatter(
    x: Tensor,
    g: Tensor,
    layout: GridLayout,
    alphas: tuple[MultiIndex, ...],
    backend: str,
) -> Tensor:
    """`scatter`, differentiable by compilers and tracers."""
    return _scatter(x, g, _uncached_text(layout, alphas, backend))


def differentiable_planned_gather(params: Tensor, plan: BackendPlan) -> Tensor:
    """`planned`, differentiable by compilers and tracers."""
    if not isinstance(plan, torch_backend.TorchPlan):
        return differentiable_gather(plan.x, params, plan.layout, plan.alphas, plan.backend)
    table = torch_backend.fold(params.unflatten(1, (plan.layout.n_rows, -1)))
    parts = [
        part
        for matrix in (plan.matrix, plan.transpose)
        for part in (matrix.starts, matrix.columns, matrix.values)
    ]
    y = _sparse_product(table, *parts).unflatten(0, (len(plan.alphas), -1))
    return torch_backend.unfold(y, len(plan.layout.levels), len(params))


def batched_gather(
    call: Callable[[Tensor, Tensor], Tensor],
    in_dims: tuple[int | None, ...],
    x: Tensor,
    params: Tensor,
) -> tuple[Tensor, int]:
    """vmap of a gather ``call(x, params)``: the result, and its batch dimension."""
    x, params = batch_first(in_dims, x, params)
    if in_dims[1] is None:  # a batch of points is a longer list of points
        return call(x.flatten(0, 1), params).unflatten(2, x.shape[:2]), 2
    if in_dims[0] is None:  # a batch of tables is a table with more replicas
        return call(x, params.flatten(0, 1)).unflatten(0, params.shape[:2]), 0
    return torch.stack([call(xi, p) for xi, p in zip(x, params, strict=True)]), 0


def batched_scatter(
    call: Callable[[Tensor, Tensor], Tensor],
    in_dims: tuple[int | None, ...],
    x: Tensor,
    g: Tensor,
) -> tuple[Tensor, int]:
    """vmap of a scatter ``call(x, g)``: the result, and its batch dimension."""
    x, g = batch_first(in_dims, x, g)
    if in_dims[0] is None:  # a batch of gradients has more replicas
        return call(x, g.flatten(0, 1)).unflatten(0, g.shape[:2]), 0
    gs = g.expand(len(x), *g.shape) if in_dims[1] is None else g
    return torch.stack([call(xi, gi) for xi, gi in zip(x, gs, strict=True)]), 0


def batched_planned(
    call: Callable[[Tensor], Tensor], in_dims: tuple[int | None, ...], operand: Tensor
) -> tuple[Tensor, int]:
    """vmap of a plan's ``call`` on operands with replicas: the result, and its batch dimension."""
    (operand,) = batch_first(in_dims, operand)
    return call(operand.flatten(0, 1)).unflatten(0, operand.shape[:2]), 0


def batch_first(in_dims: tuple[int | None, ...], *tensors: Tensor) -> list[Tensor]:
    """Move the dimension over which vmap maps to the front of each tensor that has one."""
    return [
        t if dim is None else t.movedim(dim, 0)
        for t, dim in zip(tensors, in_dims[: len(tensors)], strict=True)
    ]


_PLANS: WeakValueDictionary[int, BackendPlan] = WeakValueDictionary()
_NUMBERS = count()


def number_of(plan: BackendPlan) -> int:
    """Register a plan, and return a number by which operators find it while it exists."""
    number = next(_NUMBERS)
    _PLANS[number] = plan
    return number


def _plan_of(number: int) -> BackendPlan:
    plan = _PLANS.get(number)
    if plan is None:
        raise RuntimeError(
            "what was traced reads a plan that exists no more: keep the plan, or trace jet(x)"
        )
    return plan


def _uncached_text(layout: GridLayout, alphas: tuple[MultiIndex, ...], backend: str) -> str:
    return repr((layout.settings, alphas, backend))


_text = cache(_uncached_text)


@cache
def _read(text: str) -> tuple[GridLayout, tuple[MultiIndex, ...], str]:
    settings, alphas, backend = literal_eval(text)
    return grid_layout(*settings), alphas, backend


def _operator(
    name: str, arguments: str, kernel: Callable[..., Tensor], fake: Callable[..., Tensor]
) -> Any:
    _LIBRARY.define(f"{name}({arguments}) -> Tensor")
    _LIBRARY.impl(name, kernel, "CompositeExplicitAutograd")
    _LIBRARY.impl(name, fake, "Meta")  # register_fake would do, but searches all modules
    return getattr(torch.ops.diffhash, name).default


def _gather_kernel(x: Tensor, params: Tensor, of: str) -> Tensor:
    layout, alphas, backend = _read(of)
    table = params.unflatten(1, (layout.n_rows, -1))
    return load_backend(backend).gather(x, table, layout, alphas).contiguous()


def _gather_fake(x: Tensor, params: Tensor, of: str) -> Tensor:
    layout, alphas, _ = _read(of)
    columns = params.shape[1] // layout.n_rows * len(layout.levels)
    return params.new_empty(params.shape[0], len(alphas), x.shape[0], columns)


def _scatter_kernel(x: Tensor, g: Tensor, of: str) -> Tensor:
    layout, alphas, backend = _read(of)
    return load_backend(backend).scatter(x, g, layout, alphas).flatten(1).contiguous()


def _scatter_fake(x: Tensor, g: Tensor, of: str) -> Tensor:
    layout, _, _ = _read(of)
    n_features = g.shape[3] // len(layout.levels)
    return g.new_empty(g.shape[0], layout.n_rows * n_features)


def _planned_kernel(operand: Tensor, plan: int, transposed: bool) -> Tensor:
    of = _plan_of(plan)
    if transposed:
        return of.scatter(operand).flatten(1).contiguous()
    return of.gather(operand.unflatten(1, (of.layout.n_rows, -1))).contiguous()


def _planned_fake(operand: Tensor, plan: int, transposed: bool) -> Tensor:
    of = _plan_of(plan)
    n_rows, n_levels = of.layout.n_rows, len(of.layout.levels)
    if transposed:
        return operand.new_empty(operand.shape[0], n_rows * (operand.shape[3] // n_levels))
    columns = operand.shape[1] // n_rows * n_levels
    return operand.new_empty(operand.shape[0], len(of.alphas), of.x.shape[0], columns)


def _sparse_product_kernel(
    dense: Tensor,
    starts: Tensor,
    columns: Tensor,
    values: Tensor,
    t_starts: Tensor,
    t_columns: Tensor,
    t_values: Tensor,
) -> Tensor:
    return torch_backend.Csr(starts, columns, values, len(t_starts) - 1) @ dense


def _sparse_product_fake(dense: Tensor, starts: Tensor, *rest: Tensor) -> Tensor:
    return dense.new_empty(starts.shape[0] - 1, dense.shape[1])


_gather = _operator("gather", f"Tensor x, Tensor params, {_GRID}", _gather_kernel, _gather_fake)
_scatter = _operator("scatter", f"Tensor x, Tensor g, {_GRID}", _scatter_kernel, _scatter_fake)
_planned = _operator(
    "planned", "Tensor operand, int plan, bool transposed", _planned_kernel, _planned_fake
)
_MATRICES = (
    "Tensor starts, Tensor columns, Tensor values, "
    "Tensor t_starts, Tensor t_columns, Tensor t_values"
)
_sparse_product = _operator(
    "sparse_product", f"Tensor dense, {_MATRICES}", _sparse_product_kernel, _sparse_product_fake
)


def gradient_in_points(
    call: Callable[..., Tensor],
    x: Tensor,
    params: Tensor,
    g: Tensor,
    alphas: tuple[MultiIndex, ...],
) -> Tensor:
    """∂/∂x_j ⟨g, G_α(x)·θ⟩ = ⟨g, G_{α+e_j}(x)·θ⟩, summed over α; it serves gather and scatter.

    ``call(x, params, alphas)`` gathers; ``params [R, n_rows·F]``, ``g [R, A, N, L·F]`` →
    ``[N, d]``.
    """
    columns = []
    for axis in range(x.shape[1]):
        slope = call(x, params, increment_order(alphas, axis))
        columns.append((g * slope).sum(dim=(0, 1, 3)))
    return torch.stack(columns, dim=1).to(x.dtype)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, operand, ctx.of = inputs
    ctx.save_for_backward(x, operand)


def _backward(ctx: Any, g: Tensor, scatters: bool) -> tuple[Tensor | None, ...]:
    """The backward pass of gather or scatter; each is the derivative of the other in the operand in
    which that is linear."""
    x, operand = ctx.saved_tensors
    layout, alphas, backend = _read(ctx.of)
    grad_x = grad_operand = None
    if ctx.needs_input_grad[0]:
        params, grads = (g, operand) if scatters else (operand, g)

        def call(x: Tensor, params: Tensor, alphas: tuple[MultiIndex, ...]) -> Tensor:
            return differentiable_gather(x, params, layout, alphas, backend)

        grad_x = gradient_in_points(call, x, params, grads, alphas)
    if ctx.needs_input_grad[1]:
        grad_operand = (_gather if scatters else _scatter)(x, g, ctx.of)
    return grad_x, grad_operand, None


def _gather_backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
    return _backward(ctx, g, scatters=False)


def _scatter_backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
    return _backward(ctx, g, scatters=True)


def _remember_plan(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, ctx.plan, ctx.transposed = inputs


def _planned_backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
    return _planned(g, ctx.plan, not ctx.transposed), None, None


def _remember_matrix(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[1:])


def _sparse_product_backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
    matrix, transpose = ctx.saved_tensors[:3], ctx.saved_tensors[3:]
    return _sparse_product(g.contiguous(), *transpose, *matrix), *[None] * 6


for _name, _of, _setup in (
    ("gather", _gather_backward, _remember),
    ("scatter", _scatter_backward, _remember),
    ("planned", _planned_backward, _remember_plan),
    ("sparse_product", _sparse_product_backward, _remember_matrix),
):
    register_autograd(f"diffhash::{_name}", _of, setup_context=_setup, lib=_LIBRARY)


def _gather_vmap(
    info: Any, in_dims: tuple[int | None, ...], x: Tensor, params: Tensor, of: str
) -> tuple[Tensor, int]:
    return batched_gather(lambda x, params: _gather(x, params, of), in_dims, x, params)


def _scatter_vmap(
    info: Any, in_dims: tuple[int | None, ...], x: Tensor, g: Tensor, of: str
) -> tuple[Tensor, int]:
    return batched_scatter(lambda x, g: _scatter(x, g, of), in_dims, x, g)


def _planned_vmap(
    info: Any, in_dims: tuple[int | None, ...], operand: Tensor, *rest: Any
) -> tuple[Tensor, int]:
    return batched_planned(lambda operand: _planned(operand, *rest), in_dims, operand)


register_vmap("diffhash::gather", _gather_vmap, lib=_LIBRARY)
register_vmap("diffhash::scatter", _scatter_vmap, lib=_LIBRARY)
register_vmap("diffhash::planned", _planned_vmap, lib=_LIBRARY)
