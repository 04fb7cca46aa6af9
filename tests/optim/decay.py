"""A problem that is not linear, with a coefficient that is to be found."""

from __future__ import annotations

from torch import Tensor

from diffhash.geometry import Interval
from diffhash.problems import Coefficient, Condition, Problem


class Decay(Problem):
    """u′ + k u³ = 0, u(0) = 1 with k unknown, from a value of u."""

    domain = Interval(t=(0, 1))

    def __init__(self) -> None:
        super().__init__()
        self.k = Coefficient(0.3, true=1.0)

    def conditions(self) -> list[Condition]:
        return [
            Condition("equation", self.domain, lambda x, d: d.u_t + self.k * d.u**3),
            Condition("start", self.domain.initial(), lambda x, d: d.u, 1.0),
            Condition("end", self.domain.boundary("t+"), lambda x, d: d.u, 3**-0.5),
        ]

    def solution(self, x: Tensor) -> Tensor:
        return (1 + 2 * x[:, 0]) ** -0.5
