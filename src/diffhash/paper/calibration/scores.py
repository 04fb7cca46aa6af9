"""Scores of a set of hyper-parameters, from the records of its runs; tables of such sets.

A set is scored row by row. Its objective is the mean over the values of all rows; the mean over
some of them, ``so_far``, compares only with that of other sets over the same rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

import pandas as pd
from tabulate import tabulate

from diffhash._files import write_text_atomically
from diffhash.paper.printed import METRICS
from diffhash.results.reading import read_table
from diffhash.results.record import RunRecord

_MSES = tuple(name for name in METRICS if name.startswith("mse"))
_OF_A_TRIAL = ("trial", "status", "objective", "so_far", "rows_run", "n_diverged", "seconds")
_FORMAT = "%.6g"
_BEHIND = (
    "Values of rows are log10(ours / paper). Negative is ahead of the paper, which the objective "
    "counts as distance, too; behind: what is left of it if being ahead counts as 0."
)


def decades_from_paper(
    records: Sequence[RunRecord], printed: Mapping[str, Any], diverged: float
) -> dict[str, float]:
    """Decades from the paper's MSEs of one row to ours, log10(ours / paper), of each printed one.

    Ours is the median over the records; one without a value (diverged) is the largest of all. No
    distance is more than ``diverged`` either way, which is also that of a median without a value.

    Args:
        records: of one row, a seed each.
        printed: the row of `diffhash.results.load_paper_table`; NaN where nothing is printed.
        diverged: in decades.

    Raises:
        ValueError: no record, or a row of which no MSE is printed.
    """
    targets = {name: printed[name] for name in _MSES if not pd.isna(printed[name])}
    if not records or not targets:
        raise ValueError(f"decades of {len(records)} records from {len(targets)} printed MSEs")
    found = {}
    for name, target in targets.items():
        values = (record.metrics.get(name) for record in records)
        ours = median(math.inf if value is None else value for value in values)
        found[name] = max(-diverged, min(diverged, _log10(ours) - math.log10(target)))
    return found


def log_error(records: Sequence[RunRecord], diverged: float) -> dict[str, float]:
    """log10 of the geometric mean of MSE u over the records of one row, under ``mse_u``.

    Args:
        records: of one row, a seed each.
        diverged: what log10 MSE u of a record without a value counts as, and at most.

    Raises:
        ValueError: no record.
    """
    if not records:
        raise ValueError("error of no records")
    values = (math.inf if record.mse_u is None else record.mse_u for record in records)
    return {"mse_u": fmean(min(diverged, _log10(value)) for value in values)}


def _log10(value: float) -> float:
    return -math.inf if value == 0 else math.log10(value) if value < math.inf else math.inf


def write_trials(path: Path, lines: Sequence[Mapping[str, Any]]) -> Path:
    """Write one line per trial as CSV, the columns that all have first.

    Raises:
        OSError: the folder cannot be written.
    """
    frame = pd.DataFrame(lines)
    first = [name for name in _OF_A_TRIAL if name in frame]
    frame = frame.reindex(columns=[*first, *(c for c in frame.columns if c not in first)])
    return write_text_atomically(path, frame.to_csv(index=False, float_format=_FORMAT))


def read_trials(path: Path) -> pd.DataFrame:
    """What `write_trials` wrote.

    Raises:
        FileNotFoundError: no such file.
        RecordError: the file is not such a table; the message names its path.
    """
    return read_table(path, _OF_A_TRIAL)


def parameters(trials: pd.DataFrame) -> list[str]:
    """The columns that are settings, such as ``trainer.learning_rate``."""
    return [name for name in trials.columns if "." in name]


def write_report(
    directory: Path, study: str, title: str, machine: Mapping[str, Any], *, behind: bool = False
) -> tuple[Path, str]:
    """Write ``<study>.md`` from the study's tables: how the search went, and what was confirmed.

    Args:
        directory: of the tables.
        study: its name.
        title: what its objective is.
        machine: on which it ran.
        behind: its scores are decades from the paper: say how far a candidate is behind it.

    Returns:
        Its path, and its first paragraph.

    Raises:
        FileNotFoundError: no table of trials.
        RecordError: a corrupt table.
    """
    trials = read_trials(directory / f"{study}.csv")
    counts = ", ".join(f"{n} {status}" for status, n in trials["status"].value_counts().items())
    summary = (
        f"{len(trials)} trials ({counts}) in {trials['seconds'].sum() / 3600:.2f} hours of "
        "processes."
    )
    measured = ", ".join(f"{key} {value}" for key, value in machine.items())
    parts = [f"**Calibration of the preset {study}**: {title}", summary]
    if (directory / f"{study}-confirmed.csv").exists():
        confirmed = read_trials(directory / f"{study}-confirmed.csv")
        parts += [
            "Confirmed on other seeds than those of the search, the present preset beside the best "
            "trials:",
            _confirmed_table(confirmed, behind),
        ]
        parts += [_BEHIND] if behind else []
    parts += [f"![What matters]({study}.png)", f"- Measured with {measured}."]
    path = write_text_atomically(directory / f"{study}.md", "\n\n".join(parts) + "\n")
    return path, summary


def _confirmed_table(confirmed: pd.DataFrame, behind: bool) -> str:
    settings = parameters(confirmed)
    scores = [name for name in confirmed.columns if "/" in name]
    lines = ["status", "searched", "objective", *scores, *settings]
    if behind:
        excess = confirmed[scores].clip(lower=0)
        confirmed = confirmed.assign(
            **{"behind, mean": excess.mean(axis=1), "behind, most": excess.max(axis=1)}
        )
        lines[3:3] = ["behind, mean", "behind, most"]
    table = confirmed.set_index("candidate")[lines].astype(object).T
    cells = table.where(table.notna(), "–").map(lambda v: f"{v:.3g}" if isinstance(v, float) else v)
    return tabulate(cells, "keys", "github", disable_numparse=True)
