/* The settings of network.c, and the sizes of its memory. Compiled for one REAL. */
#pragma once
#include <stdint.h>

#include "matrix_product.h"

typedef struct {
    int64_t n_points, n_rows, n_layers, n_replicas, block, segment, n_threads;
    int64_t shared_input; /* one input for all replicas */
    int64_t has_b;        /* whether states have b */
    const int64_t *widths; /* n_layers + 1 */
    /* The functions of activation.c: */
    void (*activate)(REAL *z, REAL *bs, int64_t plane, REAL p, const REAL *c, REAL *out);
    void (*activate_again)(
        const REAL *z, const REAL *bs, int64_t plane, REAL p, const REAL *c, REAL *out);
    void (*activate_back)(
        const REAL *z, const REAL *bs, int64_t plane, REAL p, const REAL *c, REAL *g);
    const REAL *c;
    REAL p;
} Shape;

static int64_t minimum(int64_t a, int64_t b) { return a < b ? a : b; }

/* The number of parameters of a replica, up to the layer `end`. */
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

/* Elements of a block's states of all hidden layers. */
static int64_t block_state(const Shape *s) {
    int64_t size = 0;
    for (int64_t l = 1; l < s->n_layers; l++) size += padded(s->widths[l]);
    return size * (s->n_rows + s->has_b) * s->block;
}

static int64_t n_blocks(const Shape *s) { return (s->n_points + s->block - 1) / s->block; }
static int64_t n_segments(const Shape *s) { /* at least one, also without points */
    return s->n_points ? (s->n_points + s->segment - 1) / s->segment : 1;
}

/* Elements of `states`, from the forward to the backward pass. */
int64_t state_size(const Shape *s) { return s->n_replicas * n_blocks(s) * block_state(s); }

/* Elements of one replica's W^T (or W), rows in whole vectors. */
static int64_t packed_size(const Shape *s, int transposed) {
    int64_t size = 0;
    for (int64_t l = 0; l < s->n_layers; l++)
        size += transposed ? s->widths[l] * padded(s->widths[l + 1])
                           : s->widths[l + 1] * padded(s->widths[l]);
    return size;
}

/* Elements of a segment's weight gradients. */
static int64_t sums_size(const Shape *s) {
    int64_t size = packed_size(s, 0);
    for (int64_t l = 0; l < s->n_layers; l++) size += padded(s->widths[l + 1]);
    return size;
}
