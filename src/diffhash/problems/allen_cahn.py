"""The Allen–Cahn equation."""

from __future__ import annotations

from math import pi

import torch
from torch import Tensor

from diffhash.geometry import Box
from diffhash.problems.condition import Condition
from diffhash.problems.derivatives import Derivatives, stack
from diffhash.problems.problem import Problem
from diffhash.problems.reference import SplineReference, stored


class AllenCahn(Problem):
    """u_t = 10⁻⁴ u_xx - 5u³ + 5u for t in [0, 1], u periodic in x in [-1, 1], u(x, 0) = x² cos πx
    (Raissi et al., J. Comput. Phys. 2019).

    The start has a kink where the period ends: u_x(±1, 0) = ∓2. From t = 0 on it is smooth, and u
    is even in x. The exact solution is from a file: see `reference`.
    """

    domain = Box(x=(-1, 1), t=(0, 1))
    periodic = ("x",)

    def conditions(self) -> list[Condition]:
        """The equation, the period and the start."""
        period = self.domain.periodic("x")
        return [
            Condition("equation", self.domain, self._equation),
            Condition("period", period, lambda x, d: stack(d.u, d.u_x)),
            Condition("start", self.domain.initial(), lambda x, d: d.u, self._start),
        ]

    def _equation(self, x: Tensor, d: Derivatives) -> Tensor:
        return d.u_t - 1e-4 * d.u_xx + 5 * d.u**3 - 5 * d.u

    def _start(self, x: Tensor) -> Tensor:
        return x[:, 0].square() * (pi * x[:, 0]).cos()

    @property
    def reference(self) -> SplineReference:
        """The reference from a file, with the agreement of two spectral methods."""
        return stored("allen_cahn")

    def solution(self, x: Tensor) -> Tensor:
        """The solution from the file, which has the right half of the period."""
        x, t = x.unbind(dim=1)
        return self.reference(torch.stack([torch.where(x < 0, -x, x), t], dim=1))
