/* Gather and scatter on a CPU; their formulas are in diffhash.ops.grid.
 *
 * Compiled for one REAL (of tables), COORD (of points and weights), DIM (axes), PERIODIC (a bit for
 * each axis), TAPS, DOFS (degrees of freedom of a vertex per axis, 1 or 2) and COEFFICIENTS
 * (degree + 1), so that the loops over them unroll. Threads divide the points in gather, and the
 * levels, whose rows are disjoint, in scatter: there are no atomic operations, and the order of the
 * sums does not depend on the number of threads.
 */
#include <stdint.h>
#include <stdlib.h>

#include "grid_sums.h"
#include "threads.h"

#define MAX_ORDERS 16

#define POW1(x) (x)
#define POW2(x) ((x) * (x))
#define POW3(x) ((x) * (x) * (x))
#define POW4(x) ((x) * (x) * (x) * (x))
#define CONCATENATE(a, b) a##b
#define POWER(x, n) CONCATENATE(POW, n)(x)
#define COLUMNS (TAPS * DOFS) /* weights along an axis */
#define ENTRIES POWER(COLUMNS, DIM) /* rows that a point reads on a level */

static const uint32_t primes[4] = {1u, 2654435761u, 805459861u, 3674653429u};

typedef struct {
    COORD shift, scales[DIM], max_cells[DIM];
    int64_t resolutions[DIM]; /* vertices; on a periodic axis those in a period */
    int64_t first_vertex;     /* of a stencil, relative to its cell, from the padding on */
    int64_t n_rows, first_row;
    int64_t hashed, wraps;
} Level;

typedef struct {
    int64_t n_points, n_replicas, n_rows, n_levels, n_features, n_orders, n_alphas, n_threads;
    const Level *levels;
    const COORD *coefficients; /* [n_orders][COEFFICIENTS][COLUMNS], ascending powers of t */
    const COORD *factors;      /* [n_orders][n_levels][DIM]: scale^order */
    const int32_t *alphas;    /* [n_alphas][DIM]: index of the order along each axis */
} GridSettings;

/* Rows [ENTRIES] and weights [n_alphas][ENTRIES] of a point on a level; axis 0 is the slowest. */
static void stencil(
    const GridSettings *restrict p, int64_t l, const COORD *restrict x, uint32_t *restrict rows,
    REAL *restrict weights) {
    const Level level = p->levels[l];
    COORD axes[DIM][MAX_ORDERS][COLUMNS];
    uint32_t steps[DIM][COLUMNS];
    uint32_t stride = 1; /* of vertices; modulo 2^32, like rows */
    for (int j = 0; j < DIM; j++) {
        const int periodic = PERIODIC >> j & 1;
        const COORD at = periodic ? x[j] - FLOOR(x[j]) : x[j];
        const COORD pos = level.scales[j] * at + level.shift;
        COORD cell = FLOOR(pos);
        cell = cell > 0 ? cell : 0; /* also for NaN */
        cell = cell < level.max_cells[j] ? cell : level.max_cells[j];
        const COORD t = pos - cell;
        for (int64_t m = 0; m < p->n_orders; m++) {
            const COORD *c = p->coefficients + m * COLUMNS * COEFFICIENTS;
            const COORD factor = p->factors[(m * p->n_levels + l) * DIM + j];
            COORD w[COLUMNS];
            for (int k = 0; k < COLUMNS; k++) w[k] = c[(COEFFICIENTS - 1) * COLUMNS + k];
            for (int i = COEFFICIENTS - 2; i >= 0; i--)
                for (int k = 0; k < COLUMNS; k++) w[k] = w[k] * t + c[i * COLUMNS + k];
            for (int k = 0; k < COLUMNS; k++) axes[j][m][k] = w[k] * factor;
        }
        const int64_t n = level.resolutions[j], first = (int64_t)cell + level.first_vertex;
        for (int k = 0; k < COLUMNS; k++) {
            int64_t vertex = (periodic ? first % n : first) + k / DOFS;
            while (periodic && vertex >= n) vertex -= n;
            const uint32_t row = (uint32_t)vertex * (level.hashed ? primes[j] : stride);
            steps[j][k] = row * POWER(DOFS, DIM) + ((uint32_t)(k % DOFS) << j);
        }
        stride *= (uint32_t)n;
    }
    /* Every choice of a column for each axis, computed in place from the end. */
    for (int k = 0; k < COLUMNS; k++) rows[k] = steps[0][k];
    for (int j = 1, size = COLUMNS; j < DIM; j++, size *= COLUMNS)
        for (int i = size - 1; i >= 0; i--) {
            const uint32_t row = rows[i];
            if (level.hashed)
                for (int k = 0; k < COLUMNS; k++) rows[i * COLUMNS + k] = row ^ steps[j][k];
            else
                for (int k = 0; k < COLUMNS; k++) rows[i * COLUMNS + k] = row + steps[j][k];
        }
    const uint32_t n_rows = level.n_rows, first_row = level.first_row;
    if (level.hashed)
        for (int v = 0; v < ENTRIES; v++) rows[v] = (rows[v] & (n_rows - 1)) + first_row;
    else if (level.wraps)
        for (int v = 0; v < ENTRIES; v++)
            rows[v] = (rows[v] >= n_rows ? rows[v] - n_rows : rows[v]) + first_row;
    else
        for (int v = 0; v < ENTRIES; v++) rows[v] += first_row;
    for (int64_t a = 0; a < p->n_alphas; a++, weights += ENTRIES) {
        const int32_t *alpha = p->alphas + a * DIM;
        for (int k = 0; k < COLUMNS; k++) weights[k] = axes[0][alpha[0]][k];
        for (int j = 1, size = COLUMNS; j < DIM; j++, size *= COLUMNS) {
            const COORD *axis = axes[j][alpha[j]];
            for (int i = size - 1; i >= 0; i--) {
                const REAL w = weights[i]; /* rounded once per axis */
                for (int k = 0; k < COLUMNS; k++) weights[i * COLUMNS + k] = w * axis[k];
            }
        }
    }
}

