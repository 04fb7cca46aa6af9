"""Files of records, which anyone may have written: read without waiting for them, and checked.

Nothing here runs or resolves what a file says. What is wrong with a file is one `RecordError`, so
that whoever reads many records can name the bad one and go on with the others.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Callable, Mapping
from io import StringIO
from pathlib import Path
from typing import Any

import yaml

from diffhash.results.formats import printable

_MAX_DEPTH = 32  # of nested values; our own have 4
_MAX_DIGITS = 19  # of an integer: 64 bits
_MAX_CONFIG_BYTES, _MAX_NODES = 1_000_000, 100_000
_MAX_MESSAGE = 1000
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class RecordError(ValueError):
    """A record that cannot be read or does not fit the others; the message, one line, names it."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


def read_bytes(path: Path, limit: int) -> bytes:
    """The content of a regular file; a pipe or a device is not waited for.

    Raises:
        FileNotFoundError, NotADirectoryError: no such file.
        ValueError: it cannot be read, is no regular file, or has more than ``limit`` bytes.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise ValueError("not a file")
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


def read_json(path: Path, limit: int) -> Any:
    """A JSON file without anything that JSON, or a number of 64 bits, cannot say.

    Raises:
        FileNotFoundError, NotADirectoryError: no such file.
        ValueError: it is no such file.
    """
    text = read_bytes(path, limit).decode("utf-8")
    try:
        value = json.loads(
            text,
            object_pairs_hook=_unique,
            parse_constant=_reject_constant,
            parse_float=_finite,
            parse_int=_integer,
        )
        _check_depth(value)
    except RecursionError:
        raise ValueError(f"nested more than {_MAX_DEPTH} deep") from None
    return value


def plain_config(path: Path) -> dict[str, Any]:
    """The settings of a run's config as YAML's own values.

    Raises:
        FileNotFoundError, NotADirectoryError: no such file.
        RecordError: it is not such a file; the message names its path.
    """
    return _load_config(path, lambda text: yaml.load(text, Loader=_LOADER))


def read_config(path: Path) -> dict[str, Any]:
    """The settings of a run's config as OmegaConf reads them; interpolations stay text.

    Raises:
        FileNotFoundError, NotADirectoryError: no such file.
        RecordError: it is not such a file; the message names its path.
    """
    from omegaconf import OmegaConf

    return _load_config(path, lambda text: OmegaConf.to_container(OmegaConf.load(StringIO(text))))


def _load_config(path: Path, load: Callable[[str], Any]) -> dict[str, Any]:
    try:
        text = read_bytes(path, _MAX_CONFIG_BYTES).decode("utf-8")
        _check_yaml(text)
        settings = load(text)
        if not isinstance(settings, Mapping) or not all(isinstance(key, str) for key in settings):
            raise ValueError("no settings")
    except (FileNotFoundError, NotADirectoryError):
        raise
    # OmegaConf's errors have no base of their own but Exception.
    except Exception as error:
        raise RecordError(f"corrupt file {path}: {brief(error)}") from error
    return {str(key): value for key, value in settings.items()}


def _check_yaml(text: str) -> None:
    """Refuse aliases, by which a few lines say a thing a million times, and what is too deep."""
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


def brief(error: BaseException) -> str:
    """What an error says, in one line of bounded length."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _MAX_MESSAGE else f"{text[:_MAX_MESSAGE]}…"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(n for n in names if names.count(n) > 1)} is given twice")
    return values


def _reject_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is larger than any number")
    return value


def _integer(text: str) -> int:
    if len(text) > _MAX_DIGITS + 1 or abs(value := int(text)) >= 2**63:
        raise ValueError(f"{text[:40]}… has more digits than 64 bits")
    return value


def _check_depth(value: Any, depth: int = 0) -> None:
    if depth > _MAX_DEPTH:
        raise ValueError(f"nested more than {_MAX_DEPTH} deep")
    if isinstance(value, (dict, list)):
        for item in value.values() if isinstance(value, dict) else value:
            _check_depth(item, depth + 1)
