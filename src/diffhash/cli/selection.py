"""Records as flat rows of named values, and filters and order of records."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any

from diffhash.paper.timing import TIMINGS
from diffhash.results.reading import read_config
from diffhash.results.record import (
    CONFIG_FILE,
    OnProblem,
    RecordError,
    RunRecord,
    find_records,
)

ABSENT = "–"
"""Stands for a setting that a run does not have."""

_PLACES = ("name", "run_dir", "runs_dir", "ckpt_path")  # settings that do not change results
_NO_COLUMN = {  # overrides without a column: they have another column, or do not change results
    *_PLACES, "encoder", "encoder/preset", "problem", "task", "seed", "seeds", "trainer.epochs",
    "trainer.chunk", "optimizer._target_", "resume", "logger", "launcher", "objective",
}  # fmt: skip


class SelectionError(ValueError):
    """No record has the key of a filter or of the order."""


@dataclass(frozen=True)
class Entry:
    """A record and its directory."""

    directory: Path
    record: RunRecord

    @cached_property
    def fields(self) -> dict[str, Any]:
        """The record's fields; entries of the environment have names as ``environment.torch``."""
        return flatten(self.record.flat())

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The run's config with names as ``encoder.encoding.n_levels``; ``optimizer`` is the name
        by which the optimizer is chosen.

        Raises:
            RecordError: the config is missing or corrupt.
        """
        path = self.directory / CONFIG_FILE
        try:
            settings = read_config(path)
        except FileNotFoundError as error:
            raise RecordError(f"{path}: there is no such file") from error
        flat = {k: v for k, v in flatten(settings).items() if k not in _PLACES}
        return flat | {"optimizer": _optimizer(flat)}

    def get(self, key: str) -> Any:
        """A field or a setting; None if this run has neither."""
        return self.fields[key] if key in self.fields else self.settings.get(key)


def flatten(values: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """``{"a": {"b": 1}}`` as ``{"a.b": 1}``; lists are values."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def find_entries(folder: Path, on_problem: OnProblem, *, timings: bool = False) -> list[Entry]:
    """The records below ``folder``, without the short runs that time the tables' rows.

    Args:
        folder: the folder that is searched.
        on_problem: a function that is called with the error of each record that cannot be read,
            which is left out.
        timings: whether those short runs are included.
    """
    entries = [Entry(directory, record) for directory, record in find_records(folder, on_problem)]
    return [e for e in entries if timings or TIMINGS not in e.directory.relative_to(folder).parts]


def select(entries: Iterable[Entry], filters: Sequence[str], on_problem: OnProblem) -> list[Entry]:
    """The entries that pass every filter ``key=value,value…``.

    A value is a number, a word, ``null``, or a pattern such as ``table2/*``. If a key is a setting,
    entries whose config is missing or corrupt are left out, and ``on_problem`` is called with the
    error.

    Raises:
        SelectionError: a filter has no ``=``, or no entry has its key.
    """
    kept = list(entries)
    for text in filters:
        key, equals, values = text.partition("=")
        if not equals or not key:
            raise SelectionError(f"--where {text}: give KEY=VALUE, such as encoder=cubic,s2")
        kept = _with_key(f"--where {text}", key, kept, on_problem)
        wanted = values.split(",")
        kept = [e for e in kept if any(_matches(e.get(key), value) for value in wanted)]
    return kept


def sort(
    entries: Iterable[Entry], key: str, on_problem: OnProblem, *, descending: bool = False
) -> list[Entry]:
    """The entries in the order of a field or setting; entries without a value, or with NaN, are
    last. Configs that are missing or corrupt are handled as in `select`.

    Raises:
        SelectionError: no entry has the key.
    """
    entries = _with_key(f"--sort {key}", key, list(entries), on_problem)
    has = [e for e in entries if e.get(key) is not None]
    has.sort(key=lambda e: _order(e.get(key)), reverse=descending)
    return has + [e for e in entries if e.get(key) is None]


def differing(entries: Iterable[Entry]) -> dict[str, list[str]]:
    """The optimizer, and the settings on the command line of any run, if they differ between runs:
    for each setting the value in every run, as text."""
    rows = []
    for entry in entries:
        given = (text.lstrip("+~").partition("=") for text in entry.record.overrides)
        values = {key: value for key, _, value in given if key not in _NO_COLUMN}
        try:
            settings = entry.settings
        except RecordError:  # without a config, use the command line alone
            settings = {}
        rows.append((values, settings))
    keys = dict.fromkeys(("optimizer", *(key for values, _ in rows for key in values)))
    columns = {
        key: [
            text_of(settings[key]) if key in settings else values.get(key, ABSENT)
            for values, settings in rows
        ]
        for key in keys
    }
    return {key: column for key, column in columns.items() if len(set(column)) > 1}


def text_of(value: Any) -> str:
    """A value as text in the notation of a config."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def _with_key(
    option: str, key: str, entries: Sequence[Entry], on_problem: OnProblem
) -> list[Entry]:
    """The entries whose value under ``key`` can be read."""
    readable = []
    for entry in entries:
        try:
            entry.get(key)
            readable.append(entry)
        except RecordError as error:
            on_problem(error)
    if not readable or any(key in e.fields for e in readable):
        return readable
    known = {name for e in readable for name in (*e.fields, *e.settings)}
    if key not in known:
        fields = {name for e in readable for name in e.fields}
        near = get_close_matches(key, known, 3) or sorted(fields)
        raise SelectionError(f"{option}: no record here has {key}; it could be {', '.join(near)}")
    return readable


def _optimizer(settings: Mapping[str, Any]) -> str:
    """The name of an optimizer: ``gauss_newton`` for the class ``GaussNewton``, ``soap`` for
    another package's ``SOAP``."""
    keys = ("optimizer.make_optimizer._target_", "optimizer._target_")
    target = next((str(settings[key]) for key in keys if key in settings), "Adam")
    return re.sub("(?<=[a-z])(?=[A-Z])", "_", target.rpartition(".")[2]).lower()


def _order(value: Any) -> tuple[float, str]:
    """A key for sorting: numbers by size, then words by the alphabet."""
    number = _number(value)
    return (math.inf, text_of(value)) if number is None else (number, "")


def _matches(value: Any, wanted: str) -> bool:
    number, other = _number(value), _number(wanted)
    if number is not None and other is not None:
        return number == other
    return fnmatchcase(text_of(value), wanted)


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
