"""The summary at the top of the README and the report: reproduced rows, distances, costs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pandas as pd

from diffhash.paper.claims.verdicts import count_verdicts
from diffhash.paper.printed import METRICS, PAPER_DEVICE
from diffhash.paper.table import Table, train_seconds
from diffhash.paper.templates import render
from diffhash.results.metrics import metric


def summary(tables: Sequence[Table], claims: pd.DataFrame) -> str:
    """A line each on the reproduced rows, their distance from the paper, their cost, and the
    claims.

    Args:
        tables: both tables.
        claims: the lines of `diffhash.paper.claims.verdicts.judge`.
    """
    rows = [row for table in tables for row in table.rows.values()]
    printed = [row for row in rows if row.printed is not None]
    records = [record for row in rows for _, record in row.runs]
    n_seeds = Counter(record.experiment for record in records).values()
    statuses = Counter(record.status for record in records).most_common()
    distances = pd.Series(
        {
            f"{row.full_label}, {metric(name).label}": row.line[f"decades_{name}"]
            for row in printed
            for name in METRICS
        }
    ).dropna()
    both = train_seconds(tables).dropna()
    held, _, others = count_verdicts(claims).partition(", ")
    return render(
        "summary.md",
        done=sum(bool(row.completed) for row in printed),
        rows=len(printed),
        records=records,
        seeds=sorted({min(n_seeds), max(n_seeds)}),
        statuses=", ".join(f"{n} {status}" for status, n in statuses),
        notes=[f"{row.full_label}: {row.note}" for row in rows if row.note],
        distances=distances,
        near=(distances <= 1).sum(),
        timed=len(both),
        ours=both["ours"].sum(),
        paper=both["paper"].sum(),
        paper_device=PAPER_DEVICE,
        devices=dict.fromkeys(_device(record.environment) for record in records),
        held=held,
        claims=claims["claim"].nunique(),
        others=others,
    )


def _device(environment: dict) -> str:
    if environment.get("device") not in (None, "cpu"):
        return str(environment["device"])
    threads = environment.get("torch_threads")
    name = environment.get("processor", "an unnamed processor")
    return f"{name} ({threads} thread{'s' * (threads != 1)} a run)" if threads else str(name)
