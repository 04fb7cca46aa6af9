"""The command ``diffhash``, which trains, and browses, compares, evaluates and exports records."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

from diffhash.cli.command import (
    one_line_interrupt,
    plain_output,
    run_command,
    without_collection,
)


def main() -> None:
    """Run the command line; missing dependencies are reported as one line on standard error."""
    if sys.argv[1:2] == ["train"]:
        sys.argv[:2] = ["diffhash train"]
        train_command("diffhash")
    else:
        run_command("diffhash", lambda: _imported("app").run_app())


def train_command(name: str = "train.py") -> None:
    """``diffhash train`` with the settings of ``sys.argv[1:]``; ``name`` begins its messages."""
    plain_output()
    with one_line_interrupt(name):  # the imports take seconds
        with without_collection():
            train = _imported("train")
        train.run_train()


def _imported(module: str) -> Any:
    try:
        return import_module(f"diffhash.cli.{module}")
    except ModuleNotFoundError as error:
        if str(error.name).startswith("diffhash"):
            raise
        print(
            f"diffhash: this command needs {error.name}: pip install 'diffhash[experiments]'",
            file=sys.stderr,
        )
        raise SystemExit(1) from None
