"""The base classes of weightings, which update weights in place after each step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from numbers import Real
from typing import Any, Protocol

import torch
from torch import Tensor

from diffhash.ops.sizes import check_sizes
from diffhash.optim import Objective, Term

_MAX_EVERY = 10**12


def check_kept(**parts: float) -> None:
    """Raise `ValueError` unless each part of a weight that stays is a number in [0, 1)."""
    for name, value in parts.items():
        if not isinstance(value, Real) or not 0 <= value < 1:
            raise ValueError(f"{name}={value}: give a number of at least 0 and less than 1")


class Present(Protocol):
    """The state of training that a weighting can read."""

    @property
    def epoch(self) -> int:
        """The number of completed epochs; the present one is not counted."""
        ...

    def gradient(self, terms: Sequence[Term], weighted: bool = False) -> Tensor:
        """The gradient of Σ mean(w · error²) over these terms and all their points, in all
        parameters, ``[P]``. With ``weighted`` each mean is multiplied by the weight of its term."""
        ...


class Weighting(ABC):
    """Changes the weights of terms, or of their points, while training.

    A subclass defines `update`, which writes into `Term.weight` and `Term.point_weights`: kernels
    and CUDA graphs read them at every step. The weights of a step are computed from the errors of
    the previous step, and the weights of the first step from a pass over all points.

    Args:
        conditions: the names of the conditions whose weights change; None for all equations in the
            domain.

    Attributes:
        reads_errors: whether `update` reads `Term.kept_errors`, which are then kept.
        takes_minibatches: whether `update` works with the errors of only some points.
        weighs_points: whether each point has a weight of its own.
        weighs_others: whether None means all conditions other than equations in the domain.
        epochs_to_reach_all: the number of epochs during which some points have the weight 0
            whatever their errors.
    """

    reads_errors = True
    takes_minibatches = True
    weighs_points = True
    weighs_others = False
    epochs_to_reach_all = 0

    def __init__(self, conditions: Sequence[str] | None = None) -> None:
        self.conditions = conditions
        self.terms: list[Term] = []

    def start(self, objective: Objective) -> None:
        """Choose the terms and make their weights of points, before training.

        Raises:
            ValueError: a named condition does not exist, or cannot be weighed.
        """
        chosen = objective.chosen(self.conditions, but=self.weighs_others)
        self.terms = [objective.terms[index] for index in chosen]
        if self.weighs_points:
            for term in self.terms:
                term.own_point_weights()

    @abstractmethod
    def update(self, present: Present, rows: Mapping[str, Tensor] | None) -> None:
        """Change the weights.

        Args:
            present: the present state of training.
            rows: by the name of each term, the indices of its points in the latest step, since the
                errors of other points are older; None for all points.
        """

    def state(self) -> dict[str, Any]:
        """The values that the next update depends on besides the weights, for a checkpoint."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state`."""
        return None


class GradientWeighting(Weighting):
    """Weights of terms from the terms' gradients: λ_i ← β λ_i + (1 - β) λ̂_i every few steps. A
    subclass defines `_targets`, which gives λ̂.

    Args:
        every: the number of steps between two updates.
        beta: β, the part of a weight that stays.
        conditions: the names of the conditions whose weights change; None for all other than
            equations in the domain.

    Raises:
        ValueError: a number is out of range.
    """

    reads_errors = False
    weighs_points = False
    weighs_others = True

    def __init__(
        self, every: int = 100, beta: float = 0.9, conditions: Sequence[str] | None = None
    ) -> None:
        super().__init__(conditions)
        check_sizes(1, _MAX_EVERY, every=every)
        check_kept(beta=beta)
        self.every, self.beta = every, beta
        self._steps = 0

    @abstractmethod
    def _targets(self, present: Present) -> Iterator[tuple[Term, float]]:
        """λ̂ of each chosen term, except terms whose λ̂ is undefined."""

    def update(self, present: Present, rows: Mapping[str, Tensor] | None) -> None:
        if self._steps % self.every == 0:
            for term, target in self._targets(present):
                term.weight.mul_(self.beta).add_((1 - self.beta) * target)
        self._steps += 1

    def state(self) -> dict[str, Any]:
        return {"steps": self._steps}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self._steps = state["steps"]


class PointWeighting(Weighting):
    """A weighting with a weight for each point, which a subclass sets by `put`."""

    def start(self, objective: Objective) -> None:
        super().start(objective)
        self._given = [_weights(term).clone() for term in self.terms]

    def put(self, index: int, weights: Tensor, rows: Tensor | None = None) -> None:
        """Set the weights of points of the term ``self.terms[index]``.

        The weights that its points were given, such as those of measured values, multiply them.

        Args:
            index: the number of the term in ``self.terms``.
            weights: the weights ``[N]``, or ``[n]`` of the points ``rows``.
            rows: indices of points; None for all.
        """
        to = _weights(self.terms[index])
        given = self._given[index] = self._given[index].to(to.device)
        if rows is None:
            torch.mul(given, weights.to(given), out=to)
        else:
            to.index_copy_(0, rows, given[rows] * weights.to(given))


def _weights(term: Term) -> Tensor:
    assert term.point_weights is not None
    return term.point_weights


def errors_of(term: Term) -> Tensor:
    """|error| of each point, ``[N]``; for several equations the root of the sum of squares."""
    assert term.kept_errors is not None
    return term.kept_errors.double().norm(dim=-1)


def time_of(term: Term, axis: str, low: float, high: float) -> Tensor:
    """The time of each point, ``[N]``, scaled from [low, high] to [0, 1]."""
    column = term.x[: len(term), term.names.axes.index(axis)]
    return ((column - low) / (high - low)).clamp(0, 1)


def time_span(objective: Objective, axis: str) -> tuple[float, float]:
    """The bounds of the domain along the axis of time.

    Raises:
        ValueError: the problem has no such axis.
    """
    domain = objective.problem.domain
    if axis not in domain.axes:
        raise ValueError(f"axis={axis!r}: the problem has the axes {', '.join(domain.axes)}")
    return domain.bounds[domain.axes.index(axis)]
