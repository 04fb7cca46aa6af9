"""Train each problem of the package by each method and optimizer for equal seconds, and tabulate
the errors beside published ones. Finished runs are not repeated."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # for the package benchmarks, which is not installed

from benchmarks import collocation  # noqa: E402
from benchmarks.suite import jobs, run_jobs  # noqa: E402
from benchmarks.suite_table import make_table, write_tables  # noqa: E402
from diffhash.cli.command import run_command  # noqa: E402
from diffhash.experiment.checks import ConfigError  # noqa: E402
from diffhash.experiment.workers import default_workers  # noqa: E402

RESULTS = ROOT / "results"


def main() -> int:
    """Parse the command line, train the missing runs, write and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    option = parser.add_argument
    option("--seeds", type=int, default=1, metavar="N", help="seeds 0 … N-1 (%(default)s)")
    option("--only", default="", help="problems, methods and optimizers")
    option("--seconds", type=float, default=7.0, help="of training, each (%(default)s)")
    option("--jobs", type=int, metavar="N", help="runs at a time (one a core)")
    option("--runs", type=Path, default=RESULTS / "runs" / "suite", help="records")
    option("--output", type=Path, default=RESULTS / "tables", help="for suite.csv and suite.md")
    arguments = parser.parse_args()
    workers = default_workers() if arguments.jobs is None else arguments.jobs
    for name, value in {"seeds": arguments.seeds, "jobs": workers}.items():
        if value < 1:
            parser.error(f"--{name} {value}: give at least 1")
    if not arguments.seconds > 0:
        parser.error(f"--seconds {arguments.seconds:g}: give a positive number")
    start = time.perf_counter()
    chosen = jobs(range(arguments.seeds), arguments.only, arguments.seconds)
    if not chosen:
        raise ConfigError(f"ONLY={arguments.only}: splines have no run with adam")
    run_jobs(ROOT, chosen, arguments.runs, workers)
    names = dict.fromkeys(job.case.name for job in chosen)
    collocation.complete(arguments.output / collocation.FILE, names)
    everything = jobs(range(arguments.seeds), "", arguments.seconds)
    for line in write_tables(make_table(everything, arguments.runs), arguments.output):
        print(line)
    print(f"{time.perf_counter() - start:.0f} s in all")
    return 0


if __name__ == "__main__":
    rest = "interrupted: finished runs stay; the same command does the rest"
    run_command("suite", main, (ConfigError,), rest)
