"""An estimate of a solution's error that does not need the exact solution."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from diffhash._warnings import warn
from diffhash.jets import Jet, Row
from diffhash.networks import Field
from diffhash.optim import Objective
from diffhash.optim.task import residual_unit
from diffhash.optim.term import Term

_POINTS = 2000  # the largest number of points of a term
_SEED = 271_828  # the seed of the points; no task uses it
_NOTABLE, _TIMES = 1e-2, 10.0  # a warning is given above this error, and this ratio of errors
_WAVE_NUMBER = 10.0  # radians across the domain of the wave in the unit of a residual


class ErrorEstimate:
    """An estimate of the relative error from residuals at points that training has not used:

        √(Σ_t mean((residual_t - target_t)²) / unit_t²) / √mean(u²).

    The unit of a residual is its size for a wave of amplitude 1 (`residual_unit`), so that the sum
    is in units of u. It is an estimate and no bound: an error that hardly changes the residual, as
    in a nearly singular problem, is underestimated. Conditions on measured values are evaluated at
    their own points.

    Args:
        objective: the loss, whose terms are the conditions t.
    """

    def __init__(self, objective: Objective) -> None:
        problem = objective.problem
        self._units = [
            residual_unit(problem, term.condition, _WAVE_NUMBER) for term in objective.terms
        ]
        self._objective = objective
        self._unseen: list[Term] = []

    def _terms(self) -> list[Term]:
        """The terms of the objective at points that training has not used, where possible."""
        terms = []
        for term in self._objective.terms:
            try:
                term.check_moves()
                x = term.draw(min(len(term), _POINTS), "uniform", _SEED)
                terms.append(term.at(x))
            except ValueError:
                terms.append(term)
        return terms

    def values(
        self, field: Field, jet: Callable[[Tensor, tuple[Row, ...]], Jet], seen: bool = False
    ) -> list[float]:
        """The estimate for each replica of the field; NaN where u is 0.

        Args:
            field: the field with its present parameters.
            jet: a function that returns the field's jet at points.
            seen: whether residuals are taken at the points of training instead.
        """
        terms = self._objective.terms if seen else self._unseen or self._terms()
        if not seen:
            self._unseen = terms
        total, sizes = torch.zeros(()), []
        with torch.no_grad():
            for term, unit in zip(terms, self._units, strict=True):
                errors = term.errors(jet(term.x, term.rows)).double()
                total = total + errors.square().mean(dim=(-2, -1)) / unit**2
                if term.condition.kind != "boundary":
                    sizes.append(field(term.x).double().square().mean(dim=(-2, -1)))
        size = torch.stack(sizes).mean(dim=0) if sizes else torch.ones(())
        return (total / size.where(size > 0, float("nan"))).sqrt().reshape(-1).tolist()

    def at_the_end(
        self, field: Field, jet: Callable[[Tensor, tuple[Row, ...]], Jet]
    ) -> list[float]:
        """`values`, with a warning where residuals are small only at the points of training."""
        values = self.values(field, jet)
        if not any(unseen > _NOTABLE for unseen in values):
            return values
        for unseen, seen in zip(values, self.values(field, jet, seen=True), strict=True):
            if unseen > _NOTABLE and unseen > _TIMES * seen:
                points = ", ".join(f"{term.name} {len(term)}" for term in self._objective.terms)
                n_parameters = sum(p.numel() for p in field.parameters() if p.requires_grad)
                n_parameters //= field.n_replicas or 1
                warn(
                    f"between the points of training the residuals are {unseen / seen:.2g} times "
                    "as large as at them: the field has more freedom than so many points determine "
                    f"({n_parameters} parameters; points: {points}); give more points (n_residual, "
                    "n_boundary) or a smaller field"
                )
                break
        return values
