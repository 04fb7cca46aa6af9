"""Sparse Cholesky factors of JᵀJ + λ for the tables of grids, by nested dissection.

Splines couple only with their neighbours. A strip of splines, the *separator*, divides the other
splines into two parts that do not couple with each other; each part is divided likewise (George,
1973). Parts are eliminated before their separators. Each part and each separator has a *front*: a
dense matrix of its own columns and of the columns that couple with them and are eliminated later,

    F = [F_11 F_12; · F_22],   F_11 = UᵀU,   W = U⁻ᵀ F_12,   F_22 - WᵀW goes on to the front above

(multifrontal; Duff and Reid, 1983), so that nearly all operations are in products of matrices. A
front is initialised with JᵀJ of the rows of J whose first nonzero entry is in the front's own
columns. Rows of J at points in the same cell have entries in the same columns, so that the
structure is found from one row of each such *pattern*.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from diffhash.native import CompilerError, call, compiled, warn_slower

ENLARGED = 1000  # the largest factor by which λ is enlarged because of round-off
_LEAF = 256  # the largest number of columns of a part that is not divided further
_PART = 0.6  # the largest fraction of a region's columns that a separator may have


@dataclass
class _Front:
    """Columns by their place in the order of elimination."""

    first: int
    end: int  # the end of the front's own columns
    children: list[int]
    later: np.ndarray = field(default_factory=lambda: np.arange(0))  # ascending
    above: np.ndarray = field(default_factory=lambda: np.arange(0))  # `later` within the parent
    patterns: slice = field(default_factory=lambda: slice(0, 0))

    @property
    def size(self) -> int:
        return self.end - self.first + len(self.later)


class Dissection:
    """An order of elimination for the columns of a sparse J, and the structure of its fronts.

    Args:
        patterns: the patterns of J's rows; other matrices with these may be factorised.
        places: the place of each column's spline, ``[n, d]``.
        kept: the indices of the columns that are eliminated; the others are `rest`.
        periodic: the axes on which places are modulo 1.

    Attributes:
        order: the indices of the columns that are eliminated, in their order.
        rest: the indices of the other columns, ascending.
        n_factor: how many numbers the factors have.
    """

    def __init__(
        self,
        patterns: _Patterns,
        places: np.ndarray,
        kept: np.ndarray,
        periodic: Sequence[int] = (),
    ) -> None:
        table = patterns.table
        self.rest = np.setdiff1d(np.arange(len(places)), kept)
        self._fronts: list[_Front] = []
        self._places = places
        order: list[np.ndarray] = []
        self._reach(table, kept)
        seam = self._seam(table, kept, periodic)
        if len(seam):
            kept = np.setdiff1d(kept, seam)
            self._reach(table, kept)
        rows = np.flatnonzero(np.isfinite(self._low).all(axis=1))
        parts = [self._part(kept, rows, order)] if len(kept) else []
        if len(seam):
            self._add(seam, parts, order)
        del self._low, self._high, self._places
        self.order = np.concatenate(order)
        self._sort(patterns)

    def _seam(
        self, table: sparse.csr_array, kept: np.ndarray, periodic: Sequence[int]
    ) -> np.ndarray:
        """Columns at the upper end of a periodic axis that couple with some at its lower end."""
        found: list[np.ndarray] = [np.arange(0)]
        for axis in periodic:
            wraps = self._high[:, axis] - self._low[:, axis] > 0.5
            columns = table.indices[np.repeat(wraps, np.diff(table.indptr))]
            found.append(columns[self._places[columns, axis] > 0.5])
        return np.intersect1d(np.concatenate(found), kept)

    def _reach(self, table: sparse.csr_array, columns: np.ndarray) -> None:
        """Set the range on each axis that the places of these columns span in each pattern; it is
        from infinity to minus infinity where a pattern has none of these columns."""
        low = np.full(self._places.shape, np.inf)
        low[columns] = self._places[columns]
        high = np.where(np.isfinite(low), low, -np.inf)
        starts = table.indptr[:-1]
        self._low = np.minimum.reduceat(low[table.indices], starts)
        self._high = np.maximum.reduceat(high[table.indices], starts)

    def _part(self, columns: np.ndarray, rows: np.ndarray, order: list[np.ndarray]) -> int:
        """Divide a region, and return the number of the front of its separator, or of the whole
        region if that is not divided."""
        best: tuple[np.ndarray, np.ndarray] | None = None
        if len(columns) > _LEAF:
            for axis in range(self._places.shape[1]):
                side, is_left = self._cut(columns, rows, axis)
                smaller = best is None or (side == 0).sum() < (best[0] == 0).sum()
                if smaller and (side < 0).any() and (side > 0).any():
                    best = side, is_left
        if best is None or (best[0] == 0).sum() > _PART * len(columns):
            return self._add(columns, [], order)
        side, is_left = best
        left = self._part(columns[side < 0], rows[is_left], order)
        right = self._part(columns[side > 0], rows[~is_left], order)
        return self._add(columns[side == 0], [left, right], order)

    def _cut(
        self, columns: np.ndarray, rows: np.ndarray, axis: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """-1, 0, 1 for columns before, in and behind a separator; and for each pattern whether it
        has columns before the separator."""
        at = self._places[columns, axis]
        low, high = self._low[rows, axis], self._high[rows, axis]

        def cut(middle: float) -> tuple[np.ndarray, np.ndarray]:
            is_left = low < middle
            reach = high[is_left].max(initial=middle)
            return np.where(at < middle, -1, np.where(at <= reach, 0, 1)), is_left

        side, _ = cut(float(np.median(at)))
        part = (len(at) - (side == 0).sum()) / 2  # so that both parts have equally many columns
        return cut(float(np.sort(at)[int(part)]))

    def _add(self, columns: np.ndarray, children: list[int], order: list[np.ndarray]) -> int:
        first = self._fronts[-1].end if self._fronts else 0
        self._fronts.append(_Front(first, first + len(columns), children))
        order.append(columns)
        return len(self._fronts) - 1

    def _sort(self, patterns: _Patterns) -> None:
        """Sort the patterns by front and their columns in the order of elimination, and find the
        later columns that couple with each front."""
        table = patterns.table
        places = (patterns.places, table.indices, table.indptr)
        sorted_places = sparse.csr_array(places, shape=table.shape)[:, self.order]
        sorted_places.sort_indices()
        kept = np.flatnonzero(np.diff(sorted_places.indptr))
        front_of = np.repeat(
            np.arange(len(self._fronts)), [front.end - front.first for front in self._fronts]
        )
        first = sorted_places.indices[sorted_places.indptr[kept]]
        by_front = np.argsort(first, kind="stable")
        fronts, kept = front_of[first[by_front]], kept[by_front]
        sorted_places = sorted_places[kept]
        indices = sorted_places.indices
        starts = sorted_places.indptr.astype(np.int64)
        columns = np.empty(len(indices), dtype=np.int64)  # indices within each front
        local = np.empty(len(self.order), dtype=np.int64)
        ends = np.searchsorted(fronts, np.arange(len(self._fronts)), side="right")
        start = 0
        for front, end in zip(self._fronts, ends, strict=True):
            front.patterns = slice(start, int(end))
            entries = slice(starts[start], starts[end])
            parts = [indices[entries], *(self._fronts[child].later for child in front.children)]
            seen = np.unique(np.concatenate(parts))
            front.later = seen[seen >= front.end].astype(np.int64)
            local[front.first : front.end] = np.arange(front.end - front.first)
            local[front.later] = np.arange(front.end - front.first, front.size)
            columns[entries] = local[indices[entries]]
            for child in front.children:
                self._fronts[child].above = local[self._fronts[child].later]
            start = int(end)
        counts = np.diff(patterns.ends)[kept]
        ends = np.concatenate([[0], np.cumsum(counts)])
        rows = np.repeat(patterns.ends[kept] - ends[:-1], counts) + np.arange(ends[-1])
        rows = patterns.rows[rows]
        self._groups = _Groups(ends, rows, starts, columns, sorted_places.data)
        own = np.array([front.end - front.first for front in self._fronts], dtype=float)
        later = np.array([len(front.later) for front in self._fronts], dtype=float)
        self._cost = float((own**3 / 3 + own**2 * later + 2 * own * later**2).sum())
        self.n_factor = int((own * (own + later)).sum())

    def cost(self, n_dense: int) -> float:
        """The number of operations of a step with ``n_dense`` columns of J besides the table's."""
        n_rest = len(self.rest) + n_dense
        by_rest = 4 * self.n_factor * n_rest + len(self.order) * n_rest**2 + n_rest**3 / 3
        return self._cost + by_rest

    def factorised(self, table: sparse.csr_array, damping: float) -> Cholesky:
        """Factorise JᵀJ + λ of the columns in `order`; λ is enlarged where it must be, see
        `cholesky`.

        Raises:
            ArithmeticError: the matrix is not positive definite in floating-point numbers.
        """
        factors: list[Tensor] = []
        waiting: dict[int, Tensor] = {}
        most = ENLARGED * damping
        for number, front in enumerate(self._fronts):
            n_own = front.end - front.first
            matrix = torch.zeros(front.size, front.size, dtype=torch.float64)
            _add_gram(table, self._groups.part(front.patterns), matrix)
            for child in front.children:
                if child in waiting:  # otherwise it has no columns in common with its parent
                    _add_part(self._fronts[child].above, waiting.pop(child), matrix)
            lower, damping = cholesky(matrix[:n_own, :n_own].mT, damping, most)
            w = torch.linalg.solve_triangular(lower, matrix[:n_own, n_own:], upper=False)
            factors.append(torch.cat([lower.mT, w], dim=1))
            if len(front.later):
                waiting[number] = _less_gram(matrix[n_own:, n_own:].clone(), w)
        return Cholesky(self._fronts, factors)


