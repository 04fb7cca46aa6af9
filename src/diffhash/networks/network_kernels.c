/* A jet through a fully connected network, and back; see diffhash.networks.native_jet.
 *
 * Points go through all layers in blocks that stay in the cache, a segment of blocks at a time. Each
 * segment adds up its own weight gradients and they are summed in order: how many threads share
 * the segments does not change a bit.
 *
 * A network's parameters lie one after the other: of each layer the weight [C_out, C_in], then the
 * bias [C_out].
 *
 * Compiled for one REAL and one activation σ: STATE computes a (and b) from a pre-activation z;
 * VALUE, FIRST, SECOND and THIRD are σ(z) and its derivatives in a, b and the parameter p.
 *
 * A block holds, for a layer of C units (padded to whole vectors: Cp), rows of [B, Cp]. Before an
 * activation: pre-activations z of every row of the jet, but a (and b after the last row) instead
 * of the value's. That is what the way back needs, and all that is kept of the way forth.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "smooth_functions.h"

#if defined(__AVX512F__)
#define VECTOR_BYTES 64
#define TILE 8 /* rows of a register tile, which is two vectors wide */
#elif defined(__AVX__)
#define VECTOR_BYTES 32
#define TILE 4
#else
#define VECTOR_BYTES 16
#define TILE 4
#endif
#define V ((int64_t)(VECTOR_BYTES / sizeof(REAL)))

typedef REAL Vector __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(REAL)), may_alias));

typedef struct {
    int64_t n_points, n_rows, n_axes, n_layers, n_replicas, block, segment, n_threads;
    int64_t shared_input; /* one input for all replicas */
    const int64_t *orders; /* of every axis */
    const int64_t *widths; /* n_layers + 1 */
    REAL parameter;
} Shape;

/* Rows [N, L, n_taps] and weights [N, L, K, n_taps] of a grid's jets at fixed points. */
typedef struct {
    int64_t n_levels, n_features, n_taps, table_size; /* elements of a table */
    const uint32_t *rows;
    const REAL *weights;
    const REAL *tables; /* [R, table_size] */
} Grid;

/* weight · mean over N and E of (sum_k coefficients[k, n, e] jet[k, n] - target[n, e])^2. */
typedef struct {
    int64_t n_equations;
    double weight;
    const REAL *coefficients, *target;
} Squares;

static int64_t padded(int64_t n) { return (n + V - 1) / V * V; }
static int64_t minimum(int64_t a, int64_t b) { return a < b ? a : b; }

/* ---------------------------------------------------------------------- matrix products */

#define INLINE static inline __attribute__((always_inline))

