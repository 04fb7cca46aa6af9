"""Write Figures 1 to 5 of the paper, as PNG and PDF, from the records of runs."""

from __future__ import annotations

import argparse
import sys

from diffhash.cli.command import left_out, run_command
from diffhash.paper.figures import make_figures
from diffhash.paper.table import load_tables
from diffhash.results.record import RecordError


def main() -> int:
    """Parse the command line, write the files, print their paths and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", default="results/runs", help="records (default: %(default)s)")
    parser.add_argument("--output", default="results/figures", help="default: %(default)s")
    options = parser.parse_args()
    tables = load_tables(options.runs, left_out("make_figures"))
    print(*make_figures(tables, options.output), sep="\n")
    for table in tables.values():
        if not table.records:
            print(f"no records of {table.number}: its figures are left out", file=sys.stderr)
    return 0


if __name__ == "__main__":
    run_command("make_figures", main, (RecordError,))
