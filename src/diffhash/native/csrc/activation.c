/* An activation of a block of jets, and back; called by network.c through pointers.
 *
 * A block holds, for a layer of C units, rows of plane = B Cp elements. Compiled for one REAL, one
 * activation σ and one set of rows; diffhash.jets.c_code writes the macros: STATE computes a (and b)
 * from a pre-activation z, FUNCTIONS what the rest is made of from them, FORWARD and BACKWARD what
 * is done with an element. Coefficients that are no small integers are in c.
 */
#include <stdint.h>

#include "smooth_functions.h"

/* Elements that all passes over a block go through together, so that they find them in the cache. */
enum { STRIP = 512 };

static int64_t strip(int64_t start, int64_t plane) {
    return plane - start < STRIP ? plane - start : STRIP;
}

/* Pre-activations in `as` become a there, and b in `bs`. */
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

/* Gradients of n elements of σ's jet become, in place, those of z. */
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

/* Pre-activations z become a layer's state, and the jet σ(z) goes to `out`. */
void activate(REAL *z, REAL *bs, int64_t plane, REAL p, const REAL *c, REAL *out) {
    for (int64_t start = 0; start < plane; start += STRIP) {
        const int64_t n = strip(start, plane);
        keep_state(z + start, bs + start, n, p);
        compose(z + start, bs + start, n, plane, p, c, out + start);
    }
}

/* The jet σ(z) again, from a layer's state. */
void activate_again(
    const REAL *z, const REAL *bs, int64_t plane, REAL p, const REAL *c, REAL *out) {
    compose(z, bs, plane, plane, p, c, out);
}

/* Gradients towards σ's jet become, in place, those towards z. */
void activate_back(const REAL *z, const REAL *bs, int64_t plane, REAL p, const REAL *c, REAL *g) {
    for (int64_t start = 0; start < plane; start += STRIP)
        compose_back(
            z + start, bs + start, strip(start, plane), plane, p, c, g + start);
}
