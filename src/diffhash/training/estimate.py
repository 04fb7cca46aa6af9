"""An estimate of a solution's error that does not need the exact solution."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from diffhash.jets import Jet, Row
from diffhash.networks import Field
from diffhash.optim import Objective
from diffhash.optim.task import residual_unit
from diffhash.optim.term import Term

POINTS = 2000  # the largest number of points of a term
_SEED = 271_828  # the seed of the points; no task uses it
WAVE_NUMBER = 10.0  # radians across the domain of the wave in the unit of a residual

JetOf = Callable[[Tensor, tuple[Row, ...]], Jet]
"""A function that returns a field's jet at points."""


class ErrorEstimate:
    """An estimate of the relative error from residuals at points that training has not used:

        √(Σ_t mean((residual_t - target_t)²) / unit_t²) / √mean(u²).

    The unit of a residual is its size for a wave of amplitude 1 (`residual_unit`), so that the sum
    is in units of u. It is an estimate and no bound: an error that hardly changes the residual, as
    in a nearly singular problem, is underestimated; see `diffhash.training.diagnostics`. Conditions
    on measured values are evaluated at their own points.

    Args:
        objective: the loss, whose terms are the conditions t.

    Attributes:
        objective: the loss.
        units: the unit of each term's residual, with the coefficients at the start.
    """

    def __init__(self, objective: Objective) -> None:
        problem = objective.problem
        self.units = [
            residual_unit(problem, term.condition, WAVE_NUMBER) for term in objective.terms
        ]
        self.objective = objective
        self._unseen: list[Term] = []

    def _others(self) -> list[Term]:
        """The terms of the objective at points that training has not used, where possible."""
        terms = []
        for term in self.objective.terms:
            try:
                term.check_moves()
                x = term.draw(min(len(term), POINTS), "uniform", _SEED)
                terms.append(term.at(x))
            except ValueError:
                terms.append(term)
        return terms

    def errors(self, jet: JetOf, seen: bool = False) -> Tensor:
        """The vector of all (residual_t - target_t) / (unit_t · √n_t) for the n_t numbers of each
        condition, ``[M]``, or ``[R, M]`` for replicas; for the arguments see `values`."""
        with torch.no_grad():
            return torch.cat(
                [
                    term.errors(jet(term.x, term.rows)).double().flatten(-2)
                    / (unit * math.sqrt(term.target.numel()))
                    for term, unit in zip(self.terms(seen), self.units, strict=True)
                ],
                dim=-1,
            )

    def values(self, field: Field, jet: JetOf, seen: bool = False) -> list[float]:
        """The estimate for each replica of the field; NaN where u is 0.

        Args:
            field: the field with its present parameters.
            jet: a function that returns the field's jet at points.
            seen: whether residuals are taken at the points of training instead.
        """
        total = self.errors(jet, seen).square().sum(dim=-1)
        with torch.no_grad():
            sizes = [
                field(term.x).double().square().mean(dim=(-2, -1))
                for term in self.terms(seen)
                if term.condition.kind != "boundary"
            ]
        size = torch.stack(sizes).mean(dim=0) if sizes else torch.ones(())
        return (total / size.where(size > 0, float("nan"))).sqrt().reshape(-1).tolist()

    def terms(self, seen: bool = False) -> Sequence[Term]:
        """The terms at the points of training, or at others."""
        if seen:
            return self.objective.terms
        self._unseen = self._unseen or self._others()
        return self._unseen
