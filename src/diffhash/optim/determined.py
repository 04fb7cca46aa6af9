"""What the residuals determine near the end of training.

There r(θ + δ) ≈ r + J δ. With factors of JᵀJ + λD² for a small λ, ``step(r)`` is the δ that
minimises |J δ + r|² + λ|D δ|².
"""

from __future__ import annotations

import numpy as np

from diffhash.optim.damped import Step
from diffhash.optim.jacobian import Jacobian
from diffhash.optim.residuals import Residuals

_REPEATS = 3
_LEFT = 1e-3  # the fraction of a random change that a determined quantity keeps at most
_STAYS = 0.5  # the fraction of its size that an undetermined change keeps in each repetition


def undetermined(
    residuals: Residuals, jacobian: Jacobian, step: Step, lengths: np.ndarray
) -> list[str]:
    """Names of the unknowns and coefficients that can change while no residual does.

    A random change δ is replaced by δ + step(J δ) = (JᵀJ + λD²)⁻¹ λD² δ, a few times. Along an
    eigenvector of JᵀJ relative to D² with the eigenvalue σ² each replacement multiplies it by
    λ / (σ² + λ). What stays is what no residual sees to the accuracy of λ.

    Args:
        residuals: the residuals, at the present parameters.
        jacobian: J.
        step: a function from r to δ.
        lengths: the diagonal of D.
    """
    change = np.random.default_rng(0).standard_normal(len(lengths)) / lengths
    first = residuals.effect(change)
    for _ in range(_REPEATS):
        before, change = change, change + step(jacobian @ change)
    previous, last = residuals.effect(before), residuals.effect(change)
    return [
        name
        for name, size in last.items()
        if size > _LEFT * first[name] and size > _STAYS * previous[name]
    ]
