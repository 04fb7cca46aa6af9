"""What the residuals determine near the end of training.

There r(θ + δ) ≈ r + J δ. With factors of JᵀJ + λD² for a small λ, ``step(r)`` is the δ that
minimises |J δ + r|² + λ|D δ|².
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from torch import Tensor

from diffhash.optim.damped import Step
from diffhash.optim.jacobian import Jacobian
from diffhash.optim.residuals import Residuals

_REPEATS = 4
# The sizes of residuals that a change of size 1 causes at the points of training, and at others,
# where some freedom between points is left.
_SEEN, _UNSEEN = 4e-5, 0.03
_LEFT = 1e-9  # the fraction of a random change below which further repetitions show nothing new
_LEAST = 1e-3  # the least change of one of several unknowns, relative to the others


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
    first, _ = residuals.effect(change, x, errors)
    found: dict[str, None] = {}
    for _ in range(_REPEATS):
        change = change + step(jacobian @ change)
        seen = float(np.linalg.norm(jacobian @ change))
        sizes, unseen = residuals.effect(change, x, errors)
        left = {name: size / (first[name] or 1.0) for name, size in sizes.items()}
        most = max(left.values())
        largest = {
            name: size
            for name, size in sizes.items()
            if seen < _SEEN * size and left[name] > _LEAST * most
        }
        if largest:
            at_others = unseen()
            found |= {name: None for name, size in largest.items() if at_others < _UNSEEN * size}
        if most < _LEFT:
            break
    return list(found)
