"""Points, weights and table rows inside a Triton kernel; see `triton_kernels` for the constants.

Level tables: ``reals [L, 3]`` with scale, shift and last cell, in the dtype of the points;
``integers [L, 4 + d]`` with first row, rows, first vertex, whether hashed, and a factor per axis
(a prime where hashed, the axis' stride where dense). A vertex times its factor is its *key* on
that axis. Rows fit 32 bits.
"""
# ruff: noqa: RUF005  (Triton has no starred expressions)
# pyright: reportArgumentType=false, reportAssignmentType=false, reportGeneralTypeIssues=false

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _level(reals_ptr, integers_ptr, level, D: tl.constexpr):
    """(scale, shift, max_cell), (first_row, n_rows, first_vertex, hashed), factors."""
    reals_ptr += level * 3
    integers_ptr += level * (4 + D)
    reals = tl.load(reals_ptr), tl.load(reals_ptr + 1), tl.load(reals_ptr + 2)
    first_row = tl.load(integers_ptr)
    n_rows = tl.load(integers_ptr + 1).to(tl.uint32)
    first_vertex = tl.load(integers_ptr + 2).to(tl.int32)
    hashed = tl.load(integers_ptr + 3) != 0
    factors = ()
    for j in tl.static_range(D):
        factors = factors + (tl.load(integers_ptr + (4 + j)).to(tl.uint32),)
    return reals, (first_row, n_rows, first_vertex, hashed), factors


@triton.jit
def _locate(x_ptr, n, inside, reals, first_vertex, factors):
    """As `layout.locate`: t on every axis; and the key of the first tap's vertex."""
    scale, shift, max_cell = reals
    ts = ()
    keys = ()
    for j in tl.static_range(len(factors)):
        x = tl.load(x_ptr + (n * len(factors) + j), mask=inside, other=0.0)
        pos = scale * x + shift
        cell = tl.floor(pos)
        cell = tl.where(cell > 0, cell, 0.0)  # NaN too
        cell = tl.where(cell < max_cell, cell, max_cell)
        vertex = cell.to(tl.int32) + first_vertex
        ts = ts + (pos - cell,)
        keys = keys + (vertex.to(tl.uint32) * factors[j],)
    return ts, keys


@triton.jit
def points_on_level(
    x_ptr, reals_ptr, integers_ptr, index, n_points, D: tl.constexpr, BLOCK: tl.constexpr
):
    """This program's points, on a level.

    Their numbers n, which of them are inside, the level's scale and `_level` integers, its
    factors; and, as `layout.locate`, t on every axis and the keys of the first tap's vertex.
    """
    n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = n < n_points
    reals, level, factors = _level(reals_ptr, integers_ptr, index, D)
    ts, keys = _locate(x_ptr, n, inside, reals, level[2], factors)
    return n, inside, reals[0], level, factors, ts, keys


@triton.jit
def _polynomial(coefficients, t):
    """Horner's rule; NaN gives NaN, from constants too."""
    DEGREE: tl.constexpr = len(coefficients) - 1
    if DEGREE < 1:
        w = t * 0.0
        if DEGREE == 0:
            w = w + coefficients[0]
    else:
        w = t * coefficients[DEGREE]
        for i in tl.static_range(1, DEGREE):
            w = (w + coefficients[DEGREE - i]) * t
        w = w + coefficients[0]
    return w


@triton.jit
def _all_weights(t, TABLES: tl.constexpr, TAPS: tl.constexpr):
    """B_k^(m)(t) of an unrolled axis: a tuple ``[tap][order]``."""
    weights = ()
    for k in tl.static_range(TAPS):
        orders = ()
        for first in tl.static_range(0, len(TABLES), TAPS):
            coefficients = ()
            for i in tl.static_range(len(TABLES[first])):
                # Of the dtype of t: a literal would be rounded to float32.
                coefficients = coefficients + (tl.full((), TABLES[first + k][i], t.dtype),)
            orders = orders + (_polynomial(coefficients, t),)
        weights = weights + (orders,)
    return weights


