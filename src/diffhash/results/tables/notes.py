"""What stands below a table: its legend, footnotes on rows, and how it was measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from string import ascii_lowercase
from typing import Any

import pandas as pd

from diffhash.results.formats import format_epochs
from diffhash.results.paper import FOOTNOTES, TITLES, Footnote
from diffhash.results.record import RunRecord
from diffhash.results.statistics import describe_interval, interval_rank

Row = dict[Any, Any]
"""One line of an :func:`diffhash.results.aggregate.aggregate` frame."""

_ENVIRONMENT_KEYS = (
    "processor", "cpu_count", "torch_threads", "device", "platform", "python", "torch",
    "lightning", "diffhash", "git_commit",
)  # fmt: skip
_MACHINE_KEYS = ("processor", "cpu_count", "torch_threads", "device", "torch")
_LEGEND = (
    "{median}. Loss: the final training loss. Decades: log10(ours / paper), "
    "negative where ours is lower. MB: peak memory of the largest run."
)
_WHY = (
    "Errors spread over decades and may fall into two groups, so no distribution is assumed; a "
    "diverged run counts as infinite. {train_seconds}: smallest and largest chunk of the timing, "
    "or such an interval of the runs' own."
)
_NOT_ALONE = "{train_seconds}: of the run itself, which others beside it may have slowed down."


def over_seeds(frame: pd.DataFrame) -> bool:
    """Whether any row of a table stands on several seeds, so that its cells show intervals."""
    return bool((frame["n"] > 1).any())


def legend(frame: pd.DataFrame) -> list[str]:
    """How the cells are to be read; with several seeds also what their intervals are, and why."""
    if not over_seeds(frame):
        return [_LEGEND.replace("{median}", "Medians over the seeds listed")]
    counts = sorted({int(n) for n in frame["n"] if n > 1}, reverse=True)
    parts = [describe_interval(n) for n in counts if interval_rank(n)]
    without = [describe_interval(n) for n in counts if not interval_rank(n)]
    text = "In brackets: "
    if parts:
        text += (
            "the distribution-free confidence interval of the median, at least 95 %, by order "
            f"statistics: {'; '.join(parts)}"
        )
    if without:
        text += "; " if parts else ""
        text += (
            f"{'; '.join(without)}, since no 95 % interval of the median exists below n = 6 "
            "without assuming a distribution"
        )
    return [_LEGEND.replace("{median}", "Medians over n seeds"), f"{text}. {_WHY}"]


def row_notes(table: str, frame: pd.DataFrame, *, outcomes: bool = False) -> dict[str, Footnote]:
    """Footnotes by mark: the paper's oddities, then what is special about our rows.

    ``outcomes`` adds how runs ended that did not complete, for where no cell has room for it.
    """
    notes = list(FOOTNOTES[table])
    rows = frame.to_dict("records")
    for row in rows:
        key, model = (row["row"],), f"{row['model']} {row_epochs(row)}"
        if pd.isna(row["paper_epochs"]):
            notes.append(Footnote(key, f"{row['model']} is not in the paper."))
        elif not pd.isna(row["epochs"]) and row["epochs"] != row["paper_epochs"]:
            paper = format_epochs(row["paper_epochs"])
            notes.append(Footnote(key, f"{model}: not the paper's budget of {paper} epochs."))
        if outcomes and row["status"] not in ("completed", "missing"):
            notes.append(Footnote(key, f"{model}: {row['status']}."))
    others = [r for r in rows if not r["timed_alone"] and not pd.isna(r["train_seconds"])]
    if others and any(row["timed_alone"] for row in rows):  # if all are, a line below says so
        notes.append(Footnote(tuple(row["row"] for row in others), _NOT_ALONE))
    return dict(zip(ascii_lowercase, notes, strict=False))


def row_epochs(row: Row) -> str:
    """The budget of our runs; of a missing row the paper's, to tell it from the others."""
    return format_epochs(row["paper_epochs"] if pd.isna(row["epochs"]) else row["epochs"])


def row_memory(row: Row) -> str:
    """Peak memory in MB."""
    peak = row["peak_memory_mb"]
    return "–" if pd.isna(peak) else f"{peak:.0f}"


def row_outcome(row: Row) -> str:
    """The one word for a row without a completed run."""
    return next(word for word in ("diverged", "interrupted", "missing") if word in row["status"])


def timing_sentence(timings: Sequence[RunRecord]) -> str:
    """How the train seconds of a table were measured, and on which machine.

    Args:
        timings: records of its rows' timings.
    """
    if not timings:
        return "{train_seconds}: of the runs themselves, which may have slowed each other down."
    machines = [_parts(timing, _MACHINE_KEYS) for timing in timings]
    return (
        "{train_seconds}: seconds per epoch of a short run alone on the machine (median over its "
        "chunks of epochs, without the first), times the epochs. Timed with "
        f"{'; '.join(dict.fromkeys(machines))}."
    )


def memory_sentence(frames: Mapping[str, pd.DataFrame]) -> str:
    """The largest peak memory of any run, and whose it is."""
    rows = [
        (
            row["peak_memory_mb"],
            f"{TITLES[table].partition('.')[0]}, {row['model']} {row_epochs(row)}",
        )
        for table, frame in frames.items()
        for row in frame.to_dict("records")
        if not pd.isna(row["peak_memory_mb"])
    ]
    peak, name = max(rows)
    return f"Largest peak memory of a run: {peak:.0f} MB ({name})."


def environment_lines(records: Iterable[RunRecord]) -> list[str]:
    """One ``Measured with …`` line per distinct environment among the records."""
    found: list[str] = []
    for record in records:
        parts = _parts(record, _ENVIRONMENT_KEYS)
        line = f"Measured with {parts}."
        if parts and line not in found:
            found.append(line)
    return found


def _parts(record: RunRecord, keys: Iterable[str]) -> str:
    environment = dict(record.environment)
    if (commit := environment.get("git_commit")) and environment.get("git_dirty"):
        environment["git_commit"] = f"{commit} (dirty)"
    return ", ".join(f"{key} {environment[key]}" for key in keys if environment.get(key))
