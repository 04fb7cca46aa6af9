"""The record of one run: the contract between what runs experiments and what reports them.

A directory is a record if and only if it holds ``result.json``, which is written last and
atomically: a record is complete or absent. Beside it lie ``config.yaml``, ``history.csv``,
``predictions.csv``, ``checkpoint.ckpt`` and ``predictions.png``.
"""

from __future__ import annotations

import io
import json
import math
import os
import types
import zlib
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np
import pandas as pd

from diffhash.results.formats import printable
from diffhash.results.metrics import metric
from diffhash.results.reading import RecordError, brief, plain_config, read_bytes, read_json

SCHEMA_VERSION = 1
RESULT_FILE = "result.json"
CONFIG_FILE = "config.yaml"
HISTORY_FILE = "history.csv"
PREDICTIONS_FILE = "predictions.csv"
PARTIAL = ".partial"  # at the end of the name of a folder that is no record yet, or none any more
_HISTORY_COLUMNS = ("epoch", "seconds", "loss")
_METRICS = ("mse_u", "mse_ux", "mse_uxx", "loss")  # of a file that does not name its own

Status = Literal["completed", "converged", "diverged", "interrupted"]
# With results: the epochs are done, or a solver has ended by itself before.
FINISHED = ("completed", "converged")

OnProblem = Callable[[RecordError], object]
"""Is told of a record that is left out."""

