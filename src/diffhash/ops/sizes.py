"""Checks of sizes in settings."""

from __future__ import annotations

from typing import Any

from diffhash.ops.settings import integer

MAX_POINTS = 2**30  # the largest number of points of a set, as a Sobol' sequence has no more


def check_sizes(low: int, high: int, **sizes: Any) -> None:
    """Raise `ValueError` for a size that is not an integer from ``low`` to ``high``."""
    for name, size in sizes.items():
        if isinstance(size, int) and not isinstance(size, bool) and size < low:
            raise ValueError(f"{name}={size}: give at least {low}")
        integer(name, size, low, high)
