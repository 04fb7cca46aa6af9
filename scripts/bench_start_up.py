"""Time short commands and `import torch`, each by the smallest time of several rounds."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from diffhash.cli.command import run_command
from diffhash.experiment.environment import describe_environment

ROOT = Path(__file__).resolve().parent.parent
_TRAIN = [sys.executable, str(ROOT / "train.py")]
_CLI = [sys.executable, "-c", "from diffhash.cli import main; main()"]
# The commands, each with the largest allowed ratio of its time to that of the first.
COMMANDS = {
    "import torch": ([sys.executable, "-c", "import torch"], 1.0),
    "train.py trainer.epochs=20": (
        [*_TRAIN, "encoder=cubic", "trainer.epochs=20", "trainer.accelerator=cpu", "run_dir=run"],
        2.2,
    ),
    "diffhash list": ([*_CLI, "list", "."], 0.8),
    "train.py --help": ([*_TRAIN, "--help"], 1.2),
}


def main() -> int:
    """Parse the command line, time, print and return the exit code: 1 if a limit is exceeded."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="of all commands (7)")
    rounds = parser.parse_args().rounds
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(rounds + 1):  # the first round fills the caches of files and kernels
            for name, (command, _limit) in COMMANDS.items():
                begin = time.perf_counter()
                subprocess.run(command, cwd=folder, check=True, capture_output=True)
                seconds[name].append(time.perf_counter() - begin)
    best = {name: min(values[1:]) for name, values in seconds.items()}
    torch_seconds = best["import torch"]
    found = describe_environment("cpu")
    print(f"{found['processor']}, Python {found['python']}, torch {found['torch']}")
    exceeded = False
    for name, (_command, limit) in COMMANDS.items():
        ratio = best[name] / torch_seconds
        exceeded |= ratio > limit
        print(f"{name:28} {best[name]:6.2f} s  {ratio:5.2f} times, allowed {limit:.1f}")
    return int(exceeded)


if __name__ == "__main__":
    run_command("bench_start_up", main)
