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

#include "network_blocks.h"
#include "network_shape.h"
#include "threads.h"

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

/* Sums of R x S segments, `stride` apart. */
typedef struct {
    int64_t n_segments, stride;
    REAL *sums;
} Sums;

enum { PARTS = 16 };

static void add_part(void *context, int64_t unit, int64_t thread) {
    (void)thread;
    const Sums *s = context;
    const int64_t part = unit % PARTS;
    const int64_t first = s->stride * part / PARTS, end = s->stride * (part + 1) / PARTS;
    REAL *restrict total = s->sums + unit / PARTS * s->n_segments * s->stride;
    for (int64_t segment = 1; segment < s->n_segments; segment++) {
        const REAL *restrict other = total + segment * s->stride;
#pragma omp simd
        for (int64_t i = first; i < end; i++) total[i] += other[i];
    }
}

/* They are added up segment by segment; each replica's total is then where its first segment was. */
static void add_segments(const Shape *s, int64_t stride, REAL *sums) {
    Sums all = {n_segments(s), stride, sums};
    share_out(add_part, &all, s->n_replicas * PARTS, s->n_threads);
}

/* Working memory for a block. */
typedef struct {
    REAL *x, *y, *g, *h, *out, *state;
} Scratch;

static int64_t scratch_size(const Shape *s) {
    return 5 * s->n_rows * s->block * widest(s) + block_state(s);
}

static Scratch scratch_of(const Shape *s, REAL *memory, int64_t thread) {
    const int64_t size = s->n_rows * s->block * widest(s);
    memory += thread * scratch_size(s);
    return (Scratch){memory, memory + size, memory + 2 * size, memory + 3 * size,
                     memory + 4 * size, memory + 5 * size};
}

/* A call of an entry point, as all threads see it; a unit of work is a segment of a replica. */
typedef struct {
    const Shape *s;
    const Squares *loss;
    const Grid *grid;
    const REAL *input, *parameters, *there, *back; /* weights packed for the way there and back */
    const REAL *output_grad;
    REAL *states, *output, *input_grad;
    REAL *sums, *scratch;
    int64_t weights_size, stride; /* of a segment's sums: of the network, and with the table */
    double *losses;               /* of the segments */
    int table_wanted;
} Pass;

static const REAL *input_of(const Pass *p, int64_t replica) {
    const int64_t size = p->s->n_rows * p->s->n_points * p->s->widths[0];
    return p->input + (p->s->shared_input ? 0 : replica * size);
}

static int64_t output_size(const Shape *s) {
    return s->n_rows * s->n_points * s->widths[s->n_layers];
}

static void forward_segment(void *context, int64_t unit, int64_t thread) {
    const Pass *p = context;
    const Shape *s = p->s;
    const Scratch scratch = scratch_of(s, p->scratch, thread);
    const int64_t S = n_segments(s), r = unit / S, first = unit % S * s->segment;
    const int64_t end = minimum(first + s->segment, s->n_points);
    const int64_t I = s->widths[0], O = s->widths[s->n_layers];
    for (int64_t start = first; start < end; start += s->block) {
        const int64_t block = r * n_blocks(s) + start / s->block;
        load(s, input_of(p, r), start, I, I, scratch.x);
        forward_block(
            s, scratch.x, I, p->there + r * packed_size(s, 1),
            p->parameters + r * n_parameters(s, s->n_layers),
            p->states ? p->states + block * block_state(s) : scratch.state, scratch.y,
            scratch.out);
        store(s, scratch.out, start, O, padded(O), p->output + r * output_size(s));
    }
}

static void backward_segment(void *context, int64_t unit, int64_t thread) {
    const Pass *p = context;
    const Shape *s = p->s;
    const Scratch scratch = scratch_of(s, p->scratch, thread);
    const int64_t S = n_segments(s), r = unit / S, first = unit % S * s->segment;
    const int64_t end = minimum(first + s->segment, s->n_points);
    const int64_t I = s->widths[0], O = s->widths[s->n_layers];
    const int64_t in_size = s->n_rows * s->n_points * I;
    REAL *sum = p->sums + unit * p->stride;
    memset(sum, 0, p->stride * sizeof(REAL));
    for (int64_t start = first; start < end; start += s->block) {
        const int64_t block = r * n_blocks(s) + start / s->block;
        load(s, input_of(p, r), start, I, padded(I), scratch.x);
        load(s, p->output_grad + r * output_size(s), start, O, padded(O), scratch.g);
        const REAL *from = backward_block(
            s, scratch.x, p->back + r * packed_size(s, 0), p->states + block * block_state(s),
            scratch.y, scratch.g, scratch.h, sum + p->stride, p->input_grad != NULL);
        if (p->input_grad) store(s, from, start, I, padded(I), p->input_grad + r * in_size);
    }
}

