"""Warnings of a trained field whose estimated error may mean little."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from diffhash._warnings import warn
from diffhash.geometry import Domain
from diffhash.networks import Field
from diffhash.optim.task import residual_unit
from diffhash.problems import Coefficient, Problem
from diffhash.problems.condition import Measured
from diffhash.training.estimate import POINTS, WAVE_NUMBER, ErrorEstimate, JetOf
from diffhash.training.windows import TIME

_NOTABLE, _TIMES = 1e-2, 10.0  # a warning is given above this error, and this ratio of errors
_MOST_CHANGED = 3.0  # a warning is given if a residual's size has changed by more than this factor
_FAR = 10.0  # a warning is given if a coefficient has changed by more than this factor, or its sign
_TIMES_TOO_GOOD = 1e3  # a warning is given if an error is so many times its estimate
_VIOLATED, _SHARE = 0.3, 0.01  # a warning is given of this violation at this share of the points
_ZERO = 1e-13  # smaller residuals, in units of u, are round-off where u is 0
_COUNTS = 1e-4  # the least share of a condition in the estimated error, for that warning


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


def check_training(
    estimate: ErrorEstimate,
    field: Field,
    jet: JetOf,
    undetermined: Sequence[str] = (),
    size: float = 0.0,
) -> None:
    """Warn of coefficients far from their starts, and of the first of these: residuals that are
    small only at the points of training, an equation that is not satisfied in a part of the domain,
    and unknowns and coefficients that the conditions do not determine.

    Args:
        estimate: the estimate of the error.
        field: the field at the end of training.
        jet: a function that returns the field's jet at points.
        undetermined: the names that an optimizer has found to be undetermined.
        size: the root mean square of u elsewhere, as in earlier windows of time. Where u is much
            smaller here, residuals are large beside u and do not matter.
    """
    if field.n_replicas is None:
        _check_coefficients(estimate)
    if _check_between(estimate, field, jet) or _check_equations(estimate, field, jet, size):
        return
    if undetermined:
        warn(
            f"the conditions do not determine {', '.join(undetermined)}: other values change "
            "hardly any residual, so that these are arbitrary, and the estimated error does not "
            f"include this; add a condition or data (points: {_points(estimate)}). If no condition "
            f"is missing, the field found does not solve the problem: {_advice(estimate)}"
        )


def _check_coefficients(estimate: ErrorEstimate) -> None:
    """Warn of coefficients that are so far from their starts that residuals have another size, or
    that they may belong to another minimum of the loss."""
    problem = estimate.objective.problem
    moved = {
        f"{name} from {p.start:.3g} to {p.item():.3g}": p.item() / p.start if p.start else 1.0
        for name, p in problem.named_parameters()
        if isinstance(p, Coefficient) and p.requires_grad and p.item() != p.start
    }
    if not moved:
        return
    device = next(problem.parameters()).device
    problem.cpu()  # where points of conditions are drawn
    terms = estimate.objective.terms
    units = [residual_unit(problem, term.condition, WAVE_NUMBER) for term in terms]
    problem.to(device)
    for term, before, unit in zip(terms, estimate.units, units, strict=True):
        ratio = unit / before
        if ratio < 1 / _MOST_CHANGED or ratio > _MOST_CHANGED:
            warn(
                f"{', '.join(moved)}: {term.name} is then {ratio:.2g} times as large as its weight "
                "and the estimated error suppose; solve again with a Coefficient that starts "
                "there, and see whether it stays"
            )
            return
    if far := [told for told, ratio in moved.items() if ratio < 1 / _FAR or ratio > _FAR]:
        warn(
            f"{', '.join(far)}: so far from the start there may be another minimum of the loss; "
            "solve again from other starts, and with a smaller wave_number of the task, and "
            "compare what is found"
        )


def _check_between(estimate: ErrorEstimate, field: Field, jet: JetOf) -> bool:
    """Warn where residuals are much larger than at the points of training, and return whether they
    are."""
    values = estimate.values(field, jet)
    if not any(value > _NOTABLE for value in values):
        return False
    pairs = zip(values, estimate.values(field, jet, seen=True), strict=True)
    ratio = max(
        (unseen / (seen or 1e-300) for unseen, seen in pairs if unseen > _NOTABLE), default=0.0
    )
    if not ratio > _TIMES:
        return False
    n_parameters = sum(p.numel() for p in field.parameters() if p.requires_grad)
    n_parameters //= field.n_replicas or 1
    warn(
        f"between the points of training the residuals are {ratio:.2g} times as large as at them: "
        f"the field has more freedom than so many points determine ({n_parameters} parameters; "
        f"points: {_points(estimate)}); give more points (n_residual, n_boundary) or a smaller "
        "field"
    )
    return True


def _check_equations(estimate: ErrorEstimate, field: Field, jet: JetOf, size: float) -> bool:
    """Warn of an equation that is far from satisfied in a part of the domain, and return whether
    there is one. Measured values violate equations by their noise, so that problems with known
    values are not checked."""
    terms = estimate.terms()
    known = (isinstance(t.condition.where, Measured) or t.condition.kind == "labels" for t in terms)
    if any(known):
        return False
    for term, unit in zip(terms, estimate.units, strict=True):
        if not isinstance(term.condition.where, Domain):
            continue
        term = term.shard(0, -(-len(term) // POINTS))
        with torch.no_grad():
            u = field(term.x).double().square()
        sizes = u.mean(dim=-2).sqrt()
        errors, violation = term.violation(jet(term.x, term.read), sizes, WAVE_NUMBER)
        rms = errors.square().mean(dim=(-2, -1)).sqrt() / unit
        least = (_COUNTS * u.mean(dim=(-2, -1)).sqrt()).clamp(min=max(_COUNTS * size, _ZERO))
        counts = rms > least
        shares = (violation > _VIOLATED).double().mean(dim=-2).amax(dim=-1)
        share = float((shares * counts).max())
        if share > _SHARE:
            warn(
                f"{term.name} is not satisfied at {share:.0%} of its points: there its residual is "
                f"more than {_VIOLATED:.0%} of the sum of the sizes of its terms. The field may be "
                "far from the solution, and its error much larger than estimated: "
                f"{_advice(estimate)}"
            )
            return True
    return False


def _advice(estimate: ErrorEstimate) -> str:
    """What leads to another minimum of the loss."""
    problem = estimate.objective.problem
    in_time = TIME in problem.domain.axes and not any(True for _ in problem.parameters())
    windows = "windows of time (windows=), " * in_time
    return f"try {windows}a finer grid, more epochs, or another field to start from"


def _points(estimate: ErrorEstimate) -> str:
    """The number of points of each term."""
    return ", ".join(f"{term.name} {len(term)}" for term in estimate.objective.terms)
