"""Runs that are killed, or cannot write, at each of their file operations."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from tests.faults import shim
from tests.faults.scenarios import ROOT, Scenario, scenarios
from tests.faults.shim import Operation
from tests.faults.tally import Progress, Tally


@dataclass(frozen=True)
class Kind:
    """What happens at a point.

    Attributes:
        mode: the shim's.
        error: number of the error, where it fails.
        writes: at writes alone.
        scenarios: names; none: all.
    """

    title: str
    mode: int
    error: int = 0
    writes: bool = False
    scenarios: tuple[str, ...] = ()

    def at(self, operations: Sequence[Operation]) -> list[int]:
        """Numbers of the operations that are points, from 1."""
        return [
            number
            for number, operation in enumerate(operations, 1)
            if not self.writes or ("write" in operation.name if self._halves else operation[0])
        ]

    @property
    def _halves(self) -> bool:
        return self.mode == shim.KILL_IN_WRITE


def kinds() -> dict[str, Kind]:
    """All of them, by a name for the command line."""
    from errno import EACCES, EIO, ENOSPC

    short = ("run", "replace", "seeds", "resume in place")
    return {
        "kill": Kind("kill -9 before an operation", shim.KILL),
        "half": Kind("kill -9 within a write", shim.KILL_IN_WRITE, 0, True, short),
        "full": Kind("disk full from a write on", shim.FAIL_FROM, ENOSPC, True),
        "eio": Kind("one operation fails, EIO", shim.FAIL_ONCE, EIO, False, short),
        "eacces": Kind("one operation fails, EACCES", shim.FAIL_ONCE, EACCES, False, ("replace",)),
    }


class _Server:
    """A process of `tests.faults.server`."""

    def __init__(self, library: Path, work: Path) -> None:
        environment = os.environ | {
            "LD_PRELOAD": str(library),
            "WANDB_MODE": "offline",
            "MPLBACKEND": "Agg",
            "OMP_NUM_THREADS": "1",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.server", str(work)],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is this process's
        )

    def ask(self, **job: Any) -> dict[str, Any]:
        """Do one job."""
        assert self._process.stdin and self._process.stdout
        print(json.dumps(job), file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the server ended with code {self._process.wait()} at {job}")
        reply = json.loads(answer)
        if "failed" in reply:
            raise RuntimeError(f"{job}: {reply['failed']}")
        return reply

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()


class Servers:
    """Several of them, each asked one thing at a time; runs are prepared once."""

    def __init__(self, library: Path, work: Path, number: int) -> None:
        self._servers = [_Server(library, work) for _ in range(number)]
        self._free: SimpleQueue[_Server] = SimpleQueue()
        for server in self._servers:
            self._free.put(server)
        self._pool = ThreadPoolExecutor(number)
        self._operations: dict[str, list[Operation]] = {}

    def ask(self, **job: Any) -> dict[str, Any]:
        """Do one job, as soon as a process is free."""
        server = self._free.get()
        try:
            return server.ask(**job)
        finally:
            self._free.put(server)

    def map(self, jobs: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Replies in the order of the jobs."""
        return self._pool.map(lambda job: self.ask(**job), jobs)

    def operations(self, scenario: Scenario) -> list[Operation]:
        """Those of an undisturbed run."""
        if scenario.name not in self._operations:
            reply = self.ask(scenario=scenario.name, mode=None)
            self._operations[scenario.name] = [Operation(*o) for o in reply["operations"]]
        return self._operations[scenario.name]

    def close(self) -> None:
        """End them."""
        for server in self._servers:
            server.close()
        self._pool.shutdown(cancel_futures=True)


@contextmanager
def servers(number: int) -> Iterator[Servers]:
    """Processes to try points in; they and their files are gone afterwards."""
    with ExitStack() as stack:
        keep = bool(os.environ.get("FAULTS_KEEP"))
        folder = tempfile.mkdtemp(prefix="faults-")
        if not keep:
            stack.enter_context(_removed(folder))
        found = Servers(shim.build(Path(folder)), Path(folder), number)
        stack.callback(found.close)
        yield found


@contextmanager
def _removed(folder: str) -> Iterator[None]:
    import shutil

    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def points(
    found: Servers, kind: Kind, every: int = 1, only: str | None = None, at: int | None = None
) -> list[tuple[str, dict[str, Any]]]:
    """The points of a kind: where each is, for people, and the job.

    Args:
        found: to prepare the runs.
        kind: what happens there.
        every: leave out all but every so many.
        only: name of the one scenario that is tried.
        at: number of the one operation that is tried.
    """
    jobs = []
    for scenario in scenarios():
        if only not in (None, scenario.name) or (
            only is None and kind.scenarios and scenario.name not in kind.scenarios
        ):
            continue
        operations = found.operations(scenario)
        numbers = kind.at(operations)[:: every * scenario.share] if at is None else [at]
        for number in numbers:
            job = {"scenario": scenario.name, "mode": kind.mode, "at": number, "error": kind.error}
            jobs.append((f"{kind.title}, {scenario.name!r} at {number}", job))
    return jobs


def try_all(
    found: Servers, kind: Kind, every: int = 1, only: str | None = None, at: int | None = None
) -> Tally:
    """Try the points of a kind."""
    tally = Tally(kind.title)
    todo = points(found, kind, every, only, at)
    progress = Progress(kind.title, len(todo))
    bad = 0
    for (where, _), reply in zip(todo, found.map([job for _, job in todo]), strict=True):
        tally.add(f"{where}, {reply['operation']}", reply["faults"])
        bad += any(reply["faults"].values())
        progress.step(bad)
        if os.environ.get("FAULTS_KEEP"):
            print(f"{where}, {reply['operation']}: {reply['kept']}", file=sys.stderr)
    return tally
