"""The biharmonic equation of a clamped plate."""

from __future__ import annotations

from math import pi

from torch import Tensor

from diffhash.geometry import Box
from diffhash.problems.condition import Condition
from diffhash.problems.derivatives import Derivatives
from diffhash.problems.problem import Problem


class Biharmonic2D(Problem):
    """Δ²u = f on [0, 1]², u = u_n = 0 on the boundary: a clamped plate (Kirchhoff's equation).

    The exact solution is manufactured: with s(x) = sin²(πx), c(x) = cos(2πx),

    u(x, y) = s(x) s(y),  f = 8π⁴ (c(x) c(y) - c(x) s(y) - s(x) c(y)).
    """

    domain = Box(x=(0, 1), y=(0, 1))

    def conditions(self) -> list[Condition]:
        """The equation, and deflection and slope on the boundary."""
        wall = self.domain.boundary()
        return [
            Condition("equation", self.domain, self._equation, self._source),
            Condition("edge", wall, lambda x, d: d.u),
            Condition("slope", wall, lambda x, d: d.u_n),
        ]

    def _equation(self, x: Tensor, d: Derivatives) -> Tensor:
        return d.u_xxxx + 2 * d.u_xxyy + d.u_yyyy

    def _source(self, x: Tensor) -> Tensor:
        (s_x, s_y), (c_x, c_y) = (pi * x).sin().square().T, (2 * pi * x).cos().T
        return 8 * pi**4 * (c_x * c_y - c_x * s_y - s_x * c_y)

    def solution(self, x: Tensor) -> Tensor:
        """sin²(πx) sin²(πy)."""
        s_x, s_y = (pi * x).sin().square().T
        return s_x * s_y
