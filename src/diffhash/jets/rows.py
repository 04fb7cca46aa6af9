"""Rows of a jet: derivatives by multi-index, by name, and sums of derivatives."""

from __future__ import annotations

import operator
import re
from ast import literal_eval
from collections.abc import Iterable
from functools import cache
from itertools import product
from math import isfinite
from numbers import Integral
from typing import NamedTuple, SupportsIndex

from diffhash.ops.backends import MultiIndex
from diffhash.ops.modes import cached_constant

_AXES = ("x", "y", "z", "t")


class Sum(NamedTuple):
    """Σ_i w_i ∂^{α_i} as one row: the Laplacian in d axes takes one row instead of d.

    >>> laplacian = Sum(((1.0, (2, 0)), (1.0, (0, 2))))

    Attributes:
        terms: pairs (w_i, α_i) with α_i ≠ 0, because the value is a row of its own in every jet.
    """

    terms: tuple[tuple[float, MultiIndex], ...]


Row = MultiIndex | Sum
# A total order, for every derivative up to it; a name; a multi-index; a sum; or several of these.
Rows = SupportsIndex | str | Row | Iterable[str | Row]


class Names(NamedTuple):
    """The names of axes and unknowns, with which ``u_xy`` is ∂²u/∂x∂y.

    Attributes:
        axes: the names of the domain's axes.
        unknowns: the names of the components of u.
    """

    axes: tuple[str, ...]
    unknowns: tuple[str, ...] = ("u",)

    def find(self, name: str) -> tuple[int, MultiIndex]:
        """The component and the multi-index of a derivative's name, e.g. ``u``, ``v_x``, ``u_xxt``.

        Raises:
            ValueError: the name is no derivative's.
        """
        unknown, _, letters = name.rpartition("_") if name not in self.unknowns else (name, "", "")
        parts = re.fullmatch(f"({'|'.join(map(re.escape, self.axes))})+", letters)
        if unknown not in self.unknowns or (name != unknown and not parts):
            normal = "; _n, along the normal, is for residuals on a boundary" * (letters == "n")
            raise ValueError(
                f"{name!r} is no derivative: give one of {', '.join(self.unknowns)}, and after an "
                f"underscore the axes it is taken along, of {', '.join(self.axes)}{normal}"
            )
        alpha = tuple(len(re.findall(re.escape(axis), letters)) for axis in self.axes)
        return self.unknowns.index(unknown), alpha


@cache
def default_names(n_dims: int, n_components: int) -> Names:
    """The names x, y, z, t and u; several components are u0, u1 … ."""
    unknowns = tuple(f"u{i}" for i in range(n_components)) if n_components > 1 else ("u",)
    axes = _AXES if n_dims <= len(_AXES) else tuple(f"x{i}_" for i in range(n_dims))
    return Names(axes[:n_dims], unknowns)


def jet_rows(rows: Rows, n_dims: int, names: Names | None = None) -> tuple[Row, ...]:
    """The rows of a jet that carries ``rows``: with every derivative below them, in a fixed order.

    The value comes first, then derivatives by total order, those along the first axes first; sums
    are last. A sum adds the derivatives below its terms, not the terms themselves.

    >>> jet_rows(["u_xx", "u_y"], 2)
    ((0, 0), (1, 0), (0, 1), (2, 0))

    Args:
        rows: an integer m for every derivative of total order up to m; otherwise one or several
            of names (``"u_xy"``), multi-indices (``(1, 1)``) and `Sum`.
        n_dims: the number of axes.
        names: the names of axes and unknowns; None for `default_names`.

    Raises:
        ValueError: a row is no derivative in this number of axes.
    """
    return _cached_rows(_hashable(rows, n_dims), n_dims, names)


def _hashable(rows: Rows, n_dims: int) -> int | tuple[str | Row, ...]:
    """A total order, or a tuple of rows from any container: a list, an array, a set."""
    if isinstance(rows, (str, Sum)):
        return (rows,)
    try:
        order = -1 if isinstance(rows, bool) else operator.index(rows)  # type: ignore[arg-type]
    except TypeError:
        order = None
    if order is not None and order >= 0:
        return order
    if order is not None or not isinstance(rows, Iterable):
        raise _no_rows(rows, n_dims)
    several = tuple(rows)
    if several and isinstance(several[0], Integral):
        return (_multi_index(several, n_dims),)
    return tuple(r if isinstance(r, (str, Sum)) else _multi_index(r, n_dims) for r in several)


