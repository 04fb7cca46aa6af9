/* Jets of a grid from rows of its table, and the transpose. Compiled for one REAL. */
#pragma once
#include <stdint.h>

#define SUMS static inline __attribute__((always_inline))

/* T rows of a table, and their weights for each of K rows of a jet, at n points on L levels. */
typedef struct {
    int64_t n, L, K, T;
    const uint32_t *rows; /* [n, L, T] */
    const REAL *weights;  /* [n, L, K, T] */
} Entries;

enum { MOST_ROWS = 4 }; /* rows of a jet at once */

#define LANES 8
#include "grid_lanes.h"
#define LANES 4
#include "grid_lanes.h"
#define LANES 2
#include "grid_lanes.h"
#define LANES 1
#include "grid_lanes.h"

/* With the most lanes of which F is a multiple; usual values of F are constants. */
#define WITH_LANES(call)                  \
    switch (F) {                          \
        case 1: call(1, 1); break;        \
        case 2: call(2, 2); break;        \
        case 4: call(4, 4); break;        \
        case 8: call(8, 8); break;        \
        default:                          \
            if (F % 8 == 0) call(8, F);   \
            else if (F % 4 == 0) call(4, F); \
            else if (F % 2 == 0) call(2, F); \
            else call(1, F);              \
    }

/* Sums over v of weights[i, l, k, v] table[rows[i, l, v], f] into out at k k_stride + i i_stride +
 * l F + f, for each feature f of F. */
SUMS void gather_entries(
    const REAL *table, const Entries e, int64_t F, REAL *out, int64_t k_stride, int64_t i_stride) {
#define CALL(lanes, f) gather_##lanes(table, e, f, out, k_stride, i_stride)
    WITH_LANES(CALL)
#undef CALL
}

/* Adds the transpose, of every `step`-th level from `first` on, to a table. */
SUMS void scatter_entries(
    REAL *table, const Entries e, int64_t F, const REAL *g, int64_t k_stride, int64_t i_stride,
    int64_t first, int64_t step) {
#define CALL(lanes, f) scatter_##lanes(table, e, f, g, k_stride, i_stride, first, step)
    WITH_LANES(CALL)
#undef CALL
}

#undef WITH_LANES
#undef SUMS
