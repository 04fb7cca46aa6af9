"""Helmholtz's equation on the unit square."""

from __future__ import annotations

from math import pi

from torch import Tensor

from diffhash.geometry import Box
from diffhash.problems.checks import check_positive
from diffhash.problems.condition import Condition
from diffhash.problems.derivatives import Derivatives
from diffhash.problems.problem import Problem


class Helmholtz2D(Problem):
    """Δu + u = f on [0, 1]², u given on the boundary, with the exact solution

    u(x, y) = sin(aπx) sin(aπy),  f = (1 - 2a²π²) u,

    for which u = 0 on the boundary if a is a whole number (PIXEL, Kang et al., AAAI 2023, has it
    with two different ones).

    Args:
        a: half the number of periods along each axis.

    Raises:
        ValueError: a is not finite and positive.
    """

    domain = Box(x=(0, 1), y=(0, 1))

    def __init__(self, a: float = 4.0) -> None:
        check_positive(a=a)
        super().__init__()
        self.a = a

    def conditions(self) -> list[Condition]:
        """The equation, and u on the boundary."""
        return [
            Condition("equation", self.domain, self._equation, self._source),
            Condition("wall", self.domain.boundary(), lambda x, d: d.u, self.solution),
        ]

    def _equation(self, x: Tensor, d: Derivatives) -> Tensor:
        return d.u_xx + d.u_yy + d.u

    def _source(self, x: Tensor) -> Tensor:
        return (1 - 2 * (self.a * pi) ** 2) * self.solution(x)

    def solution(self, x: Tensor) -> Tensor:
        """sin(aπx) sin(aπy)."""
        s_x, s_y = (self.a * pi * x).sin().T
        return s_x * s_y
