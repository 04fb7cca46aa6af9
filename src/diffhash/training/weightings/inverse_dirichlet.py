"""Inverse Dirichlet weighting (Maddu, Sturm, Müller & Sbalzarini, 2022)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from diffhash.ops.sizes import check_sizes
from diffhash.optim import Objective
from diffhash.training.weightings.weighting import Present, Weighting

_MAX_EVERY = 10**12


class InverseDirichlet(Weighting):
    """Terms get weights that make the spread of their gradients alike.

    λ_i ← β λ_i + (1 - β) max_j std(∇L_j) / std(∇L_i) every so many steps, with L_i without its
    weight (Machine Learning: Science and Technology 3, 015026, Eq. 10). Deviations are over all
    parameters; losses are over all points, also with minibatches.

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
        self, every: int = 100, beta: float = 0.5, conditions: Sequence[str] | None = None
    ) -> None:
        super().__init__(conditions)
        check_sizes(1, _MAX_EVERY, every=every)
        if not 0 <= beta < 1:
            raise ValueError(f"beta={beta}: give a number of at least 0 and less than 1")
        self.every, self.beta = every, beta
        self._steps = 0

    def start(self, objective: Objective) -> None:
        super().start(objective)
        self._all = objective.terms

    def update(self, present: Present, rows: Mapping[str, Tensor] | None) -> None:
        if self._steps % self.every == 0:
            spreads = {term.name: present.gradient([term]).std() for term in self._all}
            largest = torch.stack(list(spreads.values())).max()
            for term in self.terms:
                if (spread := spreads[term.name]) > 0:  # else nothing would come of any weight
                    term.weight.mul_(self.beta).add_((1 - self.beta) * (largest / spread).item())
        self._steps += 1

    def state(self) -> dict[str, Any]:
        return {"steps": self._steps}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self._steps = state["steps"]
