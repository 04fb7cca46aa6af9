/* A jet through a fully connected network and its gradient; see diffhash.networks.native_jet.
 *
 * Points go through all layers in blocks that stay in the cache, a segment of blocks at a time.
 * Each segment adds up its own weight gradients, and these are summed in order: the result does not
 * depend on the number of threads that divide the segments.
 *
 * Parameters are stored layer by layer: the weight [C_out, C_in], then the bias [C_out].
 *
 * Compiled for one REAL; the functions of an activation are those of activation.c, by pointers.
 *
 * For a layer of C units (padded to whole vectors: Cp) a block has rows of [B, Cp]. The state
 * before an activation is the pre-activations z of every row of the jet, except that a is in the
 * place of the value's, and b after the last row. The forward pass stores nothing else, because the
 * backward pass needs nothing else.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "grid_sums.h"
#include "network_blocks.h"
#include "network_shape.h"
#include "threads.h"

/* Rows [N, L, n_taps] and weights [N, L, K, n_taps] of a grid's jets at fixed points. */
typedef struct {
    int64_t n_levels, n_features, n_taps, table_size; /* table_size: elements of a table */
    const uint32_t *rows;
    const REAL *weights;
    const REAL *tables; /* [R, table_size] */
} Grid;

/* weight · mean over N and E of weights[n] error[n, e]^2, where
 * error[n, e] = sum_kc coefficients[k, c, n, e] jet[k, n, c] - target[n, e]. */
typedef struct {
    int64_t n_equations;
    double weight;
    const REAL *coefficients, *target;
    const REAL *weights; /* [N], or NULL if all are 1 */
    REAL *errors;        /* [R, N, E], for output, or NULL */
} LeastSquares;

/* The entries of a block of points. */
static Entries entries(const Shape *s, const Grid *grid, int64_t start) {
    const int64_t L = grid->n_levels, K = s->n_rows, T = grid->n_taps;
    return (Entries){
        .n = minimum(s->block, s->n_points - start), .L = L, .K = K, .T = T,
        .rows = grid->rows + start * L * T, .weights = grid->weights + start * L * K * T};
}

/* The jet of a grid at a block of points, into rows of [K, block, ld]. */
static void gather(
    const Shape *s, const Grid *grid, const REAL *table, int64_t start, int64_t ld, REAL *out) {
    memset(out, 0, s->n_rows * s->block * ld * sizeof(REAL));
    gather_entries(table, entries(s, grid, start), grid->n_features, out, s->block * ld, ld);
}

/* Adds the transpose, for every `step`-th level from `first` on, to a table's gradient. */
static void scatter(
    const Shape *s, const Grid *grid, int64_t first, int64_t step, const REAL *g, int64_t start,
    int64_t ld, REAL *table) {
    const Entries e = entries(s, grid, start);
    scatter_entries(table, e, grid->n_features, g, s->block * ld, ld, first, step);
}

/* Returns the sum of squared errors of a block's outputs [K, block, ld]; writes its weighted
 * gradient into g, and the errors into `errors` [N, E] unless that is NULL. */
static double least_squares_block(
    const Shape *s, const LeastSquares *loss, int64_t start, const REAL *out, int64_t ld, REAL *g,
    REAL *errors) {
    const int64_t n = minimum(s->block, s->n_points - start), K = s->n_rows, B = s->block;
    const int64_t E = loss->n_equations, N = s->n_points, C = s->widths[s->n_layers];
    const REAL scale = (REAL)(2 * loss->weight / (double)(N * E));
    double sum = 0;
    memset(g, 0, K * B * ld * sizeof(REAL));
    for (int64_t i = 0; i < n; i++)
        for (int64_t e = 0; e < E; e++) {
            const int64_t at = (start + i) * E + e;
            REAL error = -loss->target[at];
            for (int64_t k = 0; k < K; k++)
                for (int64_t c = 0; c < C; c++)
                    error += loss->coefficients[(k * C + c) * N * E + at] *
                             out[(k * B + i) * ld + c];
            if (errors) errors[at] = error;
            REAL weighted = error;
            if (loss->weights) weighted *= loss->weights[start + i];
            sum += (double)weighted * error;
            for (int64_t k = 0; k < K; k++)
                for (int64_t c = 0; c < C; c++)
                    g[(k * B + i) * ld + c] +=
                        loss->coefficients[(k * C + c) * N * E + at] * (scale * weighted);
        }
    return sum;
}

