"""Both coefficients of Burgers' equation, from values of the solution."""

from __future__ import annotations

from math import pi

from torch import Tensor

from diffhash.ops.sizes import check_sizes
from diffhash.problems.burgers1d import Burgers1D
from diffhash.problems.checks import check_not_negative, check_positive
from diffhash.problems.coefficient import Coefficient
from diffhash.problems.condition import Condition, Measured, normal_errors
from diffhash.problems.derivatives import Derivatives

_UNIT = 0.01  # the unit of the viscosity, in which both coefficients are near 1


class InverseBurgers(Burgers1D):
    """u_t + c u u_x = ν u_xx for x in [-1, 1] and t in [0, 1] with unknown numbers c = 1 and
    ν, and u known at a few points (Raissi et al., J. Comput. Phys. 2019, who take 2000 of them).

    The exact solution is that of `Burgers1D`. What is trained is ``speed``, c, and ``viscosity``,
    100 ν.

    Args:
        nu: ν.
        speed: the value of c with which training begins.
        viscosity: the value of 100 ν with which training begins.
        n_data: the number of points with known u.
        noise: the standard deviation of normal errors in u, relative to the standard deviation of
            u. The errors are the same at every call.

    Raises:
        ValueError: ν is out of range as for `Burgers1D`, ``speed`` or ``viscosity`` is not finite
            and positive, ``noise`` is negative or not finite, or there is no point.
    """

    def __init__(
        self,
        nu: float = 0.01 / pi,
        speed: float = 0.5,
        viscosity: float = 1.0,
        n_data: int = 2000,
        noise: float = 0.0,
    ) -> None:
        check_positive(speed=speed, viscosity=viscosity)
        check_not_negative(noise=noise)
        check_sizes(1, 10**6, n_data=n_data)
        super().__init__(nu)
        self.speed = Coefficient(speed, true=1.0)
        self.viscosity = Coefficient(viscosity, true=nu / _UNIT)
        self.n_data, self.noise = n_data, noise

    def conditions(self) -> list[Condition]:
        """The equation, and the known values of u."""
        x = self.domain.sample(self.n_data)
        u = self.solution(x)
        values = u + self.noise * u.std(correction=0) * normal_errors(len(x))
        return [
            Condition("equation", self.domain, self._equation),
            Condition("data", Measured(x, values), lambda x, d: d.u),
        ]

    def _equation(self, x: Tensor, d: Derivatives) -> Tensor:
        return d.u_t + self.speed * d.u * d.u_x - _UNIT * self.viscosity * d.u_xx
