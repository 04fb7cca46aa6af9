"""Taylor's and Green's decaying vortices in the plane."""

from __future__ import annotations

from math import pi

import torch
from torch import Tensor

from diffhash.geometry import Box
from diffhash.problems.checks import check_positive
from diffhash.problems.condition import Condition
from diffhash.problems.derivatives import Derivatives, stack
from diffhash.problems.problem import Problem


class TaylorGreen(Problem):
    """The Navier–Stokes equations for (x, y) in [0, 2π]² and t in [0, 1],

    u_t + u u_x + v u_y + p_x = ν Δu,  v_t + u v_x + v v_y + p_y = ν Δv,  u_x + v_y = 0,

    with the velocity given at the start, and velocity and pressure on the walls. The exact solution
    (Taylor and Green, Proc. R. Soc. A 1937) is, with F = e^(-2νt),

    u = cos x sin y F,  v = -sin x cos y F,  p = -¼ (cos 2x + cos 2y) F².

    Args:
        nu: ν, the viscosity.

    Raises:
        ValueError: ν is not finite and positive.
    """

    unknowns = ("u", "v", "p")
    domain = Box(x=(0, 2 * pi), y=(0, 2 * pi), t=(0, 1))

    def __init__(self, nu: float = 0.01) -> None:
        check_positive(nu=nu)
        super().__init__()
        self.nu = nu

    def conditions(self) -> list[Condition]:
        """Momentum and continuity, the walls and the start."""
        wall, start = self.domain.boundary(), self.domain.initial()
        return [
            Condition("momentum", self.domain, self._momentum),
            Condition("continuity", self.domain, lambda x, d: d.u_x + d.v_y),
            Condition("wall", wall, lambda x, d: stack(d.u, d.v, d.p), self.solution),
            Condition("start", start, lambda x, d: stack(d.u, d.v), self._velocity),
        ]

    def _momentum(self, x: Tensor, d: Derivatives) -> Tensor:
        return stack(
            d.u_t + d.u * d.u_x + d.v * d.u_y + d.p_x - self.nu * (d.u_xx + d.u_yy),
            d.v_t + d.u * d.v_x + d.v * d.v_y + d.p_y - self.nu * (d.v_xx + d.v_yy),
        )

    def _velocity(self, x: Tensor) -> Tensor:
        return self.solution(x)[:, :2]

    def solution(self, x: Tensor) -> Tensor:
        """Taylor's and Green's solution."""
        x, y, t = x.unbind(dim=1)
        decay = torch.exp(-2 * self.nu * t)
        u, v = x.cos() * y.sin() * decay, -x.sin() * y.cos() * decay
        return stack(u, v, -((2 * x).cos() + (2 * y).cos()) / 4 * decay**2)
