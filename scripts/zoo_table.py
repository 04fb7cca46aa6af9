"""Tabulate runs of the package's problems: the relative L2 error of each unknown, over seeds.

The runs are made by ``python train.py -m problem=heat1d,wave1d,… seed=0,1,2 encoder=quintic
logger=none runs_dir=results/runs/zoo launcher=joblib``; only finished ones count.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pandas as pd

from diffhash._files import write_text_atomically
from diffhash.cli.command import run_command
from diffhash.paper.readme import PAGES, update_page
from diffhash.problems import zoo
from diffhash.results import find_records

ROOT = Path(__file__).resolve().parent.parent
_KEY = ["problem", "settings", "encoder", "epochs", "unknown"]


def main() -> int:
    """Parse the command line, read the runs, write the table and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    option = parser.add_argument
    option("--runs", type=Path, default=ROOT / "results" / "runs" / "zoo", help="records")
    option("--output", type=Path, default=ROOT / "results" / "tables" / "zoo.csv", help="a CSV")
    arguments = parser.parse_args()
    runs = pd.DataFrame(_rows(arguments.runs))
    if runs.empty:
        print(f"zoo_table: no runs of the package's problems in {arguments.runs}", file=sys.stderr)
        return 1
    groups = runs.groupby(_KEY, sort=True, dropna=False)
    table = groups.agg(
        seeds=("seed", "nunique"),
        diverged=("diverged", "sum"),
        l2=("l2", "median"),
        l2_min=("l2", "min"),
        l2_max=("l2", "max"),
        train_seconds=("train_seconds", "median"),
        train_seconds_max=("train_seconds", "max"),
        threads=("threads", "max"),
        parameters=("parameters", "max"),
    ).reset_index()
    print(write_text_atomically(arguments.output, table.to_csv(index=False, float_format="%.3g")))
    if arguments.output == parser.get_default("output"):
        for page in PAGES:
            update_page(ROOT / page, arguments.output.parent)
    print(table.to_string(index=False, float_format=lambda value: f"{value:.2g}"))
    return 0


def _rows(folder: Path) -> list[dict[str, object]]:
    problems, rows = zoo(), []
    for _, record in find_records(folder):
        if record.problem not in problems:
            continue
        for name, value in record.metrics.items():
            unknown = name.removeprefix("l2_")
            if name == unknown or unknown not in problems[record.problem]().names.unknowns:
                continue
            rows.append(
                {
                    **{key: getattr(record, key) for key in ("problem", "encoder", "seed")},
                    "settings": " ".join(o for o in record.overrides if o.startswith("problem.")),
                    **{"epochs": record.epochs, "unknown": unknown, "l2": value},
                    "diverged": record.status == "diverged",
                    "train_seconds": record.train_seconds,
                    "threads": record.environment.get("torch_threads"),
                    "parameters": record.n_parameters,
                }
            )
    return rows


if __name__ == "__main__":
    run_command("zoo_table", main)
