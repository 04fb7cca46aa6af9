"""The jet of σ(z) from the jet of z: Faà di Bruno's formula as a table, for any rows.

With σ^(k) taken at z,

    ∂^α σ(z) = Σ c · σ^(k) · Π_i ∂^{β_i} z,        Σ_i β_i = α,

over the partitions of α into k parts. Only the term with k = 1 contains the row ∂^α z itself, and
its factor σ' is the same for all α. A sum of rows is therefore computed as one row: its other terms
are products of lower rows.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cache

from diffhash.jets.rows import Row, Sum
from diffhash.ops.backends import MultiIndex
from diffhash.ops.modes import cached_constant

_Monomials = Counter[tuple[int, tuple[MultiIndex, ...]]]  # (k, factors) → coefficient


@dataclass(frozen=True)
class Term:
    """coefficient · σ^(slope) · Π z[factors]; factors are positions among the jet's rows."""

    coefficient: float
    slope: int
    factors: tuple[int, ...]


@cached_constant
def composition(rows: tuple[Row, ...]) -> tuple[tuple[Term, ...], ...]:
    """For each row of σ(z), the terms whose sum it is, in ascending order of the slope.

    Raises:
        ValueError: a row needs a lower row that is not in ``rows``.
    """
    at = {row: position for position, row in enumerate(rows)}
    table = []
    for position, row in enumerate(rows):
        terms: dict[tuple[int, tuple[int, ...]], float] = {}
        parts = row.terms if isinstance(row, Sum) else ((1, row),)
        if isinstance(row, Sum):
            terms[1, (position,)] = 1.0
        for weight, alpha in parts:
            for (slope, factors), count in _derivative(alpha).items():
                if isinstance(row, Sum) and slope == 1:
                    continue
                try:
                    key = slope, tuple(sorted(at[factor] for factor in factors))
                except KeyError as error:
                    raise ValueError(
                        f"rows={rows}: derivative {alpha} needs {error}, too"
                    ) from None
                terms[key] = terms.get(key, 0) + weight * count
        table.append(tuple(Term(c, *key) for key, c in sorted(terms.items()) if c))
    return tuple(table)


@cache
def _derivative(alpha: MultiIndex) -> _Monomials:
    """∂^α σ(z), by differentiating along one axis after the other."""
    axis = next((j for j, m in enumerate(alpha) if m), None)
    if axis is None:
        return Counter({(0, ()): 1})
    unit = tuple(int(j == axis) for j in range(len(alpha)))
    lower = _derivative(tuple(m - e for m, e in zip(alpha, unit, strict=True)))
    result: _Monomials = Counter()
    for (slope, factors), count in lower.items():
        result[slope + 1, tuple(sorted((*factors, unit)))] += count
        for i, factor in enumerate(factors):
            raised = tuple(m + e for m, e in zip(factor, unit, strict=True))
            result[slope, tuple(sorted((*factors[:i], raised, *factors[i + 1 :])))] += count
    return result
