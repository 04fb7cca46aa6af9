/* What diffhash's threads.c does, by OpenMP. */
#include <omp.h>
#include <stdint.h>

typedef void Work(void *context, int64_t unit, int64_t thread);

void parallel_for_by_openmp(Work *work, void *context, int64_t n_units, int64_t n_threads) {
    if (n_threads > n_units) n_threads = n_units;
    if (n_threads < 2) {
        for (int64_t unit = 0; unit < n_units; unit++) work(context, unit, 0);
        return;
    }
#pragma omp parallel for schedule(dynamic) num_threads(n_threads)
    for (int64_t unit = 0; unit < n_units; unit++) work(context, unit, omp_get_thread_num());
}
