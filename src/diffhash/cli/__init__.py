"""The command ``diffhash``: browse, compare, evaluate and export the records of runs."""

from __future__ import annotations

import sys

from diffhash.cli.command import run_command


def main() -> None:
    """Run the command line; one line on standard error where its dependencies are missing."""
    run_command("diffhash", _main)


def _main() -> int:
    try:
        from diffhash.cli.app import run_app
    except ModuleNotFoundError as error:
        if str(error.name).startswith("diffhash"):
            raise
        print(
            f"diffhash: this command needs {error.name}: pip install 'diffhash[experiments]'",
            file=sys.stderr,
        )
        return 1
    return run_app()