/* The memory for the gradients of a loss, which are added to its content or replace it. */
typedef struct {
    REAL *network; /* [R, P] */
    REAL *tables;  /* [R, table_size], or NULL */
    int64_t add_network, add_tables;
} Gradients;

/* The settings of `least_squares`; n_levels is 0 without a grid. */
typedef struct {
    double weight;
    int64_t n_equations, n_levels, n_features, n_taps, table_size, add_network, add_tables;
} Loss;

/* The sums of R x S segments, at distances of `stride`. */
typedef struct {
    int64_t n_segments, stride;
    REAL *sums;
} Sums;

enum { PARTS = 16, FEW_POINTS = 8192 };

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

/* Adds up the sums segment by segment; a replica's total is in the place of its first segment. */
static void add_segments(const Shape *s, REAL *sums) {
    Sums all = {n_segments(s), sums_size(s), sums};
    parallel_for(add_part, &all, s->n_replicas * PARTS, s->n_threads);
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

/* A call of an entry point, shared by all threads. */
typedef struct {
    const Shape *s;
    const LeastSquares *loss;
    const Grid *grid;
    const REAL *input, *parameters, *weights_forward, *weights_backward; /* packed for each pass */
    const REAL *output_grad;
    REAL *states, *output, *input_grad;
    REAL *sums, *scratch;
    double *losses; /* of the segments */
    /* The present segments, and the gradients in their blocks' inputs for the table's gradient. */
    int64_t first_segment, n_segments;
    REAL *block_grads, *tables;
} Pass;

/* A unit of work: points first … end - 1 of a replica; `index` is among all replicas' segments. */
typedef struct {
    int64_t replica, index, first, end;
} Segment;

static Segment segment_of(const Pass *p, int64_t unit) {
    const Shape *s = p->s;
    const int64_t replica = unit / p->n_segments, i = p->first_segment + unit % p->n_segments;
    const int64_t first = i * s->segment, end = minimum(first + s->segment, s->n_points);
    return (Segment){replica, replica * n_segments(s) + i, first, end};
}

static const REAL *input_of(const Pass *p, int64_t replica) {
    const int64_t size = p->s->n_rows * p->s->n_points * p->s->widths[0];
    return p->input + (p->s->shared_input ? 0 : replica * size);
}

static REAL *cleared_sums(const Pass *p, Segment segment) {
    REAL *sums = p->sums + segment.index * sums_size(p->s);
    return memset(sums, 0, sums_size(p->s) * sizeof(REAL));
}

static int64_t output_size(const Shape *s) {
    return s->n_rows * s->n_points * s->widths[s->n_layers];
}

/* Elements of a block's input and its gradient. */
static int64_t block_size(const Shape *s) { return s->n_rows * s->block * padded(s->widths[0]); }

/* The memory of the gradient in the input of a block at `start`, consecutive for a replica. */
static REAL *block_grad(const Pass *p, int64_t replica, int64_t start) {
    const Shape *s = p->s;
    const int64_t blocks = p->n_segments * s->segment / s->block;
    const int64_t block = (start - p->first_segment * s->segment) / s->block;
    return p->block_grads + (replica * blocks + block) * block_size(s);
}

static void forward_segment(void *context, int64_t unit, int64_t thread) {
    const Pass *p = context;
    const Shape *s = p->s;
    const Segment segment = segment_of(p, unit);
    const int64_t r = segment.replica, I = s->widths[0], O = s->widths[s->n_layers];
    const Scratch scratch = scratch_of(s, p->scratch, thread);
    for (int64_t start = segment.first; start < segment.end; start += s->block) {
        const int64_t block = r * n_blocks(s) + start / s->block;
        load(s, input_of(p, r), start, I, I, scratch.x);
        forward_block(
            s, scratch.x, I, p->weights_forward + r * packed_size(s, 1),
            p->parameters + r * n_parameters(s, s->n_layers),
            p->states ? p->states + block * block_state(s) : scratch.state, scratch.y,
            scratch.out);
        store(s, scratch.out, start, O, padded(O), p->output + r * output_size(s));
    }
}

static void backward_segment(void *context, int64_t unit, int64_t thread) {
    const Pass *p = context;
    const Shape *s = p->s;
    const Segment segment = segment_of(p, unit);
    const int64_t r = segment.replica, I = s->widths[0], O = s->widths[s->n_layers];
    const int64_t in_size = s->n_rows * s->n_points * I;
    const Scratch scratch = scratch_of(s, p->scratch, thread);
    REAL *sums = cleared_sums(p, segment);
    for (int64_t start = segment.first; start < segment.end; start += s->block) {
        const int64_t block = r * n_blocks(s) + start / s->block;
        load(s, input_of(p, r), start, I, padded(I), scratch.x);
        load(s, p->output_grad + r * output_size(s), start, O, padded(O), scratch.g);
        const REAL *from = backward_block(
            s, scratch.x, p->weights_backward + r * packed_size(s, 0),
            p->states + block * block_state(s),
            scratch.y, scratch.g, scratch.h, sums + sums_size(s), p->input_grad != NULL);
        if (p->input_grad) store(s, from, start, I, padded(I), p->input_grad + r * in_size);
    }
}

static void least_squares_segment(void *context, int64_t unit, int64_t thread) {
    const Pass *p = context;
    const Shape *s = p->s;
    const Grid *grid = p->grid;
    const Segment segment = segment_of(p, unit);
    const int64_t r = segment.replica, I = s->widths[0], Ip = padded(I);
    const Scratch scratch = scratch_of(s, p->scratch, thread);
    REAL *sums = cleared_sums(p, segment);
    REAL *errors = p->loss->errors;
    if (errors) errors += r * s->n_points * p->loss->n_equations;
    p->losses[segment.index] = 0;
    for (int64_t start = segment.first; start < segment.end; start += s->block) {
        if (grid) gather(s, grid, grid->tables + r * grid->table_size, start, Ip, scratch.x);
        else load(s, input_of(p, r), start, I, Ip, scratch.x);
        forward_block(
            s, scratch.x, Ip, p->weights_forward + r * packed_size(s, 1),
            p->parameters + r * n_parameters(s, s->n_layers), scratch.state, scratch.y,
            scratch.out);
        p->losses[segment.index] += least_squares_block(
            s, p->loss, start, scratch.out, padded(s->widths[s->n_layers]), scratch.g, errors);
        const REAL *from = backward_block(
            s, scratch.x, p->weights_backward + r * packed_size(s, 0), scratch.state, scratch.y,
            scratch.g, scratch.h, sums + sums_size(s), p->tables != NULL);
        if (p->tables) memcpy(block_grad(p, r, start), from, block_size(s) * sizeof(REAL));
    }
}

/* Each unit has levels of its own, so that no two units write to the same memory, however large the
 * table is. */
static int64_t level_groups(const Pass *p) { return minimum(p->grid->n_levels, p->s->n_threads); }

static void scatter_levels(void *context, int64_t unit, int64_t thread) {
    (void)thread;
    const Pass *p = context;
    const Shape *s = p->s;
    const int64_t groups = level_groups(p), r = unit / groups;
    const int64_t first = p->first_segment * s->segment;
    const int64_t end = minimum(first + p->n_segments * s->segment, s->n_points);
    for (int64_t start = first; start < end; start += s->block)
        scatter(
            s, p->grid, unit % groups, groups, block_grad(p, r, start), start,
            padded(s->widths[0]), p->tables + r * p->grid->table_size);
}

/* ---------------------------------------------------------------------- entry points: they return
 * 0, or 1 if memory runs out */

/* input [R or 1, K, N, C_in] and parameters [R, P] → output [R, K, N, C_out], and states unless
 * NULL. */
int64_t forward(
    const Shape *s, const REAL *input, const REAL *parameters, REAL *states, REAL *output) {
    const int64_t R = s->n_replicas;
    REAL *weights_forward = allocate(R * packed_size(s, 1));
    REAL *scratch = allocate(s->n_threads * scratch_size(s));
    const int64_t failed = !weights_forward || !scratch;
    if (!failed) {
        pack(s, parameters, 1, weights_forward);
        Pass pass = {.s = s, .input = input, .parameters = parameters,
                     .weights_forward = weights_forward, .states = states, .output = output,
                     .scratch = scratch, .n_segments = n_segments(s)};
        parallel_for(forward_segment, &pass, R * n_segments(s), s->n_threads);
    }
    free(weights_forward);
    free(scratch);
    return failed;
}

/* output_grad [R, K, N, C_out] → grad [R, P] of the parameters, and input_grad [R, K, N, C_in]
 * unless NULL. */
int64_t backward(
    const Shape *s, const REAL *input, const REAL *parameters, REAL *states,
    const REAL *output_grad, REAL *grad, REAL *input_grad) {
    const int64_t R = s->n_replicas, S = n_segments(s);
    REAL *weights_backward = allocate(R * packed_size(s, 0));
    REAL *sums = allocate(R * S * sums_size(s));
    REAL *scratch = allocate(s->n_threads * scratch_size(s));
    const int64_t failed = !weights_backward || !sums || !scratch;
    if (!failed) {
        pack(s, parameters, 0, weights_backward);
        Pass pass = {.s = s, .input = input, .weights_backward = weights_backward, .states = states,
                     .output_grad = output_grad, .input_grad = input_grad, .sums = sums,
                     .scratch = scratch, .n_segments = S};
        parallel_for(backward_segment, &pass, R * S, s->n_threads);
        add_segments(s, sums);
        for (int64_t r = 0; r < R; r++)
            unpack(
                s, sums + r * S * sums_size(s), grad + r * n_parameters(s, s->n_layers), 0);
    }
    free(weights_backward);
    free(sums);
    free(scratch);
    return failed;
}

/* The number of segments at a time: enough for all threads, and few enough points for the cache. */
static int64_t segments_at_once(const Shape *s) {
    const int64_t few = FEW_POINTS / s->segment, busy = 4 * s->n_threads;
    const int64_t n = few > busy ? few : busy;
    return minimum(n, n_segments(s));
}

/* Losses [R] of linear least squares and their gradients in the parameters and, with a grid instead
 * of an input, in its tables. Forward and backward pass are made block by block, so that nearly all
 * intermediate values stay in the cache. */
int64_t least_squares(
    const Shape *s, const Loss *settings, const REAL *coefficients, const REAL *target,
    const REAL *parameters, const REAL *input, const uint32_t *rows, const REAL *weights,
    const REAL *tables, const REAL *point_weights, REAL *losses, REAL *network_grad,
    REAL *tables_grad, REAL *errors) {
    const LeastSquares all = {settings->n_equations, settings->weight, coefficients, target,
                         point_weights, errors};
    const LeastSquares *loss = &all;
    const Grid table = {settings->n_levels, settings->n_features, settings->n_taps,
                        settings->table_size, rows, weights, tables};
    const Grid *grid = settings->n_levels ? &table : NULL;
    const Gradients own = {network_grad, tables_grad, settings->add_network, settings->add_tables};
    const Gradients *gradients = &own;
    const int64_t R = s->n_replicas, S = n_segments(s), P = n_parameters(s, s->n_layers);
    const int64_t at_once = gradients->tables ? segments_at_once(s) : S;
    const int64_t kept = gradients->tables ? at_once * s->segment / s->block * block_size(s) : 0;
    REAL *weights_forward = allocate(R * packed_size(s, 1));
    REAL *weights_backward = allocate(R * packed_size(s, 0));
    REAL *sums = allocate(R * S * sums_size(s));
    REAL *scratch = allocate(s->n_threads * scratch_size(s)), *block_grads = allocate(R * kept);
    double *segments = malloc(R * S * sizeof(double));
    const int64_t failed = !weights_forward || !weights_backward || !sums || !scratch ||
                           !block_grads || !segments;
    if (!failed) {
        pack(s, parameters, 1, weights_forward);
        pack(s, parameters, 0, weights_backward);
        if (gradients->tables && !gradients->add_tables)
            memset(gradients->tables, 0, R * grid->table_size * sizeof(REAL));
        Pass pass = {.s = s, .loss = loss, .grid = grid, .input = input,
                     .parameters = parameters, .weights_forward = weights_forward,
                     .weights_backward = weights_backward, .sums = sums,
                     .scratch = scratch, .losses = segments, .block_grads = block_grads,
                     .tables = gradients->tables};
        for (int64_t first = 0; first < S; first += at_once) {
            pass.first_segment = first;
            pass.n_segments = minimum(at_once, S - first);
            parallel_for(least_squares_segment, &pass, R * pass.n_segments, s->n_threads);
            if (pass.tables)
                parallel_for(scatter_levels, &pass, R * level_groups(&pass), s->n_threads);
        }
        add_segments(s, sums);
        for (int64_t r = 0; r < R; r++) {
            unpack(
                s, sums + r * S * sums_size(s), gradients->network + r * P,
                gradients->add_network != 0);
            double sum = 0;
            for (int64_t i = r * S; i < (r + 1) * S; i++) sum += segments[i];
            losses[r] = (REAL)(loss->weight * sum / (double)(s->n_points * loss->n_equations));
        }
    }
    free(weights_forward);
    free(weights_backward);
    free(sums);
    free(scratch);
    free(block_grads);
    free(segments);
    return failed;
}
