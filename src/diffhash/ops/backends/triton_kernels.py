"""Triton kernels of gather and scatter: a program serves a block of points on one level.

A vertex's table row is read (or written) once for all multi-indices. The polynomials of the
weights are constants of the compiled kernel. The taps^d vertices are unrolled over the first
``UNROLLED`` axes and looped over on the others, which keeps large stencils small.

Constants of the kernels:

    ALPHAS      a derivative order per axis, for each of the A outputs
    TAPS        of an axis
    TABLES      [order · TAPS + tap] → coefficients of t^0, t^1, …, already differentiated
    TCNN        whether a dense level's last vertex wraps around
    F           features of a row, in groups of VECTOR: what one instruction reads or writes.
                A program serves GROUPS of them, so as not to run out of registers.
    BLOCK       points of a program: one a thread, whose weights then never change hands

Level tables: ``reals [L, 3]`` with scale, shift and last cell, in the dtype of the points;
``integers [L, 4 + d]`` with first row, rows, first vertex, whether hashed, and a factor per axis
(a prime where hashed, the axis' stride where dense). A vertex times its factor is its *key* on
that axis. Rows fit 32 bits, offsets are 64-bit.
"""
# ruff: noqa: RUF005  (Triton has no starred expressions)
# pyright: reportArgumentType=false, reportAssignmentType=false, reportGeneralTypeIssues=false

from __future__ import annotations

import triton
import triton.language as tl

# The same compiled kernel serves any number of points and rows.
_COUNTS = [
    "n_points",
    "n_rows",
    "n_levels",
    "first_level",
    "n_values",
    "first_row",
    "n_group_rows",
]


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
def _unrolled(ts, TABLES: tl.constexpr, TAPS: tl.constexpr, UNROLLED: tl.constexpr):
    """Weights of the unrolled axes: ``[axis][tap][order]``."""
    weights = ()
    for j in tl.static_range(UNROLLED):
        weights = weights + (_all_weights(ts[j], TABLES, TAPS),)
    return weights


