"""Processes with everything imported, in which points are tried."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from tests.faults import shim
from tests.faults.scenarios import ROOT, Scenario
from tests.faults.shim import Operation


class _Server:
    """A process of `tests.faults.server`."""

    def __init__(self, library: Path | None, work: Path) -> None:
        preload = {} if library is None else {"LD_PRELOAD": str(library)}
        environment = (
            os.environ
            | preload
            | {
                "WANDB_MODE": "offline",
                "MPLBACKEND": "Agg",
                "OMP_NUM_THREADS": "1",
            }
        )
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
        """End the process."""
        self._process.kill()
        self._process.communicate()


class Servers:
    """Several processes, each with one job at a time; runs are prepared once."""

    def __init__(self, library: Path | None, work: Path, number: int) -> None:
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
        """The operations of an undisturbed run."""
        if scenario.name not in self._operations:
            reply = self.ask(scenario=scenario.name, mode=None)
            self._operations[scenario.name] = [Operation(*o) for o in reply["operations"]]
        return self._operations[scenario.name]

    def close(self) -> None:
        """End the processes."""
        for server in self._servers:
            server.close()
        self._pool.shutdown(cancel_futures=True)


@contextmanager
def servers(number: int) -> Iterator[Servers]:
    """Processes in which points are tried; they and their files are removed afterwards."""
    with ExitStack() as stack:
        keep = bool(os.environ.get("FAULTS_KEEP"))
        folder = tempfile.mkdtemp(prefix="faults-")
        if not keep:
            stack.enter_context(_removed(folder))
        library = shim.build(Path(folder)) if shim.available() else None
        found = Servers(library, Path(folder), number)
        stack.callback(found.close)
        yield found


@contextmanager
def _removed(folder: str) -> Iterator[None]:
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)
