"""Jets: a function's values together with chosen derivatives, stacked for one matrix product."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import SupportsIndex

import torch
from torch import Tensor

from diffhash.ops.modes import own_precision

MAX_ORDER = 2
Order = SupportsIndex | Iterable[SupportsIndex]  # along every axis, or one per axis


def jet_orders(order: Order, n_dims: int) -> tuple[int, ...]:
    """The highest derivative order to carry along each axis.

    Raises:
        ValueError: an order outside 0 … 2, or not one per axis.
    """
    try:
        orders = _orders(order, n_dims)
    except TypeError:
        orders = ()
    if len(orders) != n_dims or any(m not in range(MAX_ORDER + 1) for m in orders):
        raise ValueError(
            f"order={order!r}: give one derivative order of 0 to {MAX_ORDER}, "
            f"or one for each of the {n_dims} axes"
        )
    return orders


def _orders(order: Order, n_dims: int) -> tuple[int, ...]:
    """As Python's integers, whatever library they are from."""
    if isinstance(order, int):
        return (order,) * n_dims
    if not isinstance(order, (tuple, list)):
        with suppress(TypeError):
            return (operator.index(order),) * n_dims  # type: ignore[arg-type]
    return tuple(operator.index(m) for m in order)  # type: ignore[union-attr]


def jet_indices(orders: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Multi-indices of a jet's rows: the value, then ∂_j and ∂_jj axis by axis."""
    d = len(orders)
    rows = [(0,) * d]
    for axis, order in enumerate(orders):
        rows += [tuple(m * (j == axis) for j in range(d)) for m in range(1, order + 1)]
    return tuple(rows)


@dataclass(frozen=True)
class Jet:
    """u and its derivatives along the axes at N points: ``data [K, N, C]``, K = 1 + Σ orders.

    Row 0 is the value; then, axis by axis, ∂_j u and (order 2) ∂_jj u. ``orders`` holds the
    highest order carried along each axis. R replicas give ``data [R, K, N, C]``, and a leading R
    everywhere else.
    """

    data: Tensor
    orders: tuple[int, ...]

    @property
    def value(self) -> Tensor:
        """u, ``[N, C]``."""
        return self.data[..., 0, :, :]

    def derivative(self, axis: int, order: int) -> Tensor:
        """∂^order u / ∂x_axis^order, ``[N, C]``.

        Raises:
            ValueError: the jet does not carry that derivative.
        """
        if not 0 <= axis < len(self.orders) or not 0 <= order <= self.orders[axis]:
            raise ValueError(
                f"derivative of order {order} along axis {axis} was not carried: "
                f"orders={self.orders}"
            )
        return self.data[..., 0 if order == 0 else sum(self.orders[:axis]) + order, :, :]


def autograd_jet(f: Callable[[Tensor], Tensor], x: Tensor, orders: tuple[int, ...]) -> Jet:
    """The jet of a pointwise ``f: [N, d] → [.., N, C]`` by nested reverse mode: jets' oracle.

    The result is differentiable in whatever ``f`` closes over, and of the type of f's values, also
    where ``x`` is of a wider one.
    """
    with torch.enable_grad(), own_precision(x):
        x = x.detach().requires_grad_(True)
        value = f(x)
        rows = [value]
        for axis, order in enumerate(orders):
            current = value
            for _ in range(order):
                flat = current.movedim(-2, 0).flatten(1)  # [N, ..C]
                columns = [_gradient(flat[:, c], x)[:, axis] for c in range(flat.shape[1])]
                moved = value.movedim(-2, 0).shape
                current = torch.stack(columns, dim=1).reshape(moved).movedim(0, -2)
                rows.append(current.to(value.dtype))
    return Jet(torch.stack(rows, dim=-3), orders)


def _gradient(y: Tensor, x: Tensor) -> Tensor:
    """Σ_i ∂y_i/∂x; zero where y does not depend on x."""
    if not y.requires_grad:
        return torch.zeros_like(x)
    return torch.autograd.grad(
        y.sum(), x, create_graph=True, allow_unused=True, materialize_grads=True
    )[0]