/* C[rows, cols·V] (+)= A B, where A[i, k] is at a[i·ai + k·ak]. */
INLINE void tile(
    const int rows, const int cols, int64_t K, const REAL *a, int64_t ai, int64_t ak, const REAL *b,
    int64_t ldb, REAL *c, int64_t ldc, const int add) {
    Vector sum[TILE][2];
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 2
        for (int j = 0; j < cols; j++) {
            if (add) sum[i][j] = *(const Vector *)(c + i * ldc + j * V);
            else sum[i][j] = (Vector){0};
        }
    for (int64_t k = 0; k < K; k++) {
        Vector bs[2];
#pragma GCC unroll 2
        for (int j = 0; j < cols; j++) bs[j] = *(const Vector *)(b + k * ldb + j * V);
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++) {
            const REAL x = a[i * ai + k * ak];
#pragma GCC unroll 2
            for (int j = 0; j < cols; j++) sum[i][j] += x * bs[j];
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 2
        for (int j = 0; j < cols; j++) *(Vector *)(c + i * ldc + j * V) = sum[i][j];
}

INLINE void columns(
    const int cols, int64_t M, int64_t K, const REAL *a, int64_t ai, int64_t ak, const REAL *b,
    int64_t ldb, REAL *c, int64_t ldc, const int add) {
    int64_t i = 0;
    for (; i + TILE <= M; i += TILE)
        tile(TILE, cols, K, a + i * ai, ai, ak, b, ldb, c + i * ldc, ldc, add);
    for (; i < M; i++) tile(1, cols, K, a + i * ai, ai, ak, b, ldb, c + i * ldc, ldc, add);
}

/* C[M, N] (+)= A[M, K] B[K, N]; N in whole vectors. */
INLINE void product(
    int64_t M, int64_t N, int64_t K, const REAL *a, int64_t ai, int64_t ak, const REAL *b,
    int64_t ldb, REAL *c, int64_t ldc, const int add) {
    int64_t j = 0;
    for (; j + 2 * V <= N; j += 2 * V) columns(2, M, K, a, ai, ak, b + j, ldb, c + j, ldc, add);
    for (; j < N; j += V) columns(1, M, K, a, ai, ak, b + j, ldb, c + j, ldc, add);
}

static void multiply(
    int64_t M, int64_t N, int64_t K, const REAL *a, int64_t ai, int64_t ak, const REAL *b,
    int64_t ldb, REAL *c, int64_t ldc) {
    product(M, N, K, a, ai, ak, b, ldb, c, ldc, 0);
}

static void multiply_add(
    int64_t M, int64_t N, int64_t K, const REAL *a, int64_t ai, int64_t ak, const REAL *b,
    int64_t ldb, REAL *c, int64_t ldc) {
    product(M, N, K, a, ai, ak, b, ldb, c, ldc, 1);
}

/* c[M, N] = A[M, K] W[N, K]^T for few outputs N. */
static void dot_products(
    int64_t M, int64_t N, int64_t K, const REAL *restrict a, int64_t lda, const REAL *restrict w,
    REAL *restrict c, int64_t ldc) {
    for (int64_t i = 0; i < M; i++)
        for (int64_t j = 0; j < N; j++) {
            REAL sum = 0;
#pragma omp simd reduction(+ : sum)
            for (int64_t k = 0; k < K; k++) sum += a[i * lda + k] * w[j * K + k];
            c[i * ldc + j] = sum;
        }
}

/* -------------------------------------------------------------------------- activations */

#ifdef SINES
static void states(REAL *restrict as, REAL *restrict bs, int64_t n, REAL p) {
    REAL largest = 0;
#pragma omp simd reduction(max : largest)
    for (int64_t i = 0; i < n; i++) {
        const REAL size = abs_(p * as[i]);
        largest = size > largest ? size : largest;
    }
    if (largest > SINE_LIMIT) {
        for (int64_t i = 0; i < n; i++) {
            const REAL x = p * as[i];
            REAL a, b;
            if (abs_(x) > SINE_LIMIT) a = sin_libm(x), b = cos_libm(x);
            else sine_and_cosine(x, &a, &b);
            as[i] = a;
            bs[i] = b;
        }
        return;
    }
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        REAL a, b;
        sine_and_cosine(p * as[i], &a, &b);
        as[i] = a;
        bs[i] = b;
    }
}
#else
static void states(REAL *restrict as, REAL *restrict bs, int64_t n, REAL p) {
    (void)p;
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        const REAL z = as[i];
        REAL a, b = 0;
        STATE;
        as[i] = a;
        if (HAS_B) bs[i] = b;
    }
}
#endif

/* Pre-activations in `state` become a and b there. */
static void keep_state(const Shape *s, REAL *state, int64_t plane) {
    states(state, state + s->n_rows * plane, plane, s->parameter);
}

