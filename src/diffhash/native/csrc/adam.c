/* A step of Adam over one tensor; see diffhash.training.adam. Compiled for one REAL. */
#include <math.h>
#include <stdint.h>

#include "threads.h"

enum { CHUNK = 1 << 14 };

typedef struct {
    int64_t n, n_threads;
    double rate, beta1, beta2, eps;
} Settings;

typedef struct {
    const Settings *s;
    REAL *parameter, *mean, *square;
    const REAL *gradient;
    REAL size, scale; /* rate / (1 - beta1^t) and 1 / sqrt(1 - beta2^t) */
} Step;

static void step_chunk(void *context, int64_t chunk, int64_t thread) {
    (void)thread;
    const Step *all = context;
    const Settings *s = all->s;
    const int64_t first = chunk * CHUNK, end = first + CHUNK < s->n ? first + CHUNK : s->n;
    const REAL b1 = (REAL)s->beta1, c1 = (REAL)(1 - s->beta1);
    const REAL b2 = (REAL)s->beta2, c2 = (REAL)(1 - s->beta2);
    const REAL eps = (REAL)s->eps, size = all->size, scale = all->scale;
    const REAL *restrict gradient = all->gradient;
    REAL *restrict mean = all->mean, *restrict square = all->square;
    REAL *restrict parameter = all->parameter;
#pragma omp simd
    for (int64_t i = first; i < end; i++) {
        const REAL g = gradient[i];
        const REAL m = b1 * mean[i] + c1 * g, v = b2 * square[i] + c2 * g * g;
        mean[i] = m;
        square[i] = v;
        parameter[i] -= size * m / (SQRT(v) * scale + eps);
    }
}

/* `count` is t, which is increased here. */
void step(
    const Settings *s, const REAL *gradient, REAL *parameter, REAL *mean, REAL *square,
    float *count) {
    const double t = *count += 1;
    Step all = {s, parameter, mean, square, gradient,
                (REAL)(s->rate / (1 - pow(s->beta1, t))),
                (REAL)(1 / sqrt(1 - pow(s->beta2, t)))};
    parallel_for(step_chunk, &all, (s->n + CHUNK - 1) / CHUNK, s->n_threads);
}
