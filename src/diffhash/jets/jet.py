"""Jets: a function's values together with chosen derivatives, stacked for one matrix product."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from diffhash.jets.rows import Names, Row, Rows, Sum, default_names, expanded, jet_rows
from diffhash.ops.backends import MultiIndex
from diffhash.ops.modes import own_precision

_CLOSE = 1e-6  # the distance of a close point, relative to the points' extent


@dataclass(frozen=True)
class Jet:
    """u and derivatives of it at N points: ``data [K, N, C]``, one row for each of ``rows``.

    R replicas give ``data [R, K, N, C]``, and a leading R everywhere else. ``jet[1, 1]`` is
    ∂²u/∂x∂y of every component, ``[N, C]``; any row is read likewise, as ``jet[row]``.
    ``jet["u_xy"]`` is the derivative of the component u alone, ``[N]``.

    >>> rows = ((0, 0), (1, 0), (2, 0))
    >>> jet = Jet(torch.randn(3, 10, 2), rows, Names(("x", "t"), ("u", "v")))
    >>> jet.value.shape, jet[2, 0].shape, jet["v_xx"].shape
    (torch.Size([10, 2]), torch.Size([10, 2]), torch.Size([10]))

    Args:
        data: the values of every row.
        rows: multi-indices and sums, in the order of `jet_rows`.
        names: the names of axes and components; None for x, y, z, t and u (u0, u1 … for several).
    """

    data: Tensor
    rows: tuple[Row, ...]
    names: Names | None = None

    @property
    def value(self) -> Tensor:
        """The value u, ``[N, C]``."""
        return self.data[..., 0, :, :]

    def only(self, rows: tuple[Row, ...]) -> Jet:
        """The jet of these rows alone, in their order."""
        return Jet(torch.stack([self[row] for row in rows], dim=-3), rows, self.names)

    def __getitem__(self, row: str | Row) -> Tensor:
        """A derivative, by its name or its row.

        Raises:
            KeyError: the jet does not have this derivative.
            ValueError: the name is no derivative's.
        """
        component, asked = None, row
        if isinstance(row, str):
            names = self.names or default_names(_n_dims(self.rows), self.data.shape[-1])
            component, row = names.find(row)
        position = _positions(self.rows).get(row)
        if position is None:
            names = self.names or default_names(_n_dims(self.rows), self.data.shape[-1])
            have = ", ".join(_called(row, names) for row in self.rows)
            asked = asked if isinstance(asked, str) else _called(row, names)
            raise KeyError(f"the jet has no {asked}: it was made of {have}")
        data = self.data[..., position, :, :]
        return data if component is None else data[..., component]


def _called(row: Any, names: Names) -> str:
    """A row as text: the name of that derivative of the first unknown, if it has a name."""
    if isinstance(row, Sum) or not isinstance(row, tuple) or len(row) != len(names.axes):
        return str(row)
    letters = "".join(axis * m for axis, m in zip(names.axes, row, strict=True))
    return f"{names.unknowns[0]}_{letters}" if letters else names.unknowns[0]


def _n_dims(rows: tuple[Row, ...]) -> int:
    first = rows[0]
    assert not isinstance(first, Sum)
    return len(first)


@cache
def _positions(rows: tuple[Row, ...]) -> dict[Row, int]:
    return {row: position for position, row in enumerate(rows)}


def combined(data: Tensor, rows: tuple[Row, ...]) -> Tensor:
    """Rows as weighted sums of multi-indices' derivatives: ``[.., A, n, m] → [.., K, n, m]``."""
    return _summed(data, expanded(rows)[1])


def combined_gradient(gradient: Tensor, rows: tuple[Row, ...]) -> Tensor:
    """The transpose of `combined`: ``[.., K, n, m] → [.., A, n, m]``."""
    matrix = expanded(rows)[1]
    return _summed(gradient, matrix and tuple(zip(*matrix, strict=True)))


def _summed(data: Tensor, matrix: tuple[tuple[float, ...], ...] | None) -> Tensor:
    if matrix is None:
        return data
    parts, lines = data.unbind(-3), []
    for weights in matrix:
        terms = [w * part if w != 1 else part for w, part in zip(weights, parts, strict=True) if w]
        lines.append(sum(terms[1:], terms[0]) if terms else torch.zeros_like(parts[0]))
    return torch.stack(lines, dim=-3)


def autograd_jet(f: Callable[[Tensor], Tensor], x: Tensor, rows: Rows) -> Jet:
    """The jet of a pointwise ``f: [N, d] → [.., N, C]`` by nested reverse mode: a reference.

    The result is differentiable in all tensors from which ``f`` computes its values, and has the
    type of these values, also if the type of ``x`` is wider. There is no limit of the order.

    >>> jet = autograd_jet(lambda x: x[:, :1] ** 3, torch.tensor([[2.0]]), "u_xx")
    >>> jet.rows, jet.data.flatten().tolist()
    (((0,), (1,), (2,)), [8.0, 12.0, 12.0])

    Args:
        f: the function, such as a `Field`, whose names of axes and unknowns then apply.
        x: points ``[N, d]``.
        rows: the derivatives, as `jet_rows` takes them. The jet carries those below them as well.

    Raises:
        ValueError: a row is no derivative in d axes, or ``x`` has another shape.
    """
    if x.ndim != 2:
        raise ValueError(f"x has the shape {list(x.shape)}; give points [N, d]")
    names = getattr(f, "names", None)
    names = names if isinstance(names, Names) else None
    rows = jet_rows(rows, x.shape[1], names)
    alphas, _ = expanded(rows)
    with torch.enable_grad(), own_precision(x):
        x = x.detach().requires_grad_(True)
        found = {(0,) * x.shape[1]: f(x)}
        value = found[(0,) * x.shape[1]]
        stack = [_derivative(found, alpha, x) for alpha in alphas]
        data = torch.stack([row.to(value.dtype) for row in stack], dim=-3)
    return Jet(combined(data, rows), rows, names)


def varies(f: Callable[[Tensor], Tensor], x: Tensor, value: Tensor) -> bool:
    """Whether ``f`` has other values close to most of the points ``x [N, d]`` than its ``value`` at
    them. This is not so for a step function. If such an ``f`` has no graph, autograd's derivatives
    would be wrong, namely 0."""
    if not len(x):
        return False
    x = x.detach()
    close = x + _CLOSE * (x.amax(dim=0) - x.amin(dim=0))
    return (f(close) != value).double().mean().item() > 0.5


def _derivative(found: dict[MultiIndex, Tensor], alpha: MultiIndex, x: Tensor) -> Tensor:
    """∂^α, from the derivatives in ``found``, to which it is added."""
    if alpha not in found:
        axis = max(j for j, m in enumerate(alpha) if m)
        lower = _derivative(found, tuple(m - (j == axis) for j, m in enumerate(alpha)), x)
        flat = lower.movedim(-2, 0).flatten(1)  # [N, ..C]
        columns = [_gradient(flat[:, c], x)[:, axis] for c in range(flat.shape[1])]
        moved = lower.movedim(-2, 0).shape
        found[alpha] = torch.stack(columns, dim=1).reshape(moved).movedim(0, -2)
    return found[alpha]


def _gradient(y: Tensor, x: Tensor) -> Tensor:
    """Σ_i ∂y_i/∂x; zero where y does not depend on x."""
    if not y.requires_grad:
        return torch.zeros_like(x)
    return torch.autograd.grad(
        y.sum(), x, create_graph=True, allow_unused=True, materialize_grads=True
    )[0]
