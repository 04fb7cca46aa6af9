"""Write the tables and claims of the paper, our values beside the paper's, from records of runs."""

from __future__ import annotations

import argparse

from diffhash.cli.command import left_out, run_command
from diffhash.paper.make import make_tables
from diffhash.paper.readme import PAGES
from diffhash.paper.second_order import write_second_order
from diffhash.paper.table import load_tables


def main() -> int:
    """Parse the command line, write the files, print their paths and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", default="results/runs", help="records (default: %(default)s)")
    parser.add_argument("--output", default="results/tables", help="default: %(default)s")
    options = parser.parse_args()
    pages = PAGES if options.output == parser.get_default("output") else ()
    tables = load_tables(options.runs, left_out("make_tables"))
    write_second_order(options.runs, options.output, left_out("make_tables"))
    print(*make_tables(tables, options.output, pages), sep="\n")
    return 0


if __name__ == "__main__":
    run_command("make_tables", main, (ValueError,))
