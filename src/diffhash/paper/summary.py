"""The first screen of the README and the report: what was reproduced, how far off, at what cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import pandas as pd

from diffhash._files import write_text_atomically
from diffhash.paper.claims.verdicts import Claim, count_verdicts
from diffhash.paper.printed import METRICS, PAPER_DEVICE
from diffhash.paper.table import Table, train_seconds
from diffhash.paper.tables import markdown_text
from diffhash.results.formats import format_decades
from diffhash.results.metrics import metric


@dataclass(frozen=True)
class Card:
    """A heading, the figure to remember, and what it is made of, sentence by sentence."""

    heading: str
    figure: str
    details: list[str]


def write_summary(tables: Mapping[str, Table], claims: Iterable[Claim], output: Path | str) -> Path:
    """Write it as ``summary.md`` into ``output``; raises OSError if that cannot be written."""
    lines = [
        f"- **{card.heading}: {card.figure}**, {markdown_text(' '.join(card.details))}\n"
        for card in summary(list(tables.values()), claims)
    ]
    return write_text_atomically(Path(output) / "summary.md", "".join(lines))


def summary(tables: Sequence[Table], claims: Iterable[Claim]) -> list[Card]:
    """What was reproduced, how far from the paper it is, what it cost, what held."""
    claims = list(claims)
    first, _, rest = count_verdicts(claims).partition(", ")
    checked = "Each is checked against these runs by a criterion that is printed beside it."
    held = [f"the others: {rest}.", checked] if rest else [checked]
    return [
        _reproduced(tables),
        _distance(tables),
        _cost(tables),
        Card("The paper's claims", f"{first} of {len(claims)}", held),
    ]


def _reproduced(tables: Sequence[Table]) -> Card:
    printed = [bool(line["seeds"]) for table in tables for line in table.printed()]
    records = [record for table in tables for _, record in table.records]
    details = ["no run has been recorded yet (make reproduce-tables makes them)."]
    if records:
        status = Counter(record.status for record in records).most_common()
        n_runs = Counter(record.experiment for record in records).values()
        n_seeds = " to ".join(dict.fromkeys([str(min(n_runs)), str(max(n_runs))]))
        counts = ", ".join(f"{n} {name}" for name, n in status)
        seeds = f"{n_seeds} seed{'s' * (n_seeds != '1')} a row"
        details = [f"from {len(records)} run{'s' * (len(records) > 1)}, {seeds}: {counts}."]
        details += [
            f"{table.said(key)}: {row.note}."
            for table in tables
            for key, row in table.rows.items()
            if row.note
        ]
    return Card("Reproduced", f"{sum(printed)} of {len(printed)} rows", details)


def _distance(tables: Sequence[Table]) -> Card:
    distances = {
        f"{table.said(line['row'])}, {metric(name).label}": line[f"decades_{name}"]
        for table in tables
        for line in table.printed()
        for name in METRICS
        if not pd.isna(line[f"decades_{name}"])
    }
    heading = "Distance from the paper"
    if not distances:
        return Card(heading, "–", ["nothing to compare yet."])
    named = {name: f"{format_decades(decades)} ({name})" for name, decades in distances.items()}
    middle = median(distances.values())
    return Card(
        heading,
        f"{sum(each <= 1 for each in distances.values())} of {len(distances)} numbers",
        [
            "within a decade of the printed error or loss, or better.",
            f"Median {format_decades(middle)} decades: {10**middle:.3g} times the paper's number.",
            f"Farthest behind {named[max(distances, key=distances.__getitem__)]}, "
            f"farthest ahead {named[min(distances, key=distances.__getitem__)]}.",
        ],
    )


def _cost(tables: Sequence[Table]) -> Card:
    printed, records = train_seconds(tables), [r for table in tables for _, r in table.records]
    both: Any = printed.dropna()
    if both.empty:
        return Card("Cost", "–", ["no run has been timed yet."])
    ours, paper = both["ours"].sum(), both["paper"].sum()
    rows = "each row of both tables" if len(both) == len(printed) else f"each of {len(both)} rows"
    devices = dict.fromkeys(_device(record.environment) for record in records)
    return Card(
        "Cost",
        _duration(ours),
        [
            f"to train {rows} once. The paper's took {_duration(paper)} on an "
            f"{PAPER_DEVICE}, {float(f'{paper / ours:.2g}'):g} times as long.",
            f"On {' and '.join(devices)}.",
            f"All {len(records)} runs with set-up and evaluation: "
            f"{_duration(sum(record.wall_seconds for record in records))}, added up.",
        ],
    )


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _device(environment: dict) -> str:
    if environment.get("device") not in (None, "cpu"):
        return str(environment["device"])
    threads = environment.get("torch_threads")
    name = environment.get("processor", "an unnamed processor")
    return f"{name} ({threads} thread{'s' * (threads != 1)} a run)" if threads else str(name)
