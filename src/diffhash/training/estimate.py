"""An estimate of a solution's error that does not need the exact solution."""

from __future__ import annotations

import math
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
_FAR = 10.0  # a warning is given if a coefficient has changed by more than this factor, or its sign
_TIMES_TOO_GOOD = 1e3  # a warning is given if an error is so many times its estimate
_VIOLATED, _SHARE = 0.3, 0.01  # a warning is given of this violation at this share of the points
_OTHERS = (
    "try windows of time (windows=), a finer grid, more epochs, or another field to start from"
)
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

    def errors(
        self, field: Field, jet: Callable[[Tensor, tuple[Row, ...]], Jet], seen: bool = False
    ) -> Tensor:
        """The vector of all (residual_t - target_t) / (unit_t · √n_t) for the n_t numbers of each
        condition, ``[M]``, or ``[R, M]`` for replicas; for the arguments see `values`."""
        with torch.no_grad():
            return torch.cat(
                [
                    term.errors(jet(term.x, term.rows)).double().flatten(-2)
                    / (unit * math.sqrt(term.target.numel()))
                    for term, unit in zip(self._at(seen), self._units, strict=True)
                ],
                dim=-1,
            )

    def values(
        self, field: Field, jet: Callable[[Tensor, tuple[Row, ...]], Jet], seen: bool = False
    ) -> list[float]:
        """The estimate for each replica of the field; NaN where u is 0.

        Args:
            field: the field with its present parameters.
            jet: a function that returns the field's jet at points.
            seen: whether residuals are taken at the points of training instead.
        """
        total = self.errors(field, jet, seen).square().sum(dim=-1)
        with torch.no_grad():
            sizes = [
                field(term.x).double().square().mean(dim=(-2, -1))
                for term in self._at(seen)
                if term.condition.kind != "boundary"
            ]
        size = torch.stack(sizes).mean(dim=0) if sizes else torch.ones(())
        return (total / size.where(size > 0, float("nan"))).sqrt().reshape(-1).tolist()

    def _at(self, seen: bool) -> Sequence[Term]:
        """The terms at the points of training, or at others."""
        if seen:
            return self._objective.terms
        self._unseen = self._unseen or self._terms()
        return self._unseen

    def _check_coefficients(self) -> None:
        """Warn of coefficients that are so far from their starts that residuals have another size,
        or that the loss may have another minimum."""
        problem = self._objective.problem
        moved = {
            f"{name} from {p.start:.3g} to {p.item():.3g}": p.item() / p.start
            for name, p in problem.named_parameters()
            if isinstance(p, Coefficient) and p.requires_grad and p.start and p.item() != p.start
        }
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
                return
        if far := [told for told, ratio in moved.items() if not 1 / _FAR < ratio < _FAR]:
            warn(
                f"{', '.join(far)}: so far from its start, it may belong to another minimum of the "
                "loss; solve again from other starts, and with a smaller wave_number of the task, "
                "and see whether it stays"
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
            self._check_coefficients()
        if self._check_between(values, at_points, field) or self._check_violation(field, jet):
            return values
        if undetermined:
            warn(
                f"the conditions do not determine {', '.join(undetermined)}: it can change while "
                "hardly any residual does, so that its value is arbitrary and its error not in the "
                f"estimated one; add a condition or data (points: {self._points}). If none is "
                f"missing, the solution found is not theirs: {_OTHERS}"
            )
        return values

    def _check_violation(self, field: Field, jet: Callable[[Tensor, tuple[Row, ...]], Jet]) -> bool:
        """Warn of an equation that is far from satisfied in a part of the domain, and return
        whether there is one. Values with noise violate equations, too."""
        terms = self._at(seen=False)
        if any(term.condition.kind == "labels" for term in terms):
            return False
        for term in terms:
            if term.condition.kind != "residual":
                continue
            with torch.no_grad():
                sizes = field(term.x).double().square().mean(dim=-2).sqrt()
                violation = term.violation(jet(term.x, term.read), sizes, _WAVE_NUMBER)
            share = (violation > _VIOLATED).double().mean(dim=-2).max().item()
            if share > _SHARE:
                warn(
                    f"{term.name} is not satisfied at {share:.0%} of its points: there its "
                    f"residual is more than {_VIOLATED:.0%} of its parts. The solution may be far "
                    f"from that of the problem, and its error much larger than estimated: {_OTHERS}"
                )
                return True
        return False

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
