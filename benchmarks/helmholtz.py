"""Helmholtz's equation in up to four dimensions, for the growth of a step's cost with them."""

from __future__ import annotations

from math import pi

import torch
from hydra.core.config_store import ConfigStore
from torch import Tensor

from diffhash.geometry import Box
from diffhash.problems import EXACT, Condition, Derivatives, Problem

AXES = "xyzw"


class Helmholtz(Problem):
    """Helmholtz's equation Δu + u = f on [0, 1]^d, with u = Π_j sin(π (j + 1) x_j)."""

    def __init__(self, d: int) -> None:
        self.domain = Box(**{axis: (0, 1) for axis in AXES[:d]})

    def conditions(self) -> list[Condition]:
        """Labels in the whole domain, and the equation."""
        return [self.labels(), Condition("residual", self.domain, self._equation, EXACT)]

    def _equation(self, x: Tensor, d: Derivatives) -> Tensor:
        second = [getattr(d, f"u_{axis}{axis}") for axis in self.domain.axes]
        return sum(second, start=d.u)

    def solution(self, x: Tensor) -> Tensor:
        """The product of sines."""
        frequencies = torch.arange(1, self.n_dims + 1, dtype=x.dtype, device=x.device)
        return (pi * frequencies * x).sin().prod(dim=1)


def register() -> None:
    """Make ``problem=helmholtz`` known to Hydra."""
    node = {"_target_": "benchmarks.helmholtz.Helmholtz", "name": "helmholtz", "d": 2}
    ConfigStore.instance().store(group="problem", name="helmholtz", node=node)
