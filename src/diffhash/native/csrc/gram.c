/* Frontal matrices of JᵀJ for a sparse J; see diffhash.optim.dissection. Symmetric ones of n rows,
 * of which the entries below the diagonal are not written. */
#include <stdint.h>
#include <stdlib.h>

#include "threads.h"

enum { CHUNK = 32 }; /* columns of a unit of work */

typedef struct {
    int64_t n_rows, n, most, n_threads; /* most: entries of a row of J */
} Settings;

typedef struct {
    const Settings *s;
    const int64_t *starts, *columns; /* ascending in a row */
    const double *values;
    double *out;
    int64_t *ends; /* [n_threads, most]: for an entry, where its run of adjacent columns ends */
} Product;

static void some_columns(void *context, int64_t unit, int64_t thread) {
    const Product *p = context;
    const Settings *s = p->s;
    const int64_t first = s->n_threads > 1 ? unit * CHUNK : 0;
    const int64_t end = s->n_threads > 1 && first + CHUNK < s->n ? first + CHUNK : s->n;
    int64_t *run_end = p->ends + thread * s->most;
    for (int64_t m = 0; m < s->n_rows; m++) {
        const int64_t start = p->starts[m] - p->starts[0];
        const int64_t n = p->starts[m + 1] - p->starts[m];
        const int64_t *columns = p->columns + start;
        const double *values = p->values + start;
        if (!n || columns[0] >= end || columns[n - 1] < first)
            continue;
        for (int64_t b = n - 1; b >= 0; b--)
            run_end[b] = b + 1 < n && columns[b + 1] == columns[b] + 1 ? run_end[b + 1] : b + 1;
        for (int64_t a = 0; a < n && columns[a] < end; a++) {
            if (columns[a] < first)
                continue;
            const double value = values[a];
            double *row = p->out + columns[a] * s->n;
            for (int64_t b = a; b < n; b = run_end[b]) {
                double *restrict sums = row + columns[b] - b;
                const int64_t last = run_end[b];
#pragma omp simd
                for (int64_t i = b; i < last; i++)
                    sums[i] += value * values[i];
            }
        }
    }
}

/* out[i, j] += Σ_m J_mi J_mj for j >= i. Nonzero if there is no memory. */
int gram(
    const Settings *s, const int64_t *starts, const int64_t *columns, const double *values,
    double *out) {
    const size_t n_ends = (size_t)(s->most > 0 ? s->most : 1) * (size_t)s->n_threads;
    int64_t *ends = malloc(sizeof(int64_t) * n_ends);
    if (!ends)
        return 1;
    Product product = {s, starts, columns, values, out, ends};
    const int64_t n_units = s->n_threads > 1 ? (s->n + CHUNK - 1) / CHUNK : 1;
    share_out(some_columns, &product, n_units, s->n_threads);
    free(ends);
    return 0;
}

typedef struct {
    int64_t n, n_part; /* rows of the whole, of the part */
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