class Cholesky:
    """The factors that `Dissection.factorised` computes."""

    def __init__(self, fronts: Sequence[_Front], factors: Sequence[Tensor]) -> None:
        self._fronts, self._factors = fronts, factors

    def solve(self, right: np.ndarray) -> np.ndarray:
        """Solve (JᵀJ + λ) x = right for x ``[n, k]``; both are in the order of elimination."""
        x = torch.from_numpy(right).clone()
        parts = [
            (
                slice(f.first, f.end),
                torch.from_numpy(f.later),
                factor.tensor_split([f.end - f.first], 1),
            )
            for f, factor in zip(self._fronts, self._factors, strict=True)
        ]
        for own, later, (u, w) in parts:
            x[own] = torch.linalg.solve_triangular(u.mT, x[own], upper=False)
            x[later] -= w.mT @ x[own]
        for own, later, (u, w) in reversed(parts):
            x[own] = torch.linalg.solve_triangular(u, x[own] - w @ x[later], upper=True)
        return x.numpy()


def find_dissection(
    table: sparse.csr_array,
    places: np.ndarray,
    levels: np.ndarray,
    periodic: Sequence[int],
    n_dense: int,
) -> Dissection | None:
    """Find the elimination of a Jacobian's columns with the fewest operations, or None.

    Wide splines couple with all others, so that coarse levels are left to a dense matrix.

    Args:
        table: J, with the entries of each row in the order of the columns.
        places: the place of each column's spline, ``[n, d]`` in [0, 1]; NaN for hashed rows, which
            have no place.
        levels: the level of each column, coarse ones first.
        periodic: the axes on which places are modulo 1.
        n_dense: the number of columns of J besides the table's.
    """
    best: tuple[float, Dissection] | None = None
    patterns = _patterns(table)
    has_place = np.isfinite(places).all(axis=1)
    for first in np.unique(levels[has_place]):
        kept = np.flatnonzero(has_place & (levels >= first))
        n_rest = len(levels) - len(kept) + n_dense
        if best is not None and n_rest**3 / 3 > best[0]:
            break
        dissection = Dissection(patterns, places, kept, periodic)
        cost = dissection.cost(n_dense)
        if best is None or cost < best[0]:
            best = cost, dissection
    return None if best is None else best[1]


