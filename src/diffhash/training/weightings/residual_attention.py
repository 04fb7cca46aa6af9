"""Residual-based attention (Anagnostopoulos et al., CMAME 2024)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from diffhash.optim import Objective
from diffhash.problems.checks import check_positive
from diffhash.training.weightings.weighting import (
    PointWeighting,
    Present,
    check_kept,
    errors_of,
)


class ResidualAttention(PointWeighting):
    """Weighs points more whose residual stays large (RBA).

    λ_i ← γ λ_i + η |r_i| / max_j |r_j| after every step, from λ_i = 0, and the term is the mean of
    (λ_i r_i)². λ stays below η / (1 - γ). With minibatches, λ of the points in the batch changes.

    >>> weighting = ResidualAttention(gamma=0.999)

    Args:
        gamma: γ, the part of λ that stays.
        eta: η, the weight of the latest residual.
        conditions: the names of the conditions whose points are weighed; None for all equations in
            the domain.

    Raises:
        ValueError: a number is out of range.
    """

    def __init__(
        self, gamma: float = 0.999, eta: float = 0.01, conditions: Sequence[str] | None = None
    ) -> None:
        super().__init__(conditions)
        check_kept(gamma=gamma)
        check_positive(eta=eta)
        self.gamma, self.eta = gamma, eta

    def start(self, objective: Objective) -> None:
        super().start(objective)
        self._attention = [torch.zeros_like(given) for given in self._given]

    def update(self, present: Present, rows: Mapping[str, Tensor] | None) -> None:
        for index, term in enumerate(self.terms):
            own = None if rows is None else rows[term.name]
            attention = self._attention[index] = self._attention[index].to(term.x.device)
            size, before = errors_of(term), attention
            if own is not None:
                size, before = size[own], attention[own]
            largest = size.max().clamp_min(torch.finfo(size.dtype).tiny)
            now = self.gamma * before + self.eta * size / largest
            if own is None:
                attention.copy_(now)
            else:
                attention.index_copy_(0, own, now)
            self.put(index, now.square(), own)

    def state(self) -> dict[str, Any]:
        return {"attention": [attention.cpu() for attention in self._attention]}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self._attention = [attention.clone() for attention in state["attention"]]
