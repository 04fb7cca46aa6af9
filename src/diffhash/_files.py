"""Atomic writes: a file has its old or its new content, never a part."""

from __future__ import annotations

import errno
import os
import zlib
from collections.abc import Callable
from pathlib import Path

_MAX_STEM = 200
# The errors of file systems that cannot flush a folder.
_NOT_FOR_FOLDERS = (errno.EINVAL, errno.ENOTSUP, errno.EBADF)


def write_file_atomically(path: Path | str, write: Callable[[Path], object]) -> Path:
    """Call ``write`` on a temporary file beside ``path``, flush that file and move it to ``path``.

    Readers get the old content or the new, never a part. The temporary file keeps ``path``'s
    suffix; the folder is made if absent, and its new entry is flushed, too.

    Raises:
        OSError: the file cannot be written; the error names ``path``, whose content is unchanged.
        Exception: any exception of ``write``.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    stem = path.stem
    if len(os.fsencode(stem)) > _MAX_STEM:  # so that the temporary name is no longer than allowed
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
            raise OSError(error.errno, error.strerror, str(path)) from error  # names the file
        raise
    return path


def write_text_atomically(path: Path | str, text: str) -> Path:
    """Write ``text`` to ``path``, see `write_file_atomically`.

    Characters that UTF-8 cannot encode (from names that were not text) are written as ``\\udc80``.
    """
    return write_bytes_atomically(path, text.encode("utf-8", errors="backslashreplace"))


def write_bytes_atomically(path: Path | str, content: bytes) -> Path:
    """Write ``content`` to ``path``, see `write_file_atomically`."""
    return write_file_atomically(path, lambda temporary: temporary.write_bytes(content))


def flush(path: Path) -> None:
    """Flush a file, or a folder's entries, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NOT_FOR_FOLDERS:
            raise
    finally:
        os.close(descriptor)
