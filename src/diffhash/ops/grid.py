"""The grid operator: two linear primitives in the table, closed under differentiation.

For a multi-index α (a derivative order per axis), table θ and points x:

    gather   G_α(x)·θ = s_l^|α| Σ_k Π_j B_{k_j}^(α_j)(t_j) · θ[row_l(cell + k)]
    scatter  S_α(x)·g = G_α(x)ᵀ g

    ∂/∂x_j G_α = G_{α+e_j}    ∂/∂θ G_α = S_α    ∂/∂x_j S_α = S_{α+e_j}    ∂/∂g S_α = G_α

so each backward pass is written in the same two primitives, and autograd gives every order in
x, in the table, and in both. Both take several α at once and touch the table once for all of them.
At fixed points both are linear maps, each the other's derivative: a `GridPlan`.

Tables are ``[n_rows·F]``, or ``[R, n_rows·F]`` for R of them over the same points (replicas).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.forward_ad import _set_fwd_grad_enabled, unpack_dual

from diffhash.ops import compiled
from diffhash.ops.backends import BackendPlan, MultiIndex, load_backend, raised
from diffhash.ops.layout import GridLayout

_F = TypeVar("_F", bound=Callable[..., Any])


def gather(
    x: Tensor,
    params: Tensor,
    layout: GridLayout,
    alphas: tuple[MultiIndex, ...],
    backend: str = "torch",
) -> Tensor:
    """G_α(x)·θ for every α: ``x [N, d]``, ``params [(R,) n_rows·F]`` → ``[(R,) A, N, L·F]``."""
    if params.ndim == 1:
        return gather(x, params[None], layout, alphas, backend).squeeze(0)
    load_backend(backend).check(layout, params.dtype, x.device)
    if torch.compiler.is_compiling():
        return compiled.gather(x, params, layout, alphas, backend)
    return _Gather.apply(x, params, layout, alphas, backend)


def scatter(
    x: Tensor,
    g: Tensor,
    layout: GridLayout,
    alphas: tuple[MultiIndex, ...],
    backend: str = "torch",
) -> Tensor:
    """S_α(x)·g, summed over points and α: ``g [(R,) A, N, L·F]`` → ``[(R,) n_rows·F]``."""
    if g.ndim == 3:
        return scatter(x, g[None], layout, alphas, backend).squeeze(0)
    load_backend(backend).check(layout, g.dtype, x.device)
    return _Scatter.apply(x, g, layout, alphas, backend)


@dataclass(frozen=True)
class GridPlan:
    """G_α at fixed points; rows and weights are computed once."""

    plan: BackendPlan

    def gather(self, params: Tensor) -> Tensor:
        """The same as `gather` at the plan's points; differentiable in ``params`` alone."""
        if not torch.compiler.is_compiling():
            return _Planned.apply(params, self.plan, False)
        if params.ndim == 1:
            return compiled.planned_gather(params[None], self.plan).squeeze(0)
        return compiled.planned_gather(params, self.plan)

    def scatter(self, g: Tensor) -> Tensor:
        """The transpose of `gather`: gradients of its result → gradients of ``params``."""
        return _Planned.apply(g, self.plan, True)

    @property
    def rows_and_weights(self) -> tuple[Tensor, Tensor] | None:
        """Rows ``[N, L, T]`` and weights ``[N, L, A, T]``, where a C kernel can read them."""
        return getattr(self.plan, "rows_and_weights", None)


def grid_plan(
    x: Tensor,
    layout: GridLayout,
    alphas: tuple[MultiIndex, ...],
    dtype: torch.dtype,
    backend: str = "torch",
) -> GridPlan:
    """Prepare `gather` of tables of that ``dtype`` at ``x``, which may have another.

    Raises:
        ValueError: more weights than 32-bit indices can address.
    """
    implementation = load_backend(backend)
    implementation.check(layout, dtype, x.device)
    return GridPlan(implementation.plan(x.detach().clone(), layout, alphas, dtype))


def _gradient_in_x(x: Tensor, params: Tensor, g: Tensor, ctx: Any) -> Tensor:
    """∂/∂x_j ⟨g, G_α(x)·θ⟩ = ⟨g, G_{α+e_j}(x)·θ⟩, summed over α; it serves gather and scatter.

    ``params [R, n_rows·F]``, ``g [R, A, N, L·F]`` → ``[N, d]``.
    """
    columns = []
    for axis in range(x.shape[1]):
        slope = _Gather.apply(x, params, ctx.layout, raised(ctx.alphas, axis), ctx.backend)
        columns.append((g * slope).sum(dim=(0, 1, 3)))
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


def _bound_once(forward: _F) -> _F:
    """Keep the signature that `Function.apply` would work out anew at every call."""
    forward.__signature__ = inspect.signature(forward)  # type: ignore[attr-defined]
    return forward


