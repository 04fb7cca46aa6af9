"""From records to one data frame per table of the paper."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from diffhash.paper.printed import METRICS, VALUES
from diffhash.paper.rows import RowRecords
from diffhash.paper.timing import Timing
from diffhash.results.formats import printable
from diffhash.results.record import RunRecord
from diffhash.results.seeds import counted, over_seeds
from diffhash.results.statistics import median_interval

_LABELS = {"mlp": "MLP", "siren": "SIREN", "ff": "FF", "linear": "Linear", "s1": "S1", "s2": "S2",
           "cubic": "Cubic"}  # fmt: skip
COLUMNS = (
    "row", "model", "status", "epochs", "paper_epochs",
    *(column.format(value) for value in VALUES
      for column in ("{}", "{}_low", "{}_high", "paper_{}", "decades_{}")),
    "timed_alone", "peak_memory_mb", "seeds", "n", "n_diverged",
)  # fmt: skip


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


def aggregate(
    printed: pd.DataFrame, runs: RowRecords, timings: Mapping[str, Timing]
) -> pd.DataFrame:
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

    Args:
        printed: the paper's table (`diffhash.paper.printed.load_paper_table`).
        runs: the records of each row that has any.
        timings: of each row that was timed alone.
    """
    paper = {str(row): line for row, line in printed.to_dict("index").items()}
    rows = [*paper, *(row for row in runs if row not in paper)]
    frame = pd.DataFrame(
        [_summary(row, paper.get(row), runs.get(row, []), timings.get(row)) for row in rows]
    )
    for value in VALUES:
        frame[f"decades_{value}"] = decades(frame[value], frame[f"paper_{value}"])
    types = {"epochs": "Int64", "paper_epochs": "Int64"}
    return frame.reindex(columns=list(COLUMNS)).astype(types)


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
    first, row = records[0], printable(row)
    label = _LABELS.get(first.encoder, printable(first.encoder))
    return f"{label} ({printable(first.preset)})" if first.preset else f"{label} ({row})"


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
