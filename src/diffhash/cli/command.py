"""What all command lines of the project have in common: exit codes, and tolerant output.

Imports nothing slow, so that Ctrl-C and errors are handled from the first moment on.
"""

from __future__ import annotations

import atexit
import errno
import gc
import io
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

INTERRUPTED = 130
_ADVICE = {
    errno.ENOSPC: "free some space, or give a folder on another disk",
    errno.EDQUOT: "your quota is used up: free some space, or give a folder elsewhere",
    errno.EROFS: "give a folder that can be written",
    errno.EACCES: "give a folder that is yours, or change its permissions",
    errno.EPERM: "give a folder that is yours, or change its permissions",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
}


def run_command(
    name: str,
    main: Callable[[], int | None],
    errors: tuple[type[Exception], ...] = (),
    interrupted: str = "interrupted",
) -> NoReturn:
    """Run ``main`` and end the process with its exit code.

    Ctrl-C, bad input, a file that cannot be read or written and too little memory are one line on
    standard error, with the exit codes 130 and 1. A character that the terminal's encoding lacks is
    replaced. A closed pipe ends it quietly.

    Args:
        name: of the command, for that line.
        main: returns the exit code.
        errors: what ``main`` raises for bad input, whose message is that line.
        interrupted: what the line of Ctrl-C says.
    """
    tolerant_output()
    atexit.register(gc.freeze)  # objects end with the process: no garbage collection
    try:
        with one_line_interrupt(name, interrupted):
            code = main()
            sys.stdout.flush()
    except BrokenPipeError:
        _discard_output()
        code = 1
    except (OSError, MemoryError, *errors) as error:
        _discard_output()
        text = os_error_line(error) if isinstance(error, OSError) else " ".join(str(error).split())
        text = f"out of memory: {text}" if isinstance(error, MemoryError) else text
        print(f"{name}: {_printable(text)}", file=sys.stderr)
        code = 1
    raise SystemExit(code)


def tolerant_output() -> None:
    """Let a character that the encoding of standard output or error lacks be replaced."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


@contextmanager
def one_line_interrupt(name: str, interrupted: str = "interrupted") -> Iterator[None]:
    """Let Ctrl-C in the block end the process with one line and the exit code 130."""
    try:
        yield
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C changes nothing
        print(f"{name}: {interrupted}", file=sys.stderr)
        _discard_output()
        raise SystemExit(INTERRUPTED) from None


def os_error_line(error: OSError) -> str:
    """Which file it was, what is wrong, and what to do about it."""
    where = f"{error.filename}: " if error.filename is not None else ""
    advice = _ADVICE.get(error.errno or 0)
    return f"{where}{error.strerror or error}" + (f"; {advice}" if advice else "")


def left_out(name: str) -> Callable[[ValueError], None]:
    """A function that reports a bad record on standard error, for commands that continue with the
    others."""
    return lambda problem: print(f"{name}: left out: {problem}", file=sys.stderr)


def _printable(text: str) -> str:
    from diffhash.results.formats import printable  # slow to import, and needed only for errors

    return printable(text)


def _discard_output() -> None:
    """Let nothing be written when the interpreter ends, which would fail and be reported again."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        with suppress(OSError, ValueError):  # not a file, as in tests
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
