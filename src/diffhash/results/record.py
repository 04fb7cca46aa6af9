"""The record of one run: the interface between running experiments and reporting them.

A directory is a record if and only if it has a file ``result.json``, which is written last and
atomically: a record is complete or absent. Beside it are ``config.yaml``, ``history.csv``,
``predictions.csv``, ``checkpoint.ckpt`` and ``predictions.png``.
"""

from __future__ import annotations

import csv
import json
import math
import os
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import MISSING, asdict, dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import msgspec
import numpy as np
from msgspec import Meta

from diffhash._files import write_text_atomically
from diffhash.results.formats import printable
from diffhash.results.metrics import metric
from diffhash.results.reading import (
    RecordError,
    brief,
    check_columns,
    corrupt,
    read_bytes,
    read_config,
    read_table,
)

if TYPE_CHECKING:
    import pandas as pd

SCHEMA_VERSION = 1
RESULT_FILE = "result.json"
CONFIG_FILE = "config.yaml"
HISTORY_FILE = "history.csv"
PREDICTIONS_FILE = "predictions.csv"
PARTIAL = ".partial"  # the end of the name of a folder that is not yet, or no longer, a record
_METRICS = ["mse_u", "mse_ux", "mse_uxx", "loss"]  # in a file without a list of its metrics
_MAX_RECORD_BYTES = 4_000_000
_MAX_INT, _MAX_FLOAT = 2**63 - 1, sys.float_info.max

Status = Literal["completed", "converged", "out_of_time", "diverged", "interrupted"]
# These have results: all epochs are done, or training has ended by itself before.
FINISHED = ("completed", "converged", "out_of_time")

OnProblem = Callable[[RecordError], object]
"""A function that is called with the error of each record that is left out."""

_Count = Annotated[int, Meta(ge=0, le=_MAX_INT)]
_OneOrMore = Annotated[int, Meta(ge=1, le=_MAX_INT)]
_Amount = Annotated[float, Meta(ge=0, le=_MAX_FLOAT)]
_Positive = Annotated[float, Meta(gt=0, le=_MAX_FLOAT)]
_Metric = Annotated[float, Meta(ge=-_MAX_FLOAT, le=_MAX_FLOAT)] | None


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """The content of ``result.json``; times in seconds, memory in MB (1e6 bytes).

    Of a resumed run ``wall_seconds`` and the memory are those of the last process, and the other
    times those of the whole run.

    ``epochs`` is the number of completed epochs. ``metrics`` has any metrics by name, the ``loss``
    among them (`diffhash.results.metrics`); each is an attribute, too: ``record.mse_u``. A metric
    that is not finite is ``None``, because JSON has no NaN; so are all metrics of a diverged run.
    In the file each metric is beside the other fields, and ``metrics`` is the list of their names.
    ``estimate`` is the estimate of u's relative error (`diffhash.training.estimate`), and
    ``warnings`` say why it may mean little (`diffhash.training.diagnostics`).

    Raises:
        ValueError: a field has a wrong type or value; the message names the field.
    """

    status: Status
    experiment: str | None
    encoder: str
    preset: str | None
    task: str
    problem: str
    seed: _Count
    epochs: _Count
    epochs_requested: _OneOrMore
    diverged_epoch: _Count | None = None
    learning_rate: _Positive
    metrics: dict[str, Any]
    estimate: _Amount | None = None
    train_seconds: _Amount
    warmup_seconds: _Amount
    evaluation_seconds: _Amount
    wall_seconds: _Amount
    n_parameters: _OneOrMore
    peak_memory_mb: _Amount
    config_hash: str
    overrides: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    environment: dict[str, Any] = field(default_factory=dict)
    schema_version: Literal[1] = SCHEMA_VERSION

    def __getattr__(self, name: str) -> float | None:
        try:
            return vars(self)["metrics"][name]
        except KeyError:
            raise AttributeError(f"a record has no {name}") from None

    @property
    def outcome(self) -> str:
        """The outcome of the run in words, with its metrics except those of derivatives."""
        if self.status == "diverged":
            return f"diverged at epoch {self.diverged_epoch}"
        shown = [
            f"{name} {value:.2e}"
            for name, value in self.metrics.items()
            if value is not None and not (metric(name).kind and "_" in metric(name).quantity)
        ]
        if self.estimate is not None:
            shown.append(f"estimated error {self.estimate:.0e}")
        epochs = f"{self.epochs} epoch{'s' * (self.epochs != 1)}"
        warned = " with a warning" * bool(self.warnings)
        return f"{self.status}{warned} after {epochs}: " + "  ".join(shown)

    def flat(self) -> dict[str, Any]:
        """All fields, with a field for each metric."""
        flat: dict[str, Any] = {}
        for name, value in asdict(self).items():
            flat |= value if name == "metrics" else {name: value}
        return flat

    def __post_init__(self) -> None:
        for name, kind in _kinds().items():
            object.__setattr__(self, name, _checked(name, getattr(self, name), kind))
        metrics = {name: self._checked_metric(name, v) for name, v in self.metrics.items()}
        object.__setattr__(self, "metrics", metrics)
        if (self.status == "diverged") != (self.diverged_epoch is not None):
            raise ValueError(
                f"diverged_epoch = {self.diverged_epoch!r} with status {self.status!r}: "
                "an epoch for a diverged run, null for any other"
            )
        for name in ("epochs", "diverged_epoch"):
            if (value := getattr(self, name) or 0) > self.epochs_requested:
                limit = f"more than epochs_requested = {self.epochs_requested}"
                raise ValueError(f"{name} = {value}: {limit}")

    def _checked_metric(self, name: str, value: Any) -> float | None:
        if not name.isidentifier() or name in _kinds():
            raise ValueError(f"metrics: {name!r} is no name for a metric")
        if self.status == "diverged" or value in (math.inf, -math.inf) or value != value:
            return None
        value = _checked(name, value, _Metric)
        if value is not None and value < 0 and metric(name).is_positive:
            raise ValueError(f"{name} = {value!r}: expected at least 0")
        return value


