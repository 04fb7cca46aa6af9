"""The Gray–Scott equations: two substances that react and diffuse."""

from __future__ import annotations

from math import pi

import torch
from torch import Tensor

from diffhash.geometry import Box
from diffhash.problems.condition import Condition
from diffhash.problems.derivatives import Derivatives, stack
from diffhash.problems.problem import Problem
from diffhash.problems.reference import SplineReference, stored


class GrayScott(Problem):
    """Two unknowns, periodic in x in [-1, 1], for t in [0, 1]:

    u_t = 0.04 u_xx + 40 (1 - u) - 1000 u v²,  v_t = 0.02 v_xx - 100 v + 1000 u v²,

    with the reaction of Pearson (Science 1993), a thousand of whose units of time are one here, and
    u(x, 0) = 1 - ½ b(x - 0.05), v(x, 0) = ¼ b(x), b(x) = exp(10 cos πx - 10). A pulse of v splits
    into two.

    The exact solution is from a file: see `reference`.
    """

    unknowns = ("u", "v")
    domain = Box(x=(-1, 1), t=(0, 1))
    periodic = ("x",)

    def conditions(self) -> list[Condition]:
        """The equations, the period and the start."""
        period, start = self.domain.periodic("x"), self.domain.initial()
        return [
            Condition("equations", self.domain, self._equations),
            Condition("period", period, lambda x, d: stack(d.u, d.v, d.u_x, d.v_x)),
            Condition("start", start, lambda x, d: stack(d.u, d.v), self._start),
        ]

    def _equations(self, x: Tensor, d: Derivatives) -> Tensor:
        reaction = 1000 * d.u * d.v**2
        return stack(
            d.u_t - 0.04 * d.u_xx - 40 * (1 - d.u) + reaction,
            d.v_t - 0.02 * d.v_xx + 100 * d.v - reaction,
        )

    def _start(self, x: Tensor) -> Tensor:
        x = x[:, 0]
        return stack(1 - _bump(x - 0.05) / 2, _bump(x) / 4)

    @property
    def reference(self) -> SplineReference:
        """The reference from a file, with the agreement of two spectral methods."""
        return stored("gray_scott")

    def solution(self, x: Tensor) -> Tensor:
        """The solution from the file."""
        return self.reference(x)


def _bump(x: Tensor) -> Tensor:
    return torch.exp(10 * ((pi * x).cos() - 1))
