"""Statistics of several seeds of a row: an interval of their median, and rank and sign tests.

Errors of trained networks spread over decades and often fall into two groups, runs that found the
solution and runs that did not. No distribution is therefore assumed: all statistics depend on order
alone. A diverged run is not dropped, but counts as +infinity, which is worse than any number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import binom, binomtest, mannwhitneyu

CONFIDENCE = 0.95
ALPHA = 0.05


class Tested(NamedTuple):
    """One-sided p-values of a claim and of its opposite."""

    p: float
    p_opposite: float


def interval_rank(n: int) -> tuple[int, float] | None:
    """Rank k, from 1, of the lower end of the median's confidence interval, and its coverage.

    For n independent values of any distribution, the median lies in [x_(k), x_(n+1-k)] with
    probability 1 - 2 P(B < k), where B ~ Binomial(n, 1/2) is the number of values below it; k is
    the largest rank for which this is at least 95 % (David and Nagaraja, Order Statistics, section
    7.1). None for n < 6, where even the interval from smallest to largest value covers less.
    """
    k = int(binom.ppf((1 - CONFIDENCE) / 2, n, 0.5)) if n else 0
    return (k, float(1 - 2 * binom.cdf(k - 1, n, 0.5))) if k else None


def median_interval(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The median over the first axis, and the lower and upper end of its interval.

    The interval is that of :func:`interval_rank`; for n < 6 it is from the smallest to the largest
    value, and for n = 1 NaN. Either end, and the median, may be infinite.

    Args:
        values: the values ``[n, ...]``, without NaN.

    Raises:
        ValueError: there are no values.
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64), axis=0)
    n = len(ordered)
    if not n:
        raise ValueError("median_interval: no values")
    middle = (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
    if n == 1:
        return middle, np.full_like(middle, np.nan), np.full_like(middle, np.nan)
    found = interval_rank(n)
    k = found[0] if found else 1
    return middle, ordered[k - 1], ordered[n - k]


def describe_interval(n: int) -> str:
    """A description of the interval of n values: ``2nd to 9th of n = 10 values (97.9 %)``."""
    found = interval_rank(n)
    if found is None:
        return f"smallest and largest of n = {n}"
    k, coverage = found
    return f"{_ordinal(k)} and {_ordinal(n + 1 - k)} of n = {n} ({100 * coverage:.1f} %)"


def rank_test(a: np.ndarray, b: np.ndarray) -> Tested:
    """Mann-Whitney test, exact and one-sided: whether values of ``a`` tend to be below ``b``'s.

    Ties between the samples, such as two diverged runs, count against the direction under test:
    p is never too small for them.
    """
    return Tested(_below(a, b), _below(b, a))


def superiority(a: np.ndarray, b: np.ndarray) -> float:
    """P(a < b) + P(a = b) / 2 over all pairs; Cliff's delta is twice that, minus 1."""
    a, b = np.asarray(a)[:, None], np.asarray(b)[None, :]
    return float(np.mean(a < b) + np.mean(a == b) / 2)


def sign_test(n_on_side: int, n: int) -> Tested:
    """Exact binomial test of whether more than half of all seeds lie on one side of a bound.

    That is the sign test of the median. The opposite: fewer than half.
    """
    more, fewer = (binomtest(n_on_side, n, alternative=way).pvalue for way in ("greater", "less"))
    return Tested(float(more), float(fewer))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for their number m: if all null hypotheses are true, the probability that
    any adjusted p-value is below alpha is at most alpha.

    p_(i) becomes max over j <= i of min(1, (m - j + 1) p_(j)) (Holm 1979).
    """
    m, adjusted, largest = len(p_values), [1.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(m), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (m - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def _below(a: np.ndarray, b: np.ndarray) -> float:
    values = np.concatenate([a, b])
    of_a = np.arange(len(values)) < len(a)
    ranks = np.empty(len(values))
    ranks[np.lexsort((of_a, values))] = np.arange(len(values))  # among equal values, b's are first
    found = mannwhitneyu(ranks[of_a], ranks[~of_a], alternative="less", method="exact")
    return float(found.pvalue)


def _ordinal(n: int) -> str:
    ending = "th" if 10 < n % 100 < 14 else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
    return f"{n}{ending}"