@cache
def _kinds() -> dict[str, Any]:
    return get_type_hints(RunRecord, include_extras=True)


def _checked(name: str, value: Any, kind: Any) -> Any:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise ValueError(f"{name} = {value!r}: {error}") from error


def write_record(directory: Path | str, record: RunRecord) -> Path:
    """Write ``directory/result.json`` atomically and return its path; write it last.

    Raises:
        ValueError: a number outside the metrics (say in ``environment``) is not finite.
        OSError: the directory cannot be written.
    """
    content = record.flat() | {"metrics": list(record.metrics)}
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    return write_text_atomically(Path(directory) / RESULT_FILE, text)


def write_table(path: Path, columns: Mapping[str, Sequence[float]]) -> None:
    """Write a CSV file of columns of numbers; NaN is an empty cell.

    Raises:
        OSError: the file cannot be written.
    """
    cells = [["" if value != value else value for value in column] for column in columns.values()]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*cells, strict=True))


def read_record(directory: Path | str) -> RunRecord:
    """Read ``directory/result.json``; fields that this version does not have are left out.

    Raises:
        FileNotFoundError: the directory has no record.
        RecordError: the file is corrupt or of an unknown schema; the message names its path.
    """
    path = Path(directory) / RESULT_FILE
    try:
        # Not by msgspec, which refuses the escapes of names that are not UTF-8 (\udc80).
        parsed = json.loads(read_bytes(path, _MAX_RECORD_BYTES).decode("utf-8"))
        content = _plain(msgspec.convert(parsed, dict[str, Any]))
        if (version := content.get("schema_version")) != SCHEMA_VERSION:
            raise ValueError(f"schema_version = {version!r}: this version reads {SCHEMA_VERSION}")
        names = _checked("metrics", content.pop("metrics", _METRICS), list[str])
        needed = {each.name for each in fields(RunRecord) if each.default is MISSING} - {"metrics"}
        if missing := sorted({*needed, *names} - content.keys()):
            raise ValueError(f"missing {', '.join(missing)}")
        known = {name: content[name] for name in _kinds().keys() & content.keys()}
        return RunRecord(**known, metrics={name: content[name] for name in names})
    except (ValueError, TypeError, RecursionError) as error:
        raise RecordError(f"corrupt record {path}: {brief(error)}") from error


