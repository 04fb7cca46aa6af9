"""Poisson's equation on a square with four round holes."""

from __future__ import annotations

from math import isfinite

import torch
from torch import Tensor

from diffhash.geometry import Box, Disc
from diffhash.problems.checks import check_positive
from diffhash.problems.condition import Condition
from diffhash.problems.problem import Problem

_RADIUS = 0.1
_CENTERS = ((-0.3, -0.3), (0.3, -0.3), (-0.3, 0.3), (0.3, 0.3))
_SIGNS = (1.0, -1.0, -1.0, 1.0)


class PoissonHoles(Problem):
    """-Δu = f on [-½, ½]² without the four discs of radius r = 0.1 around c_i = (±0.3, ±0.3), the
    geometry of PINNacle's 2d-C (Hao et al., NeurIPS 2024); u given on the square's edge and on the
    circles.

    The exact solution has a source in each hole, of alternating sign s_i, and f is constant:

    u(x) = q Σ_i s_i ln(|x - c_i|/r) - f |x|²/4.

    Args:
        f: the right-hand side.
        strength: the strength q of the sources in the holes.

    Raises:
        ValueError: f is not finite, or q is not finite and positive.
    """

    holes = tuple(Disc(center, _RADIUS) for center in _CENTERS)
    domain = Box(x=(-0.5, 0.5), y=(-0.5, 0.5)) - holes[0] - holes[1] - holes[2] - holes[3]

    def __init__(self, f: float = 1.0, strength: float = 0.5) -> None:
        if not isfinite(f):
            raise ValueError(f"f={f}: give a finite number")
        check_positive(strength=strength)
        super().__init__()
        self.f, self.strength = f, strength

    def conditions(self) -> list[Condition]:
        """The equation, and u on the square's edge and on the circles."""
        edge = self.domain.boundary("x", "y", where=self._is_on_the_edge)
        circles = self.domain.boundary(*self.holes)
        return [
            Condition("equation", self.domain, lambda x, d: -(d.u_xx + d.u_yy), self.f),
            Condition("edge", edge, lambda x, d: d.u, self.solution),
            Condition("holes", circles, lambda x, d: d.u, self.solution),
        ]

    def _is_on_the_edge(self, x: Tensor) -> Tensor:
        return x.abs().amax(dim=1) > 0.45  # the holes end at 0.4

    def solution(self, x: Tensor) -> Tensor:
        """The sum of four logarithms and a paraboloid."""
        u = -self.f / 4 * x.square().sum(dim=1)
        for center, sign in zip(_CENTERS, _SIGNS, strict=True):
            squares = (x - torch.tensor(center).to(x)).square().sum(dim=1)
            u = u + sign * self.strength / 2 * (squares / _RADIUS**2).log()
        return u