/* The jet σ(z) from a layer's state. */
static void activate(const Shape *s, const REAL *state, int64_t plane, REAL *out) {
    const REAL p = s->parameter;
    const REAL *restrict as = state, *restrict bs = HAS_B ? state + s->n_rows * plane : state;
    REAL *restrict y0 = out;
#pragma omp simd
    for (int64_t i = 0; i < plane; i++) {
        const REAL a = as[i], b = bs[i];
        y0[i] = VALUE;
    }
    int64_t row = 1;
    for (int64_t axis = 0; axis < s->n_axes; row += s->orders[axis++]) {
        const REAL *restrict z1 = state + row * plane;
        REAL *restrict y1 = out + row * plane;
        if (s->orders[axis] == 1) {
#pragma omp simd
            for (int64_t i = 0; i < plane; i++) {
                const REAL a = as[i], b = bs[i];
                y1[i] = (FIRST) * z1[i];
            }
        } else if (s->orders[axis] == 2) {
            const REAL *restrict z2 = z1 + plane;
            REAL *restrict y2 = y1 + plane;
#pragma omp simd
            for (int64_t i = 0; i < plane; i++) {
                const REAL a = as[i], b = bs[i];
                const REAL first = FIRST;
                y1[i] = first * z1[i];
                y2[i] = first * z2[i] + (SECOND) * z1[i] * z1[i];
            }
        }
    }
}

/* Gradients towards σ's jet become, in place, those towards z. */
static void activate_back(const Shape *s, const REAL *state, int64_t plane, REAL *grad) {
    const REAL p = s->parameter;
    const REAL *restrict as = state, *restrict bs = HAS_B ? state + s->n_rows * plane : state;
    REAL *restrict g0 = grad;
#pragma omp simd
    for (int64_t i = 0; i < plane; i++) {
        const REAL a = as[i], b = bs[i];
        g0[i] *= FIRST;
    }
    int64_t row = 1;
    for (int64_t axis = 0; axis < s->n_axes; row += s->orders[axis++]) {
        const REAL *restrict z1 = state + row * plane;
        REAL *restrict g1 = grad + row * plane;
        if (s->orders[axis] == 1) {
#pragma omp simd
            for (int64_t i = 0; i < plane; i++) {
                const REAL a = as[i], b = bs[i];
                g0[i] += g1[i] * (SECOND) * z1[i];
                g1[i] *= FIRST;
            }
        } else if (s->orders[axis] == 2) {
            const REAL *restrict z2 = z1 + plane;
            REAL *restrict g2 = g1 + plane;
#pragma omp simd
            for (int64_t i = 0; i < plane; i++) {
                const REAL a = as[i], b = bs[i];
                const REAL first = FIRST, second = SECOND, curved = second * z1[i];
                g0[i] += g1[i] * curved + g2[i] * ((THIRD) * z1[i] * z1[i] + second * z2[i]);
                g1[i] = g1[i] * first + 2 * g2[i] * curved;
                g2[i] *= first;
            }
        }
    }
}

/* ------------------------------------------------------------------------------- blocks */

/* Parameters of a replica, up to the layer `end`. */
static int64_t n_parameters(const Shape *s, int64_t end) {
    int64_t size = 0;
    for (int64_t l = 0; l < end; l++) size += (s->widths[l] + 1) * s->widths[l + 1];
    return size;
}

static int64_t widest(const Shape *s) {
    int64_t width = 0;
    for (int64_t l = 0; l <= s->n_layers; l++)
        if (s->widths[l] > width) width = s->widths[l];
    return padded(width);
}

/* Elements of what a block keeps of all hidden layers. */
static int64_t block_state(const Shape *s) {
    int64_t size = 0;
    for (int64_t l = 1; l < s->n_layers; l++) size += padded(s->widths[l]);
    return size * (s->n_rows + HAS_B) * s->block;
}

static int64_t n_blocks(const Shape *s) { return (s->n_points + s->block - 1) / s->block; }
static int64_t n_segments(const Shape *s) { /* of no points there is one, too */
    return s->n_points ? (s->n_points + s->segment - 1) / s->segment : 1;
}

/* Elements of `states` between the two directions. */
int64_t state_size(const Shape *s) { return s->n_replicas * n_blocks(s) * block_state(s); }

