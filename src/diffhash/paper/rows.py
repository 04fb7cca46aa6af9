"""The records of the tables' rows, and the choice of a record for each seed.

The runs of a row are in ``<runs>/<table>/<row>/…``, usually in a ``seed<n>`` folder for each seed,
or anywhere else below ``<runs>`` under their experiment's name. If a seed has several records, the
one in the row's own folder is used, or else the newest completed one. Timings are in another
folder: see `diffhash.paper.timing`.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from diffhash.paper.printed import METRICS, TABLES, TITLES, VALUES
from diffhash.paper.timing import TIMINGS, Timing
from diffhash.results.formats import format_epochs, printable
from diffhash.results.metrics import ENCODERS
from diffhash.results.record import (
    FINISHED,
    RESULT_FILE,
    OnProblem,
    RecordError,
    RunRecord,
    check_files,
    find_records,
    raise_problem,
    read_history,
    read_predictions,
)
from diffhash.results.seeds import combine_histories, combine_predictions
from diffhash.results.statistics import median_interval

Found = tuple[Path, RunRecord]
Files = list[tuple[RunRecord, pd.DataFrame]]

CALIBRATIONS = "calibration"
"""Folder of the calibrations' runs, which have names of rows but other settings."""

# Settings of a command line with which a run still belongs to its row.
_SAME_ROW = ("experiment", "seed", "seeds", "run_dir", "runs_dir", "ckpt_path", "resume", "logger",
             "logger.*", "hydra.*", "hydra/*", "trainer.accelerator", "trainer.devices",
             "trainer.num_threads", "trainer.execution")  # fmt: skip
_ALIKE = ("encoder", "preset", "task", "problem", "epochs_requested", "learning_rate",
          "n_parameters", "predictions at points x with the checksum")  # fmt: skip


