"""Warnings that name a line of the user's program."""

from __future__ import annotations

import sys
import warnings
from types import FrameType

_PACKAGE = __name__.partition(".")[0]


def warn(message: str) -> None:
    """Give a `UserWarning` at the line that called this package, however many calls of its own, of
    Lightning and of torch's decorators are in between."""
    frame: FrameType | None = sys._getframe()
    packages = []
    while frame is not None:
        packages.append(frame.f_globals.get("__name__", "").partition(".")[0])
        frame = frame.f_back
    level = 1 + max(index for index, package in enumerate(packages) if package == _PACKAGE)
    while packages[level : level + 1] == ["torch"]:
        level += 1
    warnings.warn(message, stacklevel=level + 1)
