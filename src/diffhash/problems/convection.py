"""Convection at a constant speed on a circle."""

from __future__ import annotations

from math import pi

from torch import Tensor

from diffhash.geometry import Box
from diffhash.problems.checks import check_positive
from diffhash.problems.condition import Condition
from diffhash.problems.derivatives import Derivatives
from diffhash.problems.problem import Problem


class Convection(Problem):
    """u_t + β u_x = 0 for t in [0, 1], u periodic in x in [0, 2π], u(x, 0) = sin x.

    The exact solution is u(x, t) = sin(x - βt) (Krishnapriyan et al., NeurIPS 2021).

    Args:
        beta: β, the speed.

    Raises:
        ValueError: β is not finite and positive.
    """

    domain = Box(x=(0, 2 * pi), t=(0, 1))
    periodic = ("x",)

    def __init__(self, beta: float = 30.0) -> None:
        check_positive(beta=beta)
        super().__init__()
        self.beta = beta

    def conditions(self) -> list[Condition]:
        """The equation, the period and the start."""
        return [
            Condition("equation", self.domain, self._equation),
            Condition("period", self.domain.periodic("x"), lambda x, d: d.u),
            Condition("start", self.domain.initial(), lambda x, d: d.u, self._start),
        ]

    def _equation(self, x: Tensor, d: Derivatives) -> Tensor:
        return d.u_t + self.beta * d.u_x

    def _start(self, x: Tensor) -> Tensor:
        return x[:, 0].sin()

    def solution(self, x: Tensor) -> Tensor:
        """sin(x - βt)."""
        return (x[:, 0] - self.beta * x[:, 1]).sin()
