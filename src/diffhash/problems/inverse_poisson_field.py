"""An unknown diffusion coefficient that varies in space, from values of the solution."""

from __future__ import annotations

from math import pi

from torch import Tensor

from diffhash.geometry import Box
from diffhash.ops.sizes import check_sizes
from diffhash.problems.checks import check_not_negative
from diffhash.problems.condition import Condition, Measured, normal_errors
from diffhash.problems.derivatives import Derivatives, stack
from diffhash.problems.problem import Problem


class InversePoissonField(Problem):
    """∇·(a ∇u) + f = 0 on [0, 1]² with unknown fields u and a, a known on the boundary, and u
    measured inside (PINNacle's PInv, Hao et al., NeurIPS 2024, which has 50² values, noise 0.1).

    The exact fields are

    u = sin(πx) sin(πy),  a = 1/(1 + x² + y² + (x - 1)² + (y - 1)²),

    and f = 2π² a u - ∇a·∇u with ∇a = -2a² (2x - 1, 2y - 1).

    Args:
        n_data: the number of measured values, on a lattice with nearly as many along each axis.
        noise: the standard deviation of their normal errors, which are the same at every call.

    Raises:
        ValueError: there is no value, or the noise is negative or not finite.
    """

    unknowns = ("u", "a")
    domain = Box(x=(0, 1), y=(0, 1))

    def __init__(self, n_data: int = 2500, noise: float = 0.0) -> None:
        check_sizes(1, 10**6, n_data=n_data)
        check_not_negative(noise=noise)
        super().__init__()
        self.n_data, self.noise = n_data, noise

    def conditions(self) -> list[Condition]:
        """The equation, a on the boundary, and the measured values of u."""
        x = self.domain.sample(self.n_data, rule="grid")
        values = self.solution(x)[:, 0] + self.noise * normal_errors(len(x))
        wall = self.domain.boundary()
        return [
            Condition("equation", self.domain, self._equation, self._source),
            Condition("coefficient", wall, lambda x, d: d.a, lambda x: self.solution(x)[:, 1]),
            Condition("data", Measured(x, values), lambda x, d: d.u),
        ]

    def _equation(self, x: Tensor, d: Derivatives) -> Tensor:
        return -(d.a_x * d.u_x + d.a_y * d.u_y + d.a * (d.u_xx + d.u_yy))

    def _source(self, x: Tensor) -> Tensor:
        u, a = self.solution(x).T
        sines, cosines = (pi * x).sin(), (pi * x).cos()
        slope = pi * cosines * sines.flip(1)  # ∇u
        slope_a = -2 * a.square()[:, None] * (2 * x - 1)
        return 2 * pi**2 * a * u - (slope_a * slope).sum(dim=1)

    def solution(self, x: Tensor) -> Tensor:
        """The exact fields u and a."""
        squares = (x.square() + (x - 1).square()).sum(dim=1)
        s_x, s_y = (pi * x).sin().T
        return stack(s_x * s_y, 1 / (1 + squares))