def axis_rows(orders: Iterable[int]) -> tuple[Row, ...]:
    """The rows of a jet with derivatives along the axes alone, up to an order for each."""
    orders = list(orders)
    units = [tuple(int(i == j) for i in range(len(orders))) for j in range(len(orders))]
    highest = [tuple(m * e for e in unit) for unit, m in zip(units, orders, strict=True)]
    return _closed(highest, len(orders))


@cached_constant
def _cached_rows(
    rows: int | tuple[str | Row, ...], n_dims: int, names: Names | None
) -> tuple[Row, ...]:
    if isinstance(rows, int):
        every = product(range(rows + 1), repeat=n_dims)
        return _closed([alpha for alpha in every if sum(alpha) <= rows], n_dims)
    found: list[Row] = []
    names = names or default_names(n_dims, 1)
    for row in rows:
        found.append(names.find(row)[1] if isinstance(row, str) else _row(row, n_dims))
    return _closed(found, n_dims)


def _row(row: Row, n_dims: int) -> Row:
    if not isinstance(row, Sum):
        return row
    try:
        terms = tuple((float(w), _multi_index(alpha, n_dims)) for w, alpha in row.terms)
    except TypeError:
        terms = ()
    if not terms or not all(any(alpha) and isfinite(w) for w, alpha in terms):
        raise ValueError(
            f"{row!r}: give a Sum pairs (weight, multi-index) of derivatives, with finite weights; "
            "the value is a row of its own"
        )
    return Sum(terms)


def _multi_index(row: object, n_dims: int) -> MultiIndex:
    try:
        alpha = tuple(operator.index(m) for m in row)  # type: ignore[attr-defined]
    except TypeError:
        alpha = ()
    if len(alpha) != n_dims or min(alpha) < 0:
        raise _no_rows(row, n_dims)
    return alpha


def _no_rows(rows: object, n_dims: int) -> ValueError:
    return ValueError(
        f"rows={rows!r} is no derivative: give a name, a multi-index of {n_dims} orders, a Sum, "
        "several of these, or a total order of at least 0"
    )


def _closed(rows: Iterable[Row], n_dims: int) -> tuple[Row, ...]:
    """The rows with every derivative below them, in the fixed order."""
    plain: set[MultiIndex] = {(0,) * n_dims}
    sums: list[Sum] = []
    for row in rows:
        if not isinstance(row, Sum):
            plain.update(below(row))
        elif row not in sums:
            sums.append(row)
            for _, alpha in row.terms:
                plain.update(below(alpha) - {alpha})
    ordered = sorted(plain, key=lambda alpha: (sum(alpha), [-m for m in alpha]))
    return (*ordered, *sums)


def below(alpha: MultiIndex) -> set[MultiIndex]:
    """Every multi-index β ≤ α, α included."""
    return set(product(*(range(m + 1) for m in alpha)))


def row_order(row: Row) -> int:
    """The total order of a row; for a sum the highest order of its terms."""
    return sum(row) if not isinstance(row, Sum) else max(sum(alpha) for _, alpha in row.terms)


@cached_constant
def expanded(
    rows: tuple[Row, ...],
) -> tuple[tuple[MultiIndex, ...], tuple[tuple[float, ...], ...] | None]:
    """The multi-indices in ``rows``, and the matrix ``[rows, multi-indices]`` of their weights.

    The matrix is None where each row is a single multi-index.
    """
    if not any(isinstance(row, Sum) for row in rows):
        return rows, None  # type: ignore[return-value]
    parts = [row.terms if isinstance(row, Sum) else ((1.0, row),) for row in rows]
    alphas = tuple(dict.fromkeys(alpha for terms in parts for _, alpha in terms))
    matrix = [[0.0] * len(alphas) for _ in rows]
    for line, terms in zip(matrix, parts, strict=True):
        for weight, alpha in terms:
            line[alphas.index(alpha)] += weight
    return alphas, tuple(map(tuple, matrix))


@cache
def rows_text(rows: tuple[Row, ...]) -> str:
    """Rows as one text for torch's dispatcher; `read_rows` reads it."""
    return repr([list(row.terms) if isinstance(row, Sum) else row for row in rows])


@cache
def read_rows(text: str) -> tuple[Row, ...]:
    """The rows of a `rows_text`."""
    rows = literal_eval(text)
    return tuple(Sum(tuple(row)) if isinstance(row, list) else row for row in rows)
