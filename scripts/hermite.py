"""Train in the setting of Hermite-NGP with each interpolation for equal seconds, dense and hashed,
and plot and tabulate the errors. Finished runs are not repeated."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # for the package benchmarks, which is not installed

from benchmarks.hermite import jobs, write  # noqa: E402
from benchmarks.suite import run_jobs  # noqa: E402
from diffhash.cli.command import run_command  # noqa: E402
from diffhash.experiment.checks import ConfigError  # noqa: E402

RESULTS = ROOT / "results"


def main() -> int:
    """Parse the command line, train the missing runs, write and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    option = parser.add_argument
    option("--seeds", type=int, default=1, metavar="N", help="seeds 0 … N-1 (%(default)s)")
    option("--seconds", type=float, default=150.0, help="of training, each (%(default)g)")
    option("--jobs", type=int, default=2, metavar="N", help="runs at a time (%(default)s)")
    option("--runs", type=Path, default=RESULTS / "runs" / "hermite", help="records")
    option("--output", type=Path, default=RESULTS, help="its tables/ and figures/")
    arguments = parser.parse_args()
    for name in ("seeds", "seconds", "jobs"):
        if not getattr(arguments, name) > 0:
            parser.error(f"--{name} {getattr(arguments, name):g}: give a positive number")
    wanted = jobs(range(arguments.seeds), arguments.seconds)
    run_jobs(ROOT, wanted, arguments.runs, arguments.jobs)
    for line in write(wanted, arguments.runs, arguments.output):
        print(line)
    return 0


if __name__ == "__main__":
    rest = "interrupted: finished runs stay; the same command does the rest"
    run_command("hermite", main, (ConfigError,), rest)