/* Elements of one replica's W^T (or W), rows in whole vectors. */
static int64_t packed_size(const Shape *s, int transposed) {
    int64_t size = 0;
    for (int64_t l = 0; l < s->n_layers; l++)
        size += transposed ? s->widths[l] * padded(s->widths[l + 1])
                           : s->widths[l + 1] * padded(s->widths[l]);
    return size;
}

static void pack(const Shape *s, const REAL *parameters, int transposed, REAL *out) {
    for (int64_t r = 0; r < s->n_replicas; r++)
        for (int64_t l = 0; l < s->n_layers; l++) {
            const int64_t I = s->widths[l], O = s->widths[l + 1];
            const int64_t ld = padded(transposed ? O : I), rows = transposed ? I : O;
            const REAL *restrict w = parameters;
            memset(out, 0, rows * ld * sizeof(REAL));
            if (transposed)
                for (int64_t i = 0; i < I; i++)
                    for (int64_t o = 0; o < O; o++) out[i * ld + o] = w[o * I + i];
            else
                for (int64_t o = 0; o < O; o++) memcpy(out + o * ld, w + o * I, I * sizeof(REAL));
            out += rows * ld;
            parameters += (I + 1) * O;
        }
}

static REAL *allocate(int64_t elements) {
    const size_t bytes = (elements * sizeof(REAL) + VECTOR_BYTES) / VECTOR_BYTES * VECTOR_BYTES;
    return aligned_alloc(VECTOR_BYTES, bytes);
}

/* Rows of a [K, N, C] jet at points start … of a block: into [K, block, ld], the rest zero. */
static void load(
    const Shape *s, const REAL *jet, int64_t start, int64_t C, int64_t ld, REAL *out) {
    const int64_t n = minimum(s->block, s->n_points - start);
    if (ld != C) memset(out, 0, s->n_rows * s->block * ld * sizeof(REAL));
    for (int64_t k = 0; k < s->n_rows; k++) {
        REAL *rows = out + k * s->block * ld;
        const REAL *from = jet + (k * s->n_points + start) * C;
        if (ld == C) memcpy(rows, from, n * C * sizeof(REAL));
        else
            for (int64_t i = 0; i < n; i++)
                for (int64_t c = 0; c < C; c++) rows[i * ld + c] = from[i * C + c];
        memset(rows + n * ld, 0, (s->block - n) * ld * sizeof(REAL));
    }
}

static void store(
    const Shape *s, const REAL *rows, int64_t start, int64_t C, int64_t ld, REAL *jet) {
    const int64_t n = minimum(s->block, s->n_points - start);
    for (int64_t k = 0; k < s->n_rows; k++) {
        const REAL *from = rows + k * s->block * ld;
        REAL *to = jet + (k * s->n_points + start) * C;
        if (ld == C) memcpy(to, from, n * C * sizeof(REAL));
        else
            for (int64_t i = 0; i < n; i++)
                for (int64_t c = 0; c < C; c++) to[i * C + c] = from[i * ld + c];
    }
}

static void add_bias(const REAL *bias, int64_t n, int64_t C, int64_t ld, REAL *value) {
    for (int64_t i = 0; i < n; i++) {
        REAL *restrict row = value + i * ld;
#pragma omp simd
        for (int64_t c = 0; c < C; c++) row[c] += bias[c];
    }
}

