/* Work on several threads; `threads.c` has the pool, which all kernels use. */
#include <stdint.h>

/* Calls work(context, unit, thread) for every unit < n_units, on up to n_threads threads, whose
 * numbers are below n_threads; the caller is thread 0. Set when a library is loaded. */
typedef void Work(void *context, int64_t unit, int64_t thread);
void (*parallel_for)(Work *work, void *context, int64_t n_units, int64_t n_threads);