@dataclass(frozen=True)
class Row:
    """A row of a table: the paper's numbers, and our runs.

    Attributes:
        table: the name of the table.
        row: the row's key, e.g. ``mlp_10k``.
        paper: the printed numbers of the table's rows.
        runs: the directory and the record of each run.
        timing: the timing of the row alone on the machine; None if there is none.
    """

    table: str
    row: str
    paper: dict[str, dict[str, Any]]
    runs: list[Found]
    timing: Timing | None = None

    @property
    def printed(self) -> dict[str, Any] | None:
        """The row's numbers in the paper; None for a row that the paper does not have."""
        return self.paper.get(self.row)

    @property
    def model(self) -> str:
        """The paper's name of the model; for other rows the encoder and the preset."""
        if self.printed is not None:
            return self.printed["label"]
        encoder, preset = self.runs[0][1].encoder, self.runs[0][1].preset
        return f"{ENCODERS.get(encoder, printable(encoder))} ({printable(preset or self.row)})"

    @property
    def epochs(self) -> int:
        """The budget of the runs, or the paper's budget without a run, for the label."""
        return self.runs[0][1].epochs_requested if self.runs else self.paper_epochs

    @property
    def paper_epochs(self) -> Any:
        """The paper's budget; NA for a row that the paper does not have."""
        return pd.NA if self.printed is None else self.printed["epochs"]

    @property
    def label(self) -> str:
        """The name of the model with the budget: ``MLP 10k``."""
        return f"{self.model} {format_epochs(self.epochs)}"

    @property
    def full_label(self) -> str:
        """The label with the table: ``Table I, MLP 10k``."""
        return f"{TITLES[self.table][0]}, {self.label}"

    @property
    def seeds(self) -> list[Found]:
        """The runs that count as a seed, which are all but interrupted runs."""
        return [item for item in self.runs if item[1].status != "interrupted"]

    @property
    def has_band(self) -> bool:
        """Whether the row is a median over several seeds, with a band around it."""
        return len(self.seeds) > 1

    @property
    def completed(self) -> list[RunRecord]:
        """The records of the completed runs."""
        return [record for _, record in self.runs if record.status == "completed"]

    @property
    def n_diverged(self) -> int:
        """The number of runs that diverged."""
        return sum(record.status == "diverged" for _, record in self.runs)

    @property
    def note(self) -> str:
        """A note about runs that did not complete; empty if all completed."""
        if not self.runs:
            return "no record"
        return "; ".join(
            f"seed {record.seed} " * (len(self.runs) > 1) + f"{record.status} @ epoch "
            f"{record.epochs if record.diverged_epoch is None else record.diverged_epoch}"
            for _, record in self.runs
            if record.status != "completed"
        )

    @property
    def status(self) -> str:
        """``completed``, the outcome of each other run, or ``missing``."""
        if not self.runs:
            return "missing"
        return "; ".join(filter(None, ("completed" if self.completed else "", self.note)))

    def values(self, name: str) -> np.ndarray:
        """A metric for each seed; infinite for a diverged run or a value that is not finite.

        It is empty if the metric was not measured: no run has it and none diverged.
        """
        records = [record for _, record in self.seeds]
        values = [record.metrics.get(name) for record in records]
        if all(value is None for value in values) and all(r.status in FINISHED for r in records):
            return np.empty(0)
        return np.array([np.inf if value is None else value for value in values], dtype=np.float64)

    @cached_property
    def line(self) -> dict[str, Any]:
        """The row's line of `diffhash.paper.table.Table.frame`."""
        line: dict[str, Any] = {
            "row": self.row,
            "model": self.model,
            "status": self.status,
            "epochs": self.epochs if self.runs else pd.NA,
            "paper_epochs": self.paper_epochs,
        }
        values = {name: self.values(name) for name in METRICS}
        values["train_seconds"] = np.array([record.train_seconds for record in self.completed])
        for name in VALUES:
            each = values[name]
            found = median_interval(each) if len(each) else [np.nan] * 3
            if name == "train_seconds" and self.timing is not None and self.completed:
                chunks = np.array(self.timing.chunks)
                ends = (chunks.min(), chunks.max()) if len(chunks) > 1 else (np.nan, np.nan)
                found = np.array([np.median(chunks), *ends]) * self.completed[0].epochs
            middle, low, high = map(float, found)
            paper = np.nan if self.printed is None else self.printed[name]
            line |= {name: middle, f"{name}_low": low, f"{name}_high": high,
                     f"paper_{name}": paper, f"decades_{name}": decades(middle, paper)}  # fmt: skip
        return line | {
            "timed_alone": self.timing is not None,
            "peak_memory_mb": max((r.peak_memory_mb for _, r in self.runs), default=np.nan),
            "seeds": " ".join(str(record.seed) for record in self.completed),
            "n": len(self.seeds),
            "n_diverged": self.n_diverged,
        }

    @cached_property
    def predicted(self) -> Files:
        """The predictions of each run that has any; raises `RecordError` for a corrupt file."""
        return self._files(read_predictions)

    @cached_property
    def histories(self) -> Files:
        """The history of each run that has one, with seconds by the row's timing if there is one;
        raises `RecordError` for a corrupt file."""
        files = self._files(read_history)
        if self.timing:
            for _, frame in files:
                frame["seconds"] = frame["epoch"] * self.timing.seconds_per_epoch
        return files

    @cached_property
    def predictions(self) -> pd.DataFrame | None:
        """The predictions over the seeds, see `combine_predictions`; None if no run completed.

        Raises:
            RecordError: files are corrupt or do not fit each other.
        """
        frames, _ = self._over_seeds(self.predicted)
        return combine_predictions(frames, self.n_diverged) if frames else None

    @cached_property
    def history(self) -> pd.DataFrame | None:
        """The history over the seeds, see `combine_histories`; None if there is no history."""
        completed, diverged = self._over_seeds(self.histories)
        return combine_histories(completed, diverged) if completed or diverged else None

    def _files(self, read: Callable[[Path], pd.DataFrame]) -> Files:
        frames = []
        for directory, record in self.runs:
            with suppress(FileNotFoundError):
                frames.append((record, read(directory)))
        return frames

    def _over_seeds(self, files: Files) -> tuple[list, list]:
        """The files of the completed seeds (or of a run that is not completed), and of the
        others."""
        completed = [frame for record, frame in files if record.status == "completed"]
        diverged = [frame for record, frame in files if record.status == "diverged"]
        return completed or [frame for _, frame in files if not self.seeds], diverged


