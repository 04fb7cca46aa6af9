"""Atomic writes: a file is the old one or the new one, never a part."""

from __future__ import annotations

import errno
import os
import zlib
from collections.abc import Callable
from pathlib import Path

_MAX_STEM = 200
# What file systems that cannot flush a folder answer.
_NOT_FOR_FOLDERS = (errno.EINVAL, errno.ENOTSUP, errno.EBADF)


def write_file_atomically(path: Path | str, write: Callable[[Path], object]) -> Path:
    """Let ``write`` fill a temporary file beside ``path``, then flush it and move it over ``path``.

    Readers see the old content or the new, never a part. The temporary file keeps ``path``'s
    suffix; the folder is made if absent, and its new entry is flushed, too.

    Raises:
        OSError: it cannot be written; the error names ``path``, whose content is as it was.
        Exception: whatever ``write`` raises.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    stem = path.stem
    if len(os.fsencode(stem)) > _MAX_STEM:  # the whole name is to fit where the file's own does
        stem = f"{zlib.crc32(os.fsencode(stem)):08x}"
    temporary = path.with_name(f".{stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        try:
            write(temporary)
            flush(temporary)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        flush(path.parent)
    except OSError as error:
        if error.errno is not None and error.filename in (None, str(temporary)):
            raise OSError(error.errno, error.strerror, str(path)) from error  # which file it was
        raise
    return path


def write_text_atomically(path: Path | str, text: str) -> Path:
    """Write ``text`` to ``path``, see `write_file_atomically`.

    What UTF-8 cannot hold (of names that were not text) is written as ``\\udc80``.
    """
    return write_bytes_atomically(path, text.encode("utf-8", errors="backslashreplace"))


def write_bytes_atomically(path: Path | str, content: bytes) -> Path:
    """Write ``content`` to ``path``, see `write_file_atomically`."""
    return write_file_atomically(path, lambda temporary: temporary.write_bytes(content))


def flush(path: Path) -> None:
    """Have the system write a file, or a folder's entries, to disk now."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NOT_FOR_FOLDERS:
            raise
    finally:
        os.close(descriptor)