/* The number of points that a thread takes at a time. */
enum { CHUNK = 64 };

static int64_t n_chunks(const GridSettings *p) { return (p->n_points + CHUNK - 1) / CHUNK; }
static int64_t chunk_end(const GridSettings *p, int64_t chunk) {
    const int64_t end = (chunk + 1) * CHUNK;
    return end < p->n_points ? end : p->n_points;
}

/* A call of an entry point, shared by all threads. Stencils are in a plan or, if x is not NULL, are
 * computed from x into memory of each thread. */
typedef struct {
    const GridSettings *p;
    const COORD *x;
    const uint32_t *rows;
    const REAL *weights;
    uint32_t *own_rows;
    REAL *own_weights;
    uint32_t *new_rows; /* of a new plan */
    REAL *new_weights;
    const REAL *from;
    REAL *to;
} Pass;

/* Returns whether the memory could be allocated. */
static int open_room(Pass *pass) {
    const int64_t T = pass->p->n_threads;
    pass->own_rows = pass->x ? malloc(T * ENTRIES * sizeof(uint32_t)) : NULL;
    pass->own_weights =
        pass->x ? malloc(T * pass->p->n_alphas * ENTRIES * sizeof(REAL)) : NULL;
    return !pass->x || (pass->own_rows && pass->own_weights);
}

static void close_room(Pass *pass) {
    free(pass->own_rows);
    free(pass->own_weights);
}

/* The entries of n points from i on, of a plan. */
static inline Entries planned(const Pass *s, int64_t i, int64_t n) {
    const int64_t L = s->p->n_levels, K = s->p->n_alphas, at = i * L * ENTRIES;
    return (Entries){n, L, K, ENTRIES, s->rows + at, s->weights + at * K};
}

/* The entries of point i on level l, computed. */
static inline Entries computed(const Pass *s, int64_t thread, int64_t i, int64_t l) {
    const int64_t K = s->p->n_alphas;
    uint32_t *rows = s->own_rows + thread * ENTRIES;
    REAL *weights = s->own_weights + thread * K * ENTRIES;
    stencil(s->p, l, s->x + i * DIM, rows, weights);
    return (Entries){1, 1, K, ENTRIES, rows, weights};
}