def _plain(value: Any) -> Any:
    """Make names and values printable on a terminal or a page, and refuse numbers that JSON does
    not have."""
    if isinstance(value, dict):
        return {printable(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} is not JSON compliant")
    return printable(value) if isinstance(value, str) else value


def raise_problem(problem: RecordError) -> None:
    """Raise the error of a record: the default if no function ``on_problem`` is given."""
    raise problem


def find_records(
    root: Path | str, on_problem: OnProblem = raise_problem, without: Collection[str] = ()
) -> list[tuple[Path, RunRecord]]:
    """All records at or below ``root``, as ``(directory, record)`` sorted by directory.

    Directories without ``result.json`` and those of unfinished runs (``….partial``) are skipped; a
    missing ``root`` has no records. Links to folders are not followed.

    Args:
        root: a folder.
        on_problem: a function that is called with the error of each record that cannot be read,
            which is left out; the default raises the error.
        without: the names of folders directly in ``root`` that are not searched.

    Raises:
        RecordError: a ``result.json`` is corrupt or of an unknown schema, or a folder cannot be
            read; unless there is ``on_problem``.
    """
    root, found = Path(root), []

    def report(error: OSError) -> None:
        if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
            problem = f"{error.filename}: cannot be read ({error.strerror or error})"
            on_problem(RecordError(problem))

    for place, folders, files in os.walk(root, onerror=report):
        directory = Path(place)
        result = directory / RESULT_FILE
        is_record = RESULT_FILE in (*files, *folders)
        skipped = (*(without if directory == root else ()), RESULT_FILE)
        folders[:] = sorted(n for n in folders if not n.endswith(PARTIAL) and n not in skipped)
        try:
            record = read_record(directory) if is_record else None
            if record is None:
                continue
            if record.status == "completed" and record.epochs < record.epochs_requested:
                raise RecordError(
                    f"corrupt record {result}: completed after epochs = {record.epochs} of "
                    f"epochs_requested = {record.epochs_requested}"
                )
            found.append((directory, record))
        except RecordError as error:
            on_problem(error)
        except FileNotFoundError:  # removed meanwhile, or a broken link
            if result.is_symlink():
                on_problem(RecordError(f"corrupt record {result}: a link to nothing"))
    return sorted(found, key=lambda item: item[0])


def check_files(directory: Path, record: RunRecord) -> pd.DataFrame | None:
    """Read and check the files beside a record that exist, and return the predictions.

    Raises:
        RecordError: a config, history or predictions file is corrupt, or the history is of another
            record.
    """
    with suppress(FileNotFoundError):
        read_config(directory / CONFIG_FILE)
    with suppress(FileNotFoundError):
        history, path = read_history(directory), directory / HISTORY_FILE
        last = 0 if history.empty else int(history["epoch"].iloc[-1])
        if last > record.epochs or (last < record.epochs and record.status in FINISHED):
            raise corrupt(path, f"ends at epoch {last}, its record at {record.epochs}")
        check_columns(path, record.metrics, history.columns)
    with suppress(FileNotFoundError):
        predictions, path = read_predictions(directory), directory / PREDICTIONS_FILE
        if predictions.empty:
            raise corrupt(path, "no points")
        for key in (key for key, value in record.metrics.items() if value is not None):
            name = metric(key).quantity
            columns = [c for c in (name, f"exact_{name}") if c in predictions]
            if not np.isfinite(_floats(predictions, columns)).all():
                raise corrupt(path, f"{name} is not finite, and {key} has been recorded")
        return predictions
    return None


def read_history(directory: Path | str) -> pd.DataFrame:
    """Read the history of a run, a row for each evaluation; ``seconds`` are cumulative train
    seconds.

    The columns are ``epoch, seconds, loss``, the metrics, and any further columns of numbers.

    Raises:
        FileNotFoundError: the directory has no history.
        RecordError: the file is no such table; the message names its path.
    """
    path = Path(directory) / HISTORY_FILE
    frame = read_table(path, ("epoch", "seconds", "loss"), numbers=True)
    for name in ("epoch", "seconds"):
        values = _floats(frame, name)
        if not (np.isfinite(values).all() and (values >= 0).all() and (np.diff(values) >= 0).all()):
            raise corrupt(path, f"{name} is not a course of time")
    if np.any(_floats(frame, "epoch") % 1 != 0):
        raise corrupt(path, "epoch is not a count")
    positive = [name for name in frame.columns if metric(str(name)).is_positive]
    if np.any(_floats(frame, positive) < 0):
        raise corrupt(path, "a negative loss or error")
    return frame


def read_predictions(directory: Path | str) -> pd.DataFrame:
    """Read the predicted and exact solution of a run on a dense grid of the whole domain.

    The columns in one dimension are ``x, u, u_x, u_xx, exact_u, exact_u_x, exact_u_xx``. In more
    dimensions they have ``x0, x1, …`` instead of ``x``, and derivatives along each axis (``u_x0``,
    …).

    Raises:
        FileNotFoundError: the directory has no predictions.
        RecordError: the file is no such table; the message names its path.
    """
    path = Path(directory) / PREDICTIONS_FILE
    frame = read_table(path, ("u", "exact_u"), numbers=True)
    names = set(frame.columns)
    if not {"x", "x0"} & names:
        raise corrupt(path, "no coordinate column x or x0")
    needed = {f"exact_{name}" for name in names if name == "u" or name.startswith("u_")}
    needed |= {name.removeprefix("exact_") for name in names if name.startswith("exact_")}
    check_columns(path, sorted(needed | ({"u_x", "u_xx"} if "x" in names else set())), names)
    axes = [name for name in names if name == "x" or (name[0] == "x" and name[1:].isdigit())]
    if not np.isfinite(_floats(frame, axes)).all():
        raise corrupt(path, "a coordinate is not finite")
    return frame


def _floats(frame: pd.DataFrame, columns: Any) -> np.ndarray:
    return frame[columns].to_numpy(dtype=np.float64)
