"""Functions called in forked processes: their end, output and surviving processes."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

HANG = -signal.SIGABRT  # code of one that had to be ended
_ORPHANS = 5.0  # seconds that processes may outlive the one that started them


@dataclass(frozen=True)
class Ended:
    """A process that has ended.

    ``code`` is negative for a signal, as in `subprocess`. ``outlived`` are processes of its session
    that were still running some seconds later, and were then ended.
    """

    code: int
    out: str
    err: str
    outlived: list[int]


def call(function: Callable[[], object], files: Path, seconds: float) -> Ended:
    """Call ``function`` in a new session like a command, with an exit code and a traceback.

    Args:
        function: the function, whose value is ignored.
        files: the path of the output files, without their endings ``.out`` and ``.err``.
        seconds: the time after which the call counts as hung.
    """
    paths = [files.with_name(f"{files.name}.{end}") for end in ("out", "err")]
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    pid = os.fork()
    if pid == 0:
        _child(function, paths)
    code = _wait(pid, seconds)
    outlived = _end_session(pid)
    return Ended(code, *(path.read_text(errors="replace") for path in paths), outlived)


def _child(function: Callable[[], object], paths: list[Path]) -> None:
    """Call ``function`` in the forked process, and exit without returning."""
    code = 1
    try:
        os.setsid()
        for number, path in enumerate(paths, 1):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        sys.stdout, sys.stderr = (os.fdopen(n, "w", buffering=1) for n in (1, 2))
        signal.signal(signal.SIGINT, signal.default_int_handler)
        function()
        code = 0
    except SystemExit as stop:
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)


def _wait(pid: int, seconds: float) -> int:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(pid, signal.SIGABRT)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _end_session(leader: int) -> list[int]:
    deadline = time.monotonic() + _ORPHANS
    while members := _members(leader):
        if time.monotonic() > deadline:
            for pid in members:
                os.kill(pid, signal.SIGKILL)
            return members
        time.sleep(0.02)
    return []


def _members(session: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                after = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(after[3]) == session and after[0] != "Z":
                found.append(int(entry.name))
    return found


def telling_line(text: str) -> str:
    """The most informative line of a command's standard error."""
    lines = text.strip().splitlines() or ["(nothing)"]
    named = [line for line in lines if re.match(r"([\w.]+\.)?\w*(Error|Exception|error)\b", line)]
    return (named or lines)[-1][:300]
