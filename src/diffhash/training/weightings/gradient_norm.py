"""Learning-rate annealing (Wang, Teng & Perdikaris, SISC 2021)."""

from __future__ import annotations

from collections.abc import Iterator

from diffhash.optim import Objective, Term
from diffhash.training.weightings.weighting import GradientWeighting, Present


class GradientNorm(GradientWeighting):
    """Terms get weights that make their gradients as large as the equations'.

    λ_i ← β λ_i + (1 - β) max|∇Σ w_r L_r| / mean|∇L_i| every so many steps, where L_r are the
    conditions of the kind residual with their weights w_r, and L_i any other without its weight.
    Maximum and mean are over all parameters; losses are over all points, also with minibatches.

    Args:
        every: steps.
        beta: β, how much of a weight stays.
        conditions: names of those whose weights change; null for all that are not of the kind
            residual.

    Raises:
        ValueError: a number out of range; from `start`, no equation to compare with.
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