/* Input [K, block, ld] -> output [K, block, padded(C_out)]; what the way back needs into `state`. */
static void forward_block(
    const Shape *s, const REAL *x, int64_t ld, const REAL *transposed, const REAL *parameters,
    REAL *state, REAL *y, REAL *out) {
    const int64_t B = s->block, rows = s->n_rows * B, L = s->n_layers;
    for (int64_t l = 0; l < L - 1; l++) {
        const int64_t I = s->widths[l], O = s->widths[l + 1], Op = padded(O);
        multiply(rows, Op, I, x, ld, 1, transposed, Op, state, Op);
        add_bias(parameters + I * O, B, O, Op, state);
        keep_state(s, state, B * Op);
        activate(s, state, B * Op, y);
        state += (s->n_rows + HAS_B) * B * Op;
        transposed += I * Op;
        parameters += (I + 1) * O;
        x = y;
        ld = Op;
    }
    const int64_t I = s->widths[L - 1], O = s->widths[L], Op = padded(O);
    if (O <= 2) dot_products(rows, O, I, x, ld, parameters, out, Op);
    else multiply(rows, Op, I, x, ld, 1, transposed, Op, out, Op);
    add_bias(parameters + I * O, B, O, Op, out);
}

static void sum_rows(const REAL *rows, int64_t n, int64_t ld, REAL *restrict sum) {
    for (int64_t i = 0; i < n; i++) {
        const REAL *restrict row = rows + i * ld;
#pragma omp simd
        for (int64_t c = 0; c < ld; c++) sum[c] += row[c];
    }
}

/* The output's gradient in g -> the input's, returned in g or h, if wanted. Adds a block's weight
 * gradients to what ends at sums_end: for each layer [O, padded(I)] and then [padded(O)]. */
static REAL *backward_block(
    const Shape *s, const REAL *x, const REAL *packed, const REAL *state, REAL *y, REAL *g,
    REAL *h, REAL *sums_end, int want_input) {
    const int64_t B = s->block, rows = s->n_rows * B, L = s->n_layers;
    packed += packed_size(s, 0);
    state += block_state(s);
    for (int64_t l = L - 1; l >= 0; l--) {
        const int64_t I = s->widths[l], O = s->widths[l + 1], Ip = padded(I), Op = padded(O);
        packed -= O * Ip;
        sums_end -= O * Ip + Op;
        if (l > 0) {
            state -= (s->n_rows + HAS_B) * B * Ip;
            activate(s, state, B * Ip, y);
        }
        multiply_add(O, Ip, rows, g, 1, Op, l > 0 ? y : x, Ip, sums_end, Ip);
        sum_rows(g, B, Op, sums_end + O * Ip);
        if (l == 0 && !want_input) return NULL;
        multiply(rows, Ip, O, g, Op, 1, packed, Ip, h, Ip);
        if (l > 0) activate_back(s, state, B * Ip, h);
        REAL *swap = g;
        g = h;
        h = swap;
    }
    return g;
}

/* The jet of a grid at a block of points: [K, block, ld], the rest zero. */
static void gather(
    const Shape *s, const Grid *grid, const REAL *table, int64_t start, int64_t ld, REAL *out) {
    const int64_t n = minimum(s->block, s->n_points - start), K = s->n_rows;
    const int64_t L = grid->n_levels, F = grid->n_features, T = grid->n_taps;
    memset(out, 0, K * s->block * ld * sizeof(REAL));
    for (int64_t i = 0; i < n; i++)
        for (int64_t l = 0; l < L; l++) {
            const uint32_t *rows = grid->rows + ((start + i) * L + l) * T;
            const REAL *weights = grid->weights + ((start + i) * L + l) * K * T;
            for (int64_t k = 0; k < K; k++) {
                REAL *restrict y = out + (k * s->block + i) * ld + l * F;
                for (int64_t v = 0; v < T; v++) {
                    const REAL w = weights[k * T + v], *restrict row = table + rows[v] * F;
#pragma omp simd
                    for (int64_t f = 0; f < F; f++) y[f] += w * row[f];
                }
            }
        }
}

