"""What the residuals determine near the end of training.

There r(θ + δ) ≈ r + J δ. With factors of JᵀJ + λD² for a small λ, ``step(r)`` is the δ that
minimises |J δ + r|² + λ|D δ|².
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from diffhash.optim.damped import Step
from diffhash.optim.jacobian import Jacobian
from diffhash.optim.residuals import Residuals
from diffhash.problems import Coefficient

_REPEATS = 4
# The sizes of residuals that a change of size 1 causes at the points of training, and at others,
# where some freedom between points is left.
_SEEN, _UNSEEN = 4e-5, 0.03
_LEFT = 1e-9  # the fraction of a random change below which further repetitions show nothing new
_LEAST = 1e-3  # the least change of one of several unknowns, relative to the others
_SHORT = 1e-4  # the length of a change by which derivatives are differences, relative to θ


def undetermined(
    residuals: Residuals,
    jacobian: Jacobian,
    step: Step,
    lengths: np.ndarray,
    x: Tensor,
    errors: Callable[[], Tensor],
) -> list[str]:
    """Names of the unknowns and coefficients that can change while hardly any residual does.

    A random change δ is replaced by δ + step(J δ) = (JᵀJ + λD²)⁻¹ λD² δ, a few times. Along an
    eigenvector of JᵀJ relative to D² with the eigenvalue σ² each replacement multiplies it by
    λ / (σ² + λ), so that it approaches what changes the residuals least. An unknown is not
    determined if one of these changes of it is more than 2·10⁴ times that of the residuals at the
    points of training, and more than 30 times that at others, so that more points would not
    determine it. Residuals are weighted as in the loss; by default one is 1 for a wave of
    amplitude 1. Unknowns whose changes are 10³ times smaller than another's are left out.

    Args:
        residuals: the residuals, at the present parameters.
        jacobian: J.
        step: a function from r to δ.
        lengths: the diagonal of D.
        x: other points ``[N, d]``.
        errors: a function that returns the residuals there, for the present parameters.
    """
    change = np.random.default_rng(0).standard_normal(len(lengths)) / lengths
    first, _ = _effect(residuals, change, x)
    found: dict[str, None] = {}
    for _ in range(_REPEATS):
        change = change + step(jacobian @ change)
        seen = float(np.linalg.norm(jacobian @ change))
        sizes, by = _effect(residuals, change, x)
        left = {name: size / (first[name] or 1.0) for name, size in sizes.items()}
        most = max(left.values())
        largest = {
            name: size
            for name, size in sizes.items()
            if seen < _SEEN * size and left[name] > _LEAST * most
        }
        if largest:
            unseen = float(_difference(residuals, change, by, errors).norm())
            found |= {name: None for name, size in largest.items() if unseen < _UNSEEN * size}
        if most < _LEFT:
            break
    return list(found)


def _effect(residuals: Residuals, change: np.ndarray, x: Tensor) -> tuple[dict[str, float], float]:
    """The first-order sizes of a change of the columns' unknowns, and the factor of the change by
    which derivatives are well approximated by differences.

    The size for an unknown is the root mean square over the points, or those in its part of the
    domain. For a `Coefficient` it is relative to the larger of its value and its start, which is 1
    for a start of 0.
    """
    field, problem = residuals.field, residuals.objective.problem
    of_coefficients = {
        name: abs(float(change[columns.start])) / max(abs(p.item()), abs(p.start) or 1.0)
        for name, columns in residuals.coefficient_columns.items()
        if isinstance(p := residuals.coefficients[name], Coefficient)
    }
    with torch.no_grad():
        u = float(field(x).norm()) or 1.0
    length = float(np.linalg.norm(change)) or 1.0
    by = _SHORT * max(1.0, sum(float(p.norm()) for p in residuals.state())) / length
    # Most of a change's length may be in parameters that have hardly any effect.
    of_u = float(_difference(residuals, change, by, lambda: field(x)).norm()) / u
    by = _SHORT / (max(of_u, *of_coefficients.values(), 0.0) or 1.0)
    changes = _difference(residuals, change, by, lambda: field(x)).square()
    sizes = {}
    for name, of_points in zip(problem.unknowns, changes.T, strict=True):
        part = problem.parts.get(name)
        own = of_points if part is None else of_points[part.contains(x)]
        sizes[name] = float(own.mean().sqrt())
    return sizes | of_coefficients, by


def _difference(
    residuals: Residuals, change: np.ndarray, by: float, of: Callable[[], Tensor]
) -> Tensor:
    """The derivative of a function of the present parameters along a change."""
    before, values = residuals.state(), []
    try:
        for sign in (by, -by):
            residuals.restore(before)
            residuals.move(sign * change)
            with torch.no_grad():
                values.append(of().double())
    finally:
        residuals.restore(before)
    return (values[0] - values[1]) / (2 * by)
