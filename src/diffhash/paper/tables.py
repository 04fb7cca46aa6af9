"""Tables I and II as CSV and Markdown, ours beside the paper's."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import pandas as pd

from diffhash._files import write_text_atomically
from diffhash.paper.printed import FOOTNOTES, METRICS, PAPER_DEVICE, Footnote
from diffhash.paper.table import Table, train_seconds
from diffhash.paper.templates import markdown_text, render
from diffhash.results.formats import (
    format_decades,
    format_epochs,
    format_interval,
    format_value,
    markdown_table,
    printable,
)
from diffhash.results.metrics import metric
from diffhash.results.record import RunRecord
from diffhash.results.statistics import describe_interval, interval_rank

_HOW = ("seed", "status", "diverged_epoch", "epochs", "learning_rate")
_COST = ("train_seconds", "wall_seconds", "n_parameters", "peak_memory_mb", "config_hash")
HEADINGS = {name: metric(name).heading for name in METRICS} | {"train_seconds": "Train s"}
"""The headings of a table's columns, by the names of the columns."""

_MACHINE = ("processor", "cpu_count", "torch_threads", "device", "torch")
_ENVIRONMENT = (*_MACHINE[:-1], "platform", "python", "torch", "lightning", "diffhash",
                "git_commit")  # fmt: skip


def write_tables(tables: Mapping[str, Table], output: Path | str) -> list[Path]:
    """Write each table as ``.csv`` and ``.md`` into ``output``, and return the paths.

    Beside each table, a file such as ``table1-runs.csv`` has the record of every run with all of
    its metrics, from which the table's statistics are computed.

    Raises:
        OSError: the output folder cannot be written.
    """
    paths = []
    for name, table in tables.items():
        rows = sorted(table.rows.items())
        runs = [{"row": key} | record.flat() for key, row in rows for _, record in row.runs]
        columns = ["row", *_HOW, *table.metrics, *_COST]
        for suffix, text in (
            (".csv", table.frame.to_csv(index=False)),
            (".md", to_markdown(table, tables.values())),
            ("-runs.csv", pd.DataFrame(runs, columns=columns).to_csv(index=False)),
        ):
            paths.append(write_text_atomically(Path(output) / f"{name}{suffix}", text))
    return paths


# -------------------------------------------------------------------------------------- Markdown


def to_markdown(table: Table, tables: Collection[Table]) -> str:
    """A Markdown table for a README.

    Each cell has up to three lines: the median over the seeds, its interval, and
    ``/ paper (decades)``.

    Args:
        table: the table.
        tables: all tables, whose total cost is written below it.
    """
    notes = dict(zip(ascii_lowercase, _notes(table), strict=False))
    rows = [row for each in tables for row in each.rows.values() if row.runs]
    lines = []
    for key, row in table.rows.items():
        marks = ",".join(mark for mark, (on, _) in notes.items() if key in on)
        lines.append(
            {"Model": markdown_text(row.model) + (f" <sup>{marks}</sup>" if marks else ""),
             "Epochs": format_epochs(row.epochs)}
            | {heading: _cell(row.line, value) for value, heading in HEADINGS.items()}
            | {"Peak MB": format_value("peak_memory_mb", row.line["peak_memory_mb"]),
               "n": f"{row.line['n']}" + (f", {row.n_diverged} diverged" if row.n_diverged else "")}
        )  # fmt: skip
    several = sorted({int(n) for n in table.frame["n"] if n > 1}, reverse=True)
    return render(
        "table.md",
        title=f"{table.number}. {table.subject}",
        body=markdown_table(lines, "lrrrrrrrl"),
        notes={mark: text for mark, (_, text) in notes.items()},
        intervals=[describe_interval(n) for n in several if interval_rank(n)],
        ranges=[describe_interval(n) for n in several if not interval_rank(n)],
        peak=max((row.line["peak_memory_mb"], row.full_label) for row in rows),
        machines=list(dict.fromkeys(_parts(timing, _MACHINE) for timing in _timings(table))),
        total=total_sentence(tables),
        environments=environment_lines(record for _, record in table.records),
    )


def _cell(line: dict[str, Any], value: str) -> str:
    ours, interval = format_value(value, line[value]), ""
    if line["seeds"]:
        interval = format_interval(value, line[f"{value}_low"], line[f"{value}_high"])
    else:  # a single word for a row without a completed run
        words = ("diverged", "interrupted", "missing")
        ours = next(word for word in words if word in line["status"])
    distance = format_decades(line[f"decades_{value}"])
    paper = f"/ {format_value(value, line[f'paper_{value}'])}"
    paper = paper if distance == "–" else f"{paper} ({distance})"
    return "<br>".join(filter(None, (ours, interval, paper)))


def _notes(table: Table) -> list[Footnote]:
    """Notes on the paper's rows, then notes on our rows."""
    notes = list(FOOTNOTES[table.name])
    for key, row in table.rows.items():
        if row.printed is None:
            notes.append(((key,), f"{row.model} is not in the paper."))
        elif row.epochs != row.paper_epochs:
            budget = format_epochs(row.paper_epochs)
            text = f"{row.label}: not the paper's budget of {budget} epochs."
            notes.append(((key,), text))
        if row.status not in ("completed", "missing"):
            notes.append(((key,), f"{row.label}: {row.status}."))
    others = [key for key, row in table.rows.items() if row.completed and not row.timing]
    if others and _timings(table):  # a line below the table applies if all are timed alone
        text = "Train s: of the run itself, which others beside it may have slowed down."
        notes.append((tuple(others), text))
    return notes


# -------------------------------------------------------------------------- below the table


def _timings(table: Table) -> list[RunRecord]:
    return [row.timing.record for row in table.rows.values() if row.timing]


def total_sentence(tables: Iterable[Table]) -> str:
    """A sentence with our total train seconds beside the paper's, and the counted rows if these are
    not all."""
    rows = train_seconds(tables)
    both, paper = rows.dropna(), rows["paper"].sum()
    if len(both) == len(rows):
        return (
            f"Train seconds of both tables together: {both['ours'].sum():.1f} "
            f"(paper: {paper:.1f} on an {PAPER_DEVICE})."
        )
    return (
        f"Train seconds of the {len(both)} rows of {len(rows)} that completed: "
        f"{both['ours'].sum():.1f} (paper, on an {PAPER_DEVICE}: {both['paper'].sum():.1f} for the "
        f"same rows, {paper:.1f} for all)."
    )


def environment_lines(records: Iterable[RunRecord]) -> list[str]:
    """One ``Measured with …`` line per distinct environment among the records."""
    parts = dict.fromkeys(_parts(record, _ENVIRONMENT) for record in records)
    return [f"Measured with {part}." for part in parts if part]


def _parts(record: RunRecord, keys: Iterable[str]) -> str:
    environment = dict(record.environment)
    if (commit := environment.get("git_commit")) and environment.get("git_dirty"):
        environment["git_commit"] = f"{commit} (dirty)"
    return ", ".join(
        f"{key} {printable(str(environment[key]))}" for key in keys if environment.get(key)
    )
