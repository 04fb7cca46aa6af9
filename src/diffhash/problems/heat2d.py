"""The heat equation on a plate with two holes."""

from __future__ import annotations

from math import pi

import torch
from torch import Tensor

from diffhash.geometry import Box, Disc, Interval
from diffhash.problems.checks import check_positive
from diffhash.problems.condition import Condition
from diffhash.problems.derivatives import Derivatives
from diffhash.problems.problem import Problem

_MARGIN = 0.05  # a distance from the plate's edge; the holes are farther away


class Heat2D(Problem):
    """u_t = κ Δu for t in [0, 1] on [0, 1]² without the discs of radius 0.15 around (0.3, 0.35) and
    of radius 0.1 around (0.7, 0.7); the plate's edge is insulated, u_n = 0, and u is given on the
    rims of the holes and at the start.

    The exact solution is u(x, y, t) = exp(-2κπ²t) cos(πx) cos(πy).

    Args:
        kappa: κ, the diffusivity.

    Raises:
        ValueError: κ is not finite and positive.
    """

    holes = (Disc((0.3, 0.35), 0.15), Disc((0.7, 0.7), 0.1))
    domain = (Box(x=(0, 1), y=(0, 1)) - holes[0] - holes[1]) * Interval(t=(0, 1))

    def __init__(self, kappa: float = 0.05) -> None:
        check_positive(kappa=kappa)
        super().__init__()
        self.kappa = kappa

    def conditions(self) -> list[Condition]:
        """The equation, the insulated edge, the rims and the start."""
        edge = self.domain.boundary("x", "y", where=self._is_on_the_edge)
        rims = self.domain.boundary("x", "y", where=lambda x: ~self._is_on_the_edge(x))
        return [
            Condition("equation", self.domain, self._equation),
            Condition("edge", edge, lambda x, d: d.u_n),
            Condition("rims", rims, lambda x, d: d.u, self.solution),
            Condition("start", self.domain.initial(), lambda x, d: d.u, self.solution),
        ]

    def _equation(self, x: Tensor, d: Derivatives) -> Tensor:
        return d.u_t - self.kappa * (d.u_xx + d.u_yy)

    def _is_on_the_edge(self, x: Tensor) -> Tensor:
        return (x[:, :2] - 0.5).abs().amax(dim=1) > 0.5 - _MARGIN

    def solution(self, x: Tensor) -> Tensor:
        """exp(-2κπ²t) cos(πx) cos(πy)."""
        c_x, c_y = (pi * x[:, :2]).cos().T
        return torch.exp(-2 * self.kappa * pi**2 * x[:, 2]) * c_x * c_y