static void plan_chunk(void *context, int64_t chunk, int64_t thread) {
    (void)thread;
    const Pass *pass = context;
    const GridSettings *p = pass->p;
    const int64_t L = p->n_levels, end = chunk_end(p, chunk);
    for (int64_t i = chunk * CHUNK; i < end; i++)
        for (int64_t l = 0; l < L; l++) {
            const int64_t at = (i * L + l) * ENTRIES;
            stencil(
                p, l, pass->x + i * DIM, pass->new_rows + at,
                pass->new_weights + at * p->n_alphas);
        }
}

/* For every replica; e starts at point i and level l. Not inlined, because it compiles slowly. */
static __attribute__((noinline)) void gather_from(
    const Pass *pass, Entries e, int64_t i, int64_t l) {
    const GridSettings *p = pass->p;
    e.T = ENTRIES; /* a constant for the compiler */
    const int64_t L = p->n_levels, F = p->n_features, stride = p->n_points * L * F;
    for (int64_t r = 0; r < p->n_replicas; r++)
        gather_entries(
            pass->from + r * p->n_rows * F, e, F,
            pass->to + r * p->n_alphas * stride + (i * L + l) * F, stride, L * F);
}

static __attribute__((noinline)) void scatter_from(
    const Pass *pass, Entries e, int64_t i, int64_t l, int64_t first, int64_t step) {
    const GridSettings *p = pass->p;
    e.T = ENTRIES;
    const int64_t L = p->n_levels, F = p->n_features, stride = p->n_points * L * F;
    for (int64_t r = 0; r < p->n_replicas; r++)
        scatter_entries(
            pass->to + r * p->n_rows * F, e, F,
            pass->from + r * p->n_alphas * stride + (i * L + l) * F, stride, L * F, first, step);
}

static void gather_chunk(void *context, int64_t chunk, int64_t thread) {
    const Pass *pass = context;
    const int64_t start = chunk * CHUNK, end = chunk_end(pass->p, chunk);
    if (pass->x)
        for (int64_t i = start; i < end; i++)
            for (int64_t l = 0; l < pass->p->n_levels; l++)
                gather_from(pass, computed(pass, thread, i, l), i, l);
    else gather_from(pass, planned(pass, start, end - start), start, 0);
}

/* A part of the levels, every n_threads-th level: there are as many parts as threads. */
static void scatter_part(void *context, int64_t part, int64_t thread) {
    const Pass *pass = context;
    const GridSettings *p = pass->p;
    for (int64_t chunk = 0; chunk < n_chunks(p); chunk++) {
        const int64_t start = chunk * CHUNK, end = chunk_end(p, chunk);
        if (pass->x)
            for (int64_t i = start; i < end; i++)
                for (int64_t l = part; l < p->n_levels; l += p->n_threads)
                    scatter_from(pass, computed(pass, thread, i, l), i, l, 0, 1);
        else scatter_from(pass, planned(pass, start, end - start), start, 0, part, p->n_threads);
    }
}

/* Rows [N, L, ENTRIES] and weights [N, L, n_alphas, ENTRIES] of fixed points. */
void plan(const GridSettings *p, const COORD *x, uint32_t *rows, REAL *weights) {
    Pass pass = {.p = p, .x = x, .new_rows = rows, .new_weights = weights};
    parallel_for(plan_chunk, &pass, n_chunks(p), p->n_threads);
}

/* Table [R, n_rows, F] -> y [R, A, N, L F], at x [N, DIM] or, if that is NULL, at a plan's points.
 * Returns 0, or 1 if memory runs out.
 */
int gather(
    const GridSettings *p, const COORD *x, const uint32_t *rows, const REAL *weights,
    const REAL *table, REAL *y) {
    Pass pass = {.p = p, .x = x, .rows = rows, .weights = weights, .from = table, .to = y};
    const int ready = open_room(&pass);
    if (ready) parallel_for(gather_chunk, &pass, n_chunks(p), p->n_threads);
    close_room(&pass);
    return !ready;
}

/* g [R, A, N, L F] -> table [R, n_rows, F], which must be zero before; otherwise as gather. */
int scatter(
    const GridSettings *p, const COORD *x, const uint32_t *rows, const REAL *weights, const REAL *g,
    REAL *table) {
    Pass pass = {.p = p, .x = x, .rows = rows, .weights = weights, .from = g, .to = table};
    const int ready = open_room(&pass);
    if (ready) parallel_for(scatter_part, &pass, p->n_threads, p->n_threads);
    close_room(&pass);
    return !ready;
}
