"""Runs side by side: each a process of its own, on processor cores of its own.

The matrices of these runs are small: one thread a run, and as many runs as there are cores, takes
about two thirds of the time of one run on all cores. Cores are not shared, so that no run waits
for another; what a run costs alone is measured by `diffhash.experiment.timing`.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

_PR_SET_PDEATHSIG = 1
_POLL_SECONDS = 0.1
_LINES_OF_A_FAILURE = 20


@dataclass(frozen=True)
class Command:
    """A process to run.

    Attributes:
        title: for people.
        arguments: of the process, its program first.
        log: where its output goes.
        succeeded: whether it did what it was for; asked when it has ended with code 0.
    """

    title: str
    arguments: tuple[str, ...]
    log: Path
    succeeded: Callable[[], bool]


@dataclass
class _Running:
    command: Command
    process: subprocess.Popen[bytes]
    cores: tuple[int, ...] | None
    started: float


def default_workers() -> int:
    """One run at a time on a GPU, else one a core."""
    return 1 if torch.cuda.is_available() else len(_cores())


def signal_when_parent_ends(signum: int) -> None:
    """Let the system send ``signum`` to this process when its parent ends; on Linux alone."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signum)


@contextmanager
def process_pool(workers: int, preload: str) -> Iterator[ProcessPoolExecutor]:
    """Processes for many short runs; an exception in the block ends what they are running.

    They are forked from one that has imported the module ``preload``: that takes longer than a
    short run. Ctrl-C reaches the block alone.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([preload])
    with ProcessPoolExecutor(workers, mp_context=context, initializer=begin_in_pool) as pool:
        try:
            yield pool
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                process.kill()
            raise


def begin_in_pool() -> None:
    """Begin a process of a pool: Ctrl-C is the pool's, and with the pool's process it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        parent.join()
        os._exit(1)

    # Not by a signal of the system's: to it the parent is the process that forked this one, which
    # stays as long as this one does.
    threading.Thread(target=end_with_parent, daemon=True).start()


def run_side_by_side(commands: Sequence[Command], workers: int) -> list[Command]:
    """Run all, ``workers`` at a time, in the given order; return those that failed.

    One that fails does not stop the others; the end of its output goes to standard error.

    Raises:
        KeyboardInterrupt: after every process has been told to stop, and has.
    """
    console = Console(highlight=False, markup=False, soft_wrap=True)
    waiting = deque(commands)
    free = deque(_shares(workers))
    running: list[_Running] = []
    failed: list[Command] = []
    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
    ) as bar:
        total = bar.add_task("runs", total=len(commands))
        try:
            while waiting or running:
                while waiting and free:
                    running.append(_start(waiting.popleft(), free.popleft()))
                    console.print(f"started  {running[-1].command.title}")
                names = ", ".join(r.command.title for r in running)
                bar.update(total, description=names)
                time.sleep(_POLL_SECONDS)
                for ended in [r for r in running if r.process.poll() is not None]:
                    running.remove(ended)
                    free.append(ended.cores)
                    bar.advance(total)
                    if not _report(ended, console):
                        failed.append(ended.command)
        except BaseException:
            for r in running:
                # A Ctrl-C may have reached them as well; a SIGTERM besides does not hurt.
                r.process.send_signal(signal.SIGTERM)
            for r in running:
                r.process.wait()
            raise
    return failed


def _report(ended: _Running, console: Console) -> bool:
    """Say how a process ended; whether it succeeded."""
    command, code = ended.command, ended.process.returncode
    seconds = time.perf_counter() - ended.started
    lines = command.log.read_text(errors="replace").splitlines()
    if code == 0 and command.succeeded():
        console.print(f"finished {command.title} in {seconds:.0f} s: {lines[-1] if lines else ''}")
        return True
    print(f"failed   {command.title} with exit code {code}; {command.log}:", file=sys.stderr)
    print(*lines[-_LINES_OF_A_FAILURE:], sep="\n", file=sys.stderr)
    return False


def _start(command: Command, cores: tuple[int, ...] | None) -> _Running:
    command.log.parent.mkdir(parents=True, exist_ok=True)
    environment = dict(os.environ)
    if cores is not None:
        environment["OMP_NUM_THREADS"] = str(len(cores))

    def prepare() -> None:
        if cores is not None:
            os.sched_setaffinity(0, cores)
        # Leave no run behind that would write on while the next reproduction starts the same one.
        signal_when_parent_ends(signal.SIGKILL)

    with command.log.open("wb") as log:
        process = subprocess.Popen(
            command.arguments,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            preexec_fn=prepare,
        )
    return _Running(command, process, cores, time.perf_counter())


def _cores() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _shares(workers: int) -> list[tuple[int, ...] | None]:
    """The cores of each worker; None where it may use them all."""
    cores = _cores()
    if workers == 1 or workers > len(cores) or not hasattr(os, "sched_setaffinity"):
        return [None] * workers
    size = len(cores) // workers
    return [tuple(cores[i * size : (i + 1) * size]) for i in range(workers)]
