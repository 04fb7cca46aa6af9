"""The Korteweg–de Vries equation with a soliton."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from diffhash.geometry import Box
from diffhash.problems.checks import check_positive
from diffhash.problems.condition import Condition
from diffhash.problems.derivatives import Derivatives, stack
from diffhash.problems.problem import Problem
from diffhash.problems.reference import Reference

_REFERENCE = Reference(
    {"closed form on the line": 1e-11, "Fourier (512 points), ETDRK4 (steps of 1e-04)": 2e-11},
    1e-11,
)
_MAX_WRAP = 1e-9  # the largest value at the ends, relative to the soliton's height


class KdV(Problem):
    """u_t + 6 u u_x + u_xxx = 0 for t in [0, 1], u periodic in x in [-L, L], with one soliton,

    u(x, t) = c/2 sech²(√c/2 (x - c(t - ½))),

    which is an exact solution on the line (Drazin and Johnson, Solitons, 1989). It falls as
    2c exp(-√c |x|): at the ends of the default interval, c = 4 and L = 15, it is below 4·10⁻¹¹,
    which bounds its deviation from periodicity.

    Args:
        c: the speed of the soliton, which is twice its height.
        half_width: L.

    Raises:
        ValueError: a number is not finite and positive, or the interval is too narrow: the soliton
            would be above 10⁻⁹ of its height at an end.
    """

    periodic = ("x",)

    def __init__(self, c: float = 4.0, half_width: float = 15.0) -> None:
        check_positive(c=c, half_width=half_width)
        nearest = half_width - c / 2
        if 4 * math.exp(-math.sqrt(c) * nearest) > _MAX_WRAP:
            least = c / 2 + math.log(4 / _MAX_WRAP) / math.sqrt(c)
            raise ValueError(
                f"half_width={half_width}: the soliton of c={c} needs at least {least:.2f}"
            )
        super().__init__()
        self.c, self.half_width = c, half_width
        self.domain = Box(x=(-half_width, half_width), t=(0, 1))

    def conditions(self) -> list[Condition]:
        """The equation, the period and the start."""
        period = self.domain.periodic("x")
        return [
            Condition("equation", self.domain, self._equation),
            Condition("period", period, lambda x, d: stack(d.u, d.u_x, d.u_xx)),
            Condition("start", self.domain.initial(), lambda x, d: d.u, self.solution),
        ]

    def _equation(self, x: Tensor, d: Derivatives) -> Tensor:
        return d.u_t + 6 * d.u * d.u_x + d.u_xxx

    @property
    def reference(self) -> Reference:
        """The reference: the soliton on the line, which a Fourier method confirms for the default
        numbers."""
        return _REFERENCE

    def solution(self, x: Tensor) -> Tensor:
        """The soliton, which is at x = 0 for t = ½."""
        s = math.sqrt(self.c) / 2 * (x[:, 0] - self.c * (x[:, 1] - 0.5))
        e = torch.exp(-2 * s.abs())  # cosh would overflow far away
        return 2 * self.c * e / (1 + e) ** 2
