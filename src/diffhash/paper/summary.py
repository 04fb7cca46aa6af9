"""The first screen of the README and the report: what was reproduced, how far off, at what cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import pandas as pd

from diffhash._files import write_text_atomically
from diffhash.paper.claims import Claim, count_verdicts
from diffhash.paper.printed import METRICS, PAPER_DEVICE
from diffhash.paper.table import Table, train_total
from diffhash.paper.tables import markdown_text
from diffhash.results.formats import format_decades
from diffhash.results.metrics import metric
from diffhash.results.record import RunRecord

_NO_RUNS = "no run has been recorded yet (make reproduce-tables makes them)."


@dataclass(frozen=True)
class Card:
    """A heading, the figure to remember, and what it is made of, sentence by sentence."""

    heading: str
    figure: str
    details: list[str]


def write_summary(tables: Mapping[str, Table], claims: Iterable[Claim], output: Path | str) -> Path:
    """Write it as ``summary.md`` into ``output``.

    Raises:
        OSError: the output folder cannot be written.
    """
    cards = summary(list(tables.values()), claims)
    lines = [
        f"- **{card.heading}: {card.figure}**, {markdown_text(' '.join(card.details))}"
        for card in cards
    ]
    return write_text_atomically(Path(output) / "summary.md", "\n".join(lines) + "\n")


def summary(tables: Sequence[Table], claims: Iterable[Claim]) -> list[Card]:
    """What was reproduced, how far from the paper it is, what it cost, what held."""
    return [_reproduced(tables), _distance(tables), _cost(tables), _claims(list(claims))]


def _reproduced(tables: Sequence[Table]) -> Card:
    printed = [(t, line["row"]) for t in tables for line in t.printed()]
    completed = [
        row for t, row in printed if any(r.status == "completed" for _, r in t.runs.get(row, []))
    ]
    records = [record for t in tables for _, record in t.records]
    status = Counter(record.status for record in records)
    details = [_NO_RUNS]
    if records:
        runs = f"{len(records)} run{'s' * (len(records) > 1)}"
        details = [f"from {runs}, {_seeds(records)}: {_count(status)}."]
        details += [
            f"{t.number}, {t.labels[row]}: {t.notes[row]}."
            for t in tables for row in t.lines if t.notes[row]
        ]  # fmt: skip
    return Card("Reproduced", f"{len(completed)} of {len(printed)} rows", details)


def _distance(tables: Sequence[Table]) -> Card:
    distances = [
        (float(line[f"decades_{name}"]), table, line["row"], name)
        for table in tables
        for line in table.printed()
        for name in METRICS
        if not pd.isna(line[f"decades_{name}"])
    ]
    if not distances:
        return Card("Distance from the paper", "–", ["nothing to compare yet."])
    within = sum(distance <= 1 for distance, *_ in distances)
    worst, best = max(distances, key=lambda d: d[0]), min(distances, key=lambda d: d[0])
    middle = median(distance for distance, *_ in distances)
    return Card(
        "Distance from the paper",
        f"{within} of {len(distances)} numbers",
        [
            "within a decade of the printed error or loss, or better.",
            f"Median {format_decades(middle)} decades: {10**middle:.3g} times the paper's number.",
            f"Farthest behind {_named(worst)}, farthest ahead {_named(best)}.",
        ],
    )  # fmt: skip


def _cost(tables: Sequence[Table]) -> Card:
    total = train_total(table.frame for table in tables)
    records = [record for table in tables for _, record in table.records]
    if not total.n_rows:
        return Card("Cost", "–", ["no run has been timed yet."])
    everything = total.n_rows == total.n_paper_rows
    rows = "each row of both tables" if everything else f"each of {total.n_rows} rows"
    devices = dict.fromkeys(_device(record.environment) for record in records)
    return Card(
        "Cost",
        _duration(total.ours),
        [
            f"to train {rows} once. The paper's took "
            f"{_duration(total.paper_same_rows)} on an {PAPER_DEVICE}, "
            f"{_times(total.paper_same_rows / total.ours)} as long.",
            f"On {' and '.join(devices)}.",
            f"All {len(records)} runs with set-up and evaluation: "
            f"{_duration(sum(record.wall_seconds for record in records))}, added up.",
        ],
    )  # fmt: skip


def _claims(claims: Sequence[Claim]) -> Card:
    verdicts = count_verdicts(claims)
    first, _, rest = verdicts.partition(", ")
    details = [f"the others: {rest}."] if rest else []
    return Card(
        "The paper's claims", f"{first} of {len(claims)}",
        [*details, "Each is checked against these runs by a criterion that is printed beside it."],
    )  # fmt: skip


def _named(distance: tuple[float, Table, str, str]) -> str:
    decades, table, row, name = distance
    return f"{format_decades(decades)} ({table.number}, {table.labels[row]}, {metric(name).label})"


def _seeds(records: Sequence[RunRecord]) -> str:
    seeds = sorted({record.seed for record in records})
    n_runs = Counter(record.experiment for record in records).values()
    if len(set(n_runs)) > 1:
        return f"{min(n_runs)} to {max(n_runs)} seeds a row"
    if len(seeds) == 1:
        return f"seed {seeds[0]}"
    if list(seeds) == list(range(seeds[0], seeds[-1] + 1)):
        return f"seeds {seeds[0]} to {seeds[-1]}"
    return f"seeds {', '.join(map(str, seeds))}"


def _count(status: Counter[str]) -> str:
    return ", ".join(f"{n} {name}" for name, n in status.most_common())


def _times(factor: float) -> str:
    return f"{factor:.2g} times" if factor < 10 else f"{factor:.0f} times"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h"


def _device(environment: dict) -> str:
    if environment.get("device") not in (None, "cpu"):
        return str(environment["device"])
    threads = environment.get("torch_threads")
    name = environment.get("processor", "an unnamed processor")
    return f"{name} ({threads} thread{'s' * (threads != 1)} a run)" if threads else str(name)
