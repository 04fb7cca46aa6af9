"""An unknown diffusion coefficient, from a few values of the solution."""

from __future__ import annotations

from math import pi

from torch import Tensor

from diffhash.geometry import Box
from diffhash.ops.sizes import check_sizes
from diffhash.problems.checks import check_positive
from diffhash.problems.coefficient import Coefficient
from diffhash.problems.condition import Condition, Measured
from diffhash.problems.derivatives import Derivatives
from diffhash.problems.problem import Problem


class InversePoisson(Problem):
    """-k Δu = f on [0, 1]² with an unknown number k, u = 0 on the boundary, and u known at a few
    points inside.

    The exact solution is u(x, y) = sin(πx) sin(πy); f = 2π² k* u belongs to the true k*.

    Args:
        k: the true value k*.
        start: the value of k with which training begins.
        n_data: the number of points with known u.

    Raises:
        ValueError: k* or the start is not finite and positive, or there is no point.
    """

    domain = Box(x=(0, 1), y=(0, 1))

    def __init__(self, k: float = 0.5, start: float = 1.0, n_data: int = 100) -> None:
        check_positive(k=k, start=start)
        check_sizes(1, 10**6, n_data=n_data)
        super().__init__()
        self.k, self._true, self.n_data = Coefficient(start, true=k), k, n_data

    def conditions(self) -> list[Condition]:
        """The equation, u on the boundary, and the known values inside."""
        x = self.domain.sample(self.n_data)
        values = self.solution(x)
        return [
            Condition("equation", self.domain, self._equation, self._source),
            Condition("wall", self.domain.boundary(), lambda x, d: d.u),
            Condition("data", Measured(x, values), lambda x, d: d.u),
        ]

    def _equation(self, x: Tensor, d: Derivatives) -> Tensor:
        return -self.k * (d.u_xx + d.u_yy)

    def _source(self, x: Tensor) -> Tensor:
        return 2 * pi**2 * self._true * self.solution(x)

    def solution(self, x: Tensor) -> Tensor:
        """sin(πx) sin(πy)."""
        s_x, s_y = (pi * x).sin().T
        return s_x * s_y
