"""Compile C kernels for this machine, once for each combination of their constants."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

_HERE = Path(__file__).parent
# NaN and infinity keep their meaning: no -ffast-math.
_FLAGS = (
    *("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"),
    *("-fopenmp-simd", "-fPIC", "-shared", "-pthread"),
)


class CompilerError(RuntimeError):
    """There is no C compiler here that can build the kernels; the message says why."""


@cache
def compiled(source: Path, **constants: str | int) -> ctypes.CDLL:
    """The library of a C file with these macros defined, from the cache or newly compiled.

    The cache is ``$DIFFHASH_CACHE``, or ``diffhash`` in ``$XDG_CACHE_HOME`` or ``~/.cache``.

    Raises:
        CompilerError: no compiler, or one that failed.
    """
    library = _library(source, constants)
    try:
        share_out = ctypes.c_void_p.in_dll(library, "share_out")
    except ValueError:  # it shares nothing out
        return library
    pool = _library(_HERE / "threads.c", {}).share_out
    share_out.value = ctypes.cast(pool, ctypes.c_void_p).value
    return library


def _library(source: Path, constants: Mapping[str, str | int]) -> ctypes.CDLL:
    definitions = [f"-D{name}={value}" for name, value in constants.items()]
    command = [*_compiler(), *_FLAGS, f"-I{_HERE}", *definitions, str(source)]
    sources = [source, *sorted({*source.parent.glob("*.h"), *_HERE.glob("*.h")})]
    key = "\0".join([*command, *(file.read_text() for file in sources), _processor()])
    digest = hashlib.sha256(key.encode()).hexdigest()[:16]
    library = _cache() / f"{source.stem}-{digest}.so"
    if not library.exists():
        _compile(command, library)
    try:
        return ctypes.CDLL(str(library))
    except OSError as error:
        raise CompilerError(f"cannot load {library}: {error}") from error


def _compile(command: list[str], library: Path) -> None:
    try:
        library.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=library.parent) as folder:
            new = Path(folder) / library.name
            subprocess.run([*command, "-o", str(new)], check=True, capture_output=True, text=True)
            new.replace(library)  # atomic: another process never loads half a library
    except subprocess.CalledProcessError as error:
        raise CompilerError(f"{shlex.join(command)} failed: {error.stderr.strip()}") from error
    except OSError as error:
        raise CompilerError(f"cannot compile into {library.parent}: {error}") from error


def _compiler() -> list[str]:
    if named := os.environ.get("CC"):
        return shlex.split(named)
    for name in ("cc", "gcc", "clang"):
        if path := shutil.which(name):
            return [path]
    raise CompilerError("there is no C compiler here (cc, gcc, clang, or the one that CC names)")


def _cache() -> Path:
    if named := os.environ.get("DIFFHASH_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "diffhash"


@cache
def _processor() -> str:
    """What -march=native depends on: a home directory may be shared by different machines."""
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return ""
    names = ("flags", "Features", "model name")
    lines = cpuinfo.read_text().split("\n\n")[0].splitlines()
    return "\n".join(line for line in lines if line.startswith(names))
