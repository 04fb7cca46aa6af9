"""The grid operator: two linear primitives in the table, closed under differentiation.

For a multi-index α (a derivative order per axis), table θ and points x:

    gather   G_α(x)·θ = s_l^|α| Σ_k Π_j B_{k_j}^(α_j)(t_j) · θ[row_l(cell + k)]
    scatter  S_α(x)·g = G_α(x)ᵀ g

    ∂/∂x_j G_α = G_{α+e_j}    ∂/∂θ G_α = S_α    ∂/∂x_j S_α = S_{α+e_j}    ∂/∂g S_α = G_α

so each backward pass is written in the same two primitives, and autograd gives every order in
x, in the table, and in both. Both take several α at once and read or write the table once for all
of them. At fixed points (`GridPlan`) they are linear maps, and each is the other's transpose.

Tables are ``[n_rows·F]``, or ``[R, n_rows·F]`` for R of them over the same points (replicas).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.forward_ad import _set_fwd_grad_enabled, unpack_dual

from diffhash.ops import operators
from diffhash.ops.backends import BackendPlan, MultiIndex, increment_order, load_backend
from diffhash.ops.layout import GridLayout
from diffhash.ops.modes import is_recorded

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
    if is_recorded():
        return operators.differentiable_gather(x, params, layout, alphas, backend)
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
    if is_recorded():
        return operators.differentiable_scatter(x, g, layout, alphas, backend)
    return _Scatter.apply(x, g, layout, alphas, backend)


@dataclass(frozen=True)
class GridPlan:
    """G_α at fixed points; rows and weights are computed once."""

    plan: BackendPlan
    number: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "number", operators.number_of(self.plan))

    def __reduce__(self) -> tuple[Any, ...]:
        return GridPlan, (self.plan,)

    def gather(self, params: Tensor) -> Tensor:
        """The same as `gather` at the plan's points; differentiable in ``params`` alone."""
        if params.ndim == 1:
            return self.gather(params[None]).squeeze(0)
        if is_recorded():
            return operators.differentiable_planned_gather(params, self.plan)
        return _Planned.apply(params, self, False)

    def scatter(self, g: Tensor) -> Tensor:
        """The transpose of `gather`: gradients of its result → gradients of ``params``."""
        if g.ndim == 3:
            return self.scatter(g[None]).squeeze(0)
        return _Planned.apply(g, self, True)

    def move(self, x: Tensor, dtype: torch.dtype) -> None:
        """Move to as many other points, in the same memory; ``dtype`` is the table's."""
        of = self.plan
        moved = load_backend(of.backend).plan(
            x.detach().to(of.x.dtype), of.layout, of.alphas, dtype
        )
        for old, new in zip(_tensors(of), _tensors(moved), strict=True):
            old.copy_(new)

    def at(self, index: Tensor) -> GridPlan:
        """A plan of some of the points, by their indices; the plan must have `rows_and_weights`."""
        return GridPlan(self.plan.at(index))  # type: ignore[attr-defined]

    @property
    def rows_and_weights(self) -> tuple[Tensor, Tensor] | None:
        """Rows ``[N, L, T]`` and weights ``[N, L, A, T]`` for a C kernel; None if the plan does not
        store them."""
        return getattr(self.plan, "rows_and_weights", None)


def _tensors(part: object) -> Iterator[Tensor]:
    """The tensors of a backend's plan; their shapes depend on the number of points alone."""
    if isinstance(part, Tensor):
        yield part
    elif isinstance(part, tuple):
        for one in part:
            yield from _tensors(one)
    elif is_dataclass(part) and not isinstance(part, GridLayout):
        for one in fields(part):
            yield from _tensors(getattr(part, one.name))


def grid_plan(
    x: Tensor,
    layout: GridLayout,
    alphas: tuple[MultiIndex, ...],
    dtype: torch.dtype,
    backend: str = "torch",
) -> GridPlan:
    """Prepare `gather` at points ``x`` for tables of ``dtype``; ``x`` may have another dtype.

    Raises:
        ValueError: the plan has more weights than 32-bit indices can address.
    """
    implementation = load_backend(backend)
    implementation.check(layout, dtype, x.device)
    return GridPlan(implementation.plan(x.detach().clone(), layout, alphas, dtype))


