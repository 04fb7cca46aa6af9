"""A task: which errors, over which points, make the loss."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from diffhash.ops.jet import Jet

ErrorFunction = Callable[[Tensor, Jet, Tensor], Tensor]  # (x, jet of u, target) → [.., N, ·]


class Term(nn.Module):
    """One part of the loss: weight · mean(error(x, u, target)²) over fixed points.

    Args:
        name: in the history, e.g. ``"residual"``.
        x: points ``[N, d]``, float64.
        target: what the error compares with at each point, ``[N, ·]``.
        orders: derivatives of u that ``error`` reads, per axis.
        error: pointwise error.
        coefficients: c where the error is Σ_k c_k ∂_k u - target over the rows k of the jet,
            ``[K, N, ·]``; None where it is not linear in u.
        weight: of this term; a buffer, so that it can change while training.

    Raises:
        ValueError: the weight is negative or not finite.
    """

    x: Tensor
    target: Tensor
    weight: Tensor
    coefficients: Tensor | None
    fraction = 1.0  # of the points whose mean this is a part of

    def __init__(
        self,
        name: str,
        x: Tensor,
        target: Tensor,
        orders: tuple[int, ...],
        error: ErrorFunction,
        weight: float,
        coefficients: Tensor | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= weight < float("inf"):
            raise ValueError(f"{name}_weight={weight}: give a finite number of at least 0")
        self.name = name
        self.orders = orders
        self.error = error
        # All float64, whatever the precision of training: plans use the points exactly.
        self._converted = x, target
        self.register_buffer("coefficients", coefficients, persistent=False)
        self.register_buffer("x", x, persistent=False)
        self.register_buffer("target", target, persistent=False)
        self.register_buffer("weight", torch.tensor(weight, dtype=torch.float64), persistent=False)

    def __len__(self) -> int:
        return len(self.x)

    def in_dtype(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Points and targets in the precision of training; converted once."""
        x, target = self._converted
        if x.dtype != dtype or x.device != self.x.device:
            self._converted = x, target = self.x.to(dtype), self.target.to(dtype)
        return x, target

    def share(self, index: int, count: int) -> Term:
        """Every ``count``-th point from ``index`` on, as a part of the same mean.

        The weight is this term's own, also when it changes.

        Raises:
            ValueError: fewer points than shares.
        """
        if len(self) < count:
            raise ValueError(
                f"devices={count}: the term {self.name} has {len(self)} points, each device needs "
                "at least one"
            )
        part = copy.copy(self)
        part._buffers = dict(self._buffers)
        part.x, part.target = self.x[index::count], self.target[index::count]
        if self.coefficients is not None:
            part.coefficients = self.coefficients[:, index::count]
        part._converted = part.x, part.target
        part.fraction = len(part) / len(self)
        return part


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

    def share(self, index: int, count: int) -> Task:
        """Part ``index`` of ``count``: their losses, and gradients, add up to this task's.

        Raises:
            ValueError: a term has fewer points than there are parts.
        """
        return Task([term.share(index, count) for term in self.terms])

    def loss(self, jets: Sequence[Jet], rows: Sequence[Tensor] | None = None) -> Tensor:
        """Σ_i weight_i · mean(error_i²): a scalar, or ``[R]`` for replicas.

        Args:
            jets: of u at each term's points.
            rows: the points of each term that ``jets`` were taken at; all of them if None.
        """
        total = None
        for index, (term, jet) in enumerate(zip(self.terms, jets, strict=True)):
            x, target = term.in_dtype(jet.data.dtype)
            if rows is not None:
                x, target = x[rows[index]], target[rows[index]]
            error = term.error(x, jet, target)
            part = term.weight.to(jet.data.dtype) * error.square().mean(dim=(-2, -1))
            if term.fraction != 1:
                part = term.fraction * part
            total = part if total is None else total + part
        assert total is not None
        return total


def at_least_one(**counts: int) -> None:
    """Raise `ValueError` for a point count below 1."""
    for name, n in counts.items():
        if n < 1:
            raise ValueError(f"{name}={n}: give at least 1")