class _GridFunction(Function):
    """What gather and scatter remember: the points, and the tensor they are linear in."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, operand, ctx.layout, ctx.alphas, ctx.backend = inputs
        ctx.save_for_backward(x, operand)
        ctx.save_for_forward(x, operand)


class _Gather(_GridFunction):
    """``params [R, n_rows·F]`` → ``[R, A, N, L·F]``."""

    @staticmethod
    @_bound_once
    def forward(
        x: Tensor,
        params: Tensor,
        layout: GridLayout,
        alphas: tuple[MultiIndex, ...],
        backend: str,
    ) -> Tensor:
        table = params.unflatten(1, (layout.n_rows, -1))
        return load_backend(backend).gather(x, table, layout, alphas)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (g,) = grads
        x, params = ctx.saved_tensors
        grad_x = grad_params = None
        if ctx.needs_input_grad[0]:
            grad_x = _gradient_in_x(x, params, g, ctx)
        if ctx.needs_input_grad[1]:
            grad_params = _Scatter.apply(x, g, ctx.layout, ctx.alphas, ctx.backend)
        return grad_x, grad_params, None, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        dx, dparams = tangents[:2]
        with _outer_forward_mode(*ctx.saved_tensors) as (x, params):
            parts = []
            if dx is not None:
                for axis in range(x.shape[1]):
                    alphas = raised(ctx.alphas, axis)
                    slope = _Gather.apply(x, params, ctx.layout, alphas, ctx.backend)
                    parts.append(slope * dx[:, axis, None])
            if dparams is not None:
                parts.append(_Gather.apply(x, dparams, ctx.layout, ctx.alphas, ctx.backend))
            return sum(parts[1:], parts[0])

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], x: Tensor, params: Tensor, *rest: Any
    ) -> tuple[Tensor, int]:
        x, params = _batch_first(in_dims, x, params)
        if in_dims[1] is None:  # batches of points are more points
            y = _Gather.apply(x.flatten(0, 1), params, *rest)
            return y.unflatten(2, x.shape[:2]), 2
        if in_dims[0] is None:  # batches of tables are more replicas
            y = _Gather.apply(x, params.flatten(0, 1), *rest)
            return y.unflatten(0, params.shape[:2]), 0
        pairs = zip(x, params, strict=True)
        return torch.stack([_Gather.apply(xi, p, *rest) for xi, p in pairs]), 0


class _Scatter(_GridFunction):
    """``g [R, A, N, L·F]`` → ``[R, n_rows·F]``."""

    @staticmethod
    @_bound_once
    def forward(
        x: Tensor,
        g: Tensor,
        layout: GridLayout,
        alphas: tuple[MultiIndex, ...],
        backend: str,
    ) -> Tensor:
        return load_backend(backend).scatter(x, g, layout, alphas).flatten(1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (h,) = grads
        x, g = ctx.saved_tensors
        grad_x = grad_g = None
        if ctx.needs_input_grad[0]:
            grad_x = _gradient_in_x(x, h, g, ctx)
        if ctx.needs_input_grad[1]:
            grad_g = _Gather.apply(x, h, ctx.layout, ctx.alphas, ctx.backend)
        return grad_x, grad_g, None, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        dx, dg = tangents[:2]
        with _outer_forward_mode(*ctx.saved_tensors) as (x, g):
            parts = []
            if dx is not None:
                for axis in range(x.shape[1]):
                    alphas = raised(ctx.alphas, axis)
                    weighted = g * dx[:, axis, None]
                    parts.append(_Scatter.apply(x, weighted, ctx.layout, alphas, ctx.backend))
            if dg is not None:
                parts.append(_Scatter.apply(x, dg, ctx.layout, ctx.alphas, ctx.backend))
            return sum(parts[1:], parts[0])

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], x: Tensor, g: Tensor, *rest: Any
    ) -> tuple[Tensor, int]:
        x, g = _batch_first(in_dims, x, g)
        if in_dims[0] is None:  # gradients of several tables are those of more replicas
            table = _Scatter.apply(x, g.flatten(0, 1), *rest)
            return table.unflatten(0, g.shape[:2]), 0
        gs = g.expand(len(x), *g.shape) if in_dims[1] is None else g
        return torch.stack([_Scatter.apply(xi, gi, *rest) for xi, gi in zip(x, gs, strict=True)]), 0


class _Planned(Function):
    """A plan's gather, or its transpose; linear, so that jvp and vmap are the map itself.

    ``params [R, n_rows·F]`` → ``[R, A, N, L·F]``, or both without R; transposed the other way
    round.
    """

    @staticmethod
    @_bound_once
    def forward(operand: Tensor, plan: BackendPlan, transposed: bool) -> Tensor:
        replicas = operand if _Planned._has_replicas(operand, transposed) else operand[None]
        if transposed:
            result = plan.scatter(replicas).flatten(1)
        else:
            result = plan.gather(replicas.unflatten(1, (plan.layout.n_rows, -1)))
        return result if replicas is operand else result.squeeze(0)

    @staticmethod
    def _has_replicas(operand: Tensor, transposed: bool) -> bool:
        return operand.ndim == (4 if transposed else 2)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, ctx.plan, ctx.transposed = inputs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return _Planned.apply(grads[0], ctx.plan, not ctx.transposed), None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        with _outer_forward_mode():
            return _Planned.apply(tangents[0], ctx.plan, ctx.transposed)

    @staticmethod
    def vmap(
        info: Any,
        in_dims: tuple[int | None, ...],
        operand: Tensor,
        plan: BackendPlan,
        transposed: bool,
    ) -> tuple[Tensor, int]:
        (operand,) = _batch_first(in_dims, operand)
        if not _Planned._has_replicas(operand[0], transposed):  # the batch takes their place
            return _Planned.apply(operand, plan, transposed), 0
        result = _Planned.apply(operand.flatten(0, 1), plan, transposed)
        return result.unflatten(0, operand.shape[:2]), 0
