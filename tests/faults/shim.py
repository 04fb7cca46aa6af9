"""The C library that is compiled on use and preloaded into the processes that run points."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

COUNT, KILL, KILL_IN_WRITE, FAIL_ONCE, FAIL_FROM = range(5)


class Operation(NamedTuple):
    """A call that changes files: whether it can take space on the disk, its name, its path."""

    takes_space: bool
    name: str
    path: str

    def __str__(self) -> str:
        return f"{self.name}({self.path})"


def compiler() -> str | None:
    """A C compiler, if there is one."""
    return next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)


def available() -> bool:
    """Whether calls can be counted here."""
    return sys.platform == "linux" and compiler() is not None


def build(folder: Path) -> Path:
    """Compile the shim into ``folder``."""
    source, library = Path(__file__).with_name("shim.c"), folder / "shim.so"
    command = [str(compiler()), "-O1", "-fPIC", "-shared", "-o", str(library), str(source), "-ldl"]
    subprocess.run(command, check=True)
    return library


class Shim:
    """The counts of the preloaded library in this process and in those that it forks."""

    def __init__(self) -> None:
        self._state = None

    @cached_property
    def _library(self) -> Any:
        library: Any = ctypes.CDLL(None)  # what is loaded
        library.fault_new.restype = ctypes.c_void_p
        for name in ("count", "fired", "log"):
            getattr(library, f"fault_{name}").argtypes = [ctypes.c_void_p]
        library.fault_count.restype = library.fault_fired.restype = ctypes.c_long
        library.fault_log.restype = ctypes.c_char_p
        library.fault_free.argtypes = [ctypes.c_void_p]
        library.fault_arm.argtypes = [*(ctypes.c_char_p, ctypes.c_int, ctypes.c_long, ctypes.c_int)]
        return library

    @contextmanager
    def counting(self) -> Iterator[Shim]:
        """Count calls of the processes that are forked inside, after they `arm`."""
        self._state = self._library.fault_new()
        if not self._state:
            raise MemoryError
        yield self
        self._library.fault_free(self._state)

    def arm(self, folder: Path, mode: int, at: int, error: int) -> None:
        """Count the calls of this process below ``folder`` from now on, and disturb call ``at``."""
        self._library.fault_arm(os.fsencode(folder.resolve()), mode, at, error)

    @property
    def fired(self) -> int:
        return self._library.fault_fired(self._state)

    @property
    def operations(self) -> list[Operation]:
        lines = os.fsdecode(self._library.fault_log(self._state)).splitlines()
        fields = (line.split("\t", 2) for line in lines)
        return [Operation(space == "1", name, path) for space, name, path in fields]
