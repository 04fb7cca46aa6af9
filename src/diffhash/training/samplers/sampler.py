"""The base class of samplers, which give a condition new points every few epochs."""

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

    After ``every``, 2 ``every``, … epochs each condition gets new points, as many as it has. Seeds
    that train together get the same points.

    Args:
        every: the number of epochs between two draws.
        conditions: the names of the conditions whose points move; None for all equations in the
            domain.
        seed: the seed of the first draw; each further draw continues the random sequence.

    Attributes:
        reads_errors: whether points depend on a field's errors, which differ between seeds.

    Raises:
        ValueError: a number is out of range.
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
        """Return the new points of a condition, float64 and of the shape of ``term.x``.

        Args:
            term: the condition at its present points ``term.x``. ``len(term)`` is their number, and
                `Term.draw` draws others.
            errors: a function that returns residual - target ``[M, E]`` of the present field at
                points ``[M, d]``.
        """

    def next_seed(self) -> int:
        """A seed for `Term.draw`, a different one at each call."""
        return int(torch.randint(_MAX_SEED, (), generator=self.generator))

    def state(self) -> dict[str, Any]:
        """The tensors and plain values that the next points depend on, for a checkpoint."""
        return {"generator": self.generator.get_state()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state`."""
        self.generator.set_state(state["generator"].cpu())
