"""Search the hyper-parameters of a preset, and confirm the best on seeds of their own."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from hydra import initialize_config_dir

from diffhash.cli.command import run_command
from diffhash.experiment.checks import ConfigError
from diffhash.experiment.schema import register
from diffhash.paper.reproduce import exclusive
from diffhash.results import RecordError

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results"


def main() -> int:
    """Parse the command line, search, report; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    option = parser.add_argument
    option("study", help="a file of configs/calibration: paper, best or compact")
    option("--trials", type=int, metavar="N", help="in all, those of earlier calls included")
    option("--runs", type=Path, default=RESULTS / "runs" / "calibration", help="for its state")
    option("--output", type=Path, default=RESULTS / "calibration", help="for tables and figure")
    option("overrides", nargs="*", help="settings of every run, such as trainer.epochs=100")
    arguments = parser.parse_intermixed_args()
    try:
        from diffhash.paper.calibration import calibrate, load_study, write_outcome
    except ModuleNotFoundError as error:
        if error.name != "optuna":
            raise
        print("error: Optuna is not installed; pip install -c constraints.txt -e '.[calibration]'",
              file=sys.stderr)  # fmt: skip
        return 1
    register()
    folder, output = arguments.runs / arguments.study, arguments.output
    try:
        with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
            study = load_study(ROOT, arguments.study, arguments.overrides, arguments.trials)
            with exclusive(folder):
                parts = calibrate(study, folder)
                paths, summary = write_outcome(study, *parts, output)
    except (ConfigError, RecordError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: what has ended is kept; the same command goes on", file=sys.stderr)
        return 130
    print(*paths, summary, sep="\n")
    return 0


if __name__ == "__main__":
    run_command("calibrate", main)
