"""Time training steps beside those of other implementations, and training to a given accuracy."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from tempfile import TemporaryFile

import pandas as pd
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # for the package benchmarks, which is not installed

from benchmarks import (  # noqa: E402
    equations,
    gauss_newton,
    growth,
    own_parts,
    steps,
    time_to_accuracy,
)
from benchmarks.machine import ENVIRONMENT, progress, slug  # noqa: E402
from benchmarks.step_plots import plot_accuracy, plot_growth, plot_steps  # noqa: E402
from diffhash._files import write_text_atomically  # noqa: E402
from diffhash.cli.command import run_command  # noqa: E402
from diffhash.experiment.environment import keep_freed_memory  # noqa: E402

PARTS = ("steps", "equations", "gauss_newton", "own_parts", "growth", "accuracy")
# The parts that write a table and no picture.
TABLES = {"equations": equations, "gauss_newton": gauss_newton, "own_parts": own_parts}


def main() -> int:
    """Parse the command line, measure, write, print the ratios and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    option = parser.add_argument
    option("--quick", action="store_true", help="a smoke run of the steps of two encoders")
    option("--parts", nargs="+", choices=PARTS, default=PARTS, help="what is measured (all)")
    option("--device", choices=("cpu", "cuda"), help="default: cuda where there is one")
    option("--threads", type=int, metavar="T", help="CPU threads (all cores)")
    option("--repetitions", type=int, default=7, help="samples of a contender (%(default)s)")
    option("--seconds", type=float, default=1.0, help="of a sample, at least (%(default)s)")
    option("--output", type=Path, default=ROOT / "results" / "benchmarks", help="folder")
    arguments = parser.parse_args()
    device = torch.device(arguments.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch finds no CUDA device here")
    threads = torch.get_num_threads() if arguments.threads is None else arguments.threads
    for name, value in {"threads": threads, "repetitions": arguments.repetitions}.items():
        if value < 1:
            parser.error(f"--{name} {value}: give at least 1")
    if hasattr(os, "sched_setaffinity") and threads < len(os.sched_getaffinity(0)):
        # JAX starts as many threads as the process may use cores.
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    torch.set_num_threads(threads)
    keep_freed_memory()
    options = steps.Options(
        device,
        threads,
        2 if arguments.quick else arguments.repetitions,
        0.05 if arguments.quick else arguments.seconds,
        ("mlp", "cubic") if arguments.quick else steps.ENCODERS,
        steps.jax_is_there(device, threads),
    )
    if not options.with_jax:
        print("bench: JAX is not installed or sees no such device: without it", file=sys.stderr)
    parts = ("steps",) if arguments.quick else arguments.parts
    if device.type == "cuda":
        parts = [part for part in parts if part not in ("gauss_newton", "own_parts")]  # CPU only
    name = slug(device) + ("-quick" if arguments.quick else "")
    try:
        arguments.output.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=arguments.output).close()  # fails now, not after minutes
        for part in parts:  # each is written when it is done
            for line in _measure(part, options, arguments.output, name):
                print(line)
    except KeyboardInterrupt:
        print("bench: interrupted; the part that was going on is not written", file=sys.stderr)
        return 130
    return 0


def _measure(part: str, options: steps.Options, output: Path, name: str) -> list[str]:
    stem = output / f"{part}-{name}"
    if part == "steps":
        with progress("bench steps", steps.n_cases(options)) as advance:
            frame = steps.measure(options, advance)
        paths = [_write(frame, steps.COLUMNS, stem), *plot_steps(frame, stem)]
        lines = steps.summary(frame)
    elif part == "growth":
        with progress("bench growth", growth.n_cases()) as advance:
            frame = growth.measure(options, advance)
        paths = [_write(frame, growth.COLUMNS, stem), *plot_growth(frame, stem)]
        lines = growth.summary(frame)
    elif part in TABLES:
        table = TABLES[part]
        with progress(f"bench {part}", table.n_cases()) as advance:
            frame = table.measure(options, advance)
        paths = [_write(frame, table.COLUMNS, stem)]
        lines = table.summary(frame)
    else:
        with progress("bench accuracy", time_to_accuracy.n_runs()) as advance:
            frame, curves = time_to_accuracy.measure(options.device, options.n_threads, advance)
        paths = [
            _write(frame, time_to_accuracy.COLUMNS, stem),
            _write(curves, None, stem.with_name(f"{stem.name}-curves")),
            *plot_accuracy(curves, frame, stem),
        ]
        lines = time_to_accuracy.summary(frame)
    return [*map(str, paths), *lines]


def _write(frame: pd.DataFrame, columns: tuple[str, ...] | None, stem: Path) -> Path:
    """Write ``columns`` and those of the machine as CSV; without ``columns``, the whole frame."""
    if columns is not None:
        frame = frame.reindex(columns=[*columns, *ENVIRONMENT])
    path = stem.with_suffix(".csv")
    return write_text_atomically(path, frame.to_csv(index=False, float_format="%.5g"))


if __name__ == "__main__":
    run_command("bench", main)
