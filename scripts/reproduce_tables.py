"""Run the missing rows of Tables I and II, time each row alone, and write tables and figures."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from diffhash.cli.command import left_out, run_command
from diffhash.experiment.checks import ConfigError
from diffhash.experiment.locks import exclusive
from diffhash.experiment.workers import default_workers
from diffhash.paper import second_order
from diffhash.paper.figures import make_figures
from diffhash.paper.make import make_tables
from diffhash.paper.readme import PAGES
from diffhash.paper.reproduce import ROWS, plan, plan_timings, run_jobs
from diffhash.paper.table import load_tables
from diffhash.results import RecordError

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results"


def main() -> int:
    """Parse the command line, run, report and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    option = parser.add_argument
    option("--seeds", type=int, default=1, metavar="N", help="seeds 0 … N-1 (1)")
    option("--rows", nargs="+", default=ROWS, metavar="ROW", help="such as table1/cubic (all)")
    option("--optional", action="store_true", help="also the rows that the paper does not have")
    option("--runs", type=Path, default=RESULTS / "runs", help="records (results/runs)")
    option("--output", type=Path, default=RESULTS, help="for tables/ and figures/ (results)")
    option("--jobs", type=int, metavar="N", help="runs at a time (one a core; one on a GPU)")
    option("overrides", nargs="*", help="settings of every row, such as trainer.accelerator=gpu")
    arguments = parser.parse_args()
    if arguments.seeds < 1:
        parser.error(f"--seeds {arguments.seeds}: give at least 1")
    workers = default_workers() if arguments.jobs is None else arguments.jobs
    if workers < 1:
        parser.error(f"--jobs {workers}: give at least 1")
    start = time.perf_counter()
    with exclusive(arguments.runs):
        seeds = range(arguments.seeds)
        rows = (*arguments.rows, *(second_order.ROWS if arguments.optional else ()))
        jobs = plan(ROOT, arguments.runs, rows, seeds, arguments.overrides)
        failed = run_jobs(ROOT, jobs, workers)
        timings = plan_timings(ROOT, arguments.runs, [job for job in jobs if job.row in ROWS])
        failed += run_jobs(ROOT, timings, 1, "timings")
    report = left_out("reproduce_tables")
    second_order.write_second_order(arguments.runs, arguments.output / "tables", report)
    tables = load_tables(arguments.runs, report)
    pages = [ROOT / page for page in PAGES if arguments.output == RESULTS]
    *_, total, verdicts = make_tables(tables, arguments.output / "tables", pages)
    make_figures(tables, arguments.output / "figures")
    for table in tables.values():
        if not table.records:
            print(f"no records of {table.number}: its figures are left out", file=sys.stderr)
    print(total, verdicts, sep="\n")
    print(f"{time.perf_counter() - start:.0f} s in all; results in {arguments.output}")
    for job in failed:
        print(f"error: {job.title} has no record", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    rest = "interrupted: finished runs stay; the same command does the rest"
    run_command("reproduce_tables", main, (ConfigError, RecordError), rest)
