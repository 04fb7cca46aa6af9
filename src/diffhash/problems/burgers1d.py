"""Burgers' equation with a nearly discontinuous solution."""

from __future__ import annotations

from math import pi

import numpy as np
import torch
from torch import Tensor

from diffhash.geometry import Box
from diffhash.problems.checks import check_positive
from diffhash.problems.condition import Condition
from diffhash.problems.derivatives import Derivatives
from diffhash.problems.problem import Problem
from diffhash.problems.reference import Reference

_NODES = 200  # the number of nodes of the quadrature
_REFERENCE = Reference(
    {
        f"Cole–Hopf, Gauss–Hermite quadrature ({_NODES} nodes)": 4e-16,
        "Fourier (4096 points), ETDRK4 (steps of 3e-04)": 6e-10,
    },
    4e-11,
)
_AFTER_START = 1e-14  # added to t, because √t has no finite derivative at t = 0


class Burgers1D(Problem):
    """u_t + u u_x = ν u_xx for x in [-1, 1] and t in [0, 1], u(±1, t) = 0, u(x, 0) = -sin(πx).

    The exact solution is Cole's and Hopf's (Basdevant et al., Comput. Fluids 1986),

    u(x, t) = -∫ sin(π(x - η)) w dη / ∫ w dη,  w = exp(-cos(π(x - η))/(2πν) - η²/(4νt)),

    here by Gauss–Hermite quadrature in η/√(4νt), with weights that are a softmax: no number
    overflows. Nodes enough for ν = 0.01/π (200) leave an error of round-off.

    Args:
        nu: ν, the viscosity.

    Raises:
        ValueError: ν is below 0.002, for which the quadrature is too coarse, or not finite.
    """

    domain = Box(x=(-1, 1), t=(0, 1))

    def __init__(self, nu: float = 0.01 / pi) -> None:
        check_positive(nu=nu)
        if nu < 0.002:
            raise ValueError(f"nu={nu}: give at least 0.002, where the exact solution is reliable")
        super().__init__()
        self.nu = nu

    def conditions(self) -> list[Condition]:
        """The equation, the ends and the start."""
        return [
            Condition("equation", self.domain, self._equation),
            Condition("ends", self.domain.boundary("x"), lambda x, d: d.u),
            Condition("start", self.domain.initial(), lambda x, d: d.u, self._start),
        ]

    def _equation(self, x: Tensor, d: Derivatives) -> Tensor:
        return d.u_t + d.u * d.u_x - self.nu * d.u_xx

    def _start(self, x: Tensor) -> Tensor:
        return -(pi * x[:, 0]).sin()

    @property
    def reference(self) -> Reference:
        """The reference: Cole's and Hopf's solution, which a Fourier method confirms for
        ν = 0.01/π."""
        return _REFERENCE

    def solution(self, x: Tensor) -> Tensor:
        """Cole's and Hopf's solution."""
        return self._quadrature(x, _NODES)

    def _quadrature(self, x: Tensor, n_nodes: int) -> Tensor:
        nodes, weights = (
            torch.from_numpy(a).to(x) for a in np.polynomial.hermite.hermgauss(n_nodes)
        )
        x, t = x[:, :1], x[:, 1:]
        foot = pi * (x - (4 * self.nu * (t + _AFTER_START)).sqrt() * nodes)
        share = (weights.log() - foot.cos() / (2 * pi * self.nu)).softmax(dim=1)
        return -(share * foot.sin()).sum(dim=1)
