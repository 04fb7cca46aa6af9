"""Order statistics and tests, against their definitions."""

from __future__ import annotations

from itertools import combinations, product
from math import inf

import numpy as np
import pytest

from diffhash.results.statistics import (
    describe_interval,
    holm,
    interval_rank,
    median_interval,
    rank_test,
    sign_test,
    superiority,
)


@pytest.mark.parametrize("n", [6, 7, 10, 13])
def test_the_interval_covers_the_median_as_often_as_it_says(n: int) -> None:
    """Each value lies below or above the median with probability 1/2."""
    found = interval_rank(n)
    assert found
    k, coverage = found
    below = np.array([sum(signs) for signs in product((0, 1), repeat=n)])

    def covered(k: int) -> float:
        return float(np.mean((below >= k) & (n - below >= k)))

    assert coverage == pytest.approx(covered(k))
    assert covered(k) >= 0.95 > covered(k + 1)


def test_ten_values_and_too_few() -> None:
    assert interval_rank(10) == (2, pytest.approx(0.9785, abs=1e-4))
    assert [interval_rank(n) for n in range(6)] == [None] * 6
    assert describe_interval(10) == "2nd and 9th of n = 10 (97.9 %)"
    assert describe_interval(25) == "8th and 18th of n = 25 (95.7 %)"
    assert describe_interval(5) == "smallest and largest of n = 5"


def test_median_interval_takes_every_value_as_it_comes() -> None:
    assert median_interval(np.array([3.0, 1.0, 2.0])) == (2.0, 1.0, 3.0)
    assert median_interval(np.array([4.0, inf])) == (inf, 4.0, inf)
    assert median_interval(np.array([inf, 1.0, 2.0])) == (2.0, 1.0, inf)
    middle, low, high = median_interval(np.array([5.0]))
    assert middle == 5.0 and np.isnan(low) and np.isnan(high)
    columns = np.stack([np.arange(10.0), np.full(10, inf)], axis=1)
    middle, low, high = median_interval(np.random.default_rng(0).permutation(columns))
    assert middle.tolist() == [4.5, inf] and low.tolist() == [1, inf] and high.tolist() == [8, inf]
    with pytest.raises(ValueError, match="no values"):
        median_interval(np.empty(0))


def _exact_p(a: np.ndarray, b: np.ndarray) -> float:
    """The probability that a random split of all values has at least as many pairs a < b."""
    values = np.concatenate([a, b])
    observed = np.sum(a[:, None] < b)
    splits = [set(chosen) for chosen in combinations(range(len(values)), len(a))]
    counts = [
        sum(values[i] < values[j] for i in s for j in range(len(values)) if j not in s)
        for s in splits
    ]
    return float(np.mean(np.array(counts) >= observed))


@pytest.mark.parametrize(
    ("a", "b"),
    [([1, 2, 3], [4, 5, 6]), ([1, 5, 3], [4, 2, 6, 7]), ([9, 8], [1, 2, 3]), ([1], [2])],
)
def test_the_rank_test_is_exact(a: list[float], b: list[float]) -> None:
    x, y = np.array(a, float), np.array(b, float)
    found = rank_test(x, y)
    assert found.p == pytest.approx(_exact_p(x, y))
    assert found.p_opposite == pytest.approx(_exact_p(y, x))


def test_ranks_are_all_that_counts_and_a_diverged_run_is_worst() -> None:
    worst = np.array([1e30, 2e30, 3e30])
    assert rank_test(np.array([1.0, 2.0, 1e9]), worst) == rank_test(np.zeros(3), np.full(3, inf))
    assert rank_test(np.array([1.0, 2.0, inf]), worst).p > 0.2


def test_ties_between_samples_count_against_either_direction() -> None:
    both = rank_test(np.full(4, inf), np.full(4, inf))
    assert (both.p, both.p_opposite) == (1.0, 1.0)
    a, b = np.array([1.0, 2.0, inf]), np.array([3.0, 4.0, inf])
    assert rank_test(a, b).p == rank_test(np.array([1.0, 2.0, 6.0]), np.array([3.0, 4.0, 5.0])).p
    assert (
        rank_test(a, b).p_opposite == rank_test(np.array([1, 2, 5]), np.array([3, 4, 6])).p_opposite
    )


def test_superiority() -> None:
    assert superiority(np.array([1.0, 2.0]), np.array([3.0, inf])) == 1.0
    assert superiority(np.array([1.0, inf]), np.array([1.0, inf])) == 0.5
    assert superiority(np.array([2.0]), np.array([1.0, 3.0, 4.0])) == pytest.approx(2 / 3)


def test_the_sign_test() -> None:
    assert sign_test(10, 10).p == pytest.approx(2**-10)
    assert sign_test(9, 10).p == pytest.approx(11 * 2**-10)
    assert sign_test(0, 5).p_opposite == pytest.approx(2**-5)
    assert sign_test(1, 1).p == 0.5


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
