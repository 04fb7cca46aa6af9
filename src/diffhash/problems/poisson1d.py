"""The paper's 1-D Poisson problem."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite, pi
from numbers import Real

from torch import Tensor

from diffhash.jets import Jet
from diffhash.problems.problem import Problem, even_points


class Poisson1D(Problem):
    """k u″ = f on [0, 1] (Eq. 14), with the exact solution (Eq. 15)

    u(x) = (2x³ - 20x) sin(2πx)/(2π) + sin(8πx).

    Args:
        k: diffusion coefficient.
        label_region: (low, high) where the PINN task knows u.

    Raises:
        ValueError: ``label_region`` does not lie in [0, 1], or k is zero or not finite.
    """

    domain = ((0.0, 1.0),)
    order = 2
    linear = True

    def __init__(self, k: float = 0.01, label_region: Sequence[float] = (0.0, 0.5)) -> None:
        numbers = [isinstance(one, Real) for one in label_region]
        if numbers != [True, True] or not 0 <= label_region[0] < label_region[1] <= 1:
            raise ValueError(
                f"label_region={list(label_region)}: give [low, high] with 0 <= low < high <= 1"
            )
        if k == 0 or not isfinite(k):
            raise ValueError(f"k={k}: give a finite number other than 0")
        self.k = k
        self.label_region = (label_region[0], label_region[1])

    def operator(self, x: Tensor, u: Jet) -> Tensor:
        return self.k * u[2,]

    def solution(self, x: Tensor) -> Tensor:
        return (2 * x**3 - 20 * x) * (2 * pi * x).sin() / (2 * pi) + (8 * pi * x).sin()

    def label_points(self, n: int) -> Tensor:
        return even_points([self.label_region], n)
