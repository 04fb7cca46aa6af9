"""How large the error of a solution is, without knowing the exact one."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from diffhash.jets import Jet, Row
from diffhash.networks import Field
from diffhash.optim import Objective
from diffhash.optim.task import residual_unit
from diffhash.optim.term import Term

_POINTS = 2000  # of a term at most
_SEED = 271_828  # of points that no task has
_WAVE_NUMBER = 10.0  # of the wave that residuals are measured by, across the domain


class ErrorEstimate:
    """√(Σ_t mean((residual_t - target_t)²) / unit_t²) / √mean(u²), at points that training has not
    seen.

    A residual's unit is what it is for a wave of amplitude 1 (`residual_unit`), so that the sum is
    in units of u. It is an estimate, no bound: an error that the equation hardly sees, such as one
    of a nearly singular problem, is larger. Conditions of measured values count at those.

    Args:
        objective: whose terms these are.
    """

    def __init__(self, objective: Objective) -> None:
        self._objective = objective
        self._terms: list[tuple[Term, float]] | None = None

    def _prepared(self) -> list[tuple[Term, float]]:
        terms = []
        for term in self._objective.terms:
            unit = residual_unit(self._objective.problem, term.condition, _WAVE_NUMBER)
            try:
                term.check_moves()
                unseen = term.at(term.draw(min(len(term), _POINTS), "uniform", _SEED))
            except ValueError:
                unseen = term
            terms.append((unseen, unit))
        return terms

    @torch.no_grad()
    def values(
        self, field: Field, jet: Callable[[Tensor, tuple[Row, ...]], Jet]
    ) -> list[float]:
        """Of each replica; NaN where u is 0.

        Args:
            field: the present one.
            jet: of it.
        """
        self._terms = self._terms or self._prepared()
        total, sizes = torch.zeros(()), []
        for term, unit in self._terms:
            data = jet(term.x, term.rows)
            mean = term.errors(data).double().square().mean(dim=(-2, -1)) / unit**2
            total = total + mean
            if term.condition.kind != "boundary":
                sizes.append(field(term.x).double().square().mean(dim=(-2, -1)))
        size = torch.stack(sizes).mean(dim=0) if sizes else torch.ones(())
        size = size.where(size > 0, float("nan"))
        return (total / size).sqrt().reshape(-1).tolist()
