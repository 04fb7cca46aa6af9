"""New points by a rule."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from diffhash.geometry.rules import check_rule
from diffhash.optim import Term
from diffhash.training.samplers.sampler import Sampler


class Resample(Sampler):
    """Draws all points anew by a rule, with another seed each time.

    >>> sampler = Resample(every=10, rule="sobol")

    Args:
        every: the number of epochs between two draws.
        rule: ``"uniform"``, ``"lhs"`` or ``"sobol"``, which is scrambled; see `Domain.sample`.
        conditions: the names of the conditions whose points move; None for all equations in the
            domain.
        seed: the seed of the first draw.

    Raises:
        ValueError: a number is out of range, or the rule gives the same points each time.
    """

    def __init__(
        self,
        every: int = 100,
        rule: str = "uniform",
        conditions: Sequence[str] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(every, conditions, seed)
        check_rule(rule)
        if rule not in ("uniform", "lhs", "sobol"):
            raise ValueError(f"rule={rule!r}: give 'uniform', 'lhs' or 'sobol', which have seeds")
        self.rule = rule

    def points(self, term: Term, errors: Callable[[Tensor], Tensor]) -> Tensor:
        return term.draw(len(term), self.rule, self.next_seed())
