"""The Kuramoto–Sivashinsky equation."""

from __future__ import annotations

from math import pi

from torch import Tensor

from diffhash.geometry import Box
from diffhash.problems.condition import Condition
from diffhash.problems.derivatives import Derivatives, stack
from diffhash.problems.problem import Problem
from diffhash.problems.reference import SplineReference, stored


class KuramotoSivashinsky(Problem):
    """u_t + a u u_x + b u_xx + c u_xxxx = 0 with a = 100/16, b = 100/16², c = 100/16⁴ for t in
    [0, 1], u periodic in x in [0, 2π], u(x, 0) = cos x (1 + sin x) (jaxpi, Wang et al., 2023).

    Waves grow from t = 0.4 on and turn chaotic. The exact solution is from a file: see `reference`.
    """

    domain = Box(x=(0, 2 * pi), t=(0, 1))
    periodic = ("x",)

    def conditions(self) -> list[Condition]:
        """The equation, the period and the start."""
        period = self.domain.periodic("x")
        return [
            Condition("equation", self.domain, self._equation),
            Condition("period", period, lambda x, d: stack(d.u, d.u_x, d.u_xx, d.u_xxx)),
            Condition("start", self.domain.initial(), lambda x, d: d.u, self._start),
        ]

    def _equation(self, x: Tensor, d: Derivatives) -> Tensor:
        return d.u_t + 100 / 16 * d.u * d.u_x + 100 / 16**2 * d.u_xx + 100 / 16**4 * d.u_xxxx

    def _start(self, x: Tensor) -> Tensor:
        return x[:, 0].cos() * (1 + x[:, 0].sin())

    @property
    def reference(self) -> SplineReference:
        """The reference from a file, with the agreement of two spectral methods."""
        return stored("kuramoto_sivashinsky")

    def solution(self, x: Tensor) -> Tensor:
        """The solution from the file."""
        return self.reference(x)
