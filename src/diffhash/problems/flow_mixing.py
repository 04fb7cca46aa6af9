"""Two fluids mixed by a vortex."""

from __future__ import annotations

import torch
from torch import Tensor

from diffhash.geometry import Box
from diffhash.problems.condition import Condition
from diffhash.problems.derivatives import Derivatives
from diffhash.problems.problem import Problem

_FASTEST = 0.385  # the largest value of sech²r tanh r, rounded as in the literature
_TINY = 1e-30  # added to r², so that √ has a finite derivative at r = 0


class FlowMixing(Problem):
    """u_t + a u_x + b u_y = 0 for (x, y) in [-4, 4]² and t in [0, 4], in the flow of a vortex

    a = -ω y,  b = ω x,  ω(r) = sech²r tanh r / (0.385 r),  r² = x² + y²,

    u given at the start and on the walls. The exact solution (Tamamidis and Assanis, 1993; as in
    Chiu et al., Comput. Methods Appl. Mech. Engrg. 2022) is the start, carried around:

    u(x, y, t) = -tanh(½ (y cos ωt - x sin ωt)).
    """

    domain = Box(x=(-4, 4), y=(-4, 4), t=(0, 4))

    def conditions(self) -> list[Condition]:
        """The equation, the walls and the start."""
        start = self.domain.initial()
        return [
            Condition("equation", self.domain, self._equation),
            Condition("wall", self.domain.boundary(), lambda x, d: d.u, self.solution),
            Condition("start", start, lambda x, d: d.u, lambda x: -(x[:, 1] / 2).tanh()),
        ]

    def _equation(self, x: Tensor, d: Derivatives) -> Tensor:
        return d.u_t + self._turning(x) * (x[:, 0] * d.u_y - x[:, 1] * d.u_x)

    def _turning(self, x: Tensor) -> Tensor:
        """The angular velocity ω, ``[N]``."""
        r = (x[:, :2].square().sum(dim=1) + _TINY).sqrt()
        return r.tanh() / (_FASTEST * r * torch.cosh(r).square())

    def solution(self, x: Tensor) -> Tensor:
        """The values at the start, turned by the angle ωt."""
        angle = self._turning(x) * x[:, 2]
        return -((x[:, 1] * angle.cos() - x[:, 0] * angle.sin()) / 2).tanh()
