"""Residual-based adaptive distribution (Wu et al., CMAME 2023)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from diffhash.geometry.rules import MAX_POINTS
from diffhash.ops.sizes import check_sizes
from diffhash.optim import Term
from diffhash.problems.checks import check_not_negative
from diffhash.training.samplers.sampler import Sampler


class ResidualAdaptive(Sampler):
    """Draws all points anew, more of them where the residual is large (RAD).

    From a pool of candidates that are uniform in the domain, N points are drawn without replacement
    with the probabilities p(x) ∝ ε(x)^k / mean(ε^k) + c, where ε is |residual - target|, or for
    several equations the root of the sum of squares.

    >>> sampler = ResidualAdaptive(every=100, k=2.0)

    Args:
        every: the number of epochs between two draws.
        k: the larger it is, the more points have large residuals.
        c: the larger it is, the more uniform the points are.
        pool: the number of candidates for each point.
        conditions: the names of the conditions whose points move; None for all equations in the
            domain.
        seed: the seed of candidates and draws.

    Raises:
        ValueError: a number is out of range.
    """

    reads_errors = True

    def __init__(
        self,
        every: int = 1000,
        k: float = 1.0,
        c: float = 1.0,
        pool: int = 10,
        conditions: Sequence[str] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(every, conditions, seed)
        check_sizes(1, MAX_POINTS, pool=pool)
        check_not_negative(k=k, c=c)
        self.k, self.c, self.pool = k, c, pool

    def points(self, term: Term, errors: Callable[[Tensor], Tensor]) -> Tensor:
        n = len(term)
        candidates = term.draw(min(n * self.pool, MAX_POINTS), "uniform", self.next_seed())
        size = errors(candidates).cpu().double().norm(dim=-1)
        density = (size / size.amax().clamp_min(torch.finfo(size.dtype).tiny)) ** self.k
        density = density / density.mean() + self.c
        if not density.isfinite().all():  # the field has diverged, or is exact at all candidates
            density = torch.ones_like(density)
        elif (density > 0).sum() < n:  # too few candidates: draw the rest uniformly
            density = density + torch.finfo(torch.float32).eps * density.mean()
        chosen = torch.multinomial(density, n, generator=self.generator)
        if term.is_paired:
            chosen = torch.cat([chosen, chosen + len(candidates) // 2])
        return candidates[chosen]