/* Adds the transpose of `gather` to a table's gradient. */
static void scatter(
    const Shape *s, const Grid *grid, const REAL *g, int64_t start, int64_t ld, REAL *table) {
    const int64_t n = minimum(s->block, s->n_points - start), K = s->n_rows;
    const int64_t L = grid->n_levels, F = grid->n_features, T = grid->n_taps;
    for (int64_t i = 0; i < n; i++)
        for (int64_t l = 0; l < L; l++) {
            const uint32_t *rows = grid->rows + ((start + i) * L + l) * T;
            const REAL *weights = grid->weights + ((start + i) * L + l) * K * T;
            for (int64_t v = 0; v < T; v++) {
                REAL *restrict to = table + rows[v] * F;
                for (int64_t k = 0; k < K; k++) {
                    const REAL w = weights[k * T + v];
                    const REAL *restrict from = g + (k * s->block + i) * ld + l * F;
#pragma omp simd
                    for (int64_t f = 0; f < F; f++) to[f] += w * from[f];
                }
            }
        }
}

/* The sum of squared errors of a block's outputs [K, block, ld]; its gradient, weighted, into g. */
static double squares_block(
    const Shape *s, const Squares *squares, int64_t start, const REAL *out, int64_t ld, REAL *g) {
    const int64_t n = minimum(s->block, s->n_points - start), K = s->n_rows, B = s->block;
    const int64_t E = squares->n_equations, N = s->n_points;
    const REAL scale = (REAL)(2 * squares->weight / (double)(N * E));
    double sum = 0;
    memset(g, 0, K * B * ld * sizeof(REAL));
    for (int64_t i = 0; i < n; i++)
        for (int64_t e = 0; e < E; e++) {
            const int64_t at = (start + i) * E + e;
            REAL error = -squares->target[at];
            for (int64_t k = 0; k < K; k++)
                error += squares->coefficients[k * N * E + at] * out[(k * B + i) * ld];
            sum += (double)error * error;
            for (int64_t k = 0; k < K; k++)
                g[(k * B + i) * ld] += squares->coefficients[k * N * E + at] * (scale * error);
        }
    return sum;
}

/* Elements of a segment's weight gradients. */
static int64_t sums_size(const Shape *s) {
    int64_t size = packed_size(s, 0);
    for (int64_t l = 0; l < s->n_layers; l++) size += padded(s->widths[l + 1]);
    return size;
}

/* Sums of R x S segments, `stride` apart, are added up segment by segment; each replica's total
 * is then where its first segment was. */
static void add_segments(
    int64_t R, int64_t S, int64_t size, int64_t stride, REAL *sums, int64_t n_threads) {
#pragma omp parallel for schedule(static) num_threads(n_threads) if (n_threads > 1)
    for (int64_t chunk = 0; chunk < R * 16; chunk++) {
        REAL *restrict total = sums + chunk / 16 * S * stride;
        const int64_t first = size * (chunk % 16) / 16, end = size * (chunk % 16 + 1) / 16;
        for (int64_t unit = 1; unit < S; unit++) {
            const REAL *restrict other = total + unit * stride;
#pragma omp simd
            for (int64_t i = first; i < end; i++) total[i] += other[i];
        }
    }
}

static void unpack(const Shape *s, const REAL *total, REAL *grad) {
    for (int64_t l = 0; l < s->n_layers; l++) {
        const int64_t I = s->widths[l], O = s->widths[l + 1], Ip = padded(I);
        for (int64_t o = 0; o < O; o++) memcpy(grad + o * I, total + o * Ip, I * sizeof(REAL));
        memcpy(grad + O * I, total + O * Ip, O * sizeof(REAL));
        grad += (I + 1) * O;
        total += O * Ip + padded(O);
    }
}

/* A thread's working memory for a block. */
typedef struct {
    REAL *x, *y, *g, *h, *out, *state;
} Scratch;

static int allocate_scratch(const Shape *s, Scratch *scratch) {
    const int64_t rows = s->n_rows * s->block, size = rows * widest(s);
    REAL *memory = allocate(5 * size + block_state(s));
    *scratch = (Scratch){memory, memory + size, memory + 2 * size, memory + 3 * size,
                         memory + 4 * size, memory + 5 * size};
    return memory != NULL;
}

