"""Learning-rate annealing (Wang, Teng & Perdikaris, SISC 2021)."""

from __future__ import annotations

from collections.abc import Iterator

from diffhash.optim import Objective, Term
from diffhash.training.weightings.weighting import GradientWeighting, Present


class GradientNorm(GradientWeighting):
    """Weighs conditions so that their gradients are as large as the gradient of the equations.

    λ_i ← β λ_i + (1 - β) max|∇Σ w_r L_r| / mean|∇L_i| every few steps, where L_r are the losses of
    the equations in the domain with their weights w_r, and L_i that of another condition without
    its weight. Maximum and mean are over all parameters, and losses are over all points, also with
    minibatches.

    >>> weighting = GradientNorm(every=50)

    Args:
        every: the number of steps between two updates.
        beta: β, the part of a weight that stays.
        conditions: the names of the conditions whose weights change; None for all other than
            equations in the domain.

    Raises:
        ValueError: a number is out of range. `start` raises it if there is no equation to compare
            with.
    """

    def start(self, objective: Objective) -> None:
        super().start(objective)
        residuals = [objective.terms[index] for index in objective.chosen(None)]
        self._residuals = [term for term in residuals if term not in self.terms]
        if not self._residuals:
            raise ValueError(
                f"conditions={self.conditions}: of the equations one must keep its weight, for the "
                "others to be compared with"
            )

    def _targets(self, present: Present) -> Iterator[tuple[Term, float]]:
        largest = present.gradient(self._residuals, weighted=True).abs().max().item()
        for term in self.terms:
            mean = present.gradient([term]).abs().mean().item()
            if mean > 0:  # a ratio to a gradient of 0 is no weight
                yield term, largest / mean
