"""The record of one run: the contract between what runs experiments and what reports them.

A directory is a record if and only if it holds ``result.json``, which is written last and
atomically: a record is complete or absent. Beside it lie ``config.yaml``, ``history.csv``,
``predictions.csv``, ``checkpoint.ckpt`` and ``predictions.png``.
"""

from __future__ import annotations

import json
import math
import os
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pandas as pd

SCHEMA_VERSION = 1
RESULT_FILE = "result.json"
CONFIG_FILE = "config.yaml"
HISTORY_FILE = "history.csv"
PREDICTIONS_FILE = "predictions.csv"
METRICS = ("mse_u", "mse_ux", "mse_uxx", "loss")
_HISTORY_COLUMNS = ("epoch", "seconds", "loss", "mse_u", "mse_ux", "mse_uxx")

Status = Literal["completed", "diverged", "interrupted"]


class RecordError(ValueError):
    """A record that cannot be read or does not fit the others; the message names its path."""


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """Content of ``result.json``; times in seconds, memory in MB (1e6 bytes).

    ``epochs`` counts the epochs done. The metrics (:data:`METRICS`) are ``None`` where they are
    not finite, and all of them are for a diverged run: non-finite values become ``None`` here,
    since JSON has no NaN.

    Raises:
        ValueError: a field of the wrong type or value; the message names the field.
    """

    status: Status
    experiment: str | None
    encoder: str
    preset: str | None
    task: str
    problem: str
    seed: int
    epochs: int
    epochs_requested: int
    diverged_epoch: int | None = None
    learning_rate: float
    mse_u: float | None
    mse_ux: float | None
    mse_uxx: float | None
    loss: float | None
    train_seconds: float
    warmup_seconds: float
    evaluation_seconds: float
    wall_seconds: float
    n_parameters: int
    peak_memory_mb: float
    config_hash: str
    overrides: list[str] = field(default_factory=list)
    environment: dict[str, Any] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for name in METRICS:
            value = getattr(self, name)
            if self.status == "diverged" or (_is_number(value) and not math.isfinite(value)):
                object.__setattr__(self, name, None)
        for item in fields(self):
            value = getattr(self, item.name)
            if not _fits(value, hints[item.name]):
                raise ValueError(f"{item.name} = {value!r}: expected {item.type}")
        if self.schema_version != SCHEMA_VERSION:
            raise ValueError(
                f"schema_version = {self.schema_version}: this version reads {SCHEMA_VERSION}"
            )
        if (self.status == "diverged") != (self.diverged_epoch is not None):
            raise ValueError(
                f"diverged_epoch = {self.diverged_epoch!r} with status {self.status!r}: "
                "an epoch for a diverged run, null for any other"
            )


def write_record(directory: Path | str, record: RunRecord) -> Path:
    """Write ``directory/result.json`` atomically and return its path; write it last.

    Raises:
        ValueError: a number outside the metrics (say in ``environment``) is not finite.
        OSError: the directory cannot be written.
    """
    text = json.dumps(asdict(record), indent=2, allow_nan=False) + "\n"
    return write_text_atomically(Path(directory) / RESULT_FILE, text)


def read_record(directory: Path | str) -> RunRecord:
    """Read ``directory/result.json``.

    Raises:
        FileNotFoundError: the directory holds no record.
        RecordError: the file is corrupt or of an unknown schema; the message names its path.
    """
    path = Path(directory) / RESULT_FILE
    text = path.read_bytes()
    try:
        return _parse(json.loads(text, parse_constant=_reject_constant))
    except (ValueError, TypeError) as error:  # JSON and Unicode errors are ValueErrors
        raise RecordError(f"corrupt record {path}: {error}") from error


def find_records(root: Path | str) -> list[tuple[Path, RunRecord]]:
    """All records at or below ``root``, as ``(directory, record)`` sorted by directory.

    Directories without ``result.json`` (unfinished runs) are skipped; a missing ``root`` holds
    no records.

    Raises:
        RecordError: a ``result.json`` is corrupt or of an unknown schema.
    """
    return [(p.parent, read_record(p.parent)) for p in sorted(Path(root).rglob(RESULT_FILE))]


