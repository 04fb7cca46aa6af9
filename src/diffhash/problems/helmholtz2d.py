"""Helmholtz's equation on the unit square."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, pi
from numbers import Real

import torch
from torch import Tensor

from diffhash.geometry import Box
from diffhash.problems.checks import check_positive
from diffhash.problems.condition import Condition
from diffhash.problems.derivatives import Derivatives
from diffhash.problems.problem import Problem


class Helmholtz2D(Problem):
    """Δu + u = f on [low, 1]², u given on the boundary, with the exact solution

    u(x, y) = sin(aπx) sin(bπy),  f = (1 - (a² + b²) π²) u,

    for which u = 0 on the boundary if a, b and low are whole numbers. Wang et al. (SIAM J. Sci.
    Comput. 2021) and PIXEL (Kang et al., AAAI 2023) have it with ``a=(1, 4), low=-1``.

    Args:
        a: half the number of periods along a unit of each axis: a number a = b, or two, (a, b).
        low: the lower bound of the square on both axes.

    Raises:
        ValueError: a number of ``a`` is not finite and positive, or ``low`` is 1 or more.
    """

    def __init__(self, a: float | Sequence[float] = 4.0, low: float = 0.0) -> None:
        both = list(a) if isinstance(a, Sequence) else [a, a]
        if len(both) != 2 or isinstance(a, str):
            raise ValueError(f"a={a!r}: give a number, or two of them")
        for number in both:
            check_positive(a=number)
        if not isinstance(low, Real) or not -inf < low < 1:
            raise ValueError(f"low={low}: give a finite number below 1")
        super().__init__()
        self.a, self.domain = tuple(map(float, both)), Box(x=(low, 1), y=(low, 1))

    def conditions(self) -> list[Condition]:
        """The equation, and u on the boundary."""
        return [
            Condition("equation", self.domain, self._equation, self._source),
            Condition("wall", self.domain.boundary(), lambda x, d: d.u, self.solution),
        ]

    def _equation(self, x: Tensor, d: Derivatives) -> Tensor:
        return d.u_xx + d.u_yy + d.u

    def _source(self, x: Tensor) -> Tensor:
        return (1 - sum((a * pi) ** 2 for a in self.a)) * self.solution(x)

    def solution(self, x: Tensor) -> Tensor:
        """sin(aπx) sin(bπy)."""
        s_x, s_y = (torch.tensor(self.a, dtype=x.dtype) * pi * x).sin().T
        return s_x * s_y
