"""Causal weights (Wang, Sankaran & Perdikaris, CMAME 2024)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from diffhash.ops.constants import constant
from diffhash.ops.sizes import check_sizes
from diffhash.optim import Objective
from diffhash.problems.checks import check_not_negative
from diffhash.training.weightings.weighting import (
    PointWeighting,
    Present,
    errors_of,
    time_of,
    time_span,
)

_MAX_CHUNKS = 2**20


class Causal(PointWeighting):
    """Weighs later times less until earlier times are solved.

    Time is divided into M equal chunks. Points in chunk i have the weight
    w_i = exp(-ε Σ_{j<i} L_j), where L_j is the mean square of the residuals in chunk j, or 0 if the
    chunk has no points. When every w_i is larger than δ, the next ε is used.

    >>> weighting = Causal(chunks=16)

    Args:
        chunks: M, the number of chunks.
        epsilons: the values of ε, one after another.
        delta: δ, the smallest weight that is large enough.
        axis: the name of the axis of time.
        conditions: the names of the conditions whose points are weighed; None for all equations in
            the domain. Each has weights of its own.

    Raises:
        ValueError: a number is out of range. `start` raises it if the problem has no such axis.
    """

    takes_minibatches = False

    def __init__(
        self,
        chunks: int = 32,
        epsilons: Sequence[float] = (0.01, 0.1, 1.0, 10.0, 100.0),
        delta: float = 0.99,
        axis: str = "t",
        conditions: Sequence[str] | None = None,
    ) -> None:
        super().__init__(conditions)
        check_sizes(1, _MAX_CHUNKS, chunks=chunks)
        is_list = isinstance(epsilons, Iterable) and not isinstance(epsilons, str)
        values = list(epsilons) if is_list else []
        if not values:
            raise ValueError(f"epsilons={epsilons!r}: give a list of numbers, as [0.01, 0.1, 1.0]")
        for index, epsilon in enumerate(values):
            check_not_negative(**{f"epsilons[{index}]": epsilon})
        if not isinstance(delta, Real) or not 0 < delta < 1:
            raise ValueError(f"delta={delta}: give a number between 0 and 1")
        self.chunks, self.epsilons, self.delta, self.axis = chunks, values, delta, axis
        self._stages: list[Tensor] = []

    def start(self, objective: Objective) -> None:
        super().start(objective)
        self._span = time_span(objective, self.axis)
        self._stages = [torch.zeros((), dtype=torch.int64) for _ in self.terms]

    def update(self, present: Present, rows: Mapping[str, Tensor] | None) -> None:
        for index, term in enumerate(self.terms):
            chunk = (time_of(term, self.axis, *self._span) * self.chunks).long()
            chunk = chunk.clamp_max(self.chunks - 1)
            squares = errors_of(term).square()
            sums = torch.zeros(self.chunks, dtype=squares.dtype, device=squares.device)
            counts = torch.zeros_like(sums).index_add_(0, chunk, torch.ones_like(squares))
            losses = sums.index_add_(0, chunk, squares) / counts.clamp_min(1)
            earlier = losses.cumsum(0) - losses
            stage = self._stages[index] = self._stages[index].to(squares.device)
            epsilon = constant(tuple(self.epsilons), squares).index_select(0, stage[None])
            weights = (-epsilon * earlier).exp()
            self.put(index, weights[chunk])
            # No value is copied from the device here, which would wait for it.
            stage += (weights > self.delta).all()
            stage.clamp_(max=len(self.epsilons) - 1)

    def state(self) -> dict[str, Any]:
        return {"stages": [stage.cpu() for stage in self._stages]}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self._stages = [stage.clone() for stage in state["stages"]]