/* ---------------------------------------------------------------------- entry points: 0, or 1
 * where memory ran out */

/* input [R or 1, K, N, C_in] and parameters [R, P] → output [R, K, N, C_out]; states NULL: nothing
 * is kept. */
int64_t forward(
    const Shape *s, const REAL *input, const REAL *parameters, REAL *states, REAL *output) {
    const int64_t R = s->n_replicas, S = n_segments(s), size = packed_size(s, 1);
    const int64_t kept = block_state(s), I = s->widths[0], O = s->widths[s->n_layers];
    const int64_t in_jet = s->n_rows * s->n_points * I, out_jet = s->n_rows * s->n_points * O;
    REAL *packed = allocate(R * size);
    if (!packed) return 1;
    pack(s, parameters, 1, packed);
    int64_t failed = 0;
#pragma omp parallel num_threads(s->n_threads) if (s->n_threads > 1)
    {
        Scratch scratch;
        const int ready = allocate_scratch(s, &scratch);
        if (!ready) {
#pragma omp atomic write
            failed = 1;
        }
#pragma omp for schedule(dynamic)
        for (int64_t unit = 0; unit < R * S; unit++) {
            if (!ready) continue;
            const int64_t r = unit / S, first = unit % S * s->segment;
            const int64_t end = minimum(first + s->segment, s->n_points);
            for (int64_t start = first; start < end; start += s->block) {
                const int64_t block = r * n_blocks(s) + start / s->block;
                load(s, input + (s->shared_input ? 0 : r * in_jet), start, I, I, scratch.x);
                forward_block(
                    s, scratch.x, I, packed + r * size,
                    parameters + r * n_parameters(s, s->n_layers),
                    states ? states + block * kept : scratch.state, scratch.y, scratch.out);
                store(s, scratch.out, start, O, padded(O), output + r * out_jet);
            }
        }
        free(scratch.x);
    }
    free(packed);
    return failed;
}

/* output_grad [R, K, N, C_out] → grad [R, P] of the parameters, and input_grad [R, K, N, C_in]
 * unless NULL. */
int64_t backward(
    const Shape *s, const REAL *input, const REAL *parameters, const REAL *states,
    const REAL *output_grad, REAL *grad, REAL *input_grad) {
    const int64_t R = s->n_replicas, S = n_segments(s), size = packed_size(s, 0);
    const int64_t kept = block_state(s), I = s->widths[0], O = s->widths[s->n_layers];
    const int64_t in_jet = s->n_rows * s->n_points * I, out_jet = s->n_rows * s->n_points * O;
    const int64_t stride = sums_size(s);
    REAL *packed = allocate(R * size), *sums = allocate(R * S * stride);
    int64_t failed = !packed || !sums;
    if (!failed) {
        pack(s, parameters, 0, packed);
#pragma omp parallel num_threads(s->n_threads) if (s->n_threads > 1)
        {
            Scratch scratch;
            const int ready = allocate_scratch(s, &scratch);
            if (!ready) {
#pragma omp atomic write
                failed = 1;
            }
#pragma omp for schedule(dynamic)
            for (int64_t unit = 0; unit < R * S; unit++) {
                if (!ready) continue;
                const int64_t r = unit / S, first = unit % S * s->segment;
                const int64_t end = minimum(first + s->segment, s->n_points);
                REAL *sum = sums + unit * stride;
                memset(sum, 0, stride * sizeof(REAL));
                for (int64_t start = first; start < end; start += s->block) {
                    const int64_t block = r * n_blocks(s) + start / s->block;
                    load(
                        s, input + (s->shared_input ? 0 : r * in_jet), start, I, padded(I),
                        scratch.x);
                    load(s, output_grad + r * out_jet, start, O, padded(O), scratch.g);
                    const REAL *from = backward_block(
                        s, scratch.x, packed + r * size, states + block * kept, scratch.y,
                        scratch.g, scratch.h, sum + stride, input_grad != NULL);
                    if (input_grad) store(s, from, start, I, padded(I), input_grad + r * in_jet);
                }
            }
            free(scratch.x);
        }
    }
    if (!failed) {
        add_segments(R, S, stride, stride, sums, s->n_threads);
        for (int64_t r = 0; r < R; r++)
            unpack(s, sums + r * S * stride, grad + r * n_parameters(s, s->n_layers));
    }
    free(packed);
    free(sums);
    return failed;
}

