"""What every weighting offers: an update of weights, in place, after each step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from diffhash.ops.sizes import check_sizes
from diffhash.optim import Objective, Term

_MAX_EVERY = 10**12


class Present(Protocol):
    """What a weighting can read of the training."""

    @property
    def epoch(self) -> int:
        """Completed epochs: in minibatches, those before the present one."""
        ...

    def gradient(self, terms: Sequence[Term], weighted: bool = False) -> Tensor:
        """∇ of Σ mean(w · error²) over these terms and all their points, in all parameters ``[P]``;
        with the terms' weights if ``weighted``."""
        ...


class Weighting(ABC):
    """Changes the weights of terms, or of their points, while training.

    A subclass defines `update`, which writes into `Term.weight` and `Term.point_weights`: kernels
    and CUDA graphs read them at every step. The weights of a step follow from the errors of the
    step before; those of the first step from a pass over all points.

    Args:
        conditions: names of those whose weights change; null for all of the kind residual.

    Attributes:
        reads_errors: whether `Term.kept_errors` are wanted.
        takes_minibatches: whether `update` works with the errors of only some points.
        weighs_points: whether each point has a weight of its own.
        weighs_others: whether null means all conditions that are not of the kind residual.
    """

    reads_errors = True
    takes_minibatches = True
    weighs_points = True
    weighs_others = False

    def __init__(self, conditions: Sequence[str] | None = None) -> None:
        self.conditions = conditions
        self.terms: list[Term] = []

    def start(self, objective: Objective) -> None:
        """Before training: choose terms, and make what is to be changed.

        Raises:
            ValueError: conditions that are not there, or that it cannot weigh.
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
            present: the training.
            rows: of each term's points, by its name, that the latest step was taken over: errors of
                others are older; None for all.
        """

    def state(self) -> dict[str, Any]:
        """What the next update depends on besides the weights, for a checkpoint."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        return None


class GradientWeighting(Weighting):
    """Weights of terms that follow the terms' gradients: λ_i ← β λ_i + (1 - β) λ̂_i every so many
    steps. A subclass defines `_targets`, which gives λ̂.

    Args:
        every: steps.
        beta: β, how much of a weight stays.
        conditions: names of those whose weights change; null for all that are not of the kind
            residual.

    Raises:
        ValueError: a number out of range.
    """

    reads_errors = False
    weighs_points = False
    weighs_others = True

    def __init__(
        self, every: int = 100, beta: float = 0.9, conditions: Sequence[str] | None = None
    ) -> None:
        super().__init__(conditions)
        check_sizes(1, _MAX_EVERY, every=every)
        if not 0 <= beta < 1:
            raise ValueError(f"beta={beta}: give a number of at least 0 and less than 1")
        self.every, self.beta = every, beta
        self._steps = 0

    @abstractmethod
    def _targets(self, present: Present) -> Iterator[tuple[Term, float]]:
        """λ̂ of each chosen term that has one."""

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
    """Weights of points."""

    def start(self, objective: Objective) -> None:
        super().start(objective)
        self._given = [_weights(term).clone() for term in self.terms]

    def put(self, index: int, weights: Tensor, rows: Tensor | None = None) -> None:
        """Set weights of the chosen term ``index``; those that its points were given multiply
        them."""
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
    """|error| of each point, ``[N]``; of several equations the root of the sum of squares."""
    assert term.kept_errors is not None
    return term.kept_errors.double().norm(dim=-1)


def time_of(term: Term, axis: str, low: float, high: float) -> Tensor:
    """Time of each point, ``[N]``, as a part of the whole from 0 to 1."""
    column = term.x[: len(term), term.names.axes.index(axis)]
    return ((column - low) / (high - low)).clamp(0, 1)


def time_span(objective: Objective, axis: str) -> tuple[float, float]:
    """From when to when.

    Raises:
        ValueError: the problem has no such axis.
    """
    domain = objective.problem.domain
    if axis not in domain.axes:
        raise ValueError(f"axis={axis!r}: the problem has the axes {', '.join(domain.axes)}")
    return domain.bounds[domain.axes.index(axis)]
