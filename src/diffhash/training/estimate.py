"""An estimate of a solution's error that does not need the exact solution."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from diffhash._warnings import warn
from diffhash.jets import Jet, Row
from diffhash.networks import Field
from diffhash.optim import Objective
from diffhash.optim.task import residual_unit
from diffhash.optim.term import Term
from diffhash.problems import Coefficient, Problem

_POINTS = 2000  # the largest number of points of a term
_SEED = 271_828  # the seed of the points; no task uses it
_NOTABLE, _TIMES = 1e-2, 10.0  # a warning is given above this error, and this ratio of errors
_MOST_CHANGED = 3.0  # a warning is given if a residual's size has changed by more than this factor
_TIMES_TOO_GOOD = 1e3  # a warning is given if an error is so many times its estimate
_WAVE_NUMBER = 10.0  # radians across the domain of the wave in the unit of a residual


def check_solution(problem: Problem, metrics: Mapping[str, float], estimate: float) -> None:
    """Warn of an exact solution that is far from a field which satisfies the conditions."""
    if not problem.has_solution:
        return
    u, error = max(((u, metrics[f"l2_{u}"]) for u in problem.unknowns), key=lambda pair: pair[1])
    if error > _NOTABLE and error > _TIMES_TOO_GOOD * estimate:
        warn(
            f"{u} satisfies the conditions up to an estimated error of {estimate:.1e}, but differs "
            f"from the exact solution by {error:.1e}: either {type(problem).__name__}.solution "
            "does not satisfy them, or they do not determine it, as where one is missing"
        )


class ErrorEstimate:
    """An estimate of the relative error from residuals at points that training has not used:

        √(Σ_t mean((residual_t - target_t)²) / unit_t²) / √mean(u²).

    The unit of a residual is its size for a wave of amplitude 1 (`residual_unit`), so that the sum
    is in units of u. It is an estimate and no bound: an error that hardly changes the residual, as
    in a nearly singular problem, is underestimated. Gauss–Newton warns of unknowns that can change
    without any change of the residuals. Conditions on measured values are evaluated at their own
    points.

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

    def _check_units(self) -> None:
        """Warn of residuals whose size has changed with the coefficients."""
        problem = self._objective.problem
        moved = [
            f"{name} from {p.start:.3g} to {p.item():.3g}"
            for name, p in problem.named_parameters()
            if isinstance(p, Coefficient) and p.requires_grad and p.item() != p.start
        ]
        if not moved:
            return
        device = next(problem.parameters()).device
        problem.cpu()  # where points of conditions are drawn
        terms = self._objective.terms
        units = [residual_unit(problem, term.condition, _WAVE_NUMBER) for term in terms]
        problem.to(device)
        for term, before, unit in zip(terms, self._units, units, strict=True):
            ratio = unit / before
            if ratio < 1 / _MOST_CHANGED or ratio > _MOST_CHANGED:
                warn(
                    f"{', '.join(moved)}: {term.name} is then {ratio:.2g} times as large as its "
                    "weight and the estimated error suppose; solve again with a Coefficient that "
                    "starts there, and see whether it stays"
                )

    def at_the_end(
        self,
        field: Field,
        jet: Callable[[Tensor, tuple[Row, ...]], Jet],
        undetermined: Sequence[str] = (),
    ) -> list[float]:
        """`values`, with warnings where residuals are small only at the points of training, where
        coefficients have come far from those by which residuals are weighed, and of unknowns and
        coefficients that an optimizer has found to be undetermined."""
        values = self.values(field, jet)
        at_points = values
        if any(value > _NOTABLE for value in values):
            at_points = self.values(field, jet, seen=True)
        if field.n_replicas is None:
            self._check_units()
        if not self._check_between(values, at_points, field) and undetermined:
            warn(
                f"the conditions do not determine {', '.join(undetermined)}: it can change while "
                "all residuals stay as they are, so that its value is arbitrary and its error not "
                f"in the estimated one; add a condition or data (points: {self._points})"
            )
        return values

    def _check_between(
        self, values: Sequence[float], at_points: Sequence[float], field: Field
    ) -> bool:
        """Warn where residuals are much larger than at the points of training, and return whether
        they are."""
        pairs = zip(values, at_points, strict=True)
        ratios = [unseen / (seen or 1e-300) for unseen, seen in pairs if unseen > _NOTABLE]
        ratio = max(ratios, default=0.0)
        if ratio <= _TIMES:
            return False
        n_parameters = sum(p.numel() for p in field.parameters() if p.requires_grad)
        n_parameters //= field.n_replicas or 1
        warn(
            f"between the points of training the residuals are {ratio:.2g} times as large as at "
            "them: the field has more freedom than so many points determine "
            f"({n_parameters} parameters; points: {self._points}); give more points (n_residual, "
            "n_boundary) or a smaller field"
        )
        return True

    @property
    def _points(self) -> str:
        """The number of points of each term."""
        return ", ".join(f"{term.name} {len(term)}" for term in self._objective.terms)
