"""Checks of a problem's numbers."""

from __future__ import annotations

import math
from numbers import Real


def check_positive(**numbers: float) -> None:
    """Raise `ValueError` unless each number is finite and above 0."""
    for name, value in numbers.items():
        if not isinstance(value, Real) or not 0 < value < math.inf:
            raise ValueError(f"{name}={value}: give a finite number above 0")


def check_not_negative(**numbers: float) -> None:
    """Raise `ValueError` unless each number is finite and at least 0."""
    for name, value in numbers.items():
        if not isinstance(value, Real) or not 0 <= value < math.inf:
            raise ValueError(f"{name}={value}: give a finite number of at least 0")
