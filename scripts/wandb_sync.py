"""Send the W&B runs that were logged offline; needs a login (`wandb login`)."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from diffhash.cli.command import run_command
from diffhash.results.wandb_files import unsent_parts


def main() -> int:
    """Parse the command line, send the unsent parts and return the exit code: 1 if some remain."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("results/runs"), help="%(default)s")
    arguments = parser.parse_args()
    parts = unsent_parts(arguments.runs)
    if not parts:
        print(f"nothing to send in {arguments.runs}")
        return 0
    # All at once: the parts of one W&B run are appended to each other.
    command = [sys.executable, "-m", "wandb", "sync", *map(str, parts)]
    subprocess.run(command, env=os.environ | {"WANDB_DIR": str(arguments.runs)})  # for its logs
    if left := set(parts) & set(unsent_parts(arguments.runs)):
        print(f"error: {len(left)} of {len(parts)} not sent; `wandb login`?", file=sys.stderr)
        return 1
    print(f"{len(parts)} sent")
    return 0


if __name__ == "__main__":
    run_command("wandb_sync", main)