def cholesky(matrix: Tensor, damping: float, most: float) -> tuple[Tensor, float]:
    """Return L with ``L Lᵀ = matrix + λ``, and λ: it is ``damping``, or larger, but not above
    ``most``, where the sum is otherwise not positive definite in floating-point numbers.

    Iterative refinement has the same limit with factors of a slightly different matrix.

    Args:
        matrix: ``[n, n]``, read on and below the diagonal, to which λ is added in place.

    Raises:
        ArithmeticError: the sum is not positive definite.
    """
    matrix.diagonal().add_(damping)
    factor, info = torch.linalg.cholesky_ex(matrix)
    while info.item():
        if not 0 < 2 * damping <= most:
            raise ArithmeticError("JᵀJ with its damping is not positive definite")
        matrix.diagonal().add_(damping)
        damping *= 2
        factor, info = torch.linalg.cholesky_ex(matrix)
    return factor, damping


def gram(table: sparse.csr_array) -> np.ndarray:
    """JᵀJ ``[n, n]`` of a sparse matrix J, on and above the diagonal."""
    if not table.has_canonical_format:
        table = table.copy()
        table.sum_duplicates()
    patterns = _patterns(table)
    own = patterns.table
    assert own.shape is not None
    starts, columns = own.indptr.astype(np.int64), own.indices.astype(np.int64)
    out = torch.zeros(own.shape[1], own.shape[1], dtype=torch.float64)
    groups = _Groups(patterns.ends, patterns.rows, starts, columns, patterns.places)
    _add_gram(table, groups, out)
    return out.numpy()


