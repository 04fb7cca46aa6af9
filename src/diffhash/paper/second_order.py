"""Rows that the paper does not have: its tasks with Gauss–Newton, in a table of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from diffhash._files import write_text_atomically
from diffhash.paper.printed import METRICS, VALUES
from diffhash.paper.tables import HEADINGS
from diffhash.paper.templates import render
from diffhash.results.formats import format_interval, format_value, markdown_table
from diffhash.results.metrics import TASKS
from diffhash.results.record import OnProblem, find_records
from diffhash.results.statistics import median_interval

NAME = "second_order"
"""The name of the folder of the runs, of the experiments and of the table."""
ROWS = tuple(f"{NAME}/{encoder}_{task}" for encoder in ("cubic", "quintic") for task in TASKS)
_NAMES = {
    "epochs": "steps",
    "epochs_requested": "most_steps",
    "environment.processor": "processor",
    "environment.torch_threads": "torch_threads",
}
_COLUMNS = ["encoder", "preset", "task", "seed", "status", "steps", "most_steps", *VALUES,
            "n_parameters", "processor", "torch_threads"]  # fmt: skip


def write_second_order(runs: Path | str, output: Path | str, on_problem: OnProblem) -> list[Path]:
    """Write ``second_order.csv``, a line for each run, and ``.md``, a line for each row.

    Args:
        runs: the folder of the records of all rows.
        output: the folder of the tables.
        on_problem: a function that is called with the error of each record that cannot be read,
            which is left out.

    Returns:
        The paths; empty if there are no records.

    Raises:
        OSError: the output folder cannot be written.
    """
    records = (record for _, record in find_records(Path(runs) / NAME, on_problem))
    found = [record.flat() for record in records if record.status != "interrupted"]
    if not found:
        return []
    frame = pd.json_normalize(found).rename(columns=_NAMES).reindex(columns=_COLUMNS)
    frame = frame.sort_values(["task", "encoder", "seed"])
    frame[[*METRICS]] = frame[[*METRICS]].astype(float).fillna(np.inf)
    texts = {".csv": frame.to_csv(index=False), ".md": _markdown(frame)}
    return [write_text_atomically(Path(output) / f"{NAME}{s}", text) for s, text in texts.items()]


def _markdown(frame: pd.DataFrame) -> str:
    lines = []
    groups: Any = frame.groupby(["task", "encoder"], sort=False)
    for (task, encoder), rows in groups:
        cells = {}
        for name in VALUES:
            middle, low, high = map(float, median_interval(rows[name].to_numpy()))
            interval = format_interval(name, low, high)
            cells[HEADINGS[name]] = f"{format_value(name, middle)} {interval}".strip()
        of_row = {"Task": TASKS[task], "Encoder": encoder.capitalize()}
        lines.append(of_row | {"Steps": f"{rows['steps'].median():.0f}"} | cells | {"n": len(rows)})
    return render("second_order.md", table=markdown_table(lines, "ll"), first=frame.iloc[0])
