"""Rules that place points: sequences and sets in the unit cube, mapped into a domain.

A *sequence* (``sobol``, ``uniform``) has any number of members: the first n that lie in the domain
are taken. A *set* (``grid``, ``midpoint``, ``lhs``) is made for a number of points. This number is
increased until at least n points lie in the domain; if m points do, those with the indices
⌊j m / n⌋, j < n, are taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from numbers import Integral

import torch
from torch import Tensor
from torch.quasirandom import SobolEngine

# The number of points that are tested at a time: a few MB, also for a polygon or a mesh.
CHUNK = 2**16
MAX_POINTS = 2**24
# The number of points of the bounding box that are tried before a domain counts as empty, and the
# least share of them that must lie in the domain.
TRIES = 2**18
MIN_SHARE = 1e-5

Seed = int | torch.Generator | None
Sequence = Callable[[int], Tensor]


def _generator(seed: int | None) -> torch.Generator:
    return torch.Generator().manual_seed(seed or 0)


def _sobol(dims: int, seed: int | None) -> Sequence:
    engine = SobolEngine(dims, scramble=seed is not None, seed=seed)
    return lambda n: engine.draw(n, dtype=torch.float64)


def _uniform(dims: int, seed: int | None) -> Sequence:
    generator = _generator(seed)
    return lambda n: torch.rand(n, dims, dtype=torch.float64, generator=generator)


def _lhs(n: int, dims: int, seed: int | None) -> Iterator[Tensor]:
    generator = _generator(seed)
    cells = torch.stack([torch.randperm(n, generator=generator) for _ in range(dims)], dim=1)
    for chunk in cells.split(CHUNK):
        yield (chunk + torch.rand(chunk.shape, dtype=torch.float64, generator=generator)) / n


def _lattice_counts(n: int, dims: int) -> list[int]:
    """The numbers of points along each axis, which are equal or one more on the first axes, for n
    points in all."""
    least = round(n ** (1 / dims))
    least -= least**dims > n
    counts = [max(least, 1)] * dims
    for axis in range(dims):
        if math.prod(counts) < n:
            counts[axis] += 1
    return counts


def _lattice(n: int, dims: int, ticks: Callable[[int], Tensor]) -> Iterator[Tensor]:
    counts = _lattice_counts(n, dims)
    axes = [ticks(count) for count in counts]
    total = math.prod(counts)
    for start in range(0, total, CHUNK):
        index = torch.arange(start, min(start + CHUNK, total))
        columns: list[Tensor] = []
        for axis in reversed(axes):
            columns.insert(0, axis[index % len(axis)])
            index = index // len(axis)
        yield torch.stack(columns, dim=1)


def _grid(n: int, dims: int, seed: int | None) -> Iterator[Tensor]:
    return _lattice(n, dims, lambda count: torch.linspace(0, 1, count, dtype=torch.float64))


def _midpoint(n: int, dims: int, seed: int | None) -> Iterator[Tensor]:
    return _lattice(n, dims, lambda count: (torch.arange(count, dtype=torch.float64) + 0.5) / count)


SEQUENCES = {"sobol": _sobol, "uniform": _uniform}
SETS = {"grid": _grid, "midpoint": _midpoint, "lhs": _lhs}
# One rule in one dimension and another in more dimensions: the defaults for the points of training
# and of evaluation.
MIXED = {"even": ("grid", "sobol"), "evaluation": ("midpoint", "sobol")}
RULES = (*SEQUENCES, *SETS, *MIXED)


def check_count(n: int) -> int:
    """Return ``n`` if it is a valid number of points.

    Raises:
        ValueError: ``n`` is no integer from 1 to 2²⁴.
    """
    if isinstance(n, bool) or not isinstance(n, Integral) or not 1 <= n <= MAX_POINTS:
        raise ValueError(f"n={n!r}: give a number of points from 1 to {MAX_POINTS}")
    return int(n)


def check_rule(rule: str) -> None:
    """Raise `ValueError` for an unknown rule."""
    if rule not in RULES:
        raise ValueError(f"rule={rule!r}: give one of {', '.join(map(repr, RULES))}")


def integer_seed(seed: Seed) -> int | None:
    """``seed`` itself, or the next number of a generator.

    Raises:
        ValueError: ``seed`` is neither None, nor an integer of 0 or more, nor a generator.
    """
    if isinstance(seed, torch.Generator):
        return int(torch.randint(2**31, (), generator=seed, device=seed.device))
    if seed is None:
        return None
    if isinstance(seed, bool) or not isinstance(seed, Integral) or not 0 <= seed < 2**63:
        raise ValueError(f"seed={seed!r}: give None, an integer of 0 or more, or a torch.Generator")
    return int(seed)


def draw(
    n: int,
    dims: int,
    place: Callable[[Tensor], Tensor],
    accepts: Callable[[Tensor], Tensor],
    rule: str,
    seed: int | None,
    what: object,
) -> Tensor:
    """Draw ``n`` points by ``rule`` in ``[0, 1]^dims``, mapped by ``place``, that are accepted.

    Args:
        n: the number of points.
        dims: the dimension of the unit cube.
        place: a function from ``[m, dims]`` in the unit cube to points ``[m, d]``.
        accepts: a function that returns whether each point belongs to the set, ``[m]``.
        rule: the rule; see `Domain.sample`.
        seed: the seed; see `Domain.sample`.
        what: the set, which error messages name.

    Raises:
        ValueError: the rule is unknown, or (nearly) no point is accepted.
    """
    check_rule(rule)
    if rule in MIXED:
        if rule == "evaluation" and dims > 1 and seed is None:
            seed = 1
        rule = MIXED[rule][dims > 1]
    tried = found = 0
    kept: list[Tensor] = []

    def check_share() -> None:
        if tried >= TRIES and found < MIN_SHARE * tried:
            raise ValueError(
                f"{what}: {found} of {tried} points of its bounding box lie in it; "
                "it is empty, or too thin to draw points from"
            )

    if rule in SEQUENCES:
        members = SEQUENCES[rule](dims, seed)
        while found < n:
            # The number that is missing, by the fraction of points that was accepted so far.
            share = max(found, 0.5) / tried if tried else 1.0
            size = min(max(math.ceil((n - found) / share), 16), CHUNK) if tried else min(n, CHUNK)
            points = place(members(size))
            kept.append(points[accepts(points)])
            tried, found = tried + size, found + len(kept[-1])
            check_share()
        return torch.cat(kept)[:n]
    size = n
    while True:
        kept = [points[accepts(points)] for points in map(place, SETS[rule](size, dims, seed))]
        found = sum(map(len, kept))
        if found >= n:
            return torch.cat(kept)[torch.arange(n) * found // n]
        tried = size
        check_share()
        # A set is made anew at a larger size: at most eightfold, to detect an empty domain.
        size = min(math.ceil(1.02 * size * n / found) + 1 if found else 8 * size, 8 * size)


def apportion(n: int, weights: list[float]) -> list[int]:
    """Divide ``n`` points over parts in proportion to ``weights``: whole numbers whose sum is n.

    Each part gets its share rounded down. The remaining points go to the parts with the largest
    remainders, and to the first of equal remainders.
    """
    total = sum(weights)
    shares = [n * weight / total for weight in weights]
    counts = [math.floor(share) for share in shares]
    order = sorted(range(len(shares)), key=lambda i: (counts[i] - shares[i], i))
    for i in order[: n - sum(counts)]:
        counts[i] += 1
    return counts
