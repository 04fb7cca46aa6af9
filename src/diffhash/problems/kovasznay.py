"""Kovasznay's flow behind a grid."""

from __future__ import annotations

from math import pi, sqrt

import torch
from torch import Tensor

from diffhash.geometry import Box
from diffhash.problems.checks import check_positive
from diffhash.problems.condition import Condition
from diffhash.problems.derivatives import Derivatives, stack
from diffhash.problems.problem import Problem


class Kovasznay(Problem):
    """The steady Navier–Stokes equations on [-½, 1] × [-½, 3/2],

    u u_x + v u_y + p_x = Δu/Re,  u v_x + v v_y + p_y = Δv/Re,  u_x + v_y = 0,

    with the velocity given on the boundary and the pressure at the outflow x = 1. The exact
    solution (Kovasznay, Proc. Camb. Phil. Soc. 1948) is, with λ = Re/2 - √(Re²/4 + 4π²),

    u = 1 - e^(λx) cos(2πy),  v = λ/(2π) e^(λx) sin(2πy),  p = ½ (1 - e^(2λx)).

    Args:
        reynolds: Re.

    Raises:
        ValueError: Re is not finite and positive.
    """

    unknowns = ("u", "v", "p")
    domain = Box(x=(-0.5, 1), y=(-0.5, 1.5))

    def __init__(self, reynolds: float = 40.0) -> None:
        check_positive(reynolds=reynolds)
        super().__init__()
        self.reynolds = reynolds

    def conditions(self) -> list[Condition]:
        """Momentum and continuity, velocity on the boundary, pressure at the outflow."""
        wall, outflow = self.domain.boundary(), self.domain.boundary("x+")
        return [
            Condition("momentum", self.domain, self._momentum),
            Condition("continuity", self.domain, lambda x, d: d.u_x + d.v_y),
            Condition("velocity", wall, lambda x, d: stack(d.u, d.v), self._velocity),
            Condition("pressure", outflow, lambda x, d: d.p, lambda x: self.solution(x)[:, 2]),
        ]

    def _momentum(self, x: Tensor, d: Derivatives) -> Tensor:
        return stack(
            d.u * d.u_x + d.v * d.u_y + d.p_x - (d.u_xx + d.u_yy) / self.reynolds,
            d.u * d.v_x + d.v * d.v_y + d.p_y - (d.v_xx + d.v_yy) / self.reynolds,
        )

    def _velocity(self, x: Tensor) -> Tensor:
        return self.solution(x)[:, :2]

    def solution(self, x: Tensor) -> Tensor:
        """Kovasznay's solution."""
        x, y = x.unbind(dim=1)
        rate = self.reynolds / 2 - sqrt(self.reynolds**2 / 4 + 4 * pi**2)
        decay = torch.exp(rate * x)
        u = 1 - decay * (2 * pi * y).cos()
        v = rate / (2 * pi) * decay * (2 * pi * y).sin()
        return stack(u, v, (1 - decay**2) / 2)
