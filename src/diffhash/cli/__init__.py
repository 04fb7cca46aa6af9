"""The command ``diffhash``: browse, compare, evaluate and export the records of runs."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; one line on standard error where its dependencies are missing."""
    try:
        from diffhash.cli.app import app

        app(prog_name="diffhash")
    except ModuleNotFoundError as error:
        if str(error.name).startswith("diffhash"):
            raise
        print(
            f"diffhash: this command needs {error.name}: pip install 'diffhash[experiments]'",
            file=sys.stderr,
        )
        raise SystemExit(1) from None
