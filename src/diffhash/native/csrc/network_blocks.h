/* Forward and backward pass of a block of points through all layers; layouts: network.c. */
#pragma once
#include <stdlib.h>
#include <string.h>

#include "matrix_product.h"
#include "network_shape.h"

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

/* Copies rows of a [K, N, C] jet at a block's points into [K, block, ld], padded by zeros. */
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

/* Input [K, block, ld] -> output [K, block, padded(C_out)], and `state` for the backward pass. */
static void forward_block(
    const Shape *s, const REAL *x, int64_t ld, const REAL *transposed, const REAL *parameters,
    REAL *state, REAL *y, REAL *out) {
    const int64_t B = s->block, rows = s->n_rows * B, L = s->n_layers;
    for (int64_t l = 0; l < L - 1; l++) {
        const int64_t I = s->widths[l], O = s->widths[l + 1], Op = padded(O);
        multiply(rows, Op, I, x, ld, 1, transposed, Op, state, Op);
        add_bias(parameters + I * O, B, O, Op, state);
        REAL *const second = state + rows * Op; /* the memory of b */
        s->activate(state, second, B * Op, s->p, s->c, y);
        state += (s->n_rows + s->has_b) * B * Op;
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

/* From the gradient in the output, in g, computes the gradient in the input if want_input, and
 * returns g or h, which has it. Adds a block's weight gradients to the sums that end at sums_end:
 * for each layer [O, padded(I)] and then [padded(O)]. */
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
            state -= (s->n_rows + s->has_b) * B * Ip;
            s->activate_again(state, state + rows * Ip, B * Ip, s->p, s->c, y);
        }
        multiply_add(O, Ip, rows, g, 1, Op, l > 0 ? y : x, Ip, sums_end, Ip);
        sum_rows(g, B, Op, sums_end + O * Ip);
        if (l == 0 && !want_input) return NULL;
        multiply(rows, Ip, O, g, Op, 1, packed, Ip, h, Ip);
        if (l > 0) s->activate_back(state, state + rows * Ip, B * Ip, s->p, s->c, h);
        REAL *swap = g;
        g = h;
        h = swap;
    }
    return g;
}

static void put(int64_t n, const REAL *restrict from, REAL *restrict to, int add) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) to[i] = add ? to[i] + from[i] : from[i];
}

/* Writes a replica's sums as gradients in its parameters, or adds them. */
static void unpack(const Shape *s, const REAL *total, REAL *grad, int add) {
    for (int64_t l = 0; l < s->n_layers; l++) {
        const int64_t I = s->widths[l], O = s->widths[l + 1], Ip = padded(I);
        for (int64_t o = 0; o < O; o++) put(I, total + o * Ip, grad + o * I, add);
        put(O, total + O * Ip, grad + O * I, add);
        grad += (I + 1) * O;
        total += O * Ip + padded(O);
    }
}
