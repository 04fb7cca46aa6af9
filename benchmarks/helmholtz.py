"""A problem for any number of dimensions, to see how a step grows with them."""

from __future__ import annotations

from math import pi

import torch
from hydra.core.config_store import ConfigStore
from torch import Tensor

from diffhash.jets import Jet
from diffhash.problems import Problem


class Helmholtz(Problem):
    """Σ_j ∂_jj u + u = f on [0, 1]^d, with u = Π_j sin(π (j + 1) x_j)."""

    order = 2
    linear = True

    def __init__(self, d: int) -> None:
        self.domain = ((0.0, 1.0),) * d

    def operator(self, x: Tensor, u: Jet) -> Tensor:
        units = torch.eye(self.n_dims, dtype=torch.int64)
        return sum((u[tuple(unit)] for unit in (2 * units).tolist()), start=u.value)

    def solution(self, x: Tensor) -> Tensor:
        frequencies = torch.arange(1, self.n_dims + 1, dtype=x.dtype, device=x.device)
        return (pi * frequencies * x).sin().prod(dim=1, keepdim=True)


def register() -> None:
    """Make ``problem=helmholtz`` known to Hydra."""
    node = {"_target_": "benchmarks.helmholtz.Helmholtz", "name": "helmholtz", "d": 2}
    ConfigStore.instance().store(group="problem", name="helmholtz", node=node)
