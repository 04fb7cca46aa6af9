/* A pool of threads for work that takes microseconds, on machines that also run other processes.
 *
 * Units are taken one by one, so that a thread that the system does not run causes no delay: the
 * other threads take its units. The caller waits only for units that have begun. Waiting threads
 * spin for 100 µs, because the next work must not wait until a thread wakes up. Then they block,
 * because the unit for which they wait may need their processor. (OpenMP's barriers wait for every
 * thread: with another process on one of two cores such steps took 10 to 200 times as long.)
 *
 * A job has a ticket: its number, and the number of units that are not taken. A thread takes a unit
 * by decreasing the latter with a compare-and-swap. The job's description cannot change until all
 * taken units are done, so a thread that has a unit may read the description at any time.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <time.h>
#include <unistd.h>

typedef void Work(void *context, int64_t unit, int64_t thread);

#define MAX_THREADS 256
#define LEFT 0xffffffffu
#define SPIN_NANOSECONDS 100000

static struct {
    _Alignas(64) _Atomic uint64_t ticket; /* number << 32 | units that are not taken */
    _Alignas(64) _Atomic int64_t undone;  /* units not done, taken or not */
    _Alignas(64) _Atomic int asleep, caller_asleep;
    Work *work;
    void *context;
    int64_t n_units;
    _Atomic int64_t n_threads;
    int64_t n_workers;
    pid_t owner; /* the process with the threads; a forked process has none of them */
    pthread_mutex_t in_use, lock;
    pthread_cond_t wake, done;
} pool = {
    .in_use = PTHREAD_MUTEX_INITIALIZER,
    .lock = PTHREAD_MUTEX_INITIALIZER,
    .wake = PTHREAD_COND_INITIALIZER,
    .done = PTHREAD_COND_INITIALIZER,
};

static void relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static int64_t nanoseconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

/* Take and do units until all are taken. */
static void take_units(int64_t thread) {
    uint64_t ticket = atomic_load(&pool.ticket);
    while ((ticket & LEFT) && thread < atomic_load(&pool.n_threads)) {
        if (!atomic_compare_exchange_weak(&pool.ticket, &ticket, ticket - 1)) continue;
        pool.work(pool.context, pool.n_units - (int64_t)(ticket & LEFT), thread);
        if (atomic_fetch_sub(&pool.undone, 1) == 1 && atomic_load(&pool.caller_asleep)) {
            pthread_mutex_lock(&pool.lock);
            pthread_cond_signal(&pool.done);
            pthread_mutex_unlock(&pool.lock);
        }
        ticket = atomic_load(&pool.ticket);
    }
}

static int work_for(int64_t thread) {
    return (atomic_load(&pool.ticket) & LEFT) && thread < atomic_load(&pool.n_threads);
}

static void *worker(void *argument) {
    const int64_t thread = (intptr_t)argument;
    for (;;) {
        const int64_t end = nanoseconds() + SPIN_NANOSECONDS;
        while (!work_for(thread) && nanoseconds() < end)
            for (int i = 0; i < 16; i++) relax();
        if (!work_for(thread)) {
            pthread_mutex_lock(&pool.lock);
            atomic_fetch_add(&pool.asleep, 1);
            while (!work_for(thread)) pthread_cond_wait(&pool.wake, &pool.lock);
            atomic_fetch_sub(&pool.asleep, 1);
            pthread_mutex_unlock(&pool.lock);
        }
        take_units(thread);
    }
    return NULL;
}

static void start_workers(int64_t n) {
    if (pool.owner != getpid()) {
        pool.owner = getpid();
        pool.n_workers = 0;
        atomic_store(&pool.asleep, 0);
        pthread_mutex_init(&pool.lock, NULL);
        pthread_cond_init(&pool.wake, NULL);
        pthread_cond_init(&pool.done, NULL);
    }
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    while (pool.n_workers < n) {
        pthread_t thread;
        const intptr_t number = pool.n_workers + 1;
        if (pthread_create(&thread, &attributes, worker, (void *)number)) break;
        pool.n_workers++;
    }
    pthread_attr_destroy(&attributes);
}

static void wait_for_all(void) {
    const int64_t end = nanoseconds() + SPIN_NANOSECONDS;
    while (atomic_load(&pool.undone) && nanoseconds() < end)
        for (int i = 0; i < 16; i++) relax();
    if (!atomic_load(&pool.undone)) return;
    pthread_mutex_lock(&pool.lock);
    atomic_store(&pool.caller_asleep, 1);
    while (atomic_load(&pool.undone)) pthread_cond_wait(&pool.done, &pool.lock);
    atomic_store(&pool.caller_asleep, 0);
    pthread_mutex_unlock(&pool.lock);
}

void parallel_for(Work *work, void *context, int64_t n_units, int64_t n_threads) {
    if (n_threads > MAX_THREADS) n_threads = MAX_THREADS;
    if (n_threads > n_units) n_threads = n_units;
    /* One job at a time: if the pool is in use, the caller does all units by itself. */
    if (n_threads < 2 || n_units >= LEFT || pthread_mutex_trylock(&pool.in_use)) {
        for (int64_t unit = 0; unit < n_units; unit++) work(context, unit, 0);
        return;
    }
    start_workers(n_threads - 1);
    pool.work = work;
    pool.context = context;
    pool.n_units = n_units;
    atomic_store(&pool.n_threads, n_threads);
    atomic_store(&pool.undone, n_units);
    const uint64_t number = (atomic_load(&pool.ticket) >> 32) + 1;
    atomic_store(&pool.ticket, number << 32 | (uint64_t)n_units);
    if (atomic_load(&pool.asleep)) {
        pthread_mutex_lock(&pool.lock);
        pthread_cond_broadcast(&pool.wake);
        pthread_mutex_unlock(&pool.lock);
    }
    take_units(0);
    wait_for_all();
    pthread_mutex_unlock(&pool.in_use);
}
