"""Reading the files of records, which may come from untrusted sources, with checks.

Nothing here runs code of a file, resolves its interpolations, or waits for a pipe. Any defect of a
file is a `RecordError`, so that a reader of many records can report one and continue with the
others.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Container, Iterable, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from diffhash.results.formats import printable

if TYPE_CHECKING:
    import pandas as pd

_MAX_DEPTH, _MAX_NODES = 32, 100_000  # the largest depth and number of nodes of a config
_MAX_CONFIG_BYTES, _MAX_TABLE_BYTES, _MAX_MESSAGE = 1_000_000, 2_000_000_000, 1000
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class RecordError(ValueError):
    """A record that cannot be read or does not fit the others; the message, one line, names it."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


def corrupt(path: Path, what: str) -> RecordError:
    """The error for a corrupt file of a record."""
    return RecordError(f"corrupt file {path}: {what}")


def brief(error: BaseException) -> str:
    """The message of an error as one line of bounded length."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _MAX_MESSAGE else f"{text[:_MAX_MESSAGE]}…"


def read_bytes(path: Path, limit: int) -> bytes:
    """The content of a regular file, without waiting for a pipe or a device.

    Raises:
        FileNotFoundError, NotADirectoryError: there is no such file.
        ValueError: the file cannot be read, is no regular file, or has more than ``limit`` bytes.
    """
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ValueError("not a file")
            content = file.read(limit + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror or error})") from error
    if len(content) > limit:
        raise ValueError(f"more than {limit / 1e6:.3g} MB")
    return content


def read_config(path: Path) -> dict[str, Any]:
    """The settings of a run's config as YAML's own values; interpolations stay text.

    Raises:
        FileNotFoundError, NotADirectoryError: there is no such file.
        RecordError: the file is no config; the message names its path.
    """
    try:
        text = read_bytes(path, _MAX_CONFIG_BYTES).decode("utf-8")
        _check_yaml(text)
        settings = yaml.load(text, Loader=_LOADER)
        if not isinstance(settings, dict) or not all(isinstance(key, str) for key in settings):
            raise ValueError("no settings")
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise corrupt(path, brief(error)) from error
    return settings


def _check_yaml(text: str) -> None:
    """Refuse aliases, by which a few lines repeat a value a million times, and too deep nesting."""
    depth = 0
    for count, event in enumerate(yaml.parse(text, Loader=_LOADER)):
        if isinstance(event, yaml.AliasEvent):
            raise ValueError(f"an alias, *{event.anchor}")
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > _MAX_DEPTH:
            raise ValueError(f"nested more than {_MAX_DEPTH} deep")
        if count > _MAX_NODES:
            raise ValueError(f"more than {_MAX_NODES} settings")


def read_table(path: Path, columns: Sequence[str], *, numbers: bool = False) -> pd.DataFrame:
    """Read a CSV file that must have the given columns.

    Args:
        path: the path of the file.
        columns: the names of required columns; further columns are read, too.
        numbers: whether the file must have nothing but numbers, and every line must be complete.

    Raises:
        FileNotFoundError: there is no such file.
        RecordError: the file is no such table; the message names its path.
    """
    import pandas as pd

    try:
        text = read_bytes(path, _MAX_TABLE_BYTES)
        if b"\0" in text:
            raise ValueError("a NUL byte")
        if numbers:
            _check_lines(text)
        frame = pd.read_csv(BytesIO(text))
        head = pd.read_csv(BytesIO(text), header=None, nrows=1, dtype=str).iloc[0]
    except (ValueError, OverflowError, pd.errors.ParserError) as error:
        raise corrupt(path, brief(error)) from error
    check_columns(path, columns, frame.columns)
    if head.duplicated().any():
        raise corrupt(path, f"two columns {head[head.duplicated()].iloc[0]}")
    other = [str(c) for c in frame.columns if frame[c].dtype.kind not in "iuf"]
    if numbers and other and len(frame):  # a run that diverged at once has only a header
        raise corrupt(path, f"not a number in column {', '.join(other)}")
    return frame


def check_columns(path: Path, needed: Iterable[str], columns: Container[str]) -> None:
    """Raise `RecordError` for a table that lacks a column."""
    if missing := [name for name in needed if name not in columns]:
        raise corrupt(path, f"no column {', '.join(missing)}")


def _check_lines(text: bytes) -> None:
    head, *lines = text.split(b"\n")
    n_columns = head.count(b",") + 1
    for number, line in enumerate(lines[:-1], 2):
        if (found := line.count(b",") + 1) != n_columns:
            raise ValueError(f"Expected {n_columns} fields in line {number}, saw {found}")
    if lines and lines[-1]:
        raise ValueError("its last line is cut short")
