"""Learning-rate annealing (Wang, Teng & Perdikaris, SISC 2021)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from diffhash.ops.sizes import check_sizes
from diffhash.optim import Objective
from diffhash.training.weightings.weighting import Present, Weighting

_MAX_EVERY = 10**12


class GradientNorm(Weighting):
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

    def start(self, objective: Objective) -> None:
        super().start(objective)
        residuals = [objective.terms[index] for index in objective.chosen(None)]
        self._residuals = [term for term in residuals if term not in self.terms]
        if not self._residuals:
            raise ValueError(
                f"conditions={self.conditions}: of the equations one must keep its weight, for the "
                "others to be compared with"
            )

    def update(self, present: Present, rows: Mapping[str, Tensor] | None) -> None:
        if self._steps % self.every == 0:
            largest = present.gradient(self._residuals, weighted=True).abs().max().item()
            for term in self.terms:
                mean = present.gradient([term]).abs().mean().item()
                if mean > 0:  # else nothing would come of any weight
                    term.weight.mul_(self.beta).add_((1 - self.beta) * largest / mean)
        self._steps += 1

    def state(self) -> dict[str, Any]:
        return {"steps": self._steps}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self._steps = state["steps"]
