"""The first screen of the README and the report: what was reproduced, how far off, at what cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from diffhash._files import write_text_atomically
from diffhash.paper.claims.verdicts import Claim, count_verdicts
from diffhash.paper.printed import METRICS, PAPER_DEVICE
from diffhash.paper.table import Table, train_seconds
from diffhash.paper.templates import render
from diffhash.results.metrics import metric


def write_summary(tables: Mapping[str, Table], claims: Iterable[Claim], output: Path | str) -> Path:
    """Write it as ``summary.md`` into ``output``; raises OSError if that cannot be written."""
    text = summary(list(tables.values()), list(claims))
    return write_text_atomically(Path(output) / "summary.md", text)


def summary(tables: Sequence[Table], claims: Sequence[Claim]) -> str:
    """What was reproduced, how far from the paper it is, what it cost, what held: a line each."""
    printed = [(table, line) for table in tables for line in table.printed()]
    records = [record for table in tables for _, record in table.records]
    n_seeds = Counter(record.experiment for record in records).values()
    statuses = Counter(record.status for record in records).most_common()
    distances = pd.Series(
        {
            f"{table.said(line['row'])}, {metric(name).label}": line[f"decades_{name}"]
            for table, line in printed
            for name in METRICS
        }
    ).dropna()
    both = train_seconds(tables).dropna()
    held, _, others = count_verdicts(claims).partition(", ")
    return render(
        "summary.md",
        done=sum(bool(line["seeds"]) for _, line in printed),
        rows=len(printed),
        records=records,
        seeds=sorted({f(n_seeds) for f in (min, max)}) if records else [],
        statuses=", ".join(f"{n} {status}" for status, n in statuses),
        notes=[
            f"{table.said(key)}: {row.note}"
            for table in tables
            for key, row in table.rows.items()
            if row.note
        ],
        distances=distances,
        near=(distances <= 1).sum(),
        timed=len(both),
        ours=both["ours"].sum(),
        paper=both["paper"].sum(),
        paper_device=PAPER_DEVICE,
        devices=dict.fromkeys(_device(record.environment) for record in records),
        held=held,
        claims=len(claims),
        others=others,
    )


def _device(environment: dict) -> str:
    if environment.get("device") not in (None, "cpu"):
        return str(environment["device"])
    threads = environment.get("torch_threads")
    name = environment.get("processor", "an unnamed processor")
    return f"{name} ({threads} thread{'s' * (threads != 1)} a run)" if threads else str(name)
