"""Write the paper's tables and claims, ours beside the paper's, from the records of runs."""

from __future__ import annotations

import argparse
import sys

from diffhash.results.claims import count_verdicts, write_claims
from diffhash.results.readme import update_readme
from diffhash.results.summary import write_summary
from diffhash.results.table import load_tables
from diffhash.results.tables import total_sentence, write_tables


def main() -> int:
    """Parse the command line, write the files, print where they are; 1 on an error."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", default="results/runs", help="records (default: %(default)s)")
    parser.add_argument("--output", default="results/tables", help="default: %(default)s")
    parser.add_argument("--paper", default="results/paper", help="default: %(default)s")
    options = parser.parse_args()
    try:
        tables = load_tables(options.runs, options.paper)
        paths = write_tables(tables, options.output)
        claim_paths, claims = write_claims(tables, options.output)
        summary = write_summary(list(tables.values()), claims, options.output)
        if options.output == parser.get_default("output"):
            update_readme("README.md", options.output)
    except (ValueError, OSError) as error:
        print(f"make_tables: {error}", file=sys.stderr)
        return 1
    print(*paths, *claim_paths, summary, sep="\n")
    print(total_sentence(tables.values()))
    print(f"Claims of the paper: {count_verdicts(claims)}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