def _less_gram(matrix: Tensor, w: Tensor) -> Tensor:
    """matrix - WᵀW, on and above the diagonal, in the place of ``matrix``; in strips, so that few
    entries below the diagonal are computed."""
    n = len(matrix)
    for start in range(0, n, strip := max(64, -(-n // 6))):
        own = slice(start, start + strip)
        matrix[own, start:].addmm_(w[:, own].mT, w[:, start:], alpha=-1)
    return matrix


class _Patterns(NamedTuple):
    """The rows of J that have entries, grouped by their columns."""

    table: sparse.csr_array  # a row for each pattern
    ends: np.ndarray  # where the pattern's rows of J begin in `rows`, and the end of the last
    rows: np.ndarray

    @property
    def places(self) -> np.ndarray:
        """The place of each entry of `table` in its row."""
        starts = self.table.indptr
        return np.arange(self.table.nnz) - np.repeat(starts[:-1], np.diff(starts))


def _patterns(table: sparse.csr_array) -> _Patterns:
    assert table.shape is not None
    if not table.has_canonical_format:  # so that rows with the same columns have one order of them
        raise ValueError("the entries of J's rows must be in order, without duplicates")
    filled = np.flatnonzero(np.diff(table.indptr))
    # Equal for rows with the same columns, and hardly ever for others.
    numbers: Any = np.random.default_rng(0).integers(2**63, size=table.shape[1], dtype=np.uint64)
    hashes = np.add.reduceat(numbers[table.indices], table.indptr[filled])
    order = np.argsort(hashes, kind="stable")
    changes = np.flatnonzero(np.diff(hashes[order])) + 1
    ends = np.concatenate([[0], changes, [len(order)]]) if len(order) else np.array([0])
    rows = filled[order]
    return _Patterns(sparse.csr_array(table[rows[ends[:-1]]]), ends, rows)


class _Groups(NamedTuple):
    """Groups of rows of J with the same columns, and their columns in the order of a matrix."""

    ends: np.ndarray  # where a group's rows begin in `rows`, and the end of the last
    rows: np.ndarray
    starts: np.ndarray  # where a group's columns begin in `columns`, and the end of the last
    columns: np.ndarray  # ascending in a group
    places: np.ndarray  # the place of each column's entry in a row of J

    def part(self, groups: slice) -> _Groups:
        ends = self.ends[groups.start : groups.stop + 1]
        starts = self.starts[groups.start : groups.stop + 1]
        rows, entries = slice(ends[0], ends[-1]), slice(starts[0], starts[-1])
        return _Groups(
            ends - ends[0], self.rows[rows],
            starts - starts[0], self.columns[entries], self.places[entries],
        )  # fmt: skip


def _add_gram(table: sparse.csr_array, groups: _Groups, out: Tensor) -> None:
    """out += JᵀJ of some rows and columns of J, on and above the diagonal."""
    n = len(out)
    if not len(groups.rows):
        return
    row_starts = table.indptr[groups.rows].astype(np.int64)
    kernels = _kernels()
    if kernels is None:
        of_groups = zip(pairwise(groups.ends), pairwise(groups.starts), strict=True)
        for (first, end), (start, stop) in of_groups:
            taken = row_starts[first:end, None] + groups.places[start:stop]
            rows = torch.from_numpy(table.data[taken])
            _add_part(groups.columns[start:stop], rows.mT @ rows, out)
        return
    n_groups, most = len(groups.ends) - 1, int(np.diff(groups.starts).max(initial=0))
    settings = _Settings(n_groups, n, most, torch.get_num_threads())
    indices = [groups.ends, row_starts, groups.starts, groups.columns, groups.places]
    values = ("values", torch.from_numpy(table.data), torch.float64, table.data.shape)
    reads = [("indices", torch.from_numpy(a), torch.int64, a.shape) for a in indices]
    failed = call(kernels[0], [settings], [*reads, values], [("JᵀJ", out, torch.float64, (n, n))])
    if failed:
        raise MemoryError("no memory for the normal equations")


def _add_part(at: np.ndarray, part: Tensor, out: Tensor) -> None:
    """out[at, at] += part, on and above the diagonal; ``at`` ascends."""
    kernels = _kernels()
    if kernels is None:
        index = torch.from_numpy(at)
        out[index[:, None], index] += part
        return
    n = len(at)
    call(
        kernels[1],
        [_Sizes(len(out), n, torch.get_num_threads())],
        [
            ("places", torch.from_numpy(at), torch.int64, (n,)),
            ("a front", part, torch.float64, (n, n)),
        ],
        [("the front above", out, torch.float64, (len(out), len(out)))],
    )


class _Settings(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in ("n_groups", "n", "most", "n_threads")]


class _Sizes(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in ("n", "n_part", "n_threads")]


@cache
def _kernels() -> tuple[Any, Any] | None:
    """The functions in C for products and sums of fronts; None where they cannot be compiled."""
    try:
        library = compiled("gram.c")
    except CompilerError as error:
        warn_slower("Gauss–Newton's normal equations", "ten times", error)
        return None
    library.gram.restype, library.add_part.restype = ctypes.c_int, None
    return library.gram, library.add_part
