"""Exit codes, errors and output of all command lines of the project.

This module imports nothing slow, so that Ctrl-C and errors are handled from the start.
"""

from __future__ import annotations

import atexit
import errno
import gc
import io
import logging
import os
import signal
import sys
import warnings
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
    standard error, with the exit code 130 for Ctrl-C and 1 for the others. A character that the
    terminal's encoding lacks is replaced. A closed pipe ends the command without a message.

    Args:
        name: the name of the command, with which that line begins.
        main: a function that returns the exit code.
        errors: the exceptions of ``main`` for bad input, whose message is that line.
        interrupted: the message for Ctrl-C.
    """
    plain_output()
    atexit.register(gc.freeze)  # no garbage collection when the process ends
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


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    """Print a warning without the line of code that caused it, which is none of the user's."""
    print(f"warning: {message}", file=sys.stderr)


def plain_output() -> None:
    """Replace characters that the encoding of standard output or error lacks, and show warnings as
    one line."""
    warnings.showwarning = _show_warning
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


@contextmanager
def without_collection() -> Iterator[None]:
    """Pause garbage collection, which takes a third of the time of imports and finds nothing."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextmanager
def one_line_interrupt(name: str, interrupted: str = "interrupted") -> Iterator[None]:
    """End the process with one line and the exit code 130 if Ctrl-C interrupts the block."""
    try:
        yield
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C changes nothing
        logging.disable()  # torch logs statistics when the process ends
        print(f"{name}: {interrupted}", file=sys.stderr)
        _discard_output()
        raise SystemExit(INTERRUPTED) from None


def os_error_line(error: OSError) -> str:
    """A line about an error of the system: the file, the reason, and a remedy."""
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
    """Discard remaining output, because writing it when the interpreter ends would fail again."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        with suppress(OSError, ValueError):  # output is no file in tests
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
