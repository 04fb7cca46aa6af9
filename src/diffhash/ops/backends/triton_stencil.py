"""Points, weights and table rows inside a Triton kernel; see `triton_kernels` for the constants.

Level tables: ``reals [L, 1 + 2 d]`` with shift, scales and last cells, in the dtype of the points;
``integers [L, 4 + 2 d]`` with first row, rows, first vertex, whether hashed, and for each axis its
vertices and its factor (`GridLayout.factors`). A vertex times its factor is its *key* on that axis.
Rows fit 32 bits.

A column of an axis is a degree of freedom at a tap, `Interpolation.columns`.
"""
# ruff: noqa: RUF005  (Triton has no starred expressions)
# pyright: reportArgumentType=false, reportAssignmentType=false, reportGeneralTypeIssues=false

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _level(reals_ptr, integers_ptr, level, D: tl.constexpr):
    """(shift, scales, max_cells), (first_row, n_rows, first_vertex, hashed, vertices), factors."""
    reals_ptr += level * (1 + 2 * D)
    integers_ptr += level * (4 + 2 * D)
    first_row = tl.load(integers_ptr)
    n_rows = tl.load(integers_ptr + 1).to(tl.uint32)
    first_vertex = tl.load(integers_ptr + 2).to(tl.int32)
    hashed = tl.load(integers_ptr + 3) != 0
    scales = ()
    max_cells = ()
    vertices = ()
    factors = ()
    for j in tl.static_range(D):
        scales = scales + (tl.load(reals_ptr + (1 + j)),)
        max_cells = max_cells + (tl.load(reals_ptr + (1 + D + j)),)
        vertices = vertices + (tl.load(integers_ptr + (4 + j)).to(tl.uint32),)
        factors = factors + (tl.load(integers_ptr + (4 + D + j)).to(tl.uint32),)
    reals = tl.load(reals_ptr), scales, max_cells
    return reals, (first_row, n_rows, first_vertex, hashed, vertices), factors


@triton.jit
def _locate(x_ptr, n, inside, reals, first_vertex, factors, PERIODIC: tl.constexpr):
    """t on every axis, as in `layout.locate`; and the key of the first tap's vertex, or on a
    periodic axis the vertex itself."""
    shift, scales, max_cells = reals
    ts = ()
    keys = ()
    for j in tl.static_range(len(factors)):
        x = tl.load(x_ptr + (n * len(factors) + j), mask=inside, other=0.0)
        if PERIODIC[j]:
            x = x - tl.floor(x)
        pos = scales[j] * x + shift
        cell = tl.floor(pos)
        cell = tl.where(cell > 0, cell, 0.0)  # also for NaN
        cell = tl.where(cell < max_cells[j], cell, max_cells[j])
        vertex = (cell.to(tl.int32) + first_vertex).to(tl.uint32)
        if not PERIODIC[j]:
            vertex = vertex * factors[j]
        ts = ts + (pos - cell,)
        keys = keys + (vertex,)
    return ts, keys