static void squares_segment(void *context, int64_t unit, int64_t thread) {
    const Pass *p = context;
    const Shape *s = p->s;
    const Grid *grid = p->grid;
    const Scratch scratch = scratch_of(s, p->scratch, thread);
    const int64_t S = n_segments(s), r = unit / S, first = unit % S * s->segment;
    const int64_t end = minimum(first + s->segment, s->n_points);
    const int64_t I = s->widths[0], Ip = padded(I);
    REAL *sum = p->sums + unit * p->stride;
    memset(sum, 0, p->stride * sizeof(REAL));
    p->losses[unit] = 0;
    for (int64_t start = first; start < end; start += s->block) {
        if (grid) gather(s, grid, grid->tables + r * grid->table_size, start, Ip, scratch.x);
        else load(s, input_of(p, r), start, I, Ip, scratch.x);
        forward_block(
            s, scratch.x, Ip, p->there + r * packed_size(s, 1),
            p->parameters + r * n_parameters(s, s->n_layers), scratch.state, scratch.y,
            scratch.out);
        p->losses[unit] += squares_block(s, p->loss, start, scratch.out, padded(1), scratch.g);
        const REAL *from = backward_block(
            s, scratch.x, p->back + r * packed_size(s, 0), scratch.state, scratch.y, scratch.g,
            scratch.h, sum + p->weights_size, p->table_wanted);
        if (p->table_wanted) scatter(s, grid, from, start, Ip, sum + p->weights_size);
    }
}

/* ---------------------------------------------------------------------- entry points: 0, or 1
 * where memory ran out */

/* input [R or 1, K, N, C_in] and parameters [R, P] → output [R, K, N, C_out]; states NULL: nothing
 * is kept. */
int64_t forward(
    const Shape *s, const REAL *input, const REAL *parameters, REAL *states, REAL *output) {
    const int64_t R = s->n_replicas;
    REAL *there = allocate(R * packed_size(s, 1));
    REAL *scratch = allocate(s->n_threads * scratch_size(s));
    const int64_t failed = !there || !scratch;
    if (!failed) {
        pack(s, parameters, 1, there);
        Pass pass = {.s = s, .input = input, .parameters = parameters, .there = there,
                     .states = states, .output = output, .scratch = scratch};
        share_out(forward_segment, &pass, R * n_segments(s), s->n_threads);
    }
    free(there);
    free(scratch);
    return failed;
}

/* output_grad [R, K, N, C_out] → grad [R, P] of the parameters, and input_grad [R, K, N, C_in]
 * unless NULL. */
int64_t backward(
    const Shape *s, const REAL *input, const REAL *parameters, REAL *states,
    const REAL *output_grad, REAL *grad, REAL *input_grad) {
    const int64_t R = s->n_replicas, S = n_segments(s), stride = sums_size(s);
    REAL *back = allocate(R * packed_size(s, 0)), *sums = allocate(R * S * stride);
    REAL *scratch = allocate(s->n_threads * scratch_size(s));
    const int64_t failed = !back || !sums || !scratch;
    if (!failed) {
        pack(s, parameters, 0, back);
        Pass pass = {.s = s, .input = input, .back = back, .states = states,
                     .output_grad = output_grad, .input_grad = input_grad, .sums = sums,
                     .stride = stride, .scratch = scratch};
        share_out(backward_segment, &pass, R * S, s->n_threads);
        add_segments(s, stride, sums);
        for (int64_t r = 0; r < R; r++)
            unpack(s, sums + r * S * stride, grad + r * n_parameters(s, s->n_layers));
    }
    free(back);
    free(sums);
    free(scratch);
    return failed;
}

/* Losses [R] of a jet's squares and their gradients in the parameters [R, P] and, with a grid
 * instead of an input, in its tables [R, table_size] unless NULL; forwards and backwards block by
 * block, so that nothing in between leaves the cache. */
int64_t squares(
    const Shape *s, const Squares *loss, const Grid *grid, const REAL *input,
    const REAL *parameters, REAL *losses, REAL *grad, REAL *table_grad) {
    const int64_t R = s->n_replicas, S = n_segments(s), P = n_parameters(s, s->n_layers);
    const int64_t weights_size = sums_size(s), table_size = table_grad ? grid->table_size : 0;
    const int64_t stride = weights_size + table_size;
    REAL *there = allocate(R * packed_size(s, 1)), *back = allocate(R * packed_size(s, 0));
    REAL *sums = allocate(R * S * stride), *scratch = allocate(s->n_threads * scratch_size(s));
    double *segments = malloc(R * S * sizeof(double));
    const int64_t failed = !there || !back || !sums || !scratch || !segments;
    if (!failed) {
        pack(s, parameters, 1, there);
        pack(s, parameters, 0, back);
        Pass pass = {.s = s, .loss = loss, .grid = grid, .input = input,
                     .parameters = parameters, .there = there, .back = back, .sums = sums,
                     .scratch = scratch, .weights_size = weights_size, .stride = stride,
                     .losses = segments, .table_wanted = table_grad != NULL};
        share_out(squares_segment, &pass, R * S, s->n_threads);
        add_segments(s, stride, sums);
        for (int64_t r = 0; r < R; r++) {
            const REAL *total = sums + r * S * stride;
            unpack(s, total, grad + r * P);
            if (table_grad)
                memcpy(
                    table_grad + r * table_size, total + weights_size,
                    table_size * sizeof(REAL));
            double sum = 0;
            for (int64_t unit = r * S; unit < (r + 1) * S; unit++) sum += segments[unit];
            losses[r] = (REAL)(loss->weight * sum / (double)(s->n_points * loss->n_equations));
        }
    }
    free(there);
    free(back);
    free(sums);
    free(scratch);
    free(segments);
    return failed;
}
