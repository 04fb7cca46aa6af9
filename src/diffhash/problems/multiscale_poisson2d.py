"""Poisson's equation with a solution of several scales."""

from __future__ import annotations

from collections.abc import Sequence
from math import pi

import torch
from torch import Tensor

from diffhash.geometry import Box
from diffhash.problems.checks import check_positive
from diffhash.problems.condition import Condition
from diffhash.problems.derivatives import Derivatives
from diffhash.problems.problem import Problem


class MultiscalePoisson2D(Problem):
    """-Δu = f on [0, 1]², u given on the boundary, with the exact solution

    u(x, y) = 1/M Σ_w sin(wπx) sin(wπy),  f = 2π²/M Σ_w w² sin(wπx) sin(wπy),

    over M whole numbers w, so that u = 0 on the boundary.

    Args:
        frequencies: the numbers w.

    Raises:
        ValueError: there is no frequency, or one is not finite and positive.
    """

    domain = Box(x=(0, 1), y=(0, 1))

    def __init__(self, frequencies: Sequence[float] = (4, 8, 12, 16)) -> None:
        if not len(frequencies):
            raise ValueError(f"frequencies={list(frequencies)}: give at least one")
        check_positive(**{f"frequencies[{i}]": w for i, w in enumerate(frequencies)})
        super().__init__()
        self.frequencies = tuple(frequencies)

    def conditions(self) -> list[Condition]:
        """The equation, and u on the boundary."""
        return [
            Condition("equation", self.domain, self._equation, self._source),
            Condition("wall", self.domain.boundary(), lambda x, d: d.u, self.solution),
        ]

    def _equation(self, x: Tensor, d: Derivatives) -> Tensor:
        return -(d.u_xx + d.u_yy)

    def _modes(self, x: Tensor) -> Tensor:
        """The mode of each frequency, ``[M, N]``."""
        x, y = x.unbind(dim=1)
        parts = [(w * pi * x).sin() * (w * pi * y).sin() for w in self.frequencies]
        return torch.stack(parts) / len(parts)

    def _source(self, x: Tensor) -> Tensor:
        squares = 2 * (pi * torch.tensor(self.frequencies, dtype=x.dtype)) ** 2
        return squares.to(x.device) @ self._modes(x)

    def solution(self, x: Tensor) -> Tensor:
        """The mean of the modes."""
        return self._modes(x).sum(dim=0)
