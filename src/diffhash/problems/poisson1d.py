"""The paper's 1-D Poisson problem."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite, pi
from numbers import Real

from torch import Tensor

from diffhash.geometry import Interval
from diffhash.problems.condition import EXACT, Condition
from diffhash.problems.derivatives import Derivatives
from diffhash.problems.problem import Problem


class Poisson1D(Problem):
    """k u″ = f on [0, 1] (Eq. 14), with the exact solution (Eq. 15)

    u(x) = (2x³ - 20x) sin(2πx)/(2π) + sin(8πx).

    Args:
        k: the diffusion coefficient.
        label_region: the interval (low, high) in which u is known in the PINN task.

    Raises:
        ValueError: ``label_region`` does not lie in [0, 1], or k is zero or not finite.
    """

    domain = Interval(x=(0, 1))

    def __init__(self, k: float = 0.01, label_region: Sequence[float] = (0.0, 0.5)) -> None:
        numbers = [isinstance(one, Real) for one in label_region]
        if numbers != [True, True] or not 0 <= label_region[0] < label_region[1] <= 1:
            raise ValueError(
                f"label_region={list(label_region)}: give [low, high] with 0 <= low < high <= 1"
            )
        if k == 0 or not isfinite(k):
            raise ValueError(f"k={k}: give a finite number other than 0")
        super().__init__()
        self.k = k
        self.label_region = (label_region[0], label_region[1])

    def conditions(self) -> list[Condition]:
        """The known values in ``label_region``, and the equation."""
        known = self.labels(Interval(x=self.label_region))
        return [known, Condition("residual", self.domain, self._equation, EXACT)]

    def _equation(self, x: Tensor, d: Derivatives) -> Tensor:
        return self.k * d.u_xx

    def solution(self, x: Tensor) -> Tensor:
        """Eq. 15."""
        return (2 * x**3 - 20 * x) * (2 * pi * x).sin() / (2 * pi) + (8 * pi * x).sin()
