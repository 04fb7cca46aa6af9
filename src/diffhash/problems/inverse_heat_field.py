"""An unknown conductivity that varies in space, from temperatures in space and time."""

from __future__ import annotations

from math import pi

from torch import Tensor

from diffhash.geometry import Box
from diffhash.ops.sizes import check_sizes
from diffhash.problems.checks import check_not_negative
from diffhash.problems.condition import Condition, Measured, normal_errors
from diffhash.problems.derivatives import Derivatives, stack
from diffhash.problems.problem import Problem


class InverseHeatField(Problem):
    """u_t - ∇·(a ∇u) = f for (x, y) in [-1, 1]² and t in [0, 1] with unknown fields u and a, where
    a does not depend on t; a known on the walls, and u measured inside (PINNacle's HInv, Hao et
    al., NeurIPS 2024, which has 2500 values, noise 0.1).

    The exact fields are u = e^(-t) s and a = 2 + s with s = sin(πx) sin(πy), to which belongs

    f = -u + 2π² a u - e^(-t) |∇s|².

    Args:
        n_data: the number of measured values.
        noise: the standard deviation of their normal errors, which are the same at every call.

    Raises:
        ValueError: there is no value, or the noise is negative or not finite.
    """

    unknowns = ("u", "a")
    domain = Box(x=(-1, 1), y=(-1, 1), t=(0, 1))

    def __init__(self, n_data: int = 2500, noise: float = 0.0) -> None:
        check_sizes(1, 10**6, n_data=n_data)
        check_not_negative(noise=noise)
        super().__init__()
        self.n_data, self.noise = n_data, noise

    def conditions(self) -> list[Condition]:
        """The equation, a steady and known on the walls, and the measured values of u."""
        x = self.domain.sample(self.n_data)
        values = self.solution(x)[:, 0] + self.noise * normal_errors(len(x))
        wall = self.domain.boundary()
        return [
            Condition("equation", self.domain, self._equation, self._source),
            Condition("steady", self.domain, lambda x, d: d.a_t),
            Condition("coefficient", wall, lambda x, d: d.a, lambda x: self.solution(x)[:, 1]),
            Condition("data", Measured(x, values), lambda x, d: d.u),
        ]

    def _equation(self, x: Tensor, d: Derivatives) -> Tensor:
        return d.u_t - (d.a_x * d.u_x + d.a_y * d.u_y + d.a * (d.u_xx + d.u_yy))

    def _source(self, x: Tensor) -> Tensor:
        u, a = self.solution(x).T
        sines, cosines = (pi * x[:, :2]).sin(), (pi * x[:, :2]).cos()
        squares = (pi * cosines * sines.flip(1)).square().sum(dim=1)  # |∇s|²
        return (2 * pi**2 * a - 1) * u - (-x[:, 2]).exp() * squares

    def solution(self, x: Tensor) -> Tensor:
        """The exact fields u and a."""
        s_x, s_y = (pi * x[:, :2]).sin().T
        return stack((-x[:, 2]).exp() * s_x * s_y, 2 + s_x * s_y)
