"""Triton kernels of gather and scatter: a program computes a block of points on one level.

A table row is read (or written) once for all multi-indices. The polynomials of the
weights are constants of the compiled kernel. The COLUMNS^d entries are unrolled over the first
``UNROLLED`` axes and looped over on the others, which keeps large stencils small.

Constants of the kernels:

    ALPHAS      a derivative order per axis, for each of the A outputs
    COLUMNS     the columns of an axis: taps · DOFS
    DOFS        the degrees of freedom of a vertex along an axis
    TABLES      [order · COLUMNS + column] → coefficients of t^0, t^1, …, already differentiated
    PERIODIC    for each axis whether it is periodic
    TCNN        whether a dense level's last vertex wraps around
    F           the features of a row, in groups of VECTOR, the length of one read or write.
                A program computes GROUPS groups, so that its registers suffice.
    BLOCK       the points of a program: one for each thread, so that threads exchange no weights

`triton_stencil` has the functions of a program's points. Offsets are 64-bit.
"""
# ruff: noqa: RUF005  (Triton has no starred expressions)
# pyright: reportArgumentType=false, reportAssignmentType=false, reportGeneralTypeIssues=false

from __future__ import annotations

import triton
import triton.language as tl

from diffhash.ops.backends.triton_stencil import (
    column_key,
    level_growth,
    looped_entry,
    points_on_level,
    table_row,
    unrolled_entry,
    unrolled_weights,
)

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
    COLUMNS: tl.constexpr,
    DOFS: tl.constexpr,
    TABLES: tl.constexpr,
    PERIODIC: tl.constexpr,
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
    n, inside, scales, level, factors, ts, keys = points_on_level(
        x_ptr, reals_ptr, integers_ptr, index, n_points, PERIODIC, BLOCK
    )
    unrolled = unrolled_weights(ts, TABLES, COLUMNS, UNROLLED)
    rows_ptr = table_ptr + (replica * n_rows + level[0]) * F

    sums = ()
    for _ in tl.static_range(GROUPS * len(ALPHAS)):
        sums = sums + (tl.zeros((BLOCK, VECTOR), table_ptr.dtype.element_ty),)
    for entry in range(COLUMNS ** (D - UNROLLED)):
        looped, looped_keys = looped_entry(
            ts, keys, factors, level[4], entry, TABLES, COLUMNS, PERIODIC, DOFS, UNROLLED
        )
        for k in tl.static_range(COLUMNS**UNROLLED):
            weights, entry_keys = unrolled_entry(
                unrolled,
                looped,
                keys,
                looped_keys,
                factors,
                level[4],
                k,
                ALPHAS,
                COLUMNS,
                PERIODIC,
                DOFS,
            )
            offsets = table_row(entry_keys, level, TCNN)[:, None] * F + f
            new = ()
            for group in tl.static_range(GROUPS):
                values = tl.load(rows_ptr + (offsets + group * VECTOR))
                for a in tl.static_range(len(ALPHAS)):
                    w = weights[a].to(values.dtype)
                    new = new + (sums[group * len(ALPHAS) + a] + w[:, None] * values,)
            sums = new

    for a in tl.static_range(len(ALPHAS)):
        growth = level_growth(scales, ALPHAS, a, len(TABLES) // COLUMNS)
        growth = growth.to(table_ptr.dtype.element_ty)
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
    COLUMNS: tl.constexpr,
    DOFS: tl.constexpr,
    TABLES: tl.constexpr,
    PERIODIC: tl.constexpr,
    TCNN: tl.constexpr,
    F: tl.constexpr,
    VECTOR: tl.constexpr,
    GROUPS: tl.constexpr,
    BLOCK: tl.constexpr,
    UNROLLED: tl.constexpr,
    ATOMIC: tl.constexpr,
):
    """``x [N, d]``, ``g [R, A, N, L·F]`` → the summands of every vertex of every point.

    If ATOMIC, they are added to ``out [R, n_rows, F]``. Otherwise they are listed in
    ``out [R, l, COLUMNS^d, N, F]`` for the l levels of this launch. Programs: blocks of points, l,
    R times the parts of F.
    """
    D: tl.constexpr = len(ALPHAS[0])
    local = tl.program_id(1).to(tl.int64)
    index = local + first_level
    replica, f = _features(F, VECTOR, GROUPS)
    n, inside, scales, level, factors, ts, keys = points_on_level(
        x_ptr, reals_ptr, integers_ptr, index, n_points, PERIODIC, BLOCK
    )
    unrolled = unrolled_weights(ts, TABLES, COLUMNS, UNROLLED)
    gs = ()
    for a in tl.static_range(len(ALPHAS)):
        growth = level_growth(scales, ALPHAS, a, len(TABLES) // COLUMNS).to(g_ptr.dtype.element_ty)
        first = (replica * len(ALPHAS) + a) * n_points
        offsets = ((first + n) * n_levels + index)[:, None] * F + f
        for group in tl.static_range(GROUPS):
            g = tl.load(g_ptr + (offsets + group * VECTOR), mask=inside[:, None], other=0.0)
            gs = gs + (g * growth,)
    if ATOMIC:
        out_ptr += (replica * n_rows + level[0]) * F
    else:
        out_ptr += (replica * tl.num_programs(1) + local) * COLUMNS**D * n_points * F

    for entry in range(COLUMNS ** (D - UNROLLED)):
        looped, looped_keys = looped_entry(
            ts, keys, factors, level[4], entry, TABLES, COLUMNS, PERIODIC, DOFS, UNROLLED
        )
        for k in tl.static_range(COLUMNS**UNROLLED):
            weights, entry_keys = unrolled_entry(
                unrolled,
                looped,
                keys,
                looped_keys,
                factors,
                level[4],
                k,
                ALPHAS,
                COLUMNS,
                PERIODIC,
                DOFS,
            )
            if ATOMIC:
                place = table_row(entry_keys, level, TCNN)
            else:
                place = (entry * COLUMNS**UNROLLED + k) * n_points.to(tl.int64) + n
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
    COLUMNS: tl.constexpr,
    DOFS: tl.constexpr,
    PERIODIC: tl.constexpr,
    TCNN: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Table rows (int32) in the order of `scatter_kernel`'s list: ``out [l, COLUMNS^d, N]``.

    Programs: blocks of points, l levels.
    """
    D: tl.constexpr = len(PERIODIC)
    local = tl.program_id(1).to(tl.int64)
    n, inside, _, level, factors, _, keys = points_on_level(
        x_ptr, reals_ptr, integers_ptr, local + first_level, n_points, PERIODIC, BLOCK
    )
    out_ptr += local * COLUMNS**D * n_points
    for entry in range(COLUMNS**D):
        rest = entry
        entry_keys = ()
        for j in tl.static_range(D):
            k = (rest % COLUMNS).to(tl.uint32)
            key = column_key(keys, factors, level[4], k, j, PERIODIC, DOFS)
            entry_keys = entry_keys + (key,)
            rest = rest // COLUMNS
        row = table_row(entry_keys, level, TCNN) + level[0]
        place = entry * n_points.to(tl.int64) + n
        tl.store(out_ptr + place, row.to(tl.int32), mask=inside)


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
