/* Work on several threads; `threads.c` has the pool, which all kernels use. */
#include <stdint.h>

/* Calls work(context, unit, thread) for every unit < n_units, on up to n_threads threads; a thread
 * is numbered below n_threads, and the caller is thread 0. Set when a library is loaded. */
typedef void Work(void *context, int64_t unit, int64_t thread);
void (*parallel_for)(Work *work, void *context, int64_t n_units, int64_t n_threads);
