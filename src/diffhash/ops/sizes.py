"""Sizes that somebody gave."""

from __future__ import annotations

from numbers import Integral
from typing import Any

MAX_POINTS = 2**30  # of one set; a Sobol' sequence has no more


def check_sizes(low: int, high: int, **sizes: Any) -> None:
    """Raise `ValueError` for a size that is not an integer from ``low`` to ``high``."""
    for name, size in sizes.items():
        is_integer = isinstance(size, Integral) and not isinstance(size, bool)
        if is_integer and size < low:
            raise ValueError(f"{name}={size}: give at least {low}")
        if not is_integer or size > high:
            raise ValueError(f"{name}={size!r}: allowed are integers from {low} to {high}")
