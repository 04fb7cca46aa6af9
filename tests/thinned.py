"""Products of parameters of which the default suite runs a part."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, product
from typing import Any

import pytest

# B-splines of these degrees come from the recursion that makes their neighbours, and are tested in
# one dimension and by their tables.
BETWEEN = ("quartic", "sextic", "septic", "octic")


def pairwise(*axes: Sequence[Any], values: int = 2) -> list[Any]:
    """All combinations of the axes' values, as parameters; those that are not needed are slow.

    The needed ones have every pair of values of two axes, or with ``values=1`` every value of each
    axis. They are always the same.
    """
    everything = list(product(*(range(len(axis)) for axis in axes)))
    between = {(i, j) for i, axis in enumerate(axes) for j, v in enumerate(axis) if _is_between(v)}
    covers = {one: set(combinations(enumerate(one), values)) for one in everything}
    candidates = [one for one in everything if not between & set(enumerate(one))]
    missing = set().union(*(covers[one] for one in candidates))
    used = [[0] * len(axis) for axis in axes]
    chosen = set()
    while missing:
        # The combination that adds most pairs; of several, the one whose values were used least.
        best = max(
            candidates,
            key=lambda one: (
                len(covers[one] & missing),
                -sum(u[v] for u, v in zip(used, one, strict=True)),
            ),
        )
        chosen.add(best)
        missing -= covers[best]
        for counts, value in zip(used, best, strict=True):
            counts[value] += 1
    return [
        pytest.param(
            *(axis[v] for axis, v in zip(axes, one, strict=True)),
            marks=() if one in chosen else pytest.mark.slow,
        )
        for one in everything
    ]


def _is_between(value: Any) -> bool:
    parts = value if isinstance(value, tuple) else (value,)
    many = "nonic" in parts and any(type(part) is int and part > 1 for part in parts)
    return many or any(part in BETWEEN for part in parts)
