"""The runs of several seeds as one: which count, medians of what they have, and their intervals."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from diffhash.results.record import FINISHED, RecordError, RunRecord
from diffhash.results.statistics import CONFIDENCE, interval_rank, median_interval

_EXACT = "exact_"
_TIME = ("epoch", "seconds")


def counted(found: Iterable[tuple[Path, RunRecord]]) -> list[tuple[Path, RunRecord]]:
    """Of the records of one setting those that count as a seed: not the interrupted ones."""
    return [item for item in found if item[1].status != "interrupted"]


def over_seeds(records: Iterable[RunRecord], metric: str) -> np.ndarray:
    """A metric of each run as float64; infinite where it diverged or was not finite.

    Empty where no run has it and none diverged: then it was not measured.
    """
    records = list(records)
    values = [record.metrics.get(metric) for record in records]
    if all(value is None for value in values) and all(r.status in FINISHED for r in records):
        return np.empty(0)
    return np.array([np.inf if value is None else value for value in values], dtype=np.float64)


def band_labels(counts: Iterable[int]) -> dict[int, str]:
    """What bands over so many seeds each show, for a legend: the intervals of the tables.

    Bands of one kind share a label, which names the fewest and the most seeds. One seed has none.
    """
    labels: dict[int, str] = {}
    several = sorted({n for n in counts if n > 1})
    for is_interval, kind in (
        (False, "smallest to largest of"),
        (True, f"{CONFIDENCE:.0%} interval of the median of"),
    ):
        sizes = [n for n in several if (interval_rank(n) is not None) == is_interval]
        if sizes:
            n_seeds = " to ".join(map(str, dict.fromkeys((sizes[0], sizes[-1]))))
            labels |= dict.fromkeys(sizes, f"{kind} {n_seeds} seeds")
    return labels


def combine_predictions(frames: Sequence[pd.DataFrame], n_diverged: int) -> pd.DataFrame:
    """Pointwise median and interval of predictions, and of their absolute errors.

    Columns: ``x`` and the exact values as they are; the median of ``u`` … under that name, the
    ends of its interval as ``u_low`` and ``u_high``; of the absolute error as ``error_u``,
    ``error_u_low``, ``error_u_high``. A diverged run predicts nothing, so it is not among the
    predictions; among the errors it is infinite. A point where a prediction is not finite is NaN.

    Args:
        frames: of the completed runs, as `diffhash.results.read_predictions` gives them.
        n_diverged: further runs.

    Raises:
        RecordError: predictions at different points.
    """
    first = frames[0]
    for frame in frames[1:]:
        if not np.array_equal(frame["x"].to_numpy(), first["x"].to_numpy()):
            raise RecordError("predictions of seeds of one row at different points x")
    combined: dict[str, np.ndarray] = {"x": first["x"].to_numpy()}
    for column in map(str, first):
        name = column.removeprefix(_EXACT)
        if column == name or name not in first:
            continue
        values = np.stack([frame[name].to_numpy(dtype=np.float64) for frame in frames])
        exact = first[column].to_numpy(dtype=np.float64)
        combined[column] = exact
        finite = np.isfinite(values).all(axis=0)
        for key, end in _ends(name, np.where(finite, values, 0.0)):
            combined[key] = np.where(finite, end, np.nan)
        errors = np.abs(values - exact)
        errors = np.where(np.isnan(errors), np.inf, errors)
        diverged = np.full((n_diverged, len(exact)), np.inf)
        combined |= dict(_ends(f"error_{name}", np.concatenate([errors, diverged])))
    return pd.DataFrame(combined)


def combine_histories(
    completed: Sequence[pd.DataFrame], diverged: Sequence[pd.DataFrame]
) -> pd.DataFrame:
    """Median and interval of each column over the epochs that all completed runs have.

    Columns as of `diffhash.results.read_history` without ``seconds``, with ``<column>_low`` and
    ``<column>_high``. A run that diverged is infinite from there on.
    """
    kept = [_by_epoch(frame) for frame in completed]
    ended = [_by_epoch(frame) for frame in diverged]
    epochs = (kept or ended)[0].index
    for frame in (kept or ended)[1:]:
        epochs = epochs.intersection(frame.index) if kept else epochs.union(frame.index)
    runs = [frame.reindex(epochs) for frame in (*kept, *ended)]
    combined: dict[str, np.ndarray] = {"epoch": epochs.to_numpy()}
    for metric in [name for name in runs[0] if name not in _TIME and all(name in r for r in runs)]:
        values = np.stack([run[metric].to_numpy(dtype=np.float64) for run in runs])
        values = np.where(np.isfinite(values), values, np.inf)
        combined |= dict(_ends(str(metric), values))
    return pd.DataFrame(combined)


def _by_epoch(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.drop_duplicates("epoch", keep="last").set_index("epoch")


def _ends(name: str, values: np.ndarray) -> list[tuple[str, np.ndarray]]:
    keys = (name, f"{name}_low", f"{name}_high")
    return list(zip(keys, median_interval(values), strict=True))
