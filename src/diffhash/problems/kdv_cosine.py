"""The Korteweg–de Vries equation with a wave that breaks into solitons."""

from __future__ import annotations

from math import pi

from torch import Tensor

from diffhash.geometry import Box
from diffhash.problems.condition import Condition
from diffhash.problems.derivatives import Derivatives, stack
from diffhash.problems.problem import Problem
from diffhash.problems.reference import SplineReference, stored


class KdVCosine(Problem):
    """u_t + u u_x + 0.022² u_xxx = 0 for t in [0, 1], u periodic in x in [-1, 1], u(x, 0) = cos πx
    (Zabusky and Kruskal, Phys. Rev. Lett. 1965).

    The exact solution is from a file: see `reference`. `KdV` has one in closed form.
    """

    domain = Box(x=(-1, 1), t=(0, 1))
    periodic = ("x",)

    def conditions(self) -> list[Condition]:
        """The equation, the period and the start."""
        period = self.domain.periodic("x")
        return [
            Condition("equation", self.domain, self._equation),
            Condition("period", period, lambda x, d: stack(d.u, d.u_x, d.u_xx)),
            Condition("start", self.domain.initial(), lambda x, d: d.u, self._start),
        ]

    def _equation(self, x: Tensor, d: Derivatives) -> Tensor:
        return d.u_t + d.u * d.u_x + 0.022**2 * d.u_xxx

    def _start(self, x: Tensor) -> Tensor:
        return (pi * x[:, 0]).cos()

    @property
    def reference(self) -> SplineReference:
        """The reference from a file, with the agreement of two spectral methods."""
        return stored("kdv_cosine")

    def solution(self, x: Tensor) -> Tensor:
        """The solution from the file."""
        return self.reference(x)
