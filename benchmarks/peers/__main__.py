"""Train this library and its peers side by side, and tabulate what a step takes and the errors
after equal seconds. Peers are installed first, each into an environment of its own, which needs a
network. A problem is written when it is done; rows that are not asked for stay."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import pandas as pd

from benchmarks.peers.compare import CONTENDERS, chosen, install, measure, merge, page
from diffhash._files import write_text_atomically
from diffhash.cli.command import run_command
from diffhash.experiment.checks import ConfigError

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "results"


def main() -> int:
    """Parse the command line, install, run and write; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    option = parser.add_argument
    option("--only", default="", help="problems and contenders (all)")
    option("--seconds", type=float, default=20.0, help="of training, each (%(default)g)")
    option("--environments", type=Path, default=ROOT / ".peers", help="the peers'")
    option("--runs", type=Path, default=RESULTS / "runs" / "peers", help="settings, logs")
    option("--output", type=Path, default=RESULTS / "tables", help="for peers.csv and peers.md")
    arguments = parser.parse_args()
    if not arguments.seconds > 0:
        parser.error(f"--seconds {arguments.seconds:g}: give a positive number")
    problems, contenders = chosen(arguments.only)
    environments, runs = arguments.environments.resolve(), arguments.runs.resolve()
    for folder in (environments, runs, arguments.output):
        folder.mkdir(parents=True, exist_ok=True)
    path, missing = arguments.output / "peers.csv", {}
    table = pd.read_csv(path) if path.is_file() else pd.DataFrame()
    for peer in dict.fromkeys(filter(None, (CONTENDERS[key].peer for key in contenders))):
        if reason := install(peer, environments, runs / f"install-{peer}.log"):
            missing[peer] = reason
    if hasattr(os, "sched_setaffinity"):  # one core for all processes
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    for problem in problems:
        rows = measure(problem, contenders, arguments.seconds, runs, environments, missing)
        table = merge(table, rows)
        write_text_atomically(path, table.to_csv(index=False, float_format="%.4g"))
        write_text_atomically(path.with_suffix(".md"), page(table))
        print(rows[["contender", "status", "ms", "steps", "l2_u"]].to_string(index=False))
    return 0


if __name__ == "__main__":
    rest = "interrupted: finished problems stay; ONLY= does the others"
    run_command("peers", main, (ConfigError,), rest)
