/* How a jet passes through an activation, and back; see diffhash.networks.activations.
 *
 * Compiled for one REAL and one activation: FIRST, SECOND and THIRD are its derivatives as
 * expressions in its value a, an auxiliary value b and its parameter p. Blocks of points, not
 * threads, decide in which order the bias gradient is summed.
 */
#include <stdint.h>

#define BLOCK 64 /* points */

typedef struct {
    int64_t n_points, width, n_axes, n_threads;
    const int64_t *orders; /* of every axis */
    REAL parameter;
} Shape;

/* z [K, N, C] -> rows 1 to K - 1 of out [K, N, C]; a, b [N, C]; row 0 of out is a already. */
void forward(const Shape *s, const REAL *z, const REAL *a_all, const REAL *b_all, REAL *out) {
    const int64_t plane = s->n_points * s->width;
    const REAL p = s->parameter;
#pragma omp parallel for schedule(static) num_threads(s->n_threads) if (s->n_threads > 1)
    for (int64_t start = 0; start < plane; start += BLOCK * s->width) {
        const int64_t left = plane - start;
        const int64_t n = left < BLOCK * s->width ? left : BLOCK * s->width;
        const REAL *restrict as = a_all + start, *restrict bs = b_all + start;
        int64_t row = 1;
        for (int64_t axis = 0; axis < s->n_axes; row += s->orders[axis++]) {
            const REAL *restrict z1 = z + row * plane + start;
            REAL *restrict y1 = out + row * plane + start;
            if (s->orders[axis] == 1) {
#pragma omp simd
                for (int64_t i = 0; i < n; i++) {
                    const REAL a = as[i], b = bs[i];
                    y1[i] = (FIRST) * z1[i];
                }
            } else if (s->orders[axis] == 2) {
                const REAL *restrict z2 = z1 + plane;
                REAL *restrict y2 = y1 + plane;
#pragma omp simd
                for (int64_t i = 0; i < n; i++) {
                    const REAL a = as[i], b = bs[i];
                    const REAL first = FIRST;
                    y1[i] = first * z1[i];
                    y2[i] = first * z2[i] + (SECOND) * z1[i] * z1[i];
                }
            }
        }
    }
}

/* g [K, N, C] -> grad [K, N, C] towards z, and its row 0 summed per block: [blocks, C]. */
void backward(
    const Shape *s, const REAL *z, const REAL *a_all, const REAL *b_all, const REAL *g, REAL *grad,
    REAL *bias_grads) {
    const int64_t C = s->width, plane = s->n_points * C;
    const REAL p = s->parameter;
#pragma omp parallel for schedule(static) num_threads(s->n_threads) if (s->n_threads > 1)
    for (int64_t start = 0; start < plane; start += BLOCK * C) {
        const int64_t left = plane - start;
        const int64_t n = left < BLOCK * C ? left : BLOCK * C;
        const REAL *restrict as = a_all + start, *restrict bs = b_all + start;
        const REAL *restrict g0 = g + start;
        REAL *restrict d0 = grad + start;
#pragma omp simd
        for (int64_t i = 0; i < n; i++) {
            const REAL a = as[i], b = bs[i];
            d0[i] = g0[i] * (FIRST);
        }
        int64_t row = 1;
        for (int64_t axis = 0; axis < s->n_axes; row += s->orders[axis++]) {
            const int64_t at = row * plane + start;
            const REAL *restrict z1 = z + at, *restrict g1 = g + at;
            REAL *restrict d1 = grad + at;
            if (s->orders[axis] == 1) {
#pragma omp simd
                for (int64_t i = 0; i < n; i++) {
                    const REAL a = as[i], b = bs[i];
                    d0[i] += g1[i] * (SECOND) * z1[i];
                    d1[i] = g1[i] * (FIRST);
                }
            } else if (s->orders[axis] == 2) {
                const REAL *restrict z2 = z1 + plane, *restrict g2 = g1 + plane;
                REAL *restrict d2 = d1 + plane;
#pragma omp simd
                for (int64_t i = 0; i < n; i++) {
                    const REAL a = as[i], b = bs[i];
                    const REAL first = FIRST, second = SECOND, curved = second * z1[i];
                    d0[i] += g1[i] * curved + g2[i] * ((THIRD) * z1[i] * z1[i] + second * z2[i]);
                    d1[i] = g1[i] * first + 2 * g2[i] * curved;
                    d2[i] = g2[i] * first;
                }
            }
        }
        REAL *restrict sums = bias_grads + start / BLOCK;
        for (int64_t c = 0; c < C; c++) sums[c] = 0;
        for (int64_t i = 0; i < n; i += C)
            for (int64_t c = 0; c < C; c++) sums[c] += d0[i + c];
    }
}
