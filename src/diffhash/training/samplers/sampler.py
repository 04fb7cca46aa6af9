"""What every sampler offers: new points for a condition, every so many epochs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from diffhash.ops.sizes import check_sizes
from diffhash.optim import Term

_MAX_EVERY = 10**12
_MAX_SEED = 2**31


class Sampler(ABC):
    """Moves points while training. A subclass defines `points`.

    Before the epochs ``every``, 2 ``every``, … (counted from 0) each condition gets as many new
    points as it has. Seeds that train together get the same ones.

    Args:
        every: epochs.
        conditions: names of those whose points move; null for all of the kind residual.
        seed: of all draws, which continue from one to the next.

    Attributes:
        reads_errors: whether points depend on a field's errors, which differ between seeds.

    Raises:
        ValueError: a number out of range.
    """

    reads_errors = False

    def __init__(
        self, every: int = 100, conditions: Sequence[str] | None = None, seed: int = 0
    ) -> None:
        check_sizes(1, _MAX_EVERY, every=every)
        check_sizes(0, _MAX_SEED, seed=seed)
        self.every, self.conditions = every, conditions
        self.generator = torch.Generator().manual_seed(seed)

    @abstractmethod
    def points(self, term: Term, errors: Callable[[Tensor], Tensor]) -> Tensor:
        """New points of a condition, of the shape of ``term.x``; in float64.

        Args:
            term: its present points ``x``, their number ``len(term)``, and `Term.draw` of others.
            errors: residual - target of the present field at any points ``[M, d]``: ``[M, E]``.
        """

    def next_seed(self) -> int:
        """For `Term.draw`: another one at each call."""
        return int(torch.randint(_MAX_SEED, (), generator=self.generator))

    def state(self) -> dict[str, Any]:
        """What the next points depend on, for a checkpoint: tensors and plain values."""
        return {"generator": self.generator.get_state()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self.generator.set_state(state["generator"].cpu())
