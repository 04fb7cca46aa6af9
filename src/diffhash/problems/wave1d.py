"""The wave equation of a string."""

from __future__ import annotations

from math import pi

from torch import Tensor

from diffhash.geometry import Box
from diffhash.problems.checks import check_positive
from diffhash.problems.condition import Condition
from diffhash.problems.derivatives import Derivatives
from diffhash.problems.problem import Problem


class Wave1D(Problem):
    """u_tt = c² u_xx for x in [0, 1] and t in [0, 1], u = 0 at both ends, and at the start

    u(x, 0) = sin(πx) + ½ sin(4πx),  u_t(x, 0) = 0.

    The exact solution is u(x, t) = sin(πx) cos(cπt) + ½ sin(4πx) cos(4cπt) (Wang, Yu and
    Perdikaris, J. Comput. Phys. 2022, for c = 2).

    Args:
        c: the speed of waves.

    Raises:
        ValueError: c is not finite and positive.
    """

    domain = Box(x=(0, 1), t=(0, 1))

    def __init__(self, c: float = 2.0) -> None:
        check_positive(c=c)
        super().__init__()
        self.c = c

    def conditions(self) -> list[Condition]:
        """The equation, the fixed ends, the shape at the start, and no velocity then."""
        return [
            Condition("equation", self.domain, self._equation),
            Condition("ends", self.domain.boundary("x"), lambda x, d: d.u),
            Condition("start", self.domain.initial(), lambda x, d: d.u, self._start),
            Condition("rest", self.domain.initial(), lambda x, d: d.u_t),
        ]

    def _equation(self, x: Tensor, d: Derivatives) -> Tensor:
        return d.u_tt - self.c**2 * d.u_xx

    def _start(self, x: Tensor) -> Tensor:
        return (pi * x[:, 0]).sin() + 0.5 * (4 * pi * x[:, 0]).sin()

    def solution(self, x: Tensor) -> Tensor:
        """The sum of two standing waves."""
        x, t = x.unbind(dim=1)
        slow = (pi * x).sin() * (self.c * pi * t).cos()
        return slow + 0.5 * (4 * pi * x).sin() * (4 * self.c * pi * t).cos()