def read_history(directory: Path | str) -> pd.DataFrame:
    """History of a run, one row per evaluation; ``seconds`` are cumulative train seconds.

    Columns ``epoch, seconds, loss, mse_u, mse_ux, mse_uxx``.

    Raises:
        FileNotFoundError: the directory holds no history.
        RecordError: the file is not such a table; the message names its path.
    """
    return _read_numbers(Path(directory) / HISTORY_FILE, _HISTORY_COLUMNS)


def read_predictions(directory: Path | str) -> pd.DataFrame:
    """Predicted and exact solution of a run on a dense grid of the whole domain.

    One dimension: ``x, u, u_x, u_xx, exact_u, exact_u_x, exact_u_xx``. More: ``x0, x1, …``
    instead of ``x``, and derivatives along each axis (``u_x0``, …).

    Raises:
        FileNotFoundError: the directory holds no predictions.
        RecordError: the file is not such a table; the message names its path.
    """
    frame = _read_numbers(path := Path(directory) / PREDICTIONS_FILE, ("u", "exact_u"))
    if not {"x", "x0"} & set(frame.columns):
        raise RecordError(f"corrupt file {path}: no coordinate column x or x0")
    return frame


def read_table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """A CSV file that must have these columns.

    Raises:
        FileNotFoundError: no such file.
        RecordError: the file is not such a table; the message names its path.
    """
    try:
        frame = pd.read_csv(path)
    except (ValueError, pd.errors.ParserError) as error:
        raise RecordError(f"corrupt file {path}: {error}") from error
    if missing := [name for name in columns if name not in frame.columns]:
        raise RecordError(f"corrupt file {path}: no column {', '.join(missing)}")
    return frame


def write_text_atomically(path: Path | str, text: str) -> Path:
    """Write ``text`` to ``path`` so that readers see the old content or the new, never a part.

    A temporary file in the same directory (made if absent) is written, flushed to disk and moved
    over ``path``.

    Raises:
        OSError: the directory cannot be written.
    """

    def write(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())

    return write_file_atomically(path, write)


def write_file_atomically(path: Path | str, write: Callable[[Path], object]) -> Path:
    """Let ``write`` fill a temporary file beside ``path``, then move it over ``path``.

    For writers that need a path of their own (figures, checkpoints); the temporary file keeps
    ``path``'s suffix.

    Raises:
        OSError: the directory cannot be written. Whatever ``write`` raises.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _parse(content: Any) -> RunRecord:
    if not isinstance(content, Mapping):
        raise ValueError("not a JSON object")
    version = content.get("schema_version")
    if version != SCHEMA_VERSION:
        raise ValueError(f"schema_version = {version!r}: this version reads {SCHEMA_VERSION}")
    known = {item.name for item in fields(RunRecord)}
    if missing := sorted(known - set(content)):
        raise ValueError(f"missing {', '.join(missing)}")
    if unknown := sorted(set(content) - known):
        raise ValueError(f"unknown {', '.join(unknown)}")
    return RunRecord(**content)


def _reject_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _read_numbers(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    frame = read_table(path, columns)
    text = [str(c) for c in frame.columns if not pd.api.types.is_numeric_dtype(frame[c])]
    if text and len(frame):  # a run that diverged at once has a header alone
        raise RecordError(f"corrupt file {path}: not a number in column {', '.join(text)}")
    return frame


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _fits(value: object, hint: Any) -> bool:
    """Whether ``value`` is of the annotated type; an int is a float, a bool is no number."""
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return any(_fits(value, option) for option in get_args(hint))
    if origin is Literal:
        return value in get_args(hint)
    if origin is list:
        return isinstance(value, list) and all(_fits(v, get_args(hint)[0]) for v in value)
    if origin is dict:
        return isinstance(value, dict) and all(isinstance(k, str) for k in value)
    if hint is float:
        return _is_number(value) and math.isfinite(value)  # type: ignore[arg-type]
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)