@triton.jit
def column_key(
    keys, factors, vertices, k, j: tl.constexpr, PERIODIC: tl.constexpr, DOFS: tl.constexpr
):
    """The unsigned key of column ``k`` on axis ``j``: of its vertex and degree of freedom."""
    if PERIODIC[j]:
        key = (keys[j] + k // DOFS) % vertices[j] * factors[j]
    else:
        key = keys[j] + k // DOFS * factors[j]
    if DOFS > 1:
        key = key + k % DOFS * DOFS**j
    return key


@triton.jit
def points_on_level(
    x_ptr,
    reals_ptr,
    integers_ptr,
    index,
    n_points,
    PERIODIC: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """This program's points on a level.

    Returns their numbers n, a mask of n < N, the level's scales, the integers of `_level`, the
    level's factors, and t and keys on every axis; see `_locate`.
    """
    n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = n < n_points
    reals, level, factors = _level(reals_ptr, integers_ptr, index, len(PERIODIC))
    ts, keys = _locate(x_ptr, n, inside, reals, level[2], factors, PERIODIC)
    return n, inside, reals[1], level, factors, ts, keys


@triton.jit
def _polynomial(coefficients, t):
    """The polynomial at t by Horner's rule; NaN gives NaN, also for a constant polynomial."""
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
def _all_weights(t, TABLES: tl.constexpr, COLUMNS: tl.constexpr):
    """B_k^(m)(t) of an unrolled axis: a tuple ``[column][order]``."""
    weights = ()
    for k in tl.static_range(COLUMNS):
        orders = ()
        for first in tl.static_range(0, len(TABLES), COLUMNS):
            coefficients = ()
            for i in tl.static_range(len(TABLES[first])):
                # Of the dtype of t: a literal would be rounded to float32.
                coefficients = coefficients + (tl.full((), TABLES[first + k][i], t.dtype),)
            orders = orders + (_polynomial(coefficients, t),)
        weights = weights + (orders,)
    return weights


@triton.jit
def _one_weight(t, k, TABLES: tl.constexpr, COLUMNS: tl.constexpr):
    """B_k^(m)(t) of a looped axis, where the column ``k`` is a variable: a tuple ``[order]``."""
    weights = ()
    for first in tl.static_range(0, len(TABLES), COLUMNS):
        coefficients = ()
        for i in tl.static_range(len(TABLES[first])):
            c = tl.full((), TABLES[first][i], t.dtype)
            for column in tl.static_range(1, COLUMNS):
                c = tl.where(k == column, tl.full((), TABLES[first + column][i], t.dtype), c)
            coefficients = coefficients + (c,)
        weights = weights + (_polynomial(coefficients, t),)
    return weights


@triton.jit
def unrolled_weights(ts, TABLES: tl.constexpr, COLUMNS: tl.constexpr, UNROLLED: tl.constexpr):
    """Weights of the unrolled axes: ``[axis][column][order]``."""
    weights = ()
    for j in tl.static_range(UNROLLED):
        weights = weights + (_all_weights(ts[j], TABLES, COLUMNS),)
    return weights


@triton.jit
def looped_entry(
    ts,
    keys,
    factors,
    vertices,
    entry,
    TABLES: tl.constexpr,
    COLUMNS: tl.constexpr,
    PERIODIC: tl.constexpr,
    DOFS: tl.constexpr,
    UNROLLED: tl.constexpr,
):
    """Weights ``[axis][order]`` and keys of the looped axes, for choice ``entry`` of columns."""
    weights = ()
    ours = ()
    for j in tl.static_range(UNROLLED, len(ts)):
        k = entry % COLUMNS
        entry = entry // COLUMNS
        weights = weights + (_one_weight(ts[j], k, TABLES, COLUMNS),)
        key = column_key(keys, factors, vertices, k.to(tl.uint32), j, PERIODIC, DOFS)
        ours = ours + (key,)
    return weights, ours


@triton.jit
def unrolled_entry(
    unrolled,
    looped,
    keys,
    looped_keys,
    factors,
    vertices,
    k: tl.constexpr,
    ALPHAS: tl.constexpr,
    COLUMNS: tl.constexpr,
    PERIODIC: tl.constexpr,
    DOFS: tl.constexpr,
):
    """For choice ``k`` of columns on the unrolled axes: the weight for every α, and the keys."""
    weights = ()
    ours = ()
    for j in tl.static_range(len(unrolled)):
        weights = weights + (unrolled[j][k // COLUMNS**j % COLUMNS],)
        key = column_key(keys, factors, vertices, k // COLUMNS**j % COLUMNS, j, PERIODIC, DOFS)
        ours = ours + (key,)
    weights = weights + looped
    LAST: tl.constexpr = len(weights) - 1
    products = ()
    for a in tl.static_range(len(ALPHAS)):
        # From the last axis on, so that the first products are the same for several vertices.
        w = weights[LAST][ALPHAS[a][LAST]]
        for j in tl.static_range(1, LAST + 1):
            w = w * weights[LAST - j][ALPHAS[a][LAST - j]]
        products = products + (w,)
    return products, ours + looped_keys


@triton.jit
def table_row(keys, level, TCNN: tl.constexpr):
    """The row of `GridLayout.rows`, counted from the level's first row."""
    _, n_rows, _, hashed, _ = level
    LAST: tl.constexpr = len(keys) - 1
    row = keys[LAST]
    for j in tl.static_range(1, LAST + 1):
        row = tl.where(hashed, row ^ keys[LAST - j], row + keys[LAST - j])
    row = tl.where(hashed, row & (n_rows - 1), row)  # hashed levels have 2^i rows
    if TCNN:
        row = tl.where(row >= n_rows, row - n_rows, row)
    return row.to(tl.int64)


@triton.jit
def level_growth(scales, ALPHAS: tl.constexpr, a: tl.constexpr, N_ORDERS: tl.constexpr):
    """Π_j s_j^α_j, α = ALPHAS[a]."""
    growth = tl.full((), 1, scales[0].dtype)
    for j in tl.static_range(len(ALPHAS[a])):
        for m in tl.static_range(1, N_ORDERS):
            if m <= ALPHAS[a][j]:
                growth = growth * scales[j]
    return growth
