"""Locks: one process at a time writes to a run or to a folder of runs."""

from __future__ import annotations

import fcntl
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from diffhash.experiment.checks import ConfigError
from diffhash.results.formats import printable


@contextmanager
def exclusive(runs_dir: Path) -> Iterator[None]:
    """Keep a second process from writing the same runs.

    Raises:
        ConfigError: another process uses ``runs_dir``, or it cannot be written.
    """
    try:
        runs_dir.mkdir(parents=True, exist_ok=True)
        lock = (runs_dir / ".lock").open("w")
    except OSError as error:
        reason = error.strerror
        raise ConfigError(f"runs folder {runs_dir}: cannot be written ({reason})") from error
    with lock:
        taken = f"runs folder {runs_dir}: another process is using it"
        take_lock(lock.fileno(), runs_dir, "reproduction", taken)
        yield


def take_lock(descriptor: int, path: Path, what: str, taken: str) -> None:
    """Lock an open file or folder; if the file system has no locks, warn and continue.

    Args:
        descriptor: the descriptor of the file, which holds the lock until it is closed.
        path: the name of the file, for the warning.
        what: the kind of process that must not be started there twice, for the warning.
        taken: the message of the error if another process has the lock.

    Raises:
        ConfigError: another process has the lock.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ConfigError(taken) from None
    except OSError as error:
        print(
            f"warning: {printable(str(path))}: cannot be locked ({error.strerror}); start no "
            f"second {what} there",
            file=sys.stderr,
        )
