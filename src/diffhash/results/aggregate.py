"""From records to one data frame per table of the paper.

The runs of a row lie in ``<runs>/<table>/<row>/…``, usually one ``seed<n>`` folder per seed.
Their timings lie elsewhere: see `diffhash.results.timing`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from diffhash.results.paper import PAPER_DIRECTORY, VALUES, load_paper_table
from diffhash.results.record import METRICS, RecordError, RunRecord, find_records
from diffhash.results.statistics import median_interval
from diffhash.results.timing import Timing, find_timing

_LABELS = {"mlp": "MLP", "siren": "SIREN", "ff": "FF", "linear": "Linear", "s1": "S1", "s2": "S2",
           "cubic": "Cubic"}  # fmt: skip
COLUMNS = (
    "row", "model", "status", "epochs", "paper_epochs",
    *(column.format(value) for value in VALUES
      for column in ("{}", "{}_low", "{}_high", "paper_{}", "decades_{}")),
    "timed_alone", "peak_memory_mb", "seeds", "n", "n_diverged",
)  # fmt: skip

RowRecords = dict[str, list[tuple[Path, RunRecord]]]


@dataclass(frozen=True)
class TrainTotal:
    """Train seconds added up over rows, ours and the paper's.

    ``ours`` and ``paper_same_rows`` add up the ``n_rows`` rows that both have; ``paper`` adds up
    all ``n_paper_rows`` rows of the paper.
    """

    ours: float
    paper_same_rows: float
    n_rows: int
    paper: float
    n_paper_rows: int


def row_records(table: str, runs: Path | str) -> RowRecords:
    """The records of a table by row key, each row's sorted by seed.

    Raises:
        RecordError: a corrupt record; one whose ``experiment`` is not ``<table>/<row>``; two of
            one row with the same seed, or with different encoder, task, budget or learning rate.
    """
    root = Path(runs) / table
    rows: RowRecords = {}
    for directory, record in find_records(root):
        row = next(iter(directory.relative_to(root).parts), "")
        if record.experiment != f"{table}/{row}":
            raise RecordError(
                f"record {directory} lies among the runs of {table}/{row} but is of experiment "
                f"{record.experiment!r}"
            )
        rows.setdefault(row, []).append((directory, record))
    for found in rows.values():
        found.sort(key=lambda item: item[1].seed)
        _check_consistent(found)
    return rows


def row_timing(runs: Path | str, found: Iterable[tuple[Path, RunRecord]]) -> Timing | None:
    """The timing of a row: that of the first of its runs which has one.

    Args:
        runs: folder of the records of all rows.
        found: the row's, out of :func:`row_records`.

    Raises:
        RecordError, FileNotFoundError: see `diffhash.results.timing.find_timing`.
    """
    timings = (find_timing(runs, record) for _, record in found)
    return next((timing for timing in timings if timing), None)


def aggregate(table: str, runs: Path | str, paper: Path | str = PAPER_DIRECTORY) -> pd.DataFrame:
    """One row per table row: the paper's rows in printed order, then any other row with records.

    Columns (:data:`COLUMNS`): each error is the median over the ``n`` seeds that count, those
    whose run completed or diverged, and ``<value>_low`` and ``<value>_high`` are the ends of its
    interval (`diffhash.results.statistics.median_interval`; NaN for one seed). A diverged run, or
    an error that was not finite, is infinite there and never dropped. ``n_diverged`` counts the
    diverged runs, ``seeds`` lists the completed ones (space-separated). ``paper_<value>`` is the
    printed one, ``decades_<value>`` = log10(ours / paper) that of the median. Values without
    counterpart are NaN.

    ``status`` is ``completed``, ``diverged @ epoch N``, ``interrupted @ epoch N`` or ``missing``;
    with several seeds it names those that did not complete. ``epochs`` is the budget of our runs.
    ``train_seconds`` are those of an epoch alone on the machine times the epochs, with the
    smallest and largest chunk of that timing as ends, and ``timed_alone`` is true; or those that
    the completed runs themselves took. ``peak_memory_mb`` is the largest of any run.

    Raises:
        RecordError: see :func:`row_records` and :func:`row_timing`.
        FileNotFoundError: no transcription of the paper's table in ``paper``, or a timing
            without history.
    """
    printed = load_paper_table(table, paper).to_dict("index")
    found = row_records(table, runs)
    rows = [str(row) for row in printed] + [row for row in found if row not in printed]
    lines = []
    for row in rows:
        timing = row_timing(runs, found.get(row, []))
        lines.append(_summary(row, printed.get(row), found.get(row, []), timing))
    frame = pd.DataFrame(lines)
    for value in VALUES:
        frame[f"decades_{value}"] = decades(frame[value], frame[f"paper_{value}"])
    types = {"epochs": "Int64", "paper_epochs": "Int64"}
    return frame.reindex(columns=list(COLUMNS)).astype(types)


def counted(found: Iterable[tuple[Path, RunRecord]]) -> list[tuple[Path, RunRecord]]:
    """Of a row's records those that count as a seed: completed and diverged, not interrupted."""
    return [item for item in found if item[1].status != "interrupted"]


