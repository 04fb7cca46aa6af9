"""Poisson's equation across a circle where the coefficient jumps."""

from __future__ import annotations

from math import pi

from torch import Tensor

from diffhash.geometry import Box, Disc, Interface
from diffhash.problems.checks import check_positive
from diffhash.problems.condition import Condition
from diffhash.problems.derivatives import stack
from diffhash.problems.problem import Problem

_RADIUS = 0.5


class PoissonInterface(Problem):
    """-∇·(k ∇w) = f on [-1, 1]², with a k that is one number in the disc of radius r₀ = ½ and
    another around it; w and its flux k w_n are continuous across the circle, w is given on the
    square's edge.

    The unknowns are u = w in the disc and v = w around it. The exact solution is

    u = q/k_in,  v = q/k_out,  q = (x² + y² - r₀²) g,  g = sin(πx) + cos(πy),  f = -Δq.

    Args:
        k_in: k in the disc.
        k_out: k around the disc.

    Raises:
        ValueError: ``k_in`` or ``k_out`` is not finite and positive.
    """

    unknowns = ("u", "v")
    domain = Box(x=(-1, 1), y=(-1, 1))
    disc = Disc(radius=_RADIUS)
    around = domain - disc

    def __init__(self, k_in: float = 10.0, k_out: float = 1.0) -> None:
        check_positive(k_in=k_in, k_out=k_out)
        super().__init__()
        self.k_in, self.k_out = k_in, k_out
        self.parts = {"u": self.disc, "v": self.around}

    def conditions(self) -> list[Condition]:
        """Both equations, the continuity across the circle, and the values on the edge."""
        k_in, k_out = self.k_in, self.k_out
        circle, edge = Interface(self.disc, self.around), self.domain.boundary()
        return [
            Condition("inside", self.disc, lambda x, d: -k_in * (d.u_xx + d.u_yy), self._source),
            Condition(
                "outside", self.around, lambda x, d: -k_out * (d.v_xx + d.v_yy), self._source
            ),
            Condition("continuity", circle, lambda x, d: d.u - d.v),
            Condition("flux", circle, lambda x, d: k_in * d.u_n - k_out * d.v_n),
            Condition("edge", edge, lambda x, d: d.v, lambda x: self.solution(x)[:, 1]),
        ]

    def _source(self, x: Tensor) -> Tensor:
        x, y = (pi * x).T
        g = x.sin() + y.cos()
        slopes = x * x.cos() - y * y.sin()  # x·∇g
        return -(4 * g + 4 * slopes - (x.square() + y.square() - (pi * _RADIUS) ** 2) * g)

    def solution(self, x: Tensor) -> Tensor:
        """u and v, each also continued beyond the circle."""
        s_x, c_y = (pi * x[:, 0]).sin(), (pi * x[:, 1]).cos()
        q = (x.square().sum(dim=1) - _RADIUS**2) * (s_x + c_y)
        return stack(q / self.k_in, q / self.k_out)
