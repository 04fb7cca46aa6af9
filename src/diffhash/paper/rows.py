"""The records of a table's rows, and what of a row's seeds counts.

The runs of a row lie in ``<runs>/<table>/<row>/…``, usually one ``seed<n>`` folder per seed, or
anywhere else below ``<runs>`` under their experiment's name: of a seed that both have, the row's
own folder counts, of several elsewhere the newest completed one.
Their timings lie elsewhere: see `diffhash.paper.timing`.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

from diffhash.paper.printed import TABLES
from diffhash.paper.timing import TIMINGS, Timing, find_timing
from diffhash.results.record import (
    RESULT_FILE,
    OnProblem,
    RecordError,
    RunRecord,
    check_files,
    find_records,
    raise_problem,
)

Found = tuple[Path, RunRecord]
RowRecords = dict[str, list[Found]]

CALIBRATIONS = "calibration"
"""Folder of the calibrations' runs, which go by the names of rows but have other settings."""

# Settings of a command line that leave a row what it is.
_SAME_ROW = ("experiment", "seed", "seeds", "run_dir", "runs_dir", "ckpt_path", "resume", "logger",
             "logger.*", "hydra.*", "hydra/*", "trainer.accelerator", "trainer.devices",
             "trainer.num_threads", "trainer.execution")  # fmt: skip
_ALIKE = ("encoder", "preset", "task", "problem", "epochs_requested", "learning_rate",
          "n_parameters")  # fmt: skip


def row_records(table: str, runs: Path | str, on_problem: OnProblem | None = None) -> RowRecords:
    """The records of a table by row key, each row's sorted by seed.

    Args:
        table: ``table1`` or ``table2``.
        runs: folder of the records of all rows.
        on_problem: is told of each record that cannot be used, which is left out. Of settings that
            differ among the seeds of a row, those of most seeds count.

    Raises:
        RecordError: a record with a corrupt file; one in the row's folder whose ``experiment`` is
            not ``<table>/<row>``; two in it with the same seed; or one with another encoder, task,
            budget, learning rate or size than the rest of its row. Not with ``on_problem``.
    """
    report = raise_problem if on_problem is None else on_problem
    own: RowRecords = {}
    elsewhere: RowRecords = {}
    for directory, record in find_records(runs, report, without=(TIMINGS, CALIBRATIONS)):
        first, row, *_ = (*directory.relative_to(runs).parts, "", "")
        experiment = record.experiment or ""
        if first == table and experiment == f"{table}/{row}":
            own.setdefault(row, []).append((directory, record))
        elif first == table:
            where = f"lies among the runs of {table}/{row} but is of experiment"
            report(RecordError(f"record {directory} {where} {record.experiment!r}"))
        elif first not in TABLES and experiment.startswith(f"{table}/") and _is_row(record):
            row = experiment.removeprefix(f"{table}/")
            elsewhere.setdefault(row, []).append((directory, record))
    rows = {
        row: _alike(_one_per_seed(own.get(row, []), elsewhere.get(row, []), report), report)
        for row in dict.fromkeys((*own, *elsewhere))
    }
    return {row: found for row, found in rows.items() if found}


def row_timing(runs: Path | str, found: Iterable[Found]) -> Timing | None:
    """The timing of a row: that of the first of its runs which has one; raises as `find_timing`."""
    timings = (find_timing(runs, record) for _, record in found)
    return next((timing for timing in timings if timing), None)


def _is_row(record: RunRecord) -> bool:
    """Whether the command line that made a record changed nothing of its experiment."""
    keys = (text.lstrip("+~").partition("=")[0] for text in record.overrides)
    return all(any(fnmatchcase(key, pattern) for pattern in _SAME_ROW) for key in keys)


def _one_per_seed(own: list[Found], elsewhere: list[Found], report: OnProblem) -> list[Found]:
    """One record of each seed, sorted by seed."""
    seeds: dict[int, list[Found]] = {}
    for directory, record in own:
        seeds.setdefault(record.seed, []).append((directory, record))
    for (first, record), (second, _) in (several[:2] for several in seeds.values() if several[1:]):
        report(RecordError(f"two records of seed {record.seed}: {first} and {second}"))
    others: dict[int, list[Found]] = {}
    for directory, record in elsewhere:
        if record.seed not in seeds:
            others.setdefault(record.seed, []).append((directory, record))

    def newest_completed(found: Found) -> tuple[bool, float]:
        directory, record = found
        return record.status == "completed", (directory / RESULT_FILE).stat().st_mtime

    return [max(items, key=newest_completed) for _, items in sorted((seeds | others).items())]


def _alike(found: list[Found], report: OnProblem) -> list[Found]:
    """Those that are whole, and have the settings that most of them have."""
    whole: list[tuple[Found, dict[str, object]]] = []
    for directory, record in found:
        try:
            predictions = check_files(directory, record)
            settings = {name: getattr(record, name) for name in _ALIKE}
            if predictions is not None:
                if "x" not in predictions:
                    raise RecordError(f"record {directory}: predictions without a column x")
                points = predictions["x"].to_numpy(dtype=np.float64).tobytes()
                settings["predictions at points x with the checksum"] = zlib.crc32(points)
            whole.append(((directory, record), settings))
        except RecordError as error:
            report(error)
    kept = whole
    for name in dict.fromkeys(name for _, settings in whole for name in settings):
        counts = Counter(settings[name] for _, settings in kept if name in settings)
        if len(counts) < 2:
            continue
        [(usual, _)] = counts.most_common(1)
        example = next(item[0] for item, s in kept if s.get(name, usual) == usual)
        for (directory, _), settings in kept:
            if settings.get(name, usual) != usual:
                report(
                    RecordError(
                        f"record {directory} has {name} = {settings[name]!r}, {example} of the "
                        f"same row has {usual!r}: run the row again or remove the stale one"
                    )
                )
        kept = [(item, s) for item, s in kept if s.get(name, usual) == usual]
    return [item for item, _ in kept]
