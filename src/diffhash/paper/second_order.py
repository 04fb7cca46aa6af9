"""Rows that the paper does not have: its tasks by Gauss–Newton, in a table of their own."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from diffhash._files import write_text_atomically
from diffhash.paper.printed import METRICS
from diffhash.results.formats import format_interval, format_value, markdown_table
from diffhash.results.metrics import TASKS, metric
from diffhash.results.record import OnProblem, RunRecord, find_records
from diffhash.results.statistics import median_interval

NAME = "second_order"
"""The name of the folder of the runs, of the experiments and of the table."""
ROWS = tuple(f"{NAME}/{encoder}_{task}" for encoder in ("cubic", "quintic") for task in TASKS)
_VALUES = (*METRICS, "train_seconds")


def write_second_order(runs: Path | str, output: Path | str, on_problem: OnProblem) -> list[Path]:
    """Write ``second_order.csv``, a line for each run, and ``.md``, a line for each row.

    Args:
        runs: the folder of the records of all rows.
        output: the folder of the tables.
        on_problem: is told of each record that cannot be read, which is left out.

    Returns:
        The paths; none where there are no records.

    Raises:
        OSError: the output folder cannot be written.
    """
    records = (record for _, record in find_records(Path(runs) / NAME, on_problem))
    found = [record for record in records if record.status != "interrupted"]
    if not found:
        return []
    frame = pd.DataFrame(map(_line, found))
    frame = frame.sort_values(["task", "encoder", "seed"])
    texts = {".csv": frame.to_csv(index=False), ".md": _markdown(frame)}
    return [write_text_atomically(Path(output) / f"{NAME}{s}", text) for s, text in texts.items()]


def _line(record: RunRecord) -> dict[str, object]:
    metrics = {name: record.metrics.get(name) for name in METRICS}
    return {
        "encoder": record.encoder, "preset": record.preset, "task": record.task,
        "seed": record.seed, "status": record.status, "steps": record.epochs,
        "most_steps": record.epochs_requested,
        **{name: float("inf") if value is None else value for name, value in metrics.items()},
        "train_seconds": record.train_seconds, "n_parameters": record.n_parameters,
        "processor": record.environment.get("processor"),
        "torch_threads": record.environment.get("torch_threads"),
    }  # fmt: skip


def _markdown(frame: pd.DataFrame) -> str:
    headings = {name: metric(name).heading for name in METRICS} | {"train_seconds": "Train s"}
    lines = []
    for _, rows in frame.groupby(["task", "encoder"], sort=False):
        task, encoder = rows.iloc[0][["task", "encoder"]]
        cells = {}
        for name in _VALUES:
            middle, low, high = map(float, median_interval(rows[name].to_numpy()))
            interval = format_interval(name, low, high)
            cells[headings[name]] = f"{format_value(name, middle)} {interval}".strip()
        of_row = {"Task": TASKS[str(task)], "Encoder": str(encoder).capitalize()}
        lines.append(of_row | {"Steps": f"{rows['steps'].median():.0f}"} | cells | {"n": len(rows)})
    first = frame.iloc[0]
    return (
        f"**Not in the paper: its tasks by Gauss–Newton**, with the preset {first['preset']} in "
        f"float64.\n\n{markdown_table(lines, 'll')}\n\n"
        "Medians over n seeds, with their intervals as in Tables I and II. A step solves a linear "
        "system in all parameters; training ends when steps make the loss no smaller, or after "
        f"{first['most_steps']} of them. Train s: of the run itself, which others beside it may "
        f"have slowed down, on {first['processor']}, torch_threads {first['torch_threads']}.\n"
    )
