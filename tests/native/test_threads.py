"""Work that C kernels divide among threads: every unit is done once, whatever else runs."""

from __future__ import annotations

import ctypes
import os
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from diffhash.native import compiled

SOURCE = """
#include "threads.h"

typedef struct { int64_t *times, *threads, spin; } Tally;

static void count(void *context, int64_t unit, int64_t thread) {
    Tally *tally = context;
    for (volatile int64_t i = 0; i < tally->spin; i++) continue;
    __atomic_fetch_add(&tally->times[unit], 1, __ATOMIC_RELAXED);
    tally->threads[unit] = thread;
}

void tally(int64_t *times, int64_t *threads, int64_t n_units, int64_t n_threads, int64_t spin) {
    Tally all = {times, threads, spin};
    parallel_for(count, &all, n_units, n_threads);
}
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    source = tmp_path_factory.mktemp("threads") / "tally.c"
    source.write_text(SOURCE)
    return compiled(source)


def tally(
    library: ctypes.CDLL, n_units: int, n_threads: int, spin: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    times, threads = np.zeros(n_units, np.int64), np.full(n_units, -1, np.int64)
    library.tally(
        times.ctypes.data_as(ctypes.c_void_p),
        threads.ctypes.data_as(ctypes.c_void_p),
        *(ctypes.c_int64(n) for n in (n_units, n_threads, spin)),
    )
    return times, threads


@pytest.mark.parametrize("n_threads", [1, 2, 5, 64])
@pytest.mark.parametrize("n_units", [0, 1, 2, 3, 100])
def test_every_unit_is_done_once_by_a_thread_that_was_asked_for(
    library: ctypes.CDLL, n_units: int, n_threads: int
) -> None:
    for spin in (0, 1000):
        times, threads = tally(library, n_units, n_threads, spin)
        assert (times == 1).all()
        assert ((threads >= 0) & (threads < n_threads)).all()


def test_jobs_of_few_and_many_threads_follow_each_other_at_once(library: ctypes.CDLL) -> None:
    """A thread that comes late to one job must not take part in the next, which is smaller."""
    for job in range(3000):
        n_threads = 2 + 6 * (job % 2)
        times, threads = tally(library, 16, n_threads, job % 7 * 20)
        assert (times == 1).all()
        assert threads.max() < n_threads


def test_callers_that_come_at_once_all_get_their_work_done(library: ctypes.CDLL) -> None:
    def many(_: int) -> bool:
        return all((tally(library, 9, 3, 200)[0] == 1).all() for _ in range(300))

    with ThreadPoolExecutor(4) as callers:
        assert all(callers.map(many, range(4)))


def test_threads_that_have_gone_to_sleep_work_again(library: ctypes.CDLL) -> None:
    for _ in range(5):
        time.sleep(0.01)
        times, _ = tally(library, 64, 4, 2000)
        assert (times == 1).all()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_has_threads_of_its_own(library: ctypes.CDLL) -> None:
    tally(library, 64, 4)
    child = os.fork()
    if child == 0:
        ok = all((tally(library, 64, 4, 500)[0] == 1).all() for _ in range(20))
        os._exit(0 if ok else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert (tally(library, 64, 4)[0] == 1).all()
