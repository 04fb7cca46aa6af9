"""A table of the paper with the records of its rows: what tables, claims and plots are made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from diffhash.paper.printed import (
    METRICS,
    PAPER_DIRECTORY,
    TABLES,
    TITLES,
    VALUES,
    load_paper_table,
)
from diffhash.paper.rows import Found, RowRecords, row_records, row_timing
from diffhash.paper.timing import Timing
from diffhash.results.formats import format_epochs, printable
from diffhash.results.metrics import ENCODERS, metric_names
from diffhash.results.record import OnProblem, RecordError, RunRecord
from diffhash.results.seeds import counted, over_seeds
from diffhash.results.statistics import median_interval

NO_RECORD = "no record"
COLUMNS = (
    "row", "model", "status", "epochs", "paper_epochs",
    *(column.format(value) for value in VALUES
      for column in ("{}", "{}_low", "{}_high", "paper_{}", "decades_{}")),
    "timed_alone", "peak_memory_mb", "seeds", "n", "n_diverged",
)  # fmt: skip
Line = dict[Any, Any]
"""One line of a `Table.frame`."""


@dataclass(frozen=True)
class Table:
    """A table: one line per row, and the records it was made of.

    Attributes:
        name: ``table1`` or ``table2``.
        folder: of the records of all tables.
        frame: the paper's rows in printed order, then any other row with records; columns
            :data:`COLUMNS`. Each error is the median over the ``n`` seeds that count, those whose
            run completed or diverged, and ``<value>_low`` and ``<value>_high`` are the ends of its
            interval (`diffhash.results.statistics.median_interval`; NaN for one seed). A diverged
            run, or an error that was not finite, is infinite there and never dropped.
            ``n_diverged`` counts the diverged runs, ``seeds`` lists the completed ones
            (space-separated). ``paper_<value>`` is the printed one, ``decades_<value>`` =
            log10(ours / paper) that of the median. Values without counterpart are NaN.
            ``status`` is ``completed``, ``diverged @ epoch N``, ``interrupted @ epoch N`` or
            ``missing``; with several seeds it names those that did not complete. ``epochs`` is the
            budget of our runs. ``train_seconds`` are those of an epoch alone on the machine times
            the epochs, with the smallest and largest chunk of that timing as ends, and
            ``timed_alone`` is true; or those that the completed runs themselves took.
            ``peak_memory_mb`` is the largest of any run.
        runs: the records of each row that has any.
        timings: of each row that was timed alone.
    """

    name: str
    folder: Path
    frame: pd.DataFrame
    runs: RowRecords
    timings: dict[str, Timing]

    @property
    def number(self) -> str:
        """``Table I``."""
        return TITLES[self.name].partition(". ")[0]

    @property
    def subject(self) -> str:
        """``Data-driven learning``."""
        return TITLES[self.name].partition(". ")[2]

    @cached_property
    def lines(self) -> dict[str, Line]:
        """The frame's lines by row."""
        return {line["row"]: line for line in self.frame.to_dict("records")}

    @cached_property
    def labels(self) -> dict[str, str]:
        """Rows as the paper names them, with their budget: ``MLP 10k``."""
        return {row: f"{line['model']} {line_epochs(line)}" for row, line in self.lines.items()}

    @cached_property
    def notes(self) -> dict[str, str]:
        """What a reader must know of a row: empty where every run completed."""
        status = {row: line["status"].removeprefix("completed") for row, line in self.lines.items()}
        return {
            row: NO_RECORD if text == "missing" else text.removeprefix("; ")
            for row, text in status.items()
        }

    @property
    def records(self) -> list[Found]:
        """All of them, row by row."""
        return [item for row in self.lines for item in self.runs.get(row, [])]

    @property
    def several_seeds(self) -> bool:
        """Whether any row stands on several seeds, so that there are intervals to show."""
        return bool((self.frame["n"] > 1).any())

    @cached_property
    def metrics(self) -> list[str]:
        """Those that the paper prints, and any other that a run has recorded."""
        return metric_names([dict.fromkeys(METRICS), *(r.metrics for _, r in self.records)])

    def printed(self) -> list[Line]:
        """The lines that the paper has too."""
        return [line for line in self.lines.values() if not pd.isna(line["paper_epochs"])]


def line_epochs(line: Line) -> str:
    """The budget of our runs; of a missing row the paper's, to tell it from the others."""
    epochs = line["paper_epochs"] if pd.isna(line["epochs"]) else line["epochs"]
    return format_epochs(int(epochs))


