"""The runs of several seeds combined: medians of histories and predictions, with intervals."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from diffhash.results.record import RecordError
from diffhash.results.statistics import CONFIDENCE, interval_rank, median_interval


def band_labels(counts: Iterable[int]) -> dict[int, str]:
    """The labels for a legend of bands over the given numbers of seeds, by number. The bands are
    the intervals of the tables.

    Bands of one kind share a label, which names the fewest and the most seeds. One seed has no
    label.
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

    The columns are ``x`` and the exact values unchanged; the median of each prediction under its
    name, such as ``u``, with the ends of its interval as ``u_low`` and ``u_high``; and likewise for
    the absolute error ``error_u``, ``error_u_low``, ``error_u_high``. A diverged run has no
    predictions, and infinite errors. A point where a prediction is not finite is NaN.

    Args:
        frames: the predictions of the completed runs; see `diffhash.results.read_predictions`.
        n_diverged: the number of diverged runs.

    Raises:
        RecordError: the predictions are at different points.
    """
    first = frames[0]
    if not all(np.array_equal(frame["x"], first["x"]) for frame in frames):
        raise RecordError("predictions of seeds of one row at different points x")
    parts = [first[["x"]]]
    for column in (str(name) for name in first if str(name).startswith("exact_")):
        name, exact = column.removeprefix("exact_"), first[column].to_numpy(dtype=float)
        values = np.stack([frame[name].to_numpy(dtype=float) for frame in frames])
        errors = np.nan_to_num(np.abs(values - exact), nan=np.inf, posinf=np.inf)
        errors = np.concatenate([errors, np.full((n_diverged, len(exact)), np.inf)])
        finite = np.isfinite(values).all(axis=0)
        parts += [
            first[[column]],
            _over(name, np.where(finite, values, np.nan)),
            _over(f"error_{name}", errors),
        ]
    return pd.concat(parts, axis="columns")


def combine_histories(
    completed: Sequence[pd.DataFrame], diverged: Sequence[pd.DataFrame]
) -> pd.DataFrame:
    """Median and interval of each column over the epochs that all completed runs have.

    The columns are those of `diffhash.results.read_history` without ``seconds``, with
    ``<column>_low`` and ``<column>_high``. A diverged run has infinite values from the epoch of its
    divergence on.
    """
    kept, ended = (
        [frame.drop_duplicates("epoch", keep="last").set_index("epoch") for frame in frames]
        for frames in (completed, diverged)
    )
    epochs = (kept or ended)[0].index
    for frame in (kept or ended)[1:]:
        epochs = epochs.intersection(frame.index) if kept else epochs.union(frame.index)
    runs = [frame.reindex(epochs) for frame in (*kept, *ended)]
    parts = [pd.DataFrame({"epoch": epochs})]
    for metric in [m for m in runs[0] if m != "seconds" and all(m in run for run in runs)]:
        values = np.stack([run[metric].to_numpy(dtype=float) for run in runs])
        parts.append(_over(str(metric), np.where(np.isfinite(values), values, np.inf)))
    return pd.concat(parts, axis="columns")


def _over(name: str, values: np.ndarray) -> pd.DataFrame:
    """The median over the first axis, and the ends of its interval, as columns."""
    return pd.DataFrame(
        dict(zip((name, f"{name}_low", f"{name}_high"), median_interval(values), strict=True))
    )
