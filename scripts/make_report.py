"""Write results/report/index.html: one page with tables, claims and interactive plots."""

from __future__ import annotations

import argparse

from diffhash.cli.command import left_out, run_command
from diffhash.paper.report.page import write_report
from diffhash.paper.table import load_tables


def main() -> int:
    """Parse the command line, write the page, print its path and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", default="results/runs", help="records (default: %(default)s)")
    parser.add_argument("--output", default="results/report", help="default: %(default)s")
    parser.add_argument("--suite", default="results", help="its table's (default: %(default)s)")
    options = parser.parse_args()
    tables = load_tables(options.runs, left_out("make_report"))
    print(write_report(tables, options.output, options.suite))
    return 0


if __name__ == "__main__":
    run_command("make_report", main, (ValueError,))