@triton.jit
def _one_weight(t, k, TABLES: tl.constexpr, TAPS: tl.constexpr):
    """B_k^(m)(t) of a looped axis, where the tap ``k`` is a variable: a tuple ``[order]``."""
    weights = ()
    for first in tl.static_range(0, len(TABLES), TAPS):
        coefficients = ()
        for i in tl.static_range(len(TABLES[first])):
            c = tl.full((), TABLES[first][i], t.dtype)
            for tap in tl.static_range(1, TAPS):
                c = tl.where(k == tap, tl.full((), TABLES[first + tap][i], t.dtype), c)
            coefficients = coefficients + (c,)
        weights = weights + (_polynomial(coefficients, t),)
    return weights


@triton.jit
def unrolled_weights(ts, TABLES: tl.constexpr, TAPS: tl.constexpr, UNROLLED: tl.constexpr):
    """Weights of the unrolled axes: ``[axis][tap][order]``."""
    weights = ()
    for j in tl.static_range(UNROLLED):
        weights = weights + (_all_weights(ts[j], TABLES, TAPS),)
    return weights


@triton.jit
def looped_vertex(
    ts, keys, factors, vertex, TABLES: tl.constexpr, TAPS: tl.constexpr, UNROLLED: tl.constexpr
):
    """Weights ``[axis][order]`` and keys of the looped axes, at their vertex number ``vertex``."""
    weights = ()
    ours = ()
    for j in tl.static_range(UNROLLED, len(ts)):
        k = vertex % TAPS
        vertex = vertex // TAPS
        weights = weights + (_one_weight(ts[j], k, TABLES, TAPS),)
        ours = ours + (keys[j] + k.to(tl.uint32) * factors[j],)
    return weights, ours


@triton.jit
def unrolled_vertex(
    unrolled,
    looped,
    keys,
    looped_keys,
    factors,
    k: tl.constexpr,
    ALPHAS: tl.constexpr,
    TAPS: tl.constexpr,
):
    """Of the unrolled axes' vertex number ``k``: its weight for every α, its key on every axis."""
    weights = ()
    ours = ()
    for j in tl.static_range(len(unrolled)):
        weights = weights + (unrolled[j][k // TAPS**j % TAPS],)
        ours = ours + (keys[j] + (k // TAPS**j % TAPS) * factors[j],)
    weights = weights + looped
    LAST: tl.constexpr = len(weights) - 1
    products = ()
    for a in tl.static_range(len(ALPHAS)):
        # From the last axis on: the first products then recur from vertex to vertex.
        w = weights[LAST][ALPHAS[a][LAST]]
        for j in tl.static_range(1, LAST + 1):
            w = w * weights[LAST - j][ALPHAS[a][LAST - j]]
        products = products + (w,)
    return products, ours + looped_keys


@triton.jit
def table_row(keys, level, TCNN: tl.constexpr):
    """As `GridLayout.rows`, within the level."""
    _, n_rows, _, hashed = level
    LAST: tl.constexpr = len(keys) - 1
    row = keys[LAST]
    for j in tl.static_range(1, LAST + 1):
        row = tl.where(hashed, row ^ keys[LAST - j], row + keys[LAST - j])
    row = tl.where(hashed, row & (n_rows - 1), row)  # a hashed level has 2^i rows
    if TCNN:
        row = tl.where(row >= n_rows, row - n_rows, row)
    return row.to(tl.int64)


@triton.jit
def level_growth(scale, ALPHAS: tl.constexpr, a: tl.constexpr, N_ORDERS: tl.constexpr):
    """s^|α|, α = ALPHAS[a]."""
    growth = tl.full((), 1, scale.dtype)
    for j in tl.static_range(len(ALPHAS[a])):
        for m in tl.static_range(1, N_ORDERS):
            if m <= ALPHAS[a][j]:
                growth = growth * scale
    return growth
