"""The records of a table's rows, and what of a row's seeds counts.

The runs of a row lie in ``<runs>/<table>/<row>/…``, usually one ``seed<n>`` folder per seed.
Their timings lie elsewhere: see `diffhash.results.timing`.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import numpy as np

from diffhash.results.record import RecordError, RunRecord, find_records
from diffhash.results.timing import Timing, find_timing

RowRecords = dict[str, list[tuple[Path, RunRecord]]]


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
