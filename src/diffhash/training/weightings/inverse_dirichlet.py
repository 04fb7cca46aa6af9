"""Inverse Dirichlet weighting (Maddu, Sturm, Müller & Sbalzarini, 2022)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from diffhash.optim import Objective, Term
from diffhash.training.weightings.weighting import GradientWeighting, Present


class InverseDirichlet(GradientWeighting):
    """Weighs conditions so that their gradients have the same standard deviation.

    λ_i ← β λ_i + (1 - β) max_j std(∇L_j) / std(∇L_i) every few steps, where L_i is the loss of a
    condition without its weight (Machine Learning: Science and Technology 3, 015026, Eq. 10).
    Deviations are over all parameters, and losses are over all points, also with minibatches.

    >>> weighting = InverseDirichlet(every=50)

    Args:
        every: the number of steps between two updates.
        beta: β, the part of a weight that stays.
        conditions: the names of the conditions whose weights change; None for all other than
            equations in the domain.

    Raises:
        ValueError: a number is out of range.
    """

    def __init__(
        self, every: int = 100, beta: float = 0.5, conditions: Sequence[str] | None = None
    ) -> None:
        super().__init__(every, beta, conditions)

    def start(self, objective: Objective) -> None:
        super().start(objective)
        self._all = objective.terms

    def _targets(self, present: Present) -> Iterator[tuple[Term, float]]:
        spreads = {term.name: present.gradient([term]).std() for term in self._all}
        largest = torch.stack(list(spreads.values())).max()
        for term in self.terms:
            if (spread := spreads[term.name]) > 0:  # a ratio to a gradient of 0 is no weight
                yield term, (largest / spread).item()
