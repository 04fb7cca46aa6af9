"""A task: which errors, over which points, make the loss."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from diffhash.ops.jet import Jet

ErrorFunction = Callable[[Tensor, Jet, Tensor], Tensor]  # (x, jet of u, target) → [N, ·]


class Term(nn.Module):
    """One part of the loss: weight · mean(error(x, u, target)²) over fixed points.

    Args:
        name: in the history, e.g. ``"residual"``.
        x: points ``[N, d]``, float64.
        target: what the error compares with at each point, ``[N, ·]``.
        orders: derivatives of u that ``error`` reads, per axis.
        error: pointwise error.
        weight: of this term; a buffer, so that it can change while training.

    Raises:
        ValueError: the weight is negative or not finite.
    """

    x: Tensor
    target: Tensor
    weight: Tensor

    def __init__(
        self,
        name: str,
        x: Tensor,
        target: Tensor,
        orders: tuple[int, ...],
        error: ErrorFunction,
        weight: float,
    ) -> None:
        super().__init__()
        if not 0 <= weight < float("inf"):
            raise ValueError(f"{name}_weight={weight}: give a finite number of at least 0")
        self.name = name
        self.orders = orders
        self.error = error
        # All float64, whatever the precision of training: plans use the points exactly.
        self.register_buffer("x", x, persistent=False)
        self.register_buffer("target", target, persistent=False)
        self.register_buffer("weight", torch.tensor(weight, dtype=torch.float64), persistent=False)

    def __len__(self) -> int:
        return len(self.x)


class Task(nn.Module):
    """A weighted sum of terms.

    Args:
        terms: in the order of the history's columns.
    """

    def __init__(self, terms: Iterable[Term]) -> None:
        super().__init__()
        self._terms = nn.ModuleList(terms)

    @property
    def terms(self) -> list[Term]:
        """The parts of the loss."""
        return [term for term in self._terms if isinstance(term, Term)]

    def loss(self, jets: Sequence[Jet], rows: Sequence[Tensor] | None = None) -> Tensor:
        """Σ_i weight_i · mean(error_i²), a scalar.

        Args:
            jets: of u at each term's points.
            rows: the points of each term that ``jets`` were taken at; all of them if None.
        """
        total = None
        for index, (term, jet) in enumerate(zip(self.terms, jets, strict=True)):
            x, target = term.x, term.target
            if rows is not None:
                x, target = x[rows[index]], target[rows[index]]
            dtype = jet.data.dtype
            error = term.error(x.to(dtype), jet, target.to(dtype))
            part = term.weight.to(dtype) * error.square().mean()
            total = part if total is None else total + part
        assert total is not None
        return total


def at_least_one(**counts: int) -> None:
    """Raise `ValueError` for a point count below 1."""
    for name, n in counts.items():
        if n < 1:
            raise ValueError(f"{name}={n}: give at least 1")