@triton.jit
def _looped(
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
def _vertex(
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
def _row(keys, level, TCNN: tl.constexpr):
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
def _growth(scale, ALPHAS: tl.constexpr, a: tl.constexpr, N_ORDERS: tl.constexpr):
    """s^|α|, α = ALPHAS[a]."""
    growth = tl.full((), 1, scale.dtype)
    for j in tl.static_range(len(ALPHAS[a])):
        for m in tl.static_range(1, N_ORDERS):
            if m <= ALPHAS[a][j]:
                growth = growth * scale
    return growth


@triton.jit
def _features(F: tl.constexpr, VECTOR: tl.constexpr, GROUPS: tl.constexpr):
    """The replica of this program, and the features of its first group."""
    PARTS: tl.constexpr = F // (VECTOR * GROUPS)
    replica = tl.program_id(2).to(tl.int64) // PARTS
    first = tl.program_id(2) % PARTS * (VECTOR * GROUPS)
    return replica, (first + tl.arange(0, VECTOR))[None, :]


@triton.jit(do_not_specialize=_COUNTS)
def gather_kernel(
    x_ptr,
    table_ptr,
    out_ptr,
    reals_ptr,
    integers_ptr,
    n_points,
    n_rows,
    ALPHAS: tl.constexpr,
    TAPS: tl.constexpr,
    TABLES: tl.constexpr,
    TCNN: tl.constexpr,
    F: tl.constexpr,
    VECTOR: tl.constexpr,
    GROUPS: tl.constexpr,
    BLOCK: tl.constexpr,
    UNROLLED: tl.constexpr,
):
    """``x [N, d]``, ``table [R, n_rows, F]`` → ``out [R, A, N, L·F]``.

    Programs: blocks of points, L levels, R replicas times the parts of F.
    """
    D: tl.constexpr = len(ALPHAS[0])
    index = tl.program_id(1).to(tl.int64)
    replica, f = _features(F, VECTOR, GROUPS)
    n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = n < n_points
    reals, level, factors = _level(reals_ptr, integers_ptr, index, D)
    ts, keys = _locate(x_ptr, n, inside, reals, level[2], factors)
    unrolled = _unrolled(ts, TABLES, TAPS, UNROLLED)
    rows_ptr = table_ptr + (replica * n_rows + level[0]) * F

    sums = ()
    for _ in tl.static_range(GROUPS * len(ALPHAS)):
        sums = sums + (tl.zeros((BLOCK, VECTOR), table_ptr.dtype.element_ty),)
    for vertex in range(TAPS ** (D - UNROLLED)):
        looped, looped_keys = _looped(ts, keys, factors, vertex, TABLES, TAPS, UNROLLED)
        for k in tl.static_range(TAPS**UNROLLED):
            weights, vertex_keys = _vertex(
                unrolled, looped, keys, looped_keys, factors, k, ALPHAS, TAPS
            )
            offsets = _row(vertex_keys, level, TCNN)[:, None] * F + f
            new = ()
            for group in tl.static_range(GROUPS):
                values = tl.load(rows_ptr + (offsets + group * VECTOR))
                for a in tl.static_range(len(ALPHAS)):
                    w = weights[a].to(values.dtype)
                    new = new + (sums[group * len(ALPHAS) + a] + w[:, None] * values,)
            sums = new

    for a in tl.static_range(len(ALPHAS)):
        growth = _growth(reals[0], ALPHAS, a, len(TABLES) // TAPS).to(table_ptr.dtype.element_ty)
        first = (replica * len(ALPHAS) + a) * n_points
        offsets = ((first + n) * tl.num_programs(1) + index)[:, None] * F + f
        for group in tl.static_range(GROUPS):
            y = sums[group * len(ALPHAS) + a] * growth
            tl.store(out_ptr + (offsets + group * VECTOR), y, mask=inside[:, None])


@triton.jit(do_not_specialize=_COUNTS)
def scatter_kernel(
    x_ptr,
    g_ptr,
    out_ptr,
    reals_ptr,
    integers_ptr,
    n_points,
    n_rows,
    first_level,
    n_levels,
    ALPHAS: tl.constexpr,
    TAPS: tl.constexpr,
    TABLES: tl.constexpr,
    TCNN: tl.constexpr,
    F: tl.constexpr,
    VECTOR: tl.constexpr,
    GROUPS: tl.constexpr,
    BLOCK: tl.constexpr,
    UNROLLED: tl.constexpr,
    ATOMIC: tl.constexpr,
):
    """``x [N, d]``, ``g [R, A, N, L·F]`` → what every vertex of every point receives.

    Added into ``out [R, n_rows, F]`` where atomic, else listed: ``out [R, l, taps^d, N, F]``, for
    the l levels of this launch. Programs: blocks of points, l, R times the parts of F.
    """
    D: tl.constexpr = len(ALPHAS[0])
    local = tl.program_id(1).to(tl.int64)
    index = local + first_level
    replica, f = _features(F, VECTOR, GROUPS)
    n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = n < n_points
    reals, level, factors = _level(reals_ptr, integers_ptr, index, D)
    ts, keys = _locate(x_ptr, n, inside, reals, level[2], factors)
    unrolled = _unrolled(ts, TABLES, TAPS, UNROLLED)
    gs = ()
    for a in tl.static_range(len(ALPHAS)):
        growth = _growth(reals[0], ALPHAS, a, len(TABLES) // TAPS).to(g_ptr.dtype.element_ty)
        first = (replica * len(ALPHAS) + a) * n_points
        offsets = ((first + n) * n_levels + index)[:, None] * F + f
        for group in tl.static_range(GROUPS):
            g = tl.load(g_ptr + (offsets + group * VECTOR), mask=inside[:, None], other=0.0)
            gs = gs + (g * growth,)
    if ATOMIC:
        out_ptr += (replica * n_rows + level[0]) * F
    else:
        out_ptr += (replica * tl.num_programs(1) + local) * TAPS**D * n_points * F

    for vertex in range(TAPS ** (D - UNROLLED)):
        looped, looped_keys = _looped(ts, keys, factors, vertex, TABLES, TAPS, UNROLLED)
        for k in tl.static_range(TAPS**UNROLLED):
            weights, vertex_keys = _vertex(
                unrolled, looped, keys, looped_keys, factors, k, ALPHAS, TAPS
            )
            if ATOMIC:
                place = _row(vertex_keys, level, TCNN)
            else:
                place = (vertex * TAPS**UNROLLED + k) * n_points.to(tl.int64) + n
            offsets = place[:, None] * F + f
            for group in tl.static_range(GROUPS):
                w = weights[0].to(g_ptr.dtype.element_ty)
                value = w[:, None] * gs[group]
                for a in tl.static_range(1, len(ALPHAS)):
                    w = weights[a].to(g_ptr.dtype.element_ty)
                    value = value + w[:, None] * gs[a * GROUPS + group]
                to = out_ptr + (offsets + group * VECTOR)
                if ATOMIC:
                    tl.atomic_add(to, value, mask=inside[:, None], sem="relaxed")
                else:
                    tl.store(to, value, mask=inside[:, None])


@triton.jit(do_not_specialize=_COUNTS)
def rows_kernel(
    x_ptr,
    out_ptr,
    reals_ptr,
    integers_ptr,
    n_points,
    first_level,
    D: tl.constexpr,
    TAPS: tl.constexpr,
    TCNN: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Table rows (int32) in the order of `scatter_kernel`'s list: ``out [l, taps^d, N]``.

    Programs: blocks of points, l levels.
    """
    local = tl.program_id(1).to(tl.int64)
    n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = n < n_points
    reals, level, factors = _level(reals_ptr, integers_ptr, local + first_level, D)
    _, keys = _locate(x_ptr, n, inside, reals, level[2], factors)
    out_ptr += local * TAPS**D * n_points
    for vertex in range(TAPS**D):
        rest = vertex
        vertex_keys = ()
        for j in tl.static_range(D):
            vertex_keys = vertex_keys + (keys[j] + (rest % TAPS).to(tl.uint32) * factors[j],)
            rest = rest // TAPS
        row = _row(vertex_keys, level, TCNN) + level[0]
        entry = vertex * n_points.to(tl.int64) + n
        tl.store(out_ptr + entry, row.to(tl.int32), mask=inside)


@triton.jit(do_not_specialize=_COUNTS)
def segment_kernel(
    values_ptr,
    order_ptr,
    starts_ptr,
    out_ptr,
    n_values,
    n_rows,
    first_row,
    n_group_rows,
    F: tl.constexpr,
    BLOCK_F: tl.constexpr,
    ROWS: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """Sums of listed values by row, in a fixed order.

    Row first_row + i of ``out [R, n_rows, F]`` is the sum of ``values [R, n_values, F]`` at
    ``order[starts[i] : starts[i + 1]]``, CHUNK at a time. Programs: blocks of rows, R.
    """
    replica = tl.program_id(1).to(tl.int64)
    i = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    inside = i < n_group_rows
    f = tl.arange(0, BLOCK_F)
    start = tl.load(starts_ptr + i, mask=inside, other=0)
    end = tl.load(starts_ptr + (i + 1), mask=inside, other=0)
    values_ptr += replica * n_values * F
    sums = tl.zeros((ROWS, CHUNK, BLOCK_F), out_ptr.dtype.element_ty)
    longest = tl.max(end - start)
    first = 0
    while first < longest:
        e = start[:, None] + first + tl.arange(0, CHUNK)[None, :]
        some = e < end[:, None]
        entry = tl.load(order_ptr + e, mask=some, other=0).to(tl.int64)
        offsets = entry[:, :, None] * F + f[None, None, :]
        mask = some[:, :, None] & (f < F)[None, None, :]
        sums += tl.load(values_ptr + offsets, mask=mask, other=0.0)
        first += CHUNK
    columns = (replica * n_rows + first_row + i) * F
    mask = inside[:, None] & (f < F)[None, :]
    tl.store(out_ptr + (columns[:, None] + f[None, :]), tl.sum(sums, axis=1), mask=mask)
