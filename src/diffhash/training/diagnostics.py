"""Warnings of a trained field whose estimated error may mean little."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch

from diffhash._warnings import warn
from diffhash.geometry import Domain, Periodic
from diffhash.networks import Field
from diffhash.optim.task import residual_unit
from diffhash.problems import Coefficient, Problem
from diffhash.problems.condition import Measured
from diffhash.problems.tracer import unknowns_read
from diffhash.training.estimate import POINTS, WAVE_NUMBER, ErrorEstimate, JetOf
from diffhash.training.replica import Outcome
from diffhash.training.windows import TIME, Window

_NOTABLE, _TIMES = 1e-2, 10.0  # a warning is given above this error, and this ratio of errors
_MOST_CHANGED = 3.0  # a warning is given if a residual's size has changed by more than this factor
_FAR = 10.0  # a warning is given if a coefficient has changed by more than this factor, or its sign
_TIMES_TOO_GOOD = 1e3  # a warning is given if an error is so many times its estimate
_VIOLATED, _SHARE = 0.3, 0.01  # a warning is given of this violation at this share of the points
_ZERO = 1e-13  # smaller residuals, in units of u, are round-off where u is 0
# A warning is given if so small a fraction of measured values are so many times as far from the
# field as the root mean square of the others, and farther than this part of their own.
_FEW, _OUTLIER, _GROSS = 0.05, 8.0, 0.1
_BIASED = 0.05  # a warning of coefficients beside measured values is given above this error
_LARGER = 5.0  # a warning is given of an unknown that is so many times as large elsewhere
_COUNTS = 1e-4  # the least share of a condition in the estimated error, for that warning


def diagnosed(
    estimate: ErrorEstimate,
    field: Field,
    jet: JetOf,
    outcomes: Sequence[Outcome],
    undetermined: Callable[[], Sequence[str]],
    has_ended: bool | None,
) -> list[Outcome]:
    """Warn of what makes results doubtful, and return the outcomes with these warnings.

    Warnings are of an exact solution that does not satisfy the conditions, of coefficients far from
    their starts, of measured values that may be wrong, of unknowns that are much larger where
    nothing is measured, of too few epochs, and of the first of these: residuals that are small only
    at the points of training, an equation that is not satisfied in a part of the domain, unknowns
    and coefficients that the conditions do not determine, and residuals that stay large. A warning
    in a window of time begins with its times.

    Args:
        estimate: the estimate of the error.
        field: the field at the end of training.
        jet: a function that returns the field's jet at points.
        outcomes: the outcome of each replica.
        undetermined: a function that returns what an optimizer has found to be undetermined.
        has_ended: whether an optimizer that ends by itself did so before its epochs or seconds were
            over; None for the others.
    """
    if not any(math.isfinite(outcome.loss) for outcome in outcomes):  # all have diverged
        return [*outcomes]
    problem, found = estimate.objective.problem, []
    window = problem if isinstance(problem, Window) else None
    size = window.earlier_size if window else 0.0
    try:
        if field.n_replicas is None:
            found += [_of_coefficients(estimate), _of_outliers(estimate, jet)]
            found.append(_of_extrapolation(estimate, field))
        if has_ended is False:
            found.append(_of_epochs(outcomes))
        found.append(
            _between(estimate, field, jet, [outcome.estimate for outcome in outcomes])
            or _of_equations(estimate, field, jet, size)
            # Later windows of time lack what the first one lacks.
            or ("" if window and not window.is_first else _of_undetermined(estimate, undetermined))
            or (_of_residuals(estimate, outcomes) if has_ended else "")
        )
    except (ArithmeticError, MemoryError, RuntimeError, ValueError) as error:
        found.append(f"whether the estimated error can be relied on could not be checked: {error}")
    common = [f"{window.title}: {text}" if window else text for text in found if text]
    for text in common:
        warn(text)
    return [
        replace(
            outcome,
            warnings=common
            # That of the whole problem is checked after the last window.
            + ([] if window else warned_of_solution(problem, outcome.metrics, outcome.estimate)),
        )
        for outcome in outcomes
    ]


def warned_of_solution(
    problem: Problem, metrics: Mapping[str, float], estimate: float
) -> list[str]:
    """Warn of an exact solution that is far from a field which satisfies the conditions, and return
    the warning."""
    if not problem.has_solution:
        return []
    u, error = max(((u, metrics[f"l2_{u}"]) for u in problem.unknowns), key=lambda pair: pair[1])
    if not (error > _NOTABLE and error > _TIMES_TOO_GOOD * estimate):
        return []
    text = (
        f"{u} satisfies the conditions up to an estimated error of {estimate:.1e}, but differs "
        f"from the exact solution by {error:.1e}: either {type(problem).__name__}.solution "
        "does not satisfy them, or they do not determine it, as where one is missing"
    )
    warn(text)
    return [text]


def _of_undetermined(estimate: ErrorEstimate, undetermined: Callable[[], Sequence[str]]) -> str:
    names = undetermined()
    if not names:
        return ""
    return (
        f"the conditions do not determine {', '.join(names)}: other values change hardly any "
        "residual, so that these are arbitrary, and the estimated error does not include this; add "
        "a condition or data, such as a value at one point of an unknown that is free up to a "
        f"constant (points: {_points(estimate)}). If the problem has one solution, the field found "
        f"is not near it: {_advice(estimate)}"
    )


def _of_epochs(outcomes: Sequence[Outcome]) -> str:
    """A warning of an optimizer that had not ended, where the estimated error is not small."""
    error = max(outcome.estimate for outcome in outcomes)
    if not error > _NOTABLE / 10:
        return ""
    return (
        "the optimizer had not ended after its epochs or max_seconds, with an estimated error of "
        f"{error:.1e}: give it more"
    )


def _of_residuals(estimate: ErrorEstimate, outcomes: Sequence[Outcome]) -> str:
    """A warning of residuals that do not become small: of an oscillation that is damped a little in
    each period, nothing is left after many; and noise that the equations give way to moves
    coefficients."""
    error = max(outcome.estimate for outcome in outcomes)
    ended = f"the optimizer has ended with an estimated error of {error:.1e}"
    if not _has_known_values(estimate):
        if not error > _NOTABLE / 10:
            return ""
        windows = f"{_windows(estimate)} or " * _is_in_time(estimate)
        return (
            f"{ended}, which is no bound: residuals add up over long times and many waves, so that "
            f"the error may be many times larger; try {windows}a finer grid"
        )
    parameters = estimate.objective.problem.named_parameters()
    names = [name for name, parameter in parameters if isinstance(parameter, Coefficient)]
    if not (error > _BIASED and names):
        return ""
    return (
        f"{ended}: the equations give way to errors of the measurements, which may move "
        f"{', '.join(names)} by more than their noise does; solve again with a smaller wave_number "
        "of the task, such as 3, and compare"
    )


def _of_coefficients(estimate: ErrorEstimate) -> str:
    """A warning of coefficients that are so far from their starts that residuals have another size,
    or that they may belong to another minimum of the loss."""
    problem = estimate.objective.problem
    moved = {
        f"{name} from {p.start:.3g} to {p.item():.3g}": p.item() / p.start if p.start else 1.0
        for name, p in problem.named_parameters()
        if isinstance(p, Coefficient) and p.requires_grad and p.item() != p.start
    }
    if not moved:
        return ""
    device = next(problem.parameters()).device
    problem.cpu()  # where points of conditions are drawn
    terms = estimate.objective.terms
    units = [residual_unit(problem, term.condition, WAVE_NUMBER) for term in terms]
    problem.to(device)
    for term, before, unit in zip(terms, estimate.units, units, strict=True):
        ratio = unit / before
        if ratio < 1 / _MOST_CHANGED or ratio > _MOST_CHANGED:
            return (
                f"{', '.join(moved)}: {term.name} is then {ratio:.2g} times as large as its weight "
                "and the estimated error suppose; solve again with a Coefficient that starts "
                "there, and see whether it stays"
            )
    far = [told for told, ratio in moved.items() if ratio < 1 / _FAR or ratio > _FAR]
    if not far:
        return ""
    return (
        f"{', '.join(far)}: so far from the start there may be another minimum of the loss; solve "
        "again from other starts, and with a smaller wave_number of the task, and compare what is "
        "found"
    )


def _of_outliers(estimate: ErrorEstimate, jet: JetOf) -> str:
    """A warning of measured values that are much farther from the field than most are. Least
    squares give such values a large influence."""
    for term in estimate.terms():
        if not isinstance(term.condition.where, Measured):
            continue
        with torch.no_grad():
            errors = term.errors(jet(term.x, term.rows)).double().abs()
        sizes = term.target.double().square().mean(dim=0).sqrt()
        is_far = errors > torch.maximum(_GROSS * sizes, errors.amax(dim=0) / 4)
        n_others = (~is_far).sum(dim=0)
        others = ((errors * ~is_far).square().sum(dim=0) / n_others).sqrt()
        is_far &= errors > _OUTLIER * others
        rows = is_far.any(dim=1).nonzero()[:, 0].tolist()
        if 0 < len(rows) <= _FEW * len(term):
            axes = estimate.objective.problem.domain.axes
            places = [
                ", ".join(f"{axis} = {v:.4g}" for axis, v in zip(axes, x, strict=True))
                for x in term.x[rows[:5]].tolist()
            ]
            told = "; ".join(f"{n + 1} ({at})" for n, at in zip(rows, places, strict=False))
            return (
                f"{term.name}: measurements are more than {_OUTLIER:g} times as far from the field "
                f"as the others are: counted from 1, {told}{'; …' * (len(rows) > 5)}. If they are "
                "wrong, or others nearby that the field follows, leave those out and solve again, "
                "because coefficients follow them"
            )
    return ""


def _of_extrapolation(estimate: ErrorEstimate, field: Field) -> str:
    """A warning of an unknown that is much larger elsewhere than at the points where it is
    measured, as where no condition holds it in a part of the domain."""
    terms, problem = estimate.objective.terms, estimate.objective.problem
    inside = [term.x for term in terms if isinstance(term.condition.where, Domain)]
    # Slopes do not show the size of an unknown.
    measured = [
        term
        for term in terms
        if isinstance(term.condition.where, Measured) and term.rows == ((0,) * problem.n_dims,)
    ]
    if not (inside and measured):
        return ""
    with torch.no_grad():
        everywhere = field(torch.cat(inside)).double().abs().amax(dim=0).tolist()
    for term in measured:
        with torch.no_grad():
            here = field(term.x).double().abs().amax(dim=0).tolist()
        read = unknowns_read(term.condition, term.names, term.x, term.normal)
        for name, largest, measured_one in zip(problem.unknowns, everywhere, here, strict=True):
            if name in read and largest > _LARGER * measured_one:
                return (
                    f"{name} reaches {largest:.2g} where nothing is measured, more than "
                    f"{_LARGER:g} times its largest value at the points of {term.name}, "
                    f"{measured_one:.2g}: there neither the measurements nor other conditions may "
                    "determine it; add an initial or boundary condition, or data"
                )
    return ""


def _between(estimate: ErrorEstimate, field: Field, jet: JetOf, values: Sequence[float]) -> str:
    """A warning of residuals that are much larger than at the points of training."""
    if not any(value > _NOTABLE for value in values):
        return ""
    pairs = zip(values, estimate.values(field, jet, seen=True), strict=True)
    ratio = max(
        (unseen / (seen or 1e-300) for unseen, seen in pairs if unseen > _NOTABLE), default=0.0
    )
    if not ratio > _TIMES:
        return ""
    n_parameters = sum(p.numel() for p in field.parameters() if p.requires_grad)
    n_parameters //= field.n_replicas or 1
    return (
        f"between the points of training the residuals are {ratio:.2g} times as large as at them: "
        f"the field has more freedom than so many points determine ({n_parameters} parameters; "
        f"points: {_points(estimate)}); give more points (n_residual, n_boundary) or a smaller "
        "field"
    )


def _of_equations(estimate: ErrorEstimate, field: Field, jet: JetOf, size: float) -> str:
    """A warning of an equation that is far from satisfied in a part of the domain. Measured values
    violate equations by their noise, so that problems with known values are not checked. Where u is
    much smaller than ``size``, as after earlier windows of time, its residuals do not matter."""
    if _has_known_values(estimate):
        return ""
    for term, unit in zip(estimate.terms(), estimate.units, strict=True):
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
            return (
                f"{term.name} is not satisfied at {share:.0%} of its points: there its residual is "
                f"more than {_VIOLATED:.0%} of the sum of the sizes of its terms. The field may be "
                "far from the solution, and its error much larger than estimated: "
                f"{_advice(estimate)}"
            )
    return ""


def _advice(estimate: ErrorEstimate) -> str:
    """What leads to another minimum of the loss."""
    windows = f"{_windows(estimate)}, " * _is_in_time(estimate)
    return f"try {windows}a finer grid, more epochs, or another field to start from"


def _windows(estimate: ErrorEstimate) -> str:
    shorter = "shorter " * isinstance(estimate.objective.problem, Window)
    return f"{shorter}windows of time (windows=)"


def _is_in_time(estimate: ErrorEstimate) -> bool:
    """Whether windows of time can be had: for an axis of time, and without coefficients."""
    problem = estimate.objective.problem
    return TIME in problem.domain.axes and not any(True for _ in problem.parameters())


def _has_known_values(estimate: ErrorEstimate) -> bool:
    conditions = (term.condition for term in estimate.objective.terms)
    return any(isinstance(c.where, Measured) or c.kind == "labels" for c in conditions)


def _points(estimate: ErrorEstimate) -> str:
    """The number of points of each condition, also of those that are left out."""
    objective = estimate.objective
    numbers = {
        condition.name: 0
        for condition in objective.problem.checked_conditions()
        if not isinstance(condition.where, Periodic)
    }
    numbers |= {term.name: len(term) for term in objective.terms}
    return ", ".join(f"{name} {number}" for name, number in numbers.items())
