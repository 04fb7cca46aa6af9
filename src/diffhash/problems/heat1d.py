"""The heat equation on an insulated rod."""

from __future__ import annotations

from math import pi

import torch
from torch import Tensor

from diffhash.geometry import Box
from diffhash.problems.checks import check_positive
from diffhash.problems.condition import Condition
from diffhash.problems.derivatives import Derivatives
from diffhash.problems.problem import Problem


class Heat1D(Problem):
    """u_t = κ u_xx for x in [0, 1] and t in [0, 1], u_n = 0 at both ends (Neumann), and

    u(x, 0) = cos(πx) + ½ cos(3πx).

    The exact solution, by separation of variables, is
    u(x, t) = e^(-κπ²t) cos(πx) + ½ e^(-9κπ²t) cos(3πx).

    Args:
        kappa: κ, the diffusivity.

    Raises:
        ValueError: κ is not finite and positive.
    """

    domain = Box(x=(0, 1), t=(0, 1))

    def __init__(self, kappa: float = 0.05) -> None:
        check_positive(kappa=kappa)
        super().__init__()
        self.kappa = kappa

    def conditions(self) -> list[Condition]:
        """The equation, the insulated ends and the start."""
        return [
            Condition("equation", self.domain, self._equation),
            Condition("ends", self.domain.boundary("x"), lambda x, d: d.u_n),
            Condition("start", self.domain.initial(), lambda x, d: d.u, self._start),
        ]

    def _equation(self, x: Tensor, d: Derivatives) -> Tensor:
        return d.u_t - self.kappa * d.u_xx

    def _start(self, x: Tensor) -> Tensor:
        return (pi * x[:, 0]).cos() + 0.5 * (3 * pi * x[:, 0]).cos()

    def solution(self, x: Tensor) -> Tensor:
        """The sum of two decaying modes."""
        x, t = x.unbind(dim=1)
        rate = self.kappa * pi**2
        slow = torch.exp(-rate * t) * (pi * x).cos()
        return slow + 0.5 * torch.exp(-9 * rate * t) * (3 * pi * x).cos()
