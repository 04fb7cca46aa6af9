/* Frontal matrices of JᵀJ for a sparse J; see diffhash.optim.dissection. They are symmetric with n
 * rows; entries below the diagonal are not written. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "threads.h"

enum { PAIR = 2, POINTS = 4, MOST_ROWS = 32, UNITS_PER_THREAD = 4, ROWS_PER_UNIT = 64 };

typedef struct {
    int64_t n_groups, n, most, n_threads; /* most: the most columns of a group */
} Settings;

/* Group g has the rows of J from ends[g] to ends[g + 1], whose entries begin at row_starts in
 * `values`, and the columns from starts[g] to starts[g + 1], ascending. A column's entry in a row
 * is at its place after the row's start. */
typedef struct {
    const Settings *s;
    const int64_t *ends, *row_starts, *starts, *columns, *places;
    const double *values;
    double *out;
    int64_t *run_ends; /* [n_threads, most]: the end of each column's run of adjacent columns */
    double *memory;    /* [n_threads, MOST_ROWS + PAIR, most] */
    int64_t chunk;     /* columns of a unit of work */
} Product;

/* sums[r, i] = Σ_k rows[k, a + r] rows[k, i] for i >= a and r < PAIR, rows of n entries. */
static void pair_of_sums(
    const double *rows, int64_t count, int64_t n, int64_t a, double *restrict sums0,
    double *restrict sums1) {
    const int64_t b = a + 1 < n ? a + 1 : a;
    memset(sums0 + a, 0, sizeof(double) * (size_t)(n - a));
    memset(sums1 + a, 0, sizeof(double) * (size_t)(n - a));
    for (int64_t k = 0; k < count; k += POINTS) {
        const double *v[POINTS];
        double by0[POINTS], by1[POINTS];
        for (int64_t p = 0; p < POINTS; p++) {
            const int is_there = k + p < count;
            v[p] = rows + (is_there ? k + p : k) * n;
            by0[p] = is_there ? v[p][a] : 0;
            by1[p] = is_there ? v[p][b] : 0;
        }
        const double *v0 = v[0], *v1 = v[1], *v2 = v[2], *v3 = v[3];
        const double a0 = by0[0], a1 = by0[1], a2 = by0[2], a3 = by0[3];
        const double b0 = by1[0], b1 = by1[1], b2 = by1[2], b3 = by1[3];
#pragma omp simd
        for (int64_t i = a; i < n; i++) {
            sums0[i] += a0 * v0[i] + a1 * v1[i] + a2 * v2[i] + a3 * v3[i];
            sums1[i] += b0 * v0[i] + b1 * v1[i] + b2 * v2[i] + b3 * v3[i];
        }
    }
}

/* The product of `count` rows with n entries each, for columns from `first` to `end`. */
static void add_product(
    const Product *p, const double *rows, int64_t count, int64_t n, const int64_t *columns,
    const int64_t *run_ends, int64_t first, int64_t end, double *sums) {
    int64_t a = 0;
    while (columns[a] < first)
        a++;
    for (; a < n && columns[a] < end; a += PAIR) {
        pair_of_sums(rows, count, n, a, sums, sums + n);
        for (int64_t r = 0; r < PAIR && a + r < n && columns[a + r] < end; r++) {
            const double *from = sums + r * n;
            double *row = p->out + columns[a + r] * p->s->n;
            for (int64_t b = a + r; b < n; b = run_ends[b]) {
                double *restrict to = row + columns[b] - b;
                const int64_t last = run_ends[b];
#pragma omp simd
                for (int64_t i = b; i < last; i++)
                    to[i] += from[i];
            }
        }
    }
}

static void some_columns(void *context, int64_t unit, int64_t thread) {
    const Product *p = context;
    const Settings *s = p->s;
    const int64_t first = unit * p->chunk, past = first + p->chunk;
    const int64_t end = past < s->n ? past : s->n;
    int64_t *run_ends = p->run_ends + thread * s->most;
    double *rows = p->memory + thread * (MOST_ROWS + PAIR) * s->most;
    for (int64_t g = 0; g < s->n_groups; g++) {
        const int64_t start = p->starts[g], n = p->starts[g + 1] - start;
        const int64_t *columns = p->columns + start, *places = p->places + start;
        if (!n || columns[0] >= end || columns[n - 1] < first)
            continue;
        for (int64_t b = n - 1; b >= 0; b--)
            run_ends[b] = b + 1 < n && columns[b + 1] == columns[b] + 1 ? run_ends[b + 1] : b + 1;
        for (int64_t m = p->ends[g], count; m < p->ends[g + 1]; m += count) {
            count = p->ends[g + 1] - m < MOST_ROWS ? p->ends[g + 1] - m : MOST_ROWS;
            for (int64_t k = 0; k < count; k++)
                for (int64_t i = 0; i < n; i++)
                    rows[k * n + i] = p->values[p->row_starts[m + k] + places[i]];
            add_product(p, rows, count, n, columns, run_ends, first, end, rows + count * n);
        }
    }
}

/* out[i, j] += Σ_m J_mi J_mj for j >= i. Returns a nonzero value if memory runs out. */
int gram(
    const Settings *s, const int64_t *ends, const int64_t *row_starts, const int64_t *starts,
    const int64_t *columns, const int64_t *places, const double *values, double *out) {
    const size_t n_entries = (size_t)(s->most * s->n_threads);
    int64_t *run_ends = malloc(sizeof(int64_t) * n_entries);
    double *memory = malloc(sizeof(double) * n_entries * (MOST_ROWS + PAIR));
    const int failed = !run_ends || !memory;
    if (!failed) {
        const int64_t n_units = s->n_threads > 1 ? s->n_threads * UNITS_PER_THREAD : 1;
        const int64_t chunk = (s->n + n_units - 1) / n_units;
        Product product = {s,      ends, row_starts, starts, columns, places,
                           values, out,  run_ends,   memory, chunk};
        parallel_for(some_columns, &product, (s->n + chunk - 1) / chunk, s->n_threads);
    }
    free(run_ends);
    free(memory);
    return failed;
}

typedef struct {
    int64_t n, n_part, n_threads; /* rows of the whole and of the part */
} Sizes;

typedef struct {
    const Sizes *s;
    const int64_t *at;
    const double *part;
    double *out;
} Sum;

static void some_rows(void *context, int64_t unit, int64_t thread) {
    (void)thread;
    const Sum *p = context;
    const int64_t n = p->s->n_part, *at = p->at;
    const int64_t past = (unit + 1) * ROWS_PER_UNIT, end = past < n ? past : n;
    for (int64_t i = unit * ROWS_PER_UNIT; i < end; i++) {
        const double *from = p->part + i * n;
        double *row = p->out + at[i] * p->s->n;
        for (int64_t j = i, last; j < n; j = last) {
            double *restrict to = row + at[j] - j;
            for (last = j + 1; last < n && at[last] == at[last - 1] + 1;)
                last++;
#pragma omp simd
            for (int64_t k = j; k < last; k++)
                to[k] += from[k];
        }
    }
}

/* out[at[i], at[j]] += part[i, j] for j >= i; `at` is ascending. */
void add_part(const Sizes *s, const int64_t *at, const double *part, double *out) {
    Sum sum = {s, at, part, out};
    parallel_for(
        some_rows, &sum, (s->n_part + ROWS_PER_UNIT - 1) / ROWS_PER_UNIT, s->n_threads);
}