def decades(ours: float, paper: float) -> float:
    """log10(ours / paper): +1 is ten times the paper's value, NaN if a value is absent.

    Raises:
        ValueError: a value is negative, or the printed value is 0.
    """
    if ours < 0 or paper <= 0:
        raise ValueError("decades: expected ours >= 0 and paper > 0")
    with np.errstate(divide="ignore"):  # ours = 0 is infinitely many decades below
        return float(np.log10(ours / paper))


def row_records(
    runs: Path | str, on_problem: OnProblem = raise_problem
) -> dict[str, dict[str, list[Found]]]:
    """The records of both tables by row key, each row's sorted by seed.

    Args:
        runs: the folder of the records of all rows.
        on_problem: a function that is called with the error of each record that cannot be used,
            which is left out; the default raises the error. If settings differ among the seeds of a
            row, the records with the settings of most seeds are used.

    Raises:
        RecordError: a record has a corrupt file; a record in a row's folder has another
            ``experiment`` than ``<table>/<row>``; two records there have the same seed; or a record
            has another encoder, task, budget, learning rate or size than the rest of its row.
    """
    rows: dict[str, dict[str, list[Found]]] = {table: {} for table in TABLES}
    for directory, record in find_records(runs, on_problem, without=(TIMINGS, CALIBRATIONS)):
        table, row, *_ = (*directory.relative_to(runs).parts, "", "")
        of_table, _, of_row = (record.experiment or "").partition("/")
        if table in rows and (of_table, of_row) != (table, row):
            where = f"lies among the runs of {table}/{row} but is of experiment"
            on_problem(RecordError(f"record {directory} {where} {record.experiment!r}"))
        elif table in rows or (of_table in rows and _is_row(record)):
            rows[of_table].setdefault(of_row, []).append((directory, record))
    return {
        table: {
            row: kept
            for row, items in found.items()
            if (kept := _alike(_one_per_seed(items, Path(runs) / table, on_problem), on_problem))
        }
        for table, found in rows.items()
    }


def _is_row(record: RunRecord) -> bool:
    """Whether the command line of a record has changed no setting of its experiment."""
    keys = (text.lstrip("+~").partition("=")[0] for text in record.overrides)
    return all(any(fnmatchcase(key, pattern) for pattern in _SAME_ROW) for key in keys)


def _one_per_seed(found: list[Found], own: Path, report: OnProblem) -> list[Found]:
    """One record for each seed, sorted by seed: the record in the folder ``own``, or else the
    newest completed one."""

    def worth(item: Found) -> tuple[bool, bool, float]:
        directory, record = item
        written = (directory / RESULT_FILE).stat().st_mtime
        return own in directory.parents, record.status == "completed", written

    seeds: dict[int, Found] = {}
    for directory, record in sorted(found, key=worth, reverse=True):
        first, _ = seeds.setdefault(record.seed, (directory, record))
        if first != directory and own in directory.parents:
            both = " and ".join(sorted(map(str, (first, directory))))
            report(RecordError(f"two records of seed {record.seed}: {both}"))
    return [found for _, found in sorted(seeds.items())]


def _alike(found: Iterable[Found], report: OnProblem) -> list[Found]:
    """The records without corrupt files that have the settings of most records."""
    kept: list[tuple[Found, dict[str, Any]]] = []
    for directory, record in found:
        try:
            kept.append(((directory, record), _settings(directory, record)))
        except RecordError as error:
            report(error)
    for name in _ALIKE:
        known = [settings[name] for _, settings in kept if name in settings]
        usual = Counter(known).most_common(1)[0][0] if known else None
        odd = [item for item in kept if item[1].get(name, usual) != usual]
        kept = [item for item in kept if item not in odd]
        for (directory, _), settings in odd:
            report(
                RecordError(
                    f"record {directory} has {name} = {settings[name]!r}, {kept[0][0][0]} of the "
                    f"same row has {usual!r}: run the row again or remove the stale one"
                )
            )
    return [item for item, _ in kept]


def _settings(directory: Path, record: RunRecord) -> dict[str, Any]:
    settings = {name: getattr(record, name) for name in _ALIKE[:-1]}
    predictions = check_files(directory, record)
    if predictions is not None:
        if "x" not in predictions:
            raise RecordError(f"record {directory}: predictions without a column x")
        points = predictions["x"].to_numpy(dtype=np.float64).tobytes()
        settings[_ALIKE[-1]] = zlib.crc32(points)
    return settings
