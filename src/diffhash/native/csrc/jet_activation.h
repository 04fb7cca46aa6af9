/* An activation of a block of jets, and back. A block holds, for a layer of C units, rows of
 * plane = B Cp elements. Compiled for one REAL and one activation σ; see network.c. */
#pragma once
#include <stdint.h>

#include "network_shape.h"
#include "smooth_functions.h"

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