/* Losses [R] of a jet's squares and their gradients in the parameters [R, P] and, with a grid
 * instead of an input, in its tables [R, table_size]; forwards and backwards block by block, so
 * that nothing in between leaves the cache. */
int64_t squares(
    const Shape *s, const Squares *loss, const Grid *grid, const REAL *input,
    const REAL *parameters, REAL *losses, REAL *grad, REAL *table_grad) {
    const int64_t R = s->n_replicas, S = n_segments(s), P = n_parameters(s, s->n_layers);
    const int64_t there = packed_size(s, 1), back = packed_size(s, 0);
    const int64_t I = s->widths[0], Ip = padded(I), in_jet = s->n_rows * s->n_points * I;
    const int64_t weights_size = sums_size(s), table_size = table_grad ? grid->table_size : 0;
    const int64_t stride = weights_size + table_size;
    REAL *packed = allocate(R * (there + back)), *sums = allocate(R * S * stride);
    double *segments = malloc(R * S * sizeof(double));
    int64_t failed = !packed || !sums || !segments;
    if (!failed) {
        pack(s, parameters, 1, packed);
        pack(s, parameters, 0, packed + R * there);
#pragma omp parallel num_threads(s->n_threads) if (s->n_threads > 1)
        {
            Scratch scratch;
            const int ready = allocate_scratch(s, &scratch);
            if (!ready) {
#pragma omp atomic write
                failed = 1;
            }
#pragma omp for schedule(dynamic)
            for (int64_t unit = 0; unit < R * S; unit++) {
                if (!ready) continue;
                const int64_t r = unit / S, first = unit % S * s->segment;
                const int64_t end = minimum(first + s->segment, s->n_points);
                REAL *sum = sums + unit * stride;
                memset(sum, 0, stride * sizeof(REAL));
                segments[unit] = 0;
                for (int64_t start = first; start < end; start += s->block) {
                    if (grid)
                        gather(
                            s, grid, grid->tables + r * grid->table_size, start, Ip, scratch.x);
                    else
                        load(
                            s, input + (s->shared_input ? 0 : r * in_jet), start, I, Ip,
                            scratch.x);
                    forward_block(
                        s, scratch.x, Ip, packed + r * there, parameters + r * P, scratch.state,
                        scratch.y, scratch.out);
                    segments[unit] +=
                        squares_block(s, loss, start, scratch.out, padded(1), scratch.g);
                    const REAL *from = backward_block(
                        s, scratch.x, packed + R * there + r * back, scratch.state, scratch.y,
                        scratch.g, scratch.h, sum + weights_size, table_grad != NULL);
                    if (table_grad) scatter(s, grid, from, start, Ip, sum + weights_size);
                }
            }
            free(scratch.x);
        }
    }
    if (!failed) {
        add_segments(R, S, stride, stride, sums, s->n_threads);
        for (int64_t r = 0; r < R; r++) {
            const REAL *total = sums + r * S * stride;
            unpack(s, total, grad + r * P);
            if (table_grad)
                memcpy(
                    table_grad + r * table_size, total + weights_size, table_size * sizeof(REAL));
            double sum = 0;
            for (int64_t unit = r * S; unit < (r + 1) * S; unit++) sum += segments[unit];
            losses[r] = (REAL)(loss->weight * sum / (double)(s->n_points * loss->n_equations));
        }
    }
    free(packed);
    free(sums);
    free(segments);
    return failed;
}
