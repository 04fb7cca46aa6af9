"""Runs side by side: each a process of its own, on processor cores of its own.

The matrices of these runs are small: as many runs as there are cores, with one thread each, take
about two thirds of the time of the same runs one after the other on all cores. Each core belongs to
one run, so that no run waits for another. The time of a run by itself cannot be measured here.

Processes are forked from a process that has imported everything, since importing takes longer than
a short run.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import runpy
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

_POLL_SECONDS = 0.1
_PARENT_SECONDS = 0.5
_LINES_OF_A_FAILURE = 20


@dataclass(frozen=True)
class Command:
    """A Python script to run.

    Attributes:
        title: a title for display.
        script: the file of the script.
        arguments: the arguments of the script.
        log: the file for the script's output.
        succeeded: a function that returns whether the script has done its work, called after the
            exit code 0.
        limit: the seconds after which the script is killed; None for no limit.
        memory: the bytes that the script may allocate (on Linux); None for no limit.
        failed: a function of the exit code and of whether the limit was passed, which returns a
            line about a failure; None to print the end of the output to standard error.
    """

    title: str
    script: Path
    arguments: tuple[str, ...]
    log: Path
    succeeded: Callable[[], bool]
    limit: float | None = None
    memory: int | None = None
    failed: Callable[[int | None, bool], str] | None = None


@dataclass
class _Running:
    command: Command
    process: ForkServerProcess
    cores: tuple[int, ...] | None
    started: float
    is_late: bool = False


def default_workers() -> int:
    """The default number of runs at a time: one on a GPU, else one for each core."""
    import torch  # takes seconds, and a command line that starts jobs does not need it

    return 1 if torch.cuda.is_available() else len(_cores())


def preloaded() -> ForkServerContext:
    """A context for processes that are forked from a process with `diffhash.experiment.run`
    imported."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["diffhash.experiment.run"])
    return context


def end_with_parent(signum: int = signal.SIGKILL, parent_id: int | None = None) -> None:
    """Send ``signum`` to this process when its parent process has ended in any way.

    The signal is repeated until this process has ended as well. For a process from a fork server,
    the parent is the process that requested it, because the server runs as long as its children.

    Args:
        signum: the signal.
        parent_id: the parent's process id; None for the present parent.
    """
    parent = multiprocessing.parent_process()
    parent_id = os.getppid() if parent_id is None else parent_id

    def wait() -> None:
        if parent is not None and parent.sentinel is not None:  # joblib's have none
            parent.join()
        else:
            while os.getppid() == parent_id:
                time.sleep(_PARENT_SECONDS)
        while True:
            os.kill(os.getpid(), signum)
            time.sleep(_PARENT_SECONDS)

    threading.Thread(target=wait, daemon=True).start()


@contextmanager
def process_pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """A pool of processes for many short runs; an exception in the block ends their runs.

    Ctrl-C interrupts the block, and not the processes.
    """
    with ProcessPoolExecutor(workers, mp_context=preloaded(), initializer=_begin_in_pool) as pool:
        try:
            yield pool
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                process.kill()
            raise


def _begin_in_pool() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()


def run_side_by_side(commands: Sequence[Command], workers: int) -> list[Command]:
    """Run all commands, ``workers`` at a time, in the given order; return those that failed.

    A command that fails does not stop the others; the end of its output is printed to standard
    error.

    Raises:
        KeyboardInterrupt: interrupted by Ctrl-C; every process has been stopped.
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
                for late in [r for r in running if _has_passed_limit(r)]:
                    late.is_late = True
                    late.process.kill()
                for ended in [r for r in running if not r.process.is_alive()]:
                    running.remove(ended)
                    free.append(ended.cores)
                    bar.advance(total)
                    if not _report(ended, console):
                        failed.append(ended.command)
        except BaseException:
            for r in running:
                # Ctrl-C may have reached the processes as well; another SIGTERM does no harm.
                r.process.terminate()
            for r in running:
                r.process.join()
            raise
    return failed


def _has_passed_limit(running: _Running) -> bool:
    limit = running.command.limit
    return limit is not None and time.perf_counter() - running.started > limit


def _report(ended: _Running, console: Console) -> bool:
    """Report how a process ended; return whether it succeeded."""
    command, code = ended.command, ended.process.exitcode
    seconds = time.perf_counter() - ended.started
    lines = command.log.read_text(errors="replace").splitlines()
    if code == 0 and command.succeeded():
        console.print(f"finished {command.title} in {seconds:.0f} s: {lines[-1] if lines else ''}")
        return True
    if command.failed is not None:
        console.print(f"failed   {command.title}: {command.failed(code, ended.is_late)}")
        return False
    print(f"failed   {command.title} with exit code {code}; {command.log}:", file=sys.stderr)
    print(*lines[-_LINES_OF_A_FAILURE:], sep="\n", file=sys.stderr)
    return False


def _start(command: Command, cores: tuple[int, ...] | None) -> _Running:
    command.log.parent.mkdir(parents=True, exist_ok=True)
    command.log.touch()
    process = preloaded().Process(
        target=_run, args=(command.script, command.arguments, command.log, cores, command.memory)
    )
    process.start()
    return _Running(command, process, cores, time.perf_counter())


def _run(
    script: Path,
    arguments: tuple[str, ...],
    log: Path,
    cores: tuple[int, ...] | None,
    memory: int | None,
) -> None:
    # A run that continued to write would collide with the same run of the next reproduction.
    end_with_parent()
    with log.open("wb") as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
    if memory is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (memory, resource.RLIM_INFINITY))
    if cores is not None:
        os.sched_setaffinity(0, cores)
        os.environ["OMP_NUM_THREADS"] = str(len(cores))
        import torch

        torch.set_num_threads(len(cores))
    sys.argv = [str(script), *arguments]
    runpy.run_path(str(script), run_name="__main__")


def _cores() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _shares(workers: int) -> list[tuple[int, ...] | None]:
    """The cores of each worker; None for a worker that may use all cores."""
    cores = _cores()
    if workers == 1 or workers > len(cores) or not hasattr(os, "sched_setaffinity"):
        return [None] * workers
    size = len(cores) // workers
    return [tuple(cores[i * size : (i + 1) * size]) for i in range(workers)]
