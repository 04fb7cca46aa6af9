"""Writing the tables, and one sentence on what they cost."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from diffhash.results.aggregate import (
    RowRecords,
    TrainTotal,
    aggregate,
    row_records,
    row_timing,
    train_total,
)
from diffhash.results.paper import PAPER_DEVICE, PAPER_DIRECTORY, TABLES
from diffhash.results.record import METRICS, RecordError, write_text_atomically
from diffhash.results.tables.latex import to_latex
from diffhash.results.tables.markdown import to_markdown
from diffhash.results.tables.notes import environment_lines, memory_sentence, timing_sentence

RUN_COLUMNS = (
    *("row", "seed", "status", "diverged_epoch", "epochs", "learning_rate", *METRICS),
    *("train_seconds", "wall_seconds", "n_parameters", "peak_memory_mb", "config_hash"),
)


def write_tables(
    runs: Path | str, output: Path | str, paper: Path | str = PAPER_DIRECTORY
) -> tuple[list[Path], str]:
    """Write ``table1`` and ``table2`` as ``.csv``, ``.md`` and ``.tex`` into ``output``.

    Beside each, ``table1-runs.csv`` has what was recorded of every run (:data:`RUN_COLUMNS`): all
    that the table's statistics rest on.

    Returns:
        The paths written, and one sentence with the total train seconds beside the paper's.

    Raises:
        RecordError: no records at all under ``runs``, or unusable ones (see
            :func:`diffhash.results.aggregate.row_records`).
        OSError: the output folder cannot be written.
    """
    frames = {table: aggregate(table, runs, paper) for table in TABLES}
    if all((frame["status"] == "missing").all() for frame in frames.values()):
        raise RecordError(f"no records under {Path(runs)}: run `make reproduce-tables` first")
    total = total_sentence(train_total(frames.values()))
    memory = memory_sentence(frames)
    paths = []
    for table, frame in frames.items():
        found = row_records(table, runs)
        records = [record for row in found.values() for _, record in row]
        timings = [timing.record for row in found.values() if (timing := row_timing(runs, row))]
        remarks = [timing_sentence(timings), total, memory, *environment_lines(records)]
        for suffix, text in (
            ("csv", frame.to_csv(index=False)),
            ("md", to_markdown(table, frame, remarks)),
            ("tex", to_latex(table, frame, remarks)),
        ):
            paths.append(write_text_atomically(Path(output) / f"{table}.{suffix}", text))
    for table in TABLES:
        text = _runs_frame(row_records(table, runs)).to_csv(index=False)
        paths.append(write_text_atomically(Path(output) / f"{table}-runs.csv", text))
    return paths, total


def _runs_frame(found: RowRecords) -> pd.DataFrame:
    lines = [
        {"row": row} | {name: getattr(record, name) for name in RUN_COLUMNS[1:]}
        for row, items in found.items()
        for _, record in items
    ]
    return pd.DataFrame(lines, columns=list(RUN_COLUMNS))


def total_sentence(total: TrainTotal) -> str:
    """Our total train seconds beside the paper's, saying which rows are counted if not all."""
    if total.n_rows == total.n_paper_rows:
        return (
            f"Train seconds of both tables together: {total.ours:.1f} "
            f"(paper: {total.paper:.1f} on an {PAPER_DEVICE})."
        )
    return (
        f"Train seconds of the {total.n_rows} rows of {total.n_paper_rows} that completed: "
        f"{total.ours:.1f} (paper, on an {PAPER_DEVICE}: {total.paper_same_rows:.1f} for the same "
        f"rows, {total.paper:.1f} for all)."
    )
