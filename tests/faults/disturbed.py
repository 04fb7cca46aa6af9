"""Runs that are killed, or cannot write, at each of their file operations."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from errno import EACCES, EIO, ENOSPC
from typing import Any

from tests.faults import shim
from tests.faults.scenarios import Scenario, scenarios
from tests.faults.servers import Servers
from tests.faults.shim import Operation
from tests.faults.tally import Progress, Tally


@dataclass(frozen=True)
class Kind:
    """A kind of disturbance.

    Attributes:
        mode: the mode of the shim.
        error: the number of the error of an operation that fails.
        writes: whether it happens at writes only.
        scenarios: the names of the scenarios; empty for all.
        every: the number of operations for each one that is a point.
    """

    title: str
    mode: int
    error: int = 0
    writes: bool = False
    scenarios: tuple[str, ...] = ()
    every: int = 1

    def at(self, operations: Sequence[Operation]) -> list[int]:
        """The numbers, from 1, of the operations that can be points."""
        return [
            number
            for number, operation in enumerate(operations, 1)
            if not self.writes or ("write" in operation.name if self._halves else operation[0])
        ]

    def job(self, scenario: Scenario, at: int) -> dict[str, Any]:
        """The job of a server for the point ``at``."""
        return {"scenario": scenario.name, "mode": self.mode, "at": at, "error": self.error}

    @property
    def _halves(self) -> bool:
        return self.mode == shim.KILL_IN_WRITE


def kinds() -> dict[str, Kind]:
    """All kinds, by their names on the command line."""
    short = ("run", "replace", "seeds", "resume in place")
    return {
        "kill": Kind("kill -9 before an operation", shim.KILL),
        "half": Kind("kill -9 within a write", shim.KILL_IN_WRITE, 0, True, short),
        "full": Kind("disk full from a write on", shim.FAIL_FROM, ENOSPC, True, every=3),
        "eio": Kind("one operation fails, EIO", shim.FAIL_ONCE, EIO, False, ("replace",)),
        "eacces": Kind("one operation fails, EACCES", shim.FAIL_ONCE, EACCES, False, ("replace",)),
    }


def points(
    found: Servers, kind: Kind, every: int = 1, only: str | None = None, at: int | None = None
) -> list[tuple[str, dict[str, Any]]]:
    """The points of a kind, each with a readable description and its job.

    Args:
        found: the processes, which prepare the runs.
        kind: the kind of disturbance.
        every: the number of points for each one that is kept.
        only: the name of the one scenario that is tried.
        at: the number of the one operation that is tried.
    """
    jobs = []
    for scenario in scenarios():
        if only not in (None, scenario.name) or (
            only is None and kind.scenarios and scenario.name not in kind.scenarios
        ):
            continue
        operations = found.operations(scenario)
        numbers = (
            kind.at(operations)[:: every * kind.every * scenario.share] if at is None else [at]
        )
        for number in numbers:
            job = kind.job(scenario, number)
            jobs.append((f"{kind.title}, {scenario.name!r} at {number}", job))
    return jobs


def try_all(
    tally: Tally,
    found: Servers,
    kind: Kind,
    every: int = 1,
    only: str | None = None,
    at: int | None = None,
) -> None:
    """Try the `points` of a kind, and add them to the tally."""
    todo = points(found, kind, every, only, at)
    progress = Progress(kind.title, len(todo))
    bad = 0
    for (where, _), reply in zip(todo, found.map([job for _, job in todo]), strict=True):
        tally.add(f"{where}, {reply['operation']}", reply["faults"])
        bad += any(reply["faults"].values())
        progress.step(bad)
        if os.environ.get("FAULTS_KEEP"):
            print(f"{where}, {reply['operation']}: {reply['kept']}", file=sys.stderr)
