"""Compile C kernels for this machine, once for each combination of their constants."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path

from diffhash._warnings import warn

_SOURCES = Path(__file__).parent / "csrc"
# Without -ffast-math, which would change the results for NaN and infinity.
_FLAGS = (
    *("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"),
    *("-fopenmp-simd", "-fPIC", "-shared", "-pthread"),
)
# The compiled libraries of a wheel: a folder for each instruction set of `instruction_sets`.
_PREBUILT = Path(__file__).parent / "prebuilt"
TIMEOUT = 120.0  # in seconds; the largest kernels take a few seconds
_DIGEST = hashlib.sha256
_hung: set[str] = set()  # compilers that exceeded the timeout, which are not tried again
_told: set[tuple[str, str]] = set()  # see `warn_slower`


class CompilerError(RuntimeError):
    """The kernels cannot be compiled on this machine; the message has the reason."""


def warn_slower(what: str, how_much: str, error: CompilerError) -> None:
    """Warn, once for each reason, that torch computes ``what`` instead, slower by ``how_much``."""
    if (what, str(error)) not in _told:
        _told.add((what, str(error)))
        warn(f"{what} are computed by torch, {how_much} slower: {error}")


@cache
def compiled(source: str | Path, code: str = "", **constants: str | int) -> ctypes.CDLL:
    """The library of a C file with these macros: from the wheel, from the cache, or compiled now.

    ``source`` is the name of a file in ``csrc``, or a path; ``code`` is included before it.

    A wheel may have the library for an instruction set of this processor; otherwise it is compiled.
    The compiler is ``$CC``, which may include flags, or cc, gcc or clang. The cache is
    ``$DIFFHASH_CACHE``, or ``diffhash`` in ``$XDG_CACHE_HOME`` or ``~/.cache``. Libraries are code,
    so the folder must belong to the user and be writable by nobody else. If ``$DIFFHASH_CACHE`` is
    not such a folder, it is refused; any other such folder is replaced by a temporary folder, with
    a warning.

    Raises:
        CompilerError: there is no compiler, it failed, or there is no folder for the library.
    """
    library = _library(_SOURCES / source, code, constants)
    try:
        parallel_for = ctypes.c_void_p.in_dll(library, "parallel_for")
    except ValueError:  # the library has no use of threads
        return library
    pool = _library(_SOURCES / "threads.c", "", {}).parallel_for
    parallel_for.value = ctypes.cast(pool, ctypes.c_void_p).value
    return library


def prebuild(
    folder: Path, instruction_set: str, source: str, code: str = "", **constants: str | int
) -> None:
    """Compile the library that `compiled` will find in a wheel for these arguments, into the folder
    of its instruction set.

    Raises:
        CompilerError: as for `compiled`.
    """
    path, small = _SOURCES / source, ["-s"] if sys.platform == "linux" else []
    flags = [flag.replace("=native", f"={instruction_set}") for flag in _FLAGS]
    command = [*_compiler(), *flags, *small, *_arguments(path, constants)]
    name = _name(path, *_contents(path, code, constants))
    folder = folder / instruction_set
    folder.mkdir(parents=True, exist_ok=True)
    _compile(command, code, folder, name)
    (folder / name).chmod(0o755)


def _library(source: Path, code: str, constants: Mapping[str, str | int]) -> ctypes.CDLL:
    contents = _contents(source, code, constants)
    for instruction_set in supported_sets() if _PREBUILT.is_dir() else ():
        with suppress(OSError):
            return ctypes.CDLL(str(_PREBUILT / instruction_set / _name(source, *contents)))
    command = [*_compiler(), *_FLAGS, *_arguments(source, constants)]
    folder = _folder()
    name = _name(source, *command, *contents, _processor())
    try:
        if _is_intact(folder / name):
            with suppress(OSError):  # another machine's C library: compile anew
                return ctypes.CDLL(str(folder / name))
        return _compile(command, code, folder, name)
    except OSError as error:
        raise CompilerError(f"cannot compile into {folder}: {error}") from error


def _arguments(source: Path, constants: Mapping[str, str | int]) -> list[str]:
    return [f"-I{_SOURCES}", *_definitions(constants), str(source)]


def _definitions(constants: Mapping[str, str | int]) -> list[str]:
    return [f"-D{name}={value}" for name, value in constants.items()]


def _contents(source: Path, code: str, constants: Mapping[str, str | int]) -> list[str]:
    """Everything on which a library depends, except the compiler."""
    sources = [source, *sorted({*source.parent.glob("*.h"), *_SOURCES.glob("*.h")})]
    texts = (file.read_text(encoding="utf-8") for file in sources)
    return [*_definitions(constants), code, *texts]


def _name(source: Path, *key: str) -> str:
    digest = hashlib.sha256("\0".join(key).encode(errors="surrogateescape")).hexdigest()[:16]
    return f"{source.stem}-{digest}.so"


def _is_intact(library: Path) -> bool:
    """Whether a library exists unchanged since its compilation by this user, and could not be
    changed by other users."""
    try:
        status = library.stat()
        content = library.read_bytes()
    except FileNotFoundError:
        return False
    size = _DIGEST().digest_size
    return _is_own(status) and _DIGEST(content[:-size]).digest() == content[-size:]


def _compile(command: list[str], code: str, folder: Path, name: str) -> ctypes.CDLL:
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        new = Path(temporary) / name
        if code:
            header = Path(temporary) / "code.h"
            header.write_text(code, encoding="utf-8")
            command = [*command, "-include", str(header)]
        _run([*command, "-o", str(new)], Path(temporary) / "output")
        if not new.is_file():
            raise CompilerError(f"cannot compile into {folder}: {command[0]} made no library")
        content = new.read_bytes()
        new.write_bytes(content + _DIGEST(content).digest())  # loaders ignore bytes after the end
        new.chmod(0o700)
        try:
            library = ctypes.CDLL(str(new))
        except OSError as error:  # the library is not kept
            raise CompilerError(f"cannot load what {command[0]} made: {error}") from error
        new.replace(folder / name)  # atomic, so that no process loads half a library
    return library


def _run(command: list[str], output: Path) -> None:
    """Run a compiler to its end, or kill it and its children."""
    hung = CompilerError(f"{command[0]} did not finish in {TIMEOUT:g} seconds")
    if command[0] in _hung:
        raise hung
    with output.open("w+b") as file:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            status = process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            _hung.add(command[0])
            raise hung from None
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        file.seek(0)
        said = file.read().decode(errors="replace").strip()
    if status:
        raise CompilerError(f"{shlex.join(command)} failed: {said or f'exit status {status}'}")


def _compiler() -> list[str]:
    if os.name != "posix":
        raise CompilerError("kernels are compiled on POSIX systems alone")
    if named := os.environ.get("CC"):
        return shlex.split(named)
    for name in ("cc", "gcc", "clang"):
        if path := shutil.which(name):
            return [path]
    raise CompilerError("there is no C compiler here (cc, gcc, clang, or the one that CC names)")


def _folder() -> Path:
    """The folder of the cache, which is made if it is missing."""
    if named := os.environ.get("DIFFHASH_CACHE"):
        return _own_folder(Path(named))
    try:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"  # home() may fail
        folder = Path(home) / "diffhash"
        if folder.is_dir() and not folder.is_symlink() and folder.stat().st_uid == os.geteuid():
            folder.chmod(0o700)  # named by diffhash, but perhaps made with a loose umask
        return _own_folder(folder)
    except (RuntimeError, OSError) as error:
        return _temporary_folder(str(error))


def _own_folder(folder: Path) -> Path:
    try:
        if not folder.exists():
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        own = _is_own(folder.stat())
    except OSError as error:
        raise CompilerError(f"cannot compile into {folder}: {error}") from error
    if not own:
        raise CompilerError(
            f"{folder} must belong to this user and be writable by nobody else, since what it "
            f"holds is executed: `chmod go-w` it, or name another folder with DIFFHASH_CACHE"
        )
    return folder


def _is_own(status: os.stat_result) -> bool:
    loose = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return status.st_uid == os.geteuid() and not loose


@cache
def _temporary_folder(reason: str) -> Path:
    try:
        folder = tempfile.TemporaryDirectory(prefix="diffhash-", ignore_cleanup_errors=True)
    except OSError as error:
        raise CompilerError(f"no folder to compile into: {reason}; {error}") from error
    _kept.append(folder)
    warn(
        f"kernels are compiled anew in every process, which takes seconds: {reason} "
        "(DIFFHASH_CACHE names a folder for them)"
    )
    return Path(folder.name)


_kept: list[tempfile.TemporaryDirectory[str]] = []  # kept until the process ends


@cache
def _processor() -> str:
    """A description of the processor, on which -march=native depends, because different machines
    may share a home directory."""
    names = ("flags", "Features", "model name")
    return "\n".join(line for line in _cpuinfo() if line.startswith(names))


def instruction_sets() -> tuple[str, ...]:
    """The instruction sets for which wheels for this kind of machine have libraries, best first."""
    machine = platform.machine()
    if machine == "x86_64":
        return (*_X86_FLAGS,)
    return ("armv8-a",) if machine in ("aarch64", "arm64") else ()


@cache
def supported_sets() -> tuple[str, ...]:
    """The sets of `instruction_sets` that this processor supports, best first."""
    [line] = [line for line in _cpuinfo() if line.startswith("flags")][:1] or [""]
    flags = set(line.split())
    every = instruction_sets()
    return tuple(name for name in every if flags.issuperset(_X86_FLAGS.get(name, "").split()))


# By the names of their instructions in Linux.
_X86_FLAGS = {
    "x86-64-v4": "avx512f avx512bw avx512cd avx512dq avx512vl avx2 bmi1 bmi2 f16c fma abm movbe",
    "x86-64-v3": "avx avx2 bmi1 bmi2 f16c fma abm movbe xsave",
    "x86-64-v2": "cx16 popcnt sse4_1 sse4_2 ssse3",
}


@cache
def _cpuinfo() -> list[str]:
    """The lines of /proc/cpuinfo about the first processor."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return text.split("\n\n")[0].splitlines()
