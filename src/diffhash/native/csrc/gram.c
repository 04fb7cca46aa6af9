/* Frontal matrices of JᵀJ for a sparse J; see diffhash.optim.dissection. They are symmetric with n
 * rows; entries below the diagonal are not written. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "threads.h"

enum { ALIKE = 4, UNITS_PER_THREAD = 4 };

typedef struct {
    int64_t n_rows, n, most, n_threads; /* most: the most entries in a row of J */
} Settings;

typedef struct {
    const Settings *s;
    const int64_t *starts, *columns; /* ascending in a row */
    const double *values;
    double *out;
    int64_t *ends; /* [n_threads, most]: the end of each entry's run of adjacent columns */
    int64_t chunk; /* columns of a unit of work */
} Product;

/* Whether row m and the ALIKE - 1 rows after it have the same columns, so that an entry of JᵀJ is
 * read once for all of them. */
static int are_alike(const Product *p, int64_t m, int64_t n) {
    if (m + ALIKE > p->s->n_rows || p->starts[m + ALIKE] - p->starts[m] != ALIKE * n)
        return 0;
    const int64_t *first = p->columns + p->starts[m] - p->starts[0];
    for (int64_t k = 1; k < ALIKE; k++)
        if (p->starts[m + k + 1] - p->starts[m + k] != n ||
            memcmp(first, first + k * n, sizeof(int64_t) * (size_t)n))
            return 0;
    return 1;
}

static void some_columns(void *context, int64_t unit, int64_t thread) {
    const Product *p = context;
    const Settings *s = p->s;
    const int64_t first = unit * p->chunk, past = first + p->chunk;
    const int64_t end = past < s->n ? past : s->n;
    int64_t *run_end = p->ends + thread * s->most;
    for (int64_t m = 0, count; m < s->n_rows; m += count) {
        const int64_t start = p->starts[m] - p->starts[0];
        const int64_t n = p->starts[m + 1] - p->starts[m];
        const int64_t *columns = p->columns + start;
        const double *values = p->values + start;
        count = 1;
        if (!n || columns[0] >= end || columns[n - 1] < first)
            continue;
        count = are_alike(p, m, n) ? ALIKE : 1;
        for (int64_t b = n - 1; b >= 0; b--)
            run_end[b] = b + 1 < n && columns[b + 1] == columns[b] + 1 ? run_end[b + 1] : b + 1;
        for (int64_t a = 0; a < n && columns[a] < end; a++) {
            if (columns[a] < first)
                continue;
            double *row = p->out + columns[a] * s->n;
            if (count == 1) {
                const double value = values[a];
                for (int64_t b = a; b < n; b = run_end[b]) {
                    double *restrict sums = row + columns[b] - b;
                    const int64_t last = run_end[b];
#pragma omp simd
                    for (int64_t i = b; i < last; i++)
                        sums[i] += value * values[i];
                }
                continue;
            }
            const double *v1 = values + n, *v2 = v1 + n, *v3 = v2 + n;
            const double a0 = values[a], a1 = v1[a], a2 = v2[a], a3 = v3[a];
            for (int64_t b = a; b < n; b = run_end[b]) {
                double *restrict sums = row + columns[b] - b;
                const int64_t last = run_end[b];
#pragma omp simd
                for (int64_t i = b; i < last; i++)
                    sums[i] += a0 * values[i] + a1 * v1[i] + a2 * v2[i] + a3 * v3[i];
            }
        }
    }
}

/* out[i, j] += Σ_m J_mi J_mj for j >= i. Returns a nonzero value if memory runs out. */
int gram(
    const Settings *s, const int64_t *starts, const int64_t *columns, const double *values,
    double *out) {
    const size_t n_ends = (size_t)(s->most > 0 ? s->most : 1) * (size_t)s->n_threads;
    int64_t *ends = malloc(sizeof(int64_t) * n_ends);
    if (!ends)
        return 1;
    const int64_t n_units = s->n_threads > 1 ? s->n_threads * UNITS_PER_THREAD : 1;
    const int64_t chunk = (s->n + n_units - 1) / n_units;
    Product product = {s, starts, columns, values, out, ends, chunk > 0 ? chunk : 1};
    parallel_for(some_columns, &product, (s->n + product.chunk - 1) / product.chunk, s->n_threads);
    free(ends);
    return 0;
}

typedef struct {
    int64_t n, n_part; /* rows of the whole and of the part */
} Sizes;

/* out[at[i], at[j]] += part[i, j] for j >= i; `at` is ascending. */
void add_part(const Sizes *s, const int64_t *at, const double *part, double *out) {
    for (int64_t i = 0; i < s->n_part; i++) {
        const double *from = part + i * s->n_part;
        double *row = out + at[i] * s->n;
        for (int64_t j = i, last; j < s->n_part; j = last) {
            double *restrict to = row + at[j] - j;
            for (last = j + 1; last < s->n_part && at[last] == at[last - 1] + 1;)
                last++;
#pragma omp simd
            for (int64_t k = j; k < last; k++)
                to[k] += from[k];
        }
    }
}
