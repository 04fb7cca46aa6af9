"""Writing the tables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from diffhash._files import write_text_atomically
from diffhash.paper.table import Table, check_any_records
from diffhash.paper.tables.latex import to_latex
from diffhash.paper.tables.markdown import to_markdown
from diffhash.paper.tables.notes import remarks

_HOW = ("seed", "status", "diverged_epoch", "epochs", "learning_rate")
_COST = ("train_seconds", "wall_seconds", "n_parameters", "peak_memory_mb", "config_hash")


def write_tables(tables: Mapping[str, Table], output: Path | str) -> list[Path]:
    """Write each table as ``.csv``, ``.md`` and ``.tex`` into ``output``, and return the paths.

    Beside each, ``table1-runs.csv`` has what was recorded of every run, all of its metrics among
    it: what the table's statistics rest on.

    Raises:
        RecordError: not a single record.
        OSError: the output folder cannot be written.
    """
    check_any_records(tables.values())
    below = remarks(tables.values())
    paths = []
    for name, table in tables.items():
        for suffix, text in (
            (".csv", table.frame.to_csv(index=False)),
            (".md", to_markdown(table, below[name])),
            (".tex", to_latex(table, below[name])),
            ("-runs.csv", _runs_frame(table).to_csv(index=False)),
        ):
            paths.append(write_text_atomically(Path(output) / f"{name}{suffix}", text))
    return paths


def _runs_frame(table: Table) -> pd.DataFrame:
    columns = ["row", *_HOW, *table.metrics, *_COST]
    lines = [
        {"row": row} | record.flat() for row, items in table.runs.items() for _, record in items
    ]
    return pd.DataFrame(lines, columns=columns)
