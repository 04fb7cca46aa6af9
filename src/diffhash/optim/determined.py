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
# The sizes of residuals that a change of size 1 causes, where a residual is 1 for a wave of
# amplitude 1: at the points of training, and at others, where some freedom between points is left.
_SEEN, _UNSEEN = 5e-6, 0.03
_LEFT = 1e-9  # the fraction of a random change below which further repetitions show nothing new
_LEAST = 1e-3  # the least change of one of several unknowns, relative to the others


def undetermined(
    residuals: Residuals,
    jacobian: Jacobian,
    step: Step,
    lengths: np.ndarray,
    errors: Callable[[], Tensor],
) -> list[str]:
    """Names of the unknowns and coefficients that can change while hardly any residual does.

    A random change δ is replaced by δ + step(J δ) = (JᵀJ + λD²)⁻¹ λD² δ, a few times. Along an
    eigenvector of JᵀJ relative to D² with the eigenvalue σ² each replacement multiplies it by
    λ / (σ² + λ), so that it approaches what the residuals see least. An unknown is not determined
    if one of these changes of it is large beside that of the residuals at the points of training
    (10⁵ times), and at others, too, so that more points would not determine it.

    Args:
        residuals: the residuals, at the present parameters.
        jacobian: J.
        step: a function from r to δ.
        lengths: the diagonal of D.
        errors: a function that returns the residuals at other points, for the present parameters.
    """
    change = np.random.default_rng(0).standard_normal(len(lengths)) / lengths
    first, _ = residuals.effect(change, errors)
    found: dict[str, None] = {}
    for _ in range(_REPEATS):
        change = change + step(jacobian @ change)
        seen = float(np.linalg.norm(jacobian @ change))
        sizes, unseen = residuals.effect(change, errors)
        left = {name: size / (first[name] or 1.0) for name, size in sizes.items()}
        most = max(left.values())
        found |= {
            name: None
            for name, size in sizes.items()
            if seen < _SEEN * size and unseen < _UNSEEN * size and left[name] > _LEAST * most
        }
        if most < _LEFT:
            break
    return list(found)