@contextmanager
def _outer_forward_mode(*saved: Tensor) -> Iterator[list[Tensor]]:
    """The saved tensors without the tangents of this level of forward mode, in a context in which
    forward mode is on for the outer levels.

    torch turns forward mode off while a Function's jvp runs: forward mode over forward mode would
    then give zeros, without an error.
    """
    with _set_fwd_grad_enabled(True):
        yield [unpack_dual(t).primal for t in saved]


class _Bound(inspect.BoundArguments):
    def apply_defaults(self) -> None:
        pass  # there are no defaults


class _Positional(inspect.Signature):
    """The signature of a function that is called with all arguments by position."""

    def bind(self, *args: Any) -> inspect.BoundArguments:  # type: ignore[override]
        return _Bound(self, dict(zip(self.parameters, args, strict=True)))  # type: ignore[arg-type]


def _cache_signature(forward: _F) -> _F:
    """Cache the signature, which `Function.apply` would otherwise determine at every call."""
    parameters = list(inspect.signature(forward).parameters.values())
    forward.__signature__ = _Positional(parameters)  # type: ignore[attr-defined]
    return forward


class _GridFunction(Function):
    """Saves the inputs of gather and scatter: the points, and the tensor in which they are
    linear."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, operand, ctx.layout, ctx.alphas, ctx.backend = inputs
        ctx.save_for_backward(x, operand)
        ctx.save_for_forward(x, operand)


def _gradient_in_x(x: Tensor, params: Tensor, g: Tensor, ctx: Any) -> Tensor:
    def call(x: Tensor, params: Tensor, alphas: tuple[MultiIndex, ...]) -> Tensor:
        return _Gather.apply(x, params, ctx.layout, alphas, ctx.backend)

    return operators.gradient_in_points(call, x, params, g, ctx.alphas)


class _Gather(_GridFunction):
    """``params [R, n_rows·F]`` → ``[R, A, N, L·F]``."""

    @staticmethod
    @_cache_signature
    def forward(
        x: Tensor,
        params: Tensor,
        layout: GridLayout,
        alphas: tuple[MultiIndex, ...],
        backend: str,
    ) -> Tensor:
        return operators.gather(x, params, layout, alphas, backend)

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
                    alphas = increment_order(ctx.alphas, axis)
                    slope = _Gather.apply(x, params, ctx.layout, alphas, ctx.backend)
                    parts.append(slope * dx[:, axis, None].to(slope.dtype))
            if dparams is not None:
                parts.append(_Gather.apply(x, dparams, ctx.layout, ctx.alphas, ctx.backend))
            return sum(parts[1:], parts[0])

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], x: Tensor, params: Tensor, *rest: Any
    ) -> tuple[Tensor, int]:
        call = lambda x, params: _Gather.apply(x, params, *rest)  # noqa: E731
        return operators.batched_gather(call, in_dims, x, params)


class _Scatter(_GridFunction):
    """``g [R, A, N, L·F]`` → ``[R, n_rows·F]``."""

    @staticmethod
    @_cache_signature
    def forward(
        x: Tensor,
        g: Tensor,
        layout: GridLayout,
        alphas: tuple[MultiIndex, ...],
        backend: str,
    ) -> Tensor:
        return operators.scatter(x, g, layout, alphas, backend)

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
                    alphas = increment_order(ctx.alphas, axis)
                    weighted = g * dx[:, axis, None].to(g.dtype)
                    parts.append(_Scatter.apply(x, weighted, ctx.layout, alphas, ctx.backend))
            if dg is not None:
                parts.append(_Scatter.apply(x, dg, ctx.layout, ctx.alphas, ctx.backend))
            return sum(parts[1:], parts[0])

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], x: Tensor, g: Tensor, *rest: Any
    ) -> tuple[Tensor, int]:
        call = lambda x, g: _Scatter.apply(x, g, *rest)  # noqa: E731
        return operators.batched_scatter(call, in_dims, x, g)


class _Planned(Function):
    """A plan's gather, or its transpose; linear, so that jvp and vmap are the map itself.

    ``params [R, n_rows·F]`` → ``[R, A, N, L·F]``; the transpose maps in the other direction.
    """

    @staticmethod
    @_cache_signature
    def forward(operand: Tensor, plan: GridPlan, transposed: bool) -> Tensor:
        return operators.planned(operand, plan.number, transposed)

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
        plan: GridPlan,
        transposed: bool,
    ) -> tuple[Tensor, int]:
        call = lambda operand: _Planned.apply(operand, plan, transposed)  # noqa: E731
        return operators.batched_planned(call, in_dims, operand)
