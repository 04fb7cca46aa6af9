"""The lid-driven cavity flow."""

from __future__ import annotations

import torch
from torch import Tensor

from diffhash.geometry import Box
from diffhash.problems.checks import check_positive
from diffhash.problems.condition import Condition, Measured
from diffhash.problems.derivatives import Derivatives, stack
from diffhash.problems.problem import Problem
from diffhash.problems.reference import SplineReference, stored

_STORED = (100.0, 400.0)  # Reynolds numbers with a solution in a file


class Cavity(Problem):
    """The steady Navier–Stokes equations on [0, 1]²,

    u u_x + v u_y + p_x = Δu/Re,  u v_x + v v_y + p_y = Δv/Re,  u_x + v_y = 0,

    with u = v = 0 on the walls, p = 0 in the corner (0, 0), and a lid at y = 1 that moves with
    u = 4x(1 - x), so that the velocity is continuous; in the two corners below it the pressure
    still has a logarithmic singularity. (A lid of constant speed, as in Ghia et al., J. Comput.
    Phys. 1982, is another flow.) For Re = 100 and 400 the exact solution is from a file: see
    `reference`; for others it is not known.

    Args:
        reynolds: Re.

    Raises:
        ValueError: Re is not finite and positive.
    """

    unknowns = ("u", "v", "p")
    domain = Box(x=(0, 1), y=(0, 1))

    def __init__(self, reynolds: float = 100.0) -> None:
        check_positive(reynolds=reynolds)
        super().__init__()
        self.reynolds = reynolds

    def conditions(self) -> list[Condition]:
        """Momentum and continuity, the lid, the walls, and the pressure in a corner."""
        lid, walls = self.domain.boundary("y+"), self.domain.boundary("x", "y-")
        corner = Measured(torch.zeros(1, 2), torch.zeros(1))
        return [
            Condition("momentum", self.domain, self._momentum),
            Condition("continuity", self.domain, lambda x, d: d.u_x + d.v_y),
            Condition("lid", lid, lambda x, d: stack(d.u, d.v), self._lid),
            Condition("walls", walls, lambda x, d: stack(d.u, d.v)),
            Condition("corner", corner, lambda x, d: d.p),
        ]

    def _momentum(self, x: Tensor, d: Derivatives) -> Tensor:
        return stack(
            d.u * d.u_x + d.v * d.u_y + d.p_x - (d.u_xx + d.u_yy) / self.reynolds,
            d.u * d.v_x + d.v * d.v_y + d.p_y - (d.v_xx + d.v_yy) / self.reynolds,
        )

    def _lid(self, x: Tensor) -> Tensor:
        return stack(4 * x[:, 0] * (1 - x[:, 0]), 0.0 * x[:, 0])

    @property
    def reference(self) -> SplineReference | None:
        """The reference from a file for two Reynolds numbers, with the agreement of a collocation
        method and a Galerkin method."""
        return stored(f"cavity_{self.reynolds:.0f}") if self.reynolds in _STORED else None

    def solution(self, x: Tensor) -> Tensor:
        """The solution from the file."""
        if self.reference is None:
            raise NotImplementedError(f"reynolds={self.reynolds}: known for 100 and 400 alone")
        return self.reference(x)