_MAX_RECORD_BYTES = 4_000_000
_MAX_TABLE_BYTES = 2_000_000_000
_MAX_STEM = 200
# The smallest value of what is counted or measured.
_AT_LEAST = {
    "seed": 0, "epochs": 0, "epochs_requested": 1, "diverged_epoch": 0, "n_parameters": 1,
    "train_seconds": 0, "warmup_seconds": 0, "evaluation_seconds": 0, "wall_seconds": 0,
    "peak_memory_mb": 0,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """Content of ``result.json``; times in seconds, memory in MB (1e6 bytes).

    ``epochs`` counts the epochs done. ``metrics`` are any by name, the ``loss`` among them
    (`diffhash.results.metrics`), and each is an attribute, too: ``record.mse_u``. They are ``None``
    where they are not finite, and all of them are for a diverged run: non-finite values become
    ``None`` here, since JSON has no NaN. In the file each stands beside the other fields, and
    ``metrics`` lists their names.

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
    metrics: dict[str, float | None]
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

    def __getattr__(self, name: str) -> float | None:
        try:
            return vars(self)["metrics"][name]
        except KeyError:
            raise AttributeError(f"a record has no {name}") from None

    @property
    def outcome(self) -> str:
        """How it ended, in words, with its metrics but for those of derivatives."""
        if self.status == "diverged":
            return f"diverged at epoch {self.diverged_epoch}"
        return f"{self.status} after {self.epochs} epochs: " + "  ".join(
            f"{name} {value:.2e}"
            for name, value in self.metrics.items()
            if value is not None and not metric(name).is_of_derivative
        )

    def flat(self) -> dict[str, Any]:
        """All fields, with each metric as one of them."""
        flat: dict[str, Any] = {}
        for name, value in asdict(self).items():
            flat |= value if name == "metrics" else {name: value}
        return flat

    def _checked_metrics(self) -> dict[str, float | None]:
        checked: dict[str, float | None] = {}
        for name, value in self.metrics.items():
            if not str(name).isidentifier() or name in _hints():
                raise ValueError(f"metrics: {name!r} is no name for a metric")
            if self.status == "diverged" or value in (math.inf, -math.inf) or value != value:
                value = None
            if not _fits(value, float | None):
                raise ValueError(f"{name} = {value!r}: expected float | None")
            if value is not None and value < 0 and metric(name).is_positive:
                raise ValueError(f"{name} = {value!r}: expected at least 0")
            checked[name] = value
        return checked

    def __post_init__(self) -> None:
        hints = _hints()
        if not isinstance(self.metrics, dict):
            raise ValueError(f"metrics = {self.metrics!r}: expected numbers by name")
        object.__setattr__(self, "metrics", self._checked_metrics())
        for item in fields(self):
            value = getattr(self, item.name)
            if not _fits(value, hints[item.name]):
                raise ValueError(f"{item.name} = {value!r}: expected {item.type}")
            least = _AT_LEAST.get(item.name)
            if least is not None and value is not None and value < least:
                raise ValueError(f"{item.name} = {value!r}: expected at least {least}")
            if isinstance(value, int) and value >= 2**63:
                raise ValueError(f"{item.name} = {value!r}: expected less than 2**63")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate = {self.learning_rate!r}: expected more than 0")
        if self.schema_version != SCHEMA_VERSION:
            raise ValueError(
                f"schema_version = {self.schema_version}: this version reads {SCHEMA_VERSION}"
            )
        if (self.status == "diverged") != (self.diverged_epoch is not None):
            raise ValueError(
                f"diverged_epoch = {self.diverged_epoch!r} with status {self.status!r}: "
                "an epoch for a diverged run, null for any other"
            )
        for name in ("epochs", "diverged_epoch"):
            if (getattr(self, name) or 0) > self.epochs_requested:
                raise ValueError(
                    f"{name} = {getattr(self, name)}: more than epochs_requested = "
                    f"{self.epochs_requested}"
                )


def write_record(directory: Path | str, record: RunRecord) -> Path:
    """Write ``directory/result.json`` atomically and return its path; write it last.

    Raises:
        ValueError: a number outside the metrics (say in ``environment``) is not finite.
        OSError: the directory cannot be written.
    """
    content = record.flat() | {"metrics": list(record.metrics)}
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    return write_text_atomically(Path(directory) / RESULT_FILE, text)


def read_record(directory: Path | str) -> RunRecord:
    """Read ``directory/result.json``.

    Raises:
        FileNotFoundError: the directory holds no record.
        RecordError: the file is corrupt or of an unknown schema; the message names its path.
    """
    path = Path(directory) / RESULT_FILE
    try:
        return _parse(read_json(path, _MAX_RECORD_BYTES))
    except (ValueError, TypeError) as error:  # JSON and Unicode errors are ValueErrors
        raise RecordError(f"corrupt record {path}: {brief(error)}") from error


def find_records(
    root: Path | str, on_problem: OnProblem | None = None, without: Collection[str] = ()
) -> list[tuple[Path, RunRecord]]:
    """All records at or below ``root``, as ``(directory, record)`` sorted by directory.

    Directories without ``result.json`` and those of unfinished runs (``….partial``) are skipped; a
    missing ``root`` holds no records. Links to folders are not followed.

    Args:
        root: a folder.
        on_problem: is told of each record that cannot be read, which is left out.
        without: folders directly in ``root`` that are not looked into.

    Raises:
        RecordError: a ``result.json`` is corrupt or of an unknown schema, or a folder cannot be
            read; unless there is ``on_problem``.
    """
    found = []
    report = raise_problem if on_problem is None else on_problem
    for directory in sorted(_record_folders(Path(root), report, without)):
        try:
            record = read_record(directory)
            if record.status == "completed" and record.epochs < record.epochs_requested:
                raise RecordError(
                    f"corrupt record {directory / RESULT_FILE}: completed after epochs = "
                    f"{record.epochs} of epochs_requested = {record.epochs_requested}"
                )
            found.append((directory, record))
        except RecordError as error:
            report(error)
        except FileNotFoundError:  # gone meanwhile, or a link to nothing
            if (directory / RESULT_FILE).is_symlink():
                report(RecordError(f"corrupt record {directory / RESULT_FILE}: a link to nothing"))
    return found


def raise_problem(problem: RecordError) -> None:
    """What becomes of a problem that nobody wants to hear of: it is raised."""
    raise problem


def check_files(directory: Path, record: RunRecord) -> pd.DataFrame | None:
    """Read what lies beside a record, as far as it is there; returns the predictions.

    Raises:
        RecordError: a config, history or predictions file is corrupt, or the history is not that
            of the record.
    """
    with suppress(FileNotFoundError):
        plain_config(directory / CONFIG_FILE)
    with suppress(FileNotFoundError):
        history = read_history(directory)
        last = 0 if history.empty else int(history["epoch"].iloc[-1])
        if last > record.epochs or (last < record.epochs and record.status in FINISHED):
            path = directory / HISTORY_FILE
            raise RecordError(
                f"corrupt file {path}: ends at epoch {last}, its record at {record.epochs}"
            )
        _check_columns(directory / HISTORY_FILE, record.metrics, history.columns)
    with suppress(FileNotFoundError):
        predictions = read_predictions(directory)
        _check_finite(directory / PREDICTIONS_FILE, predictions, record)
        return predictions
    return None


def _check_finite(path: Path, predictions: pd.DataFrame, record: RunRecord) -> None:
    """Where an error has been recorded, what it is of is finite at every point."""
    if predictions.empty and record.status in FINISHED:
        raise RecordError(f"corrupt file {path}: no points")
    for metric_name, value in record.metrics.items():
        name = metric(metric_name).quantity
        columns = [c for c in (name, f"exact_{name}") if c in predictions]
        values = predictions[columns].to_numpy(dtype=np.float64)
        if value is not None and not np.isfinite(values).all():
            raise RecordError(
                f"corrupt file {path}: {name} is not finite, and {metric_name} has been recorded"
            )


def _record_folders(root: Path, report: OnProblem, without: Collection[str]) -> Iterator[Path]:
    folders = [root]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(folder) as scan:
                entries = list(scan)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            report(RecordError(f"{folder}: cannot be read ({error.strerror or error})"))
            continue
        for entry in entries:
            if entry.name == RESULT_FILE:
                yield folder
            elif entry.name.endswith(PARTIAL) or (folder == root and entry.name in without):
                continue
            elif entry.is_dir(follow_symlinks=False):
                folders.append(folder / entry.name)


def read_history(directory: Path | str) -> pd.DataFrame:
    """History of a run, one row per evaluation; ``seconds`` are cumulative train seconds.

    Columns ``epoch, seconds, loss``, the metrics, and any further ones with numbers.

    Raises:
        FileNotFoundError: the directory holds no history.
        RecordError: the file is not such a table; the message names its path.
    """
    path = Path(directory) / HISTORY_FILE
    frame = _read_numbers(path, _HISTORY_COLUMNS)
    for name in ("epoch", "seconds"):
        values = frame[name].to_numpy(dtype=np.float64)
        if not (np.isfinite(values).all() and (values >= 0).all() and (np.diff(values) >= 0).all()):
            raise RecordError(f"corrupt file {path}: {name} is not a course of time")
    if np.any(frame["epoch"].to_numpy(dtype=np.float64) % 1 != 0):
        raise RecordError(f"corrupt file {path}: epoch is not a count")
    positive = [name for name in frame.columns if metric(str(name)).is_positive]
    if np.any(frame[positive].to_numpy(dtype=np.float64) < 0):
        raise RecordError(f"corrupt file {path}: a negative loss or error")
    return frame


def read_predictions(directory: Path | str) -> pd.DataFrame:
    """Predicted and exact solution of a run on a dense grid of the whole domain.

    One dimension: ``x, u, u_x, u_xx, exact_u, exact_u_x, exact_u_xx``. More: ``x0, x1, …``
    instead of ``x``, and derivatives along each axis (``u_x0``, …).

    Raises:
        FileNotFoundError: the directory holds no predictions.
        RecordError: the file is not such a table; the message names its path.
    """
    frame = _read_numbers(path := Path(directory) / PREDICTIONS_FILE, ("u", "exact_u"))
    names = set(frame.columns)
    if not {"x", "x0"} & names:
        raise RecordError(f"corrupt file {path}: no coordinate column x or x0")
    predicted = {name for name in names if name == "u" or name.startswith("u_")}
    needed = {f"exact_{name}" for name in predicted}
    needed |= {name.removeprefix("exact_") for name in names if name.startswith("exact_")}
    needed |= {"u_x", "u_xx"} if "x" in names else set()
    if missing := sorted(needed - names):
        raise RecordError(f"corrupt file {path}: no column {', '.join(missing)}")
    axes = [name for name in names if name == "x" or (name[0] == "x" and name[1:].isdigit())]
    if not np.isfinite(frame[axes].to_numpy(dtype=np.float64)).all():
        raise RecordError(f"corrupt file {path}: a coordinate is not finite")
    return frame


def read_table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """A CSV file that must have these columns.

    Raises:
        FileNotFoundError: no such file.
        RecordError: the file is not such a table; the message names its path.
    """
    return _parse_table(path, _table_text(path), columns)


def _table_text(path: Path) -> bytes:
    try:
        text = read_bytes(path, _MAX_TABLE_BYTES)
        if b"\0" in text:
            raise ValueError("a NUL byte")
    except ValueError as error:
        raise RecordError(f"corrupt file {path}: {brief(error)}") from error
    return text


def _parse_table(path: Path, text: bytes, columns: Sequence[str]) -> pd.DataFrame:
    try:
        frame = pd.read_csv(io.BytesIO(text))
        head = pd.read_csv(io.BytesIO(text), header=None, nrows=1, dtype=str).iloc[0]
    except (ValueError, OverflowError, pd.errors.ParserError) as error:
        raise RecordError(f"corrupt file {path}: {brief(error)}") from error
    _check_columns(path, columns, frame.columns)
    if head.duplicated().any():
        raise RecordError(f"corrupt file {path}: two columns {head[head.duplicated()].iloc[0]}")
    return frame


def _check_columns(path: Path, needed: Iterable[str], columns: Container[str]) -> None:
    if missing := [name for name in needed if name not in columns]:
        raise RecordError(f"corrupt file {path}: no column {', '.join(missing)}")


def write_text_atomically(path: Path | str, text: str) -> Path:
    """Write ``text`` to ``path`` so that readers see the old content or the new, never a part.

    What UTF-8 cannot hold (of names that were not text) is written as ``\\udc80``.

    A temporary file in the same directory (made if absent) is written, flushed to disk and moved
    over ``path``.

    Raises:
        OSError: the directory cannot be written.
    """

    def write(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8", errors="backslashreplace") as file:
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
    stem = path.stem
    if len(os.fsencode(stem)) > _MAX_STEM:  # the whole name is to fit where the file's own does
        stem = f"{zlib.crc32(os.fsencode(stem)):08x}"
    temporary = path.with_name(f".{stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        write(temporary)
        os.replace(temporary, path)
    except OSError as error:
        if error.errno is not None and error.filename in (None, str(temporary)):
            raise OSError(error.errno, error.strerror, str(path)) from error  # which file it was
        raise
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _parse(content: Any) -> RunRecord:
    if not isinstance(content, Mapping):
        raise ValueError("not a JSON object")
    version = content.get("schema_version")
    if version != SCHEMA_VERSION:
        raise ValueError(f"schema_version = {version!r}: this version reads {SCHEMA_VERSION}")
    content = dict(content)
    names = content.setdefault("metrics", list(_METRICS))
    if not _fits(names, list[str]):
        raise ValueError(f"metrics = {names!r}: expected a list of names")
    own = {item.name for item in fields(RunRecord)}
    if taken := [name for name in names if name in own]:
        raise ValueError(f"metrics: {taken[0]!r} is no name for a metric")
    known = own | set(names)
    if missing := sorted(known - set(content)):
        raise ValueError(f"missing {', '.join(missing)}")
    if unknown := sorted(set(content) - known):
        raise ValueError(f"unknown {', '.join(unknown)}")
    metrics = {name: content.pop(name) for name in names}
    return RunRecord(**_printable(content | {"metrics": metrics}))


def _printable(value: Any) -> Any:
    """Names and values as a terminal or a page may show them."""
    if isinstance(value, dict):
        return {printable(key): _printable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_printable(item) for item in value]
    return printable(value) if isinstance(value, str) else value


def _read_numbers(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """A table of nothing but numbers, every line of it whole."""
    text = _table_text(path)
    head, *lines = text.split(b"\n")
    n_columns = head.count(b",") + 1
    for number, line in enumerate(lines[:-1], 2):
        if (found := line.count(b",") + 1) != n_columns:
            raise RecordError(
                f"corrupt file {path}: Expected {n_columns} fields in line {number}, saw {found}"
            )
    if lines and lines[-1]:
        raise RecordError(f"corrupt file {path}: its last line is cut short")
    frame = _parse_table(path, text, columns)
    other = [str(c) for c in frame.columns if frame[c].dtype.kind not in "iuf"]
    if other and len(frame):  # a run that diverged at once has a header alone
        raise RecordError(f"corrupt file {path}: not a number in column {', '.join(other)}")
    return frame


@cache
def _hints() -> dict[str, Any]:
    return get_type_hints(RunRecord)


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
