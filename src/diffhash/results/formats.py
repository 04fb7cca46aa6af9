"""Formats of numbers in tables, claims and figures.

Where a run or a list of runs needs this module, pandas is not imported: it takes a tenth of the
start-up of a command.
"""

from __future__ import annotations

import math
from typing import Any

_FORMS = {"train_seconds": ".1f", "wall_seconds": ".1f", "peak_memory_mb": ".0f"}


def format_value(column: str, value: float) -> str:
    """A value in a compact format: two significant digits, seconds to a tenth, whole MB; NaN is
    ``–``, infinity ``diverged``.

    >>> format_value("mse_u", 5.43e-13), format_value("mse_uxx", 4.6)
    ('5.4e-13', '4.6')
    >>> format_value("train_seconds", 790.61), format_value("loss", float("nan"))
    ('790.6', '–')
    """
    if _is_missing(value):
        return "–"
    if math.isinf(value):
        return "diverged"
    if column in _FORMS:
        return f"{value:{_FORMS[column]}}"
    mantissa, _, exponent = f"{value:.1e}".partition("e")
    return f"{mantissa}e{int(exponent)}" if exponent and int(exponent) else mantissa


def _is_missing(value: float | None) -> bool:
    """Whether a value is None or NaN."""
    return value is None or value != value


def format_interval(column: str, low: float, high: float) -> str:
    """An interval, such as ``[2.0e-13, 9.1e-13]``; empty for NaN."""
    if _is_missing(low) or _is_missing(high):
        return ""
    return f"[{format_value(column, low)}, {format_value(column, high)}]"


def format_decades(value: float) -> str:
    """A distance in decades, such as ``-0.74``; ``–`` for NaN and infinity (diverged)."""
    return "–" if _is_missing(value) or value == math.inf else f"{value:+.2f}"


def format_epochs(epochs: int) -> str:
    """``10k`` for 10000, ``150`` for 150."""
    return f"{epochs // 1000}k" if epochs and epochs % 1000 == 0 else str(epochs)


def format_share(fraction: float) -> str:
    """``0.016`` as ``1.6 %``."""
    if math.isinf(fraction):
        return "diverged"
    percent = 100 * fraction
    return f"{percent:.0f} %" if 10 <= percent < 1e6 else f"{percent:.2g} %"


def format_p(p: float) -> str:
    """A p-value to two digits: ``0.031``, ``5.4e-6``."""
    return f"{p:.2g}" if p >= 1e-3 else format_value("p", p)


def printable(text: str) -> str:
    r"""``text`` with all characters that do not print escaped, such as ``\x1b``. It is one line,
    without control sequences for a terminal, that every file can store.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def markdown_table(rows: Any, align: str) -> str:
    """A Markdown table of rows.

    Args:
        rows: the rows in any form that a DataFrame accepts, with cells of text.
        align: ``l`` or ``r`` for each of the first columns; the others are aligned to the right.

    >>> print(markdown_table([{"Model": "Cubic", "n": "1"}], "l"))
    | Model   |   n |
    |:--------|----:|
    | Cubic   |   1 |
    """
    import pandas as pd

    frame = pd.DataFrame(rows)
    sides = ["left" if side == "l" else "right" for side in align.ljust(frame.shape[1], "r")]
    return str(frame.to_markdown(index=False, disable_numparse=True, colalign=sides))