def over_seeds(records: Iterable[RunRecord], metric: str) -> np.ndarray:
    """A metric of each run as float64; infinite where it diverged or was not finite.

    Empty where no run has it and none diverged: then it was not measured.
    """
    records = list(records)
    values = [getattr(record, metric) for record in records]
    if all(value is None for value in values) and all(r.status == "completed" for r in records):
        return np.empty(0)
    return np.array([np.inf if value is None else value for value in values], dtype=np.float64)


def decades(ours: Any, paper: Any) -> Any:
    """log10(ours / paper), elementwise: +1 is ten times the paper's value, NaN if one is absent.

    Raises:
        ValueError: a negative value, or a printed value of 0.
    """
    if np.any(np.asarray(ours) < 0) or np.any(np.asarray(paper) <= 0):
        raise ValueError("decades: expected ours >= 0 and paper > 0")
    with np.errstate(divide="ignore"):  # ours = 0 is infinitely many decades below
        return np.log10(ours / paper)


def train_total(frames: Iterable[pd.DataFrame]) -> TrainTotal:
    """Total train seconds of the paper's rows in the given :func:`aggregate` frames."""
    lines = [line for frame in frames for line in frame.to_dict("records")]
    printed = [line for line in lines if not pd.isna(line["paper_train_seconds"])]
    have = [line for line in printed if not pd.isna(line["train_seconds"])]
    return TrainTotal(
        ours=sum(line["train_seconds"] for line in have),
        paper_same_rows=sum(line["paper_train_seconds"] for line in have),
        n_rows=len(have),
        paper=sum(line["paper_train_seconds"] for line in printed),
        n_paper_rows=len(printed),
    )


def _check_consistent(found: list[tuple[Path, RunRecord]]) -> None:
    first_directory, first = found[0]
    for (previous, earlier), (directory, record) in pairwise(found):
        if record.seed == earlier.seed:
            raise RecordError(f"two records of seed {record.seed}: {previous} and {directory}")
        for name in ("encoder", "task", "epochs_requested", "learning_rate"):
            here, there = getattr(record, name), getattr(first, name)
            if here != there:
                raise RecordError(
                    f"record {directory} has {name} = {here!r}, {first_directory} of the same "
                    f"row has {there!r}: run the row again or remove the stale one"
                )


def _summary(
    row: str,
    printed: dict[str, Any] | None,
    found: list[tuple[Path, RunRecord]],
    timing: Timing | None,
) -> dict[str, Any]:
    records = [record for _, record in found]
    seeds = [record for _, record in counted(found)]
    completed = [record for record in records if record.status == "completed"]
    line: dict[str, Any] = {
        "row": row,
        "model": _label(row, records) if printed is None else printed["label"],
        "status": _status(records),
        "epochs": records[0].epochs_requested if records else pd.NA,
        "paper_epochs": pd.NA if printed is None else printed["epochs"],
        "timed_alone": timing is not None,
        "peak_memory_mb": max((r.peak_memory_mb for r in records), default=float("nan")),
        "seeds": " ".join(str(record.seed) for record in completed),
        "n": len(seeds),
        "n_diverged": sum(record.status == "diverged" for record in seeds),
    }
    for value in VALUES:
        line[f"paper_{value}"] = float("nan") if printed is None else printed[value]
    for metric in METRICS:
        line |= _median(metric, over_seeds(seeds, metric))
    line |= _median("train_seconds", np.array([record.train_seconds for record in completed]))
    if timing is not None and completed:
        chunks = np.array(timing.chunks) * completed[0].epochs
        line["train_seconds"] = timing.seconds_per_epoch * completed[0].epochs
        line["train_seconds_low"] = chunks.min() if len(chunks) > 1 else float("nan")
        line["train_seconds_high"] = chunks.max() if len(chunks) > 1 else float("nan")
    return line


def _median(name: str, values: np.ndarray) -> dict[str, float]:
    names = (name, f"{name}_low", f"{name}_high")
    found = median_interval(values) if len(values) else [float("nan")] * 3
    return {name: float(value) for name, value in zip(names, found, strict=True)}


def _label(row: str, records: list[RunRecord]) -> str:
    first = records[0]
    label = _LABELS.get(first.encoder, first.encoder)
    return f"{label} ({first.preset})" if first.preset else f"{label} ({row})"


def _status(records: list[RunRecord]) -> str:
    if not records:
        return "missing"
    ends = {
        record.seed: f"{record.status} @ epoch "
        f"{record.epochs if record.diverged_epoch is None else record.diverged_epoch}"
        for record in records
        if record.status != "completed"
    }
    if len(records) == 1:
        return next(iter(ends.values()), "completed")
    parts = [f"seed {seed} {end}" for seed, end in ends.items()]
    if len(ends) < len(records):
        parts.insert(0, "completed")
    return "; ".join(parts)
