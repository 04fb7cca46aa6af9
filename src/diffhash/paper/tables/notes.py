"""What stands below a table: its legend, footnotes on rows, and how it was measured."""

from __future__ import annotations

from collections.abc import Iterable
from string import ascii_lowercase

import pandas as pd

from diffhash.paper.aggregate import train_total
from diffhash.paper.printed import FOOTNOTES, PAPER_DEVICE, Footnote
from diffhash.paper.table import Line, Table
from diffhash.results.formats import format_epochs, printable
from diffhash.results.record import RunRecord
from diffhash.results.statistics import describe_interval, interval_rank

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


def legend(table: Table) -> list[str]:
    """How the cells are to be read; with several seeds also what their intervals are, and why."""
    if not table.several_seeds:
        return [_LEGEND.replace("{median}", "Medians over the seeds listed")]
    counts = sorted({int(n) for n in table.frame["n"] if n > 1}, reverse=True)
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


def row_notes(table: Table, *, outcomes: bool = False) -> dict[str, Footnote]:
    """Footnotes by mark: the paper's oddities, then what is special about our rows.

    ``outcomes`` adds how runs ended that did not complete, for where no cell has room for it.
    """
    notes = list(FOOTNOTES[table.name])
    rows = list(table.lines.values())
    for row in rows:
        key, model = (row["row"],), table.labels[row["row"]]
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


def line_memory(line: Line) -> str:
    """Peak memory in MB."""
    peak = line["peak_memory_mb"]
    return "–" if pd.isna(peak) else f"{peak:.0f}"


def line_outcome(line: Line) -> str:
    """The one word for a row without a completed run."""
    return next(word for word in ("diverged", "interrupted", "missing") if word in line["status"])


def remarks(tables: Iterable[Table]) -> dict[str, list[str]]:
    """What stands below each table on how it was measured and at what cost; nothing if nothing was.

    The cost is that of all tables together.
    """
    tables = list(tables)
    if not any(table.runs for table in tables):
        return {table.name: [] for table in tables}
    together = [total_sentence(tables), _memory_sentence(tables)]
    return {
        table.name: [
            _timing_sentence([timing.record for timing in table.timings.values()]),
            *together,
            *environment_lines(record for _, record in table.records),
        ]
        for table in tables
    }


def total_sentence(tables: Iterable[Table]) -> str:
    """Our total train seconds beside the paper's, saying which rows are counted if not all."""
    total = train_total(table.frame for table in tables)
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


def _timing_sentence(timings: Iterable[RunRecord]) -> str:
    """How the train seconds of a table were measured, and on which machine."""
    timings = list(timings)
    if not timings:
        return "{train_seconds}: of the runs themselves, which may have slowed each other down."
    machines = [_parts(timing, _MACHINE_KEYS) for timing in timings]
    return (
        "{train_seconds}: seconds per epoch of a short run alone on the machine (median over its "
        "chunks of epochs, without the first), times the epochs. Timed with "
        f"{'; '.join(dict.fromkeys(machines))}."
    )


def _memory_sentence(tables: Iterable[Table]) -> str:
    """The largest peak memory of any run, and whose it is."""
    peak, name = max(
        (line["peak_memory_mb"], f"{table.number}, {table.labels[row]}")
        for table in tables
        for row, line in table.lines.items()
        if not pd.isna(line["peak_memory_mb"])
    )
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
    return ", ".join(
        f"{key} {printable(str(environment[key]))}" for key in keys if environment.get(key)
    )
