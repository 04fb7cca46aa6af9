"""Time the grid operator beside other implementations, and write a table and a figure."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryFile

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # for the package benchmarks, which is not installed

from benchmarks import machine, ops  # noqa: E402
from benchmarks.plot import plot  # noqa: E402
from diffhash._files import write_text_atomically  # noqa: E402
from diffhash.cli.command import run_command  # noqa: E402
from diffhash.experiment.environment import keep_freed_memory  # noqa: E402
from diffhash.ops.interpolation import INTERPOLATIONS  # noqa: E402

QUICK_SIZES = ops.SIZES[:2]


def main() -> int:
    """Parse the command line, measure, write, print the main ratios and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    option = parser.add_argument
    option("--quick", action="store_true", help="few sizes, linear and cubic, 1-D and 2-D")
    option("--device", choices=("cpu", "cuda"), help="default: cuda where there is one")
    option("--threads", type=int, metavar="T", help="CPU threads (torch's own choice: all cores)")
    option("--interpolations", nargs="+", metavar="NAME", help="default: all")
    option("--dims", nargs="+", type=int, choices=(1, 2, 3), help="default: 1 2 3")
    option("--sizes", nargs="+", type=int, metavar="N", help="default: 2^12 to 2^20, the paper's")
    option("--seconds", type=float, default=0.5, help="of repetitions, per call (%(default)s)")
    option("--compile", action="store_true", help="with torch.compile as a contender")
    option("--output", type=Path, default=ROOT / "results" / "benchmarks", help="folder")
    arguments = parser.parse_args()
    device = torch.device(arguments.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch finds no CUDA device here")
    for name in arguments.interpolations or ():
        if name not in INTERPOLATIONS:
            known = ", ".join(INTERPOLATIONS)
            parser.error(f"--interpolations {name}: unknown; choose from {known}")
    if arguments.threads is not None and arguments.threads < 1:
        parser.error(f"--threads {arguments.threads}: give at least 1")
    if min(arguments.sizes or ops.SIZES) < 1:
        parser.error(f"--sizes {min(arguments.sizes)}: give at least 1")
    quick = arguments.quick
    options = ops.Options(
        device,
        arguments.interpolations or (ops.PAPER_INTERPOLATIONS if quick else tuple(INTERPOLATIONS)),
        arguments.dims or ((1, 2) if quick else (1, 2, 3)),
        arguments.sizes or (QUICK_SIZES if quick else ops.SIZES),
        () if arguments.sizes else ops.PAPER_SIZES,
        arguments.seconds,
        arguments.compile,
    )
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    stem = arguments.output / f"ops-{machine.slug(device)}{'-quick' if quick else ''}"
    try:
        arguments.output.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=arguments.output).close()  # fails now, not after minutes
        frame = ops.measure(options)
        paths = [_write(frame, stem.with_suffix(".csv"))]
        if device.type == "cuda":
            ceiling = ops.measure_ceiling(options)
            paths.append(_write(ceiling, stem.with_name(f"{stem.name}-memory.csv")))
        paths += plot(frame, stem)
    except KeyboardInterrupt:
        print("bench_ops: interrupted, nothing is written", file=sys.stderr)
        return 130
    print(*paths, *ops.summary(frame), sep="\n")
    failures = ops.failures(frame)
    for line in failures:
        print(f"bench_ops: {line}", file=sys.stderr)
    return 1 if failures else 0


def _write(frame: ops.pd.DataFrame, path: Path) -> Path:
    return write_text_atomically(path, frame.to_csv(index=False, float_format="%.5g"))


if __name__ == "__main__":
    run_command("bench_ops", main)
