"""Sparse Cholesky factors of JᵀJ + λ for the tables of grids, by nested dissection.

Splines couple only with their neighbours. A strip of splines, the *separator*, divides the other
splines into two parts that do not couple with each other; each part is divided likewise (George,
1973). Parts are eliminated before their separators. Each part and each separator has a *front*: a
dense matrix of its own columns and of the columns that couple with them and are eliminated later,

    F = [F_11 F_12; · F_22],   F_11 = UᵀU,   W = U⁻ᵀ F_12,   F_22 - WᵀW goes on to the front above

(multifrontal; Duff and Reid, 1983), so that nearly all operations are in products of matrices. A
front is initialised with JᵀJ of the rows of J whose first nonzero entry is in the front's own
columns.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from diffhash.native import CompilerError, call, compiled, warn_slower

_LEAF = 256  # the largest number of columns of a part that is not divided further
_PART = 0.6  # the largest fraction of a region's columns that a separator may have
_WIDE = 256  # from this number of entries in a row of J on, BLAS multiplies rows of one pattern


@dataclass
class _Front:
    """Columns by their place in the order of elimination."""

    first: int
    end: int  # the end of the front's own columns
    children: list[int]
    later: np.ndarray = field(default_factory=lambda: np.arange(0))  # ascending
    above: np.ndarray = field(default_factory=lambda: np.arange(0))  # `later` within the parent
    rows: slice = field(default_factory=lambda: slice(0, 0))  # rows of J
    most: int = 0  # the largest number of entries of such a row

    @property
    def size(self) -> int:
        return self.end - self.first + len(self.later)


class Dissection:
    """An order of elimination for the columns of a sparse J, and the structure of its fronts.

    Args:
        table: J; other matrices of the same pattern may be factorised.
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
        table: sparse.csr_array,
        places: np.ndarray,
        kept: np.ndarray,
        periodic: Sequence[int] = (),
    ) -> None:
        assert table.shape is not None
        n_columns = table.shape[1]
        self.rest = np.setdiff1d(np.arange(n_columns), kept)
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
        self._sort(table)

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
        """Set the range on each axis that the places of these columns span in each row of J; it is
        from infinity to minus infinity where a row has none of these columns."""
        n_rows, n_dims = len(table.indptr) - 1, self._places.shape[1]
        low = np.full(self._places.shape, np.inf)
        low[columns] = self._places[columns]
        high = np.where(np.isfinite(low), low, -np.inf)
        self._low = np.full((n_rows, n_dims), np.inf)
        self._high = -self._low
        read = np.diff(table.indptr) > 0
        if read.any():
            starts = table.indptr[:-1][read]
            for axis in range(n_dims):
                self._low[read, axis] = np.minimum.reduceat(low[table.indices, axis], starts)
                self._high[read, axis] = np.maximum.reduceat(high[table.indices, axis], starts)

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
        """-1, 0, 1 for columns before, in and behind a separator; and for each row whether it has
        columns before the separator."""
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

    def _sort(self, table: sparse.csr_array) -> None:
        """Sort J's rows by front and its columns in the order of elimination, and find the later
        columns that couple with each front."""
        numbers = sparse.csr_array(
            (np.arange(table.nnz), table.indices, table.indptr), shape=table.shape
        )[:, self.order]
        numbers = numbers[np.diff(numbers.indptr) > 0]
        numbers.sort_indices()
        front_of = np.repeat(
            np.arange(len(self._fronts)), [front.end - front.first for front in self._fronts]
        )
        first, last = (numbers.indices[at] for at in (numbers.indptr[:-1], numbers.indptr[1:] - 1))
        fronts = front_of[first]
        by_front = np.lexsort((_patterns(numbers), last, first, fronts))  # equal patterns together
        numbers, fronts = numbers[by_front], fronts[by_front]
        self._taken = numbers.data
        self._starts = numbers.indptr.astype(np.int64)
        self._columns = np.empty(numbers.nnz, dtype=np.int64)  # indices within each front
        counts = np.diff(self._starts)
        local = np.empty(len(self.order), dtype=np.int64)
        ends = np.searchsorted(fronts, np.arange(len(self._fronts)), side="right")
        start = 0
        for front, end in zip(self._fronts, ends, strict=True):
            front.rows = slice(start, int(end))
            entries = slice(self._starts[start], self._starts[end])
            columns = numbers.indices[entries]
            parts = [columns, *(self._fronts[child].later for child in front.children)]
            seen = np.unique(np.concatenate(parts))
            front.later = seen[seen >= front.end].astype(np.int64)
            local[front.first : front.end] = np.arange(front.end - front.first)
            local[front.later] = np.arange(front.end - front.first, front.size)
            self._columns[entries] = local[columns]
            for child in front.children:
                self._fronts[child].above = local[self._fronts[child].later]
            front.most = int(counts[front.rows].max(initial=0))
            start = int(end)
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
        """Factorise JᵀJ + λ of the columns in `order`.

        Raises:
            ArithmeticError: the matrix is not positive definite in floating-point numbers.
        """
        values = torch.from_numpy(table.data[self._taken])
        starts, columns = torch.from_numpy(self._starts), torch.from_numpy(self._columns)
        factors: list[Tensor] = []
        waiting: dict[int, Tensor] = {}
        for number, front in enumerate(self._fronts):
            n_own = front.end - front.first
            matrix = torch.zeros(front.size, front.size, dtype=torch.float64)
            rows = starts[front.rows.start : front.rows.stop + 1]
            entries = slice(int(rows[0]), int(rows[-1]))
            _add_gram(rows, columns[entries], values[entries], front.most, matrix)
            for child in front.children:
                if child in waiting:  # otherwise it has no columns in common with its parent
                    _add_part(self._fronts[child].above, waiting.pop(child), matrix)
            matrix.diagonal()[:n_own] += damping
            u, info = torch.linalg.cholesky_ex(matrix[:n_own, :n_own], upper=True)
            if info.item():
                raise ArithmeticError("JᵀJ with its damping is not positive definite")
            w = torch.linalg.solve_triangular(u.mT, matrix[:n_own, n_own:], upper=False)
            factors.append(torch.cat([u, w], dim=1))
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
        table: J.
        places: the place of each column's spline, ``[n, d]`` in [0, 1]; NaN for hashed rows, which
            have no place.
        levels: the level of each column, coarse ones first.
        periodic: the axes on which places are modulo 1.
        n_dense: the number of columns of J besides the table's.
    """
    best: tuple[float, Dissection] | None = None
    has_place = np.isfinite(places).all(axis=1)
    for first in np.unique(levels[has_place]):
        kept = np.flatnonzero(has_place & (levels >= first))
        n_rest = len(levels) - len(kept) + n_dense
        if best is not None and n_rest**3 / 3 > best[0]:
            break
        dissection = Dissection(table, places, kept, periodic)
        cost = dissection.cost(n_dense)
        if best is None or cost < best[0]:
            best = cost, dissection
    return None if best is None else best[1]


def gram(table: sparse.csr_array) -> np.ndarray:
    """JᵀJ ``[n, n]`` of a sparse matrix J, on and above the diagonal."""
    assert table.shape is not None
    n, counts = table.shape[1], np.diff(table.indptr)
    most = int(counts.max(initial=0))
    if not table.has_sorted_indices:
        table = table.sorted_indices()
    if most >= _WIDE:
        table = table[counts > 0]
        table = table[np.argsort(_patterns(table))]  # rows with the same pattern together
    out = torch.zeros(n, n, dtype=torch.float64)
    starts, columns = (torch.from_numpy(a.astype(np.int64)) for a in (table.indptr, table.indices))
    _add_gram(starts, columns, torch.from_numpy(table.data), most, out)
    return out.numpy()


def _less_gram(matrix: Tensor, w: Tensor) -> Tensor:
    """matrix - WᵀW, on and above the diagonal, in the place of ``matrix``; in strips, so that few
    entries below the diagonal are computed."""
    n = len(matrix)
    for start in range(0, n, strip := max(64, -(-n // 6))):
        own = slice(start, start + strip)
        matrix[own, start:].addmm_(w[:, own].mT, w[:, start:], alpha=-1)
    return matrix


def _add_gram(starts: Tensor, columns: Tensor, values: Tensor, most: int, out: Tensor) -> None:
    """out += JᵀJ, on and above the diagonal, for rows whose columns ascend."""
    n, n_rows = len(out), len(starts) - 1
    kernels = _kernels()
    if kernels is None:
        indptr = (starts - starts[0]).numpy()
        matrix = sparse.csr_array((values.numpy(), columns.numpy(), indptr), shape=(n_rows, n))
        out += torch.from_numpy((matrix.T @ matrix).toarray())
        return
    if most >= _WIDE:
        # The entries of JᵀJ that one such row changes do not fit into a cache.
        for at, rows in _alike((starts - starts[0]).numpy(), columns.numpy(), values):
            _add_part(at, rows.mT @ rows, out)
        return
    settings = _Settings(n_rows, n, most, torch.get_num_threads())
    failed = call(
        kernels[0],
        [settings],
        [
            ("starts", starts, torch.int64, (n_rows + 1,)),
            ("columns", columns, torch.int64, (len(values),)),
            ("values", values, torch.float64, (len(values),)),
        ],
        [("JᵀJ", out, torch.float64, (n, n))],
    )
    if failed:
        raise MemoryError("no memory for the normal equations")


def _patterns(table: sparse.csr_array) -> np.ndarray:
    """A hash of the columns of each row: equal for rows with the same columns, and hardly ever for
    others. No row may be empty."""
    assert table.shape is not None
    numbers: Any = np.random.default_rng(0).integers(2**63, size=table.shape[1], dtype=np.uint64)
    return np.add.reduceat(numbers[table.indices], table.indptr[:-1])


def _alike(
    starts: np.ndarray, columns: np.ndarray, values: Tensor
) -> Iterator[tuple[np.ndarray, Tensor]]:
    """Columns ``[k]`` and values ``[n, k]`` of consecutive rows with the same columns."""
    counts = np.diff(starts)
    ends = (np.flatnonzero(np.diff(counts)) + 1).tolist()
    for first, past in pairwise([0, *ends, len(counts)]):
        if first == past or not counts[first]:
            continue
        whole = slice(starts[first], starts[past])
        places = columns[whole].reshape(past - first, -1)
        numbers = values[whole].view(past - first, -1)
        changes = np.flatnonzero((places[1:] != places[:-1]).any(axis=1)) + 1
        for start, end in pairwise([0, *changes.tolist(), past - first]):
            yield places[start], numbers[start:end]


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
        [_Sizes(len(out), n)],
        [
            ("places", torch.from_numpy(at), torch.int64, (n,)),
            ("a front", part, torch.float64, (n, n)),
        ],
        [("the front above", out, torch.float64, (len(out), len(out)))],
    )


class _Settings(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in ("n_rows", "n", "most", "n_threads")]


class _Sizes(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in ("n", "n_part")]


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