def load_table(
    name: str,
    runs: Path | str,
    paper: Path | str = PAPER_DIRECTORY,
    on_problem: OnProblem | None = None,
) -> Table:
    """Read the records of a table.

    Args:
        name: ``table1`` or ``table2``.
        runs: folder of the records of all rows.
        paper: folder of the paper's tables.
        on_problem: is told of each record or timing that cannot be used, which is left out.

    Raises:
        RecordError: unusable records, see `diffhash.paper.rows`; not with ``on_problem``.
        FileNotFoundError: no transcription of the paper's table, or, without ``on_problem``, a
            timing without history.
    """
    printed = load_paper_table(name, paper)
    found = row_records(name, runs, on_problem)
    timings = {}
    for row, items in found.items():
        try:
            timings[row] = row_timing(runs, items)
        except (RecordError, FileNotFoundError) as error:
            if on_problem is None:
                raise
            on_problem(RecordError(f"timing of {name}/{row}: {error}"))
    timings = {row: timing for row, timing in timings.items() if timing}
    return Table(name, Path(runs), _frame(printed, found, timings), found, timings)


def load_tables(
    runs: Path | str, paper: Path | str = PAPER_DIRECTORY, on_problem: OnProblem | None = None
) -> dict[str, Table]:
    """Both tables by name; arguments and errors as of `load_table`, each problem told once."""
    told: set[str] = set()

    def tell(problem: RecordError) -> None:
        if str(problem) not in told and on_problem is not None:
            told.add(str(problem))
            on_problem(problem)

    report = None if on_problem is None else tell
    return {name: load_table(name, runs, paper, report) for name in TABLES}


def check_any_records(tables: Iterable[Table]) -> None:
    """Refuse to make anything of nothing.

    Raises:
        RecordError: not a single record.
    """
    tables = list(tables)
    if not any(table.runs for table in tables):
        folders = " and ".join(dict.fromkeys(str(table.folder) for table in tables))
        raise RecordError(f"no records under {folders}: run `make reproduce-tables` first")


def decades(ours: Any, paper: Any) -> Any:
    """log10(ours / paper), elementwise: +1 is ten times the paper's value, NaN if one is absent.

    Raises:
        ValueError: a negative value, or a printed value of 0.
    """
    if np.any(np.asarray(ours) < 0) or np.any(np.asarray(paper) <= 0):
        raise ValueError("decades: expected ours >= 0 and paper > 0")
    with np.errstate(divide="ignore"):  # ours = 0 is infinitely many decades below
        return np.log10(ours / paper)


def train_seconds(tables: Iterable[Table]) -> pd.DataFrame:
    """Of each of the paper's rows, ``ours`` (NaN of one without a completed run) and ``paper``."""
    columns = {"train_seconds": "ours", "paper_train_seconds": "paper"}
    lines: Any = pd.concat([table.frame[list(columns)] for table in tables])
    return lines.rename(columns=columns).dropna(subset="paper")


# ------------------------------------------------------------------------------------- the frame


def _frame(printed: pd.DataFrame, runs: RowRecords, timings: Mapping[str, Timing]) -> pd.DataFrame:
    paper = {str(row): line for row, line in printed.to_dict("index").items()}
    rows = [*paper, *(row for row in runs if row not in paper)]
    frame = pd.DataFrame(
        [_line(row, paper.get(row), runs.get(row, []), timings.get(row)) for row in rows]
    )
    for value in VALUES:
        frame[f"decades_{value}"] = decades(frame[value], frame[f"paper_{value}"])
    types = {"epochs": "Int64", "paper_epochs": "Int64"}
    return frame.reindex(columns=list(COLUMNS)).astype(types)


def _line(row: str, printed: Line | None, found: list[Found], timing: Timing | None) -> Line:
    records = [record for _, record in found]
    seeds = [record for _, record in counted(found)]
    completed = [record for record in records if record.status == "completed"]
    line: Line = {
        "row": row,
        "model": _label(row, records) if printed is None else printed["label"],
        "status": _status(records),
        "epochs": records[0].epochs_requested if records else pd.NA,
        "paper_epochs": pd.NA if printed is None else printed["epochs"],
        "timed_alone": timing is not None,
        "peak_memory_mb": max((r.peak_memory_mb for r in records), default=np.nan),
        "seeds": " ".join(str(record.seed) for record in completed),
        "n": len(seeds),
        "n_diverged": sum(record.status == "diverged" for record in seeds),
    }
    values = {name: over_seeds(seeds, name) for name in METRICS}
    values["train_seconds"] = np.array([record.train_seconds for record in completed])
    for name, each in values.items():
        middle, low, high = median_interval(each) if len(each) else [np.nan] * 3
        line |= {name: float(middle), f"{name}_low": float(low), f"{name}_high": float(high)}
        line[f"paper_{name}"] = np.nan if printed is None else printed[name]
    if timing is not None and completed:
        chunks = np.array(timing.chunks) * completed[0].epochs
        line["train_seconds"] = timing.seconds_per_epoch * completed[0].epochs
        ends = (chunks.min(), chunks.max()) if len(chunks) > 1 else (np.nan, np.nan)
        line["train_seconds_low"], line["train_seconds_high"] = ends
    return line


def _label(row: str, records: list[RunRecord]) -> str:
    """Of a row that the paper does not have."""
    encoder, preset = records[0].encoder, records[0].preset
    return f"{ENCODERS.get(encoder, printable(encoder))} ({printable(preset or row)})"


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
    return "; ".join(parts if len(ends) == len(records) else ["completed", *parts])
