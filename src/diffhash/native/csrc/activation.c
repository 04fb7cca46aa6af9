/* Forward and backward pass of an activation of a block of jets; network.c calls it by pointers.
 *
 * For a layer of C units a block has rows of plane = B Cp elements. Compiled for one REAL, one
 * activation σ and one set of rows; diffhash.jets.c_code writes the macros: STATE computes a (and
 * b) from a pre-activation z, FUNCTIONS computes the activation's functions from these, and FORWARD
 * and BACKWARD are the passes of an element. Coefficients that are no small integers are in c.
 */
#include <stdint.h>

#include "smooth_functions.h"

/* Elements that go through all loops over a block together, so that they stay in the cache. */
enum { STRIP = 512 };

static int64_t strip(int64_t start, int64_t plane) {
    return plane - start < STRIP ? plane - start : STRIP;
}

/* Replaces pre-activations in `as` by a, and writes b into `bs`. */
static void keep_state(REAL *restrict as, REAL *restrict bs, int64_t n, REAL p) {
    (void)p;
#if SINES
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
#else
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        const REAL z = as[i];
        REAL a, b = 0;
        STATE;
        as[i] = a;
        if (HAS_B) bs[i] = b;
    }
#endif
}

#define LOAD                                         \
    const REAL a = z[i], b = HAS_B ? bs[i] : (REAL)0; \
    (void)b;

/* The jet σ(z) of n elements of a layer's state. */
static void compose(
    const REAL *restrict z, const REAL *restrict bs, int64_t n, int64_t plane, REAL p,
    const REAL *restrict c, REAL *restrict out) {
    (void)p, (void)c, (void)plane;
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        LOAD FUNCTIONS FORWARD_SLOPES FORWARD
    }
}

/* Replaces gradients in n elements of σ's jet by gradients in z's jet, in place. */
static void compose_back(
    const REAL *restrict z, const REAL *restrict bs, int64_t n, int64_t plane, REAL p,
    const REAL *restrict c, REAL *restrict g) {
    (void)p, (void)c, (void)plane;
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        LOAD FUNCTIONS
        g[i] *= s1;
    }
#if N_ROWS > 1
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        LOAD FUNCTIONS BACKWARD_SLOPES BACKWARD
    }
#endif
}

/* Replaces pre-activations z by a layer's state, and writes the jet σ(z) into `out`. */
void activate(REAL *z, REAL *bs, int64_t plane, REAL p, const REAL *c, REAL *out) {
    for (int64_t start = 0; start < plane; start += STRIP) {
        const int64_t n = strip(start, plane);
        keep_state(z + start, bs + start, n, p);
        compose(z + start, bs + start, n, plane, p, c, out + start);
    }
}

/* Computes the jet σ(z) again, from a layer's state. */
void activate_again(
    const REAL *z, const REAL *bs, int64_t plane, REAL p, const REAL *c, REAL *out) {
    compose(z, bs, plane, plane, p, c, out);
}

/* Replaces gradients in σ's jet by gradients in z's jet, in place. */
void activate_back(const REAL *z, const REAL *bs, int64_t plane, REAL p, const REAL *c, REAL *g) {
    for (int64_t start = 0; start < plane; start += STRIP)
        compose_back(
            z + start, bs + start, strip(start, plane), plane, p, c, g + start);
}
