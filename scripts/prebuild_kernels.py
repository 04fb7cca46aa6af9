"""Compile the kernels of a wheel for every instruction set.

They are those of grids with every interpolation in one and two dimensions, and with the common ones
in three; and those of networks with every activation for jets up to order two, and with tanh and
sine for the equations of `diffhash.problems`; all in both precisions. Other kernels are compiled
when they are first needed.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from diffhash.jets import jet_rows
from diffhash.jets.activations import named_activation, sine
from diffhash.jets.c_code import activation_code
from diffhash.native import C_NAMES, instruction_sets, prebuild
from diffhash.ops.backends.native_backend import kernel_constants
from diffhash.ops.interpolation import INTERPOLATIONS
from diffhash.ops.layout import grid_layout
from diffhash.optim import Task
from diffhash.problems import zoo

_COMMON = ("linear", "s1", "s2", "cubic", "quintic")
_ACTIVATIONS = ("tanh", "silu", "gelu", "softplus")
_Kernel = tuple[str, str, dict[str, Any]]  # the arguments of `compiled`


def main() -> int:
    """Parse the command line, compile and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="gets a folder for each instruction set")
    folder = parser.parse_args().folder
    begin = time.monotonic()
    kernels = {repr(kernel): kernel for kernel in _kernels()}.values()
    with ThreadPoolExecutor() as pool:
        jobs = [
            pool.submit(prebuild, folder, instruction_set, source, code, **constants)
            for instruction_set in instruction_sets()
            for source, code, constants in kernels
        ]
        for job in jobs:
            job.result()
    size = sum(file.stat().st_size for file in folder.rglob("*.so"))
    seconds = time.monotonic() - begin
    print(f"{len(jobs)} libraries, {size / 2**20:.1f} MiB, {seconds:.0f} s: {folder}")
    return 0


def _kernels() -> Iterator[_Kernel]:
    yield "threads.c", "", {}
    for dtype, name in C_NAMES.items():
        yield "network.c", "", {"REAL": name}
        yield "adam.c", "", {"REAL": name, "SQRT": "sqrtf" if name == "float" else "sqrt"}
        for activation in (sine(30.0), *map(named_activation, _ACTIVATIONS)):
            common = activation.name in ("sine", "tanh")
            for rows in _rows() | (_rows_of_problems() if common else set()):
                code, _numbers = activation_code(activation, rows)
                bits = torch.finfo(dtype).bits
                yield "activation.c", code, {"REAL": name, "REAL_BITS": bits}
        for d in (1, 2, 3):
            for interpolation in INTERPOLATIONS if d < 3 else _COMMON:
                layout = grid_layout(d, interpolation, 1, 4, 2, 2.0)
                for x_dtype in {dtype, torch.float64}:  # points may have the higher precision
                    yield "grid.c", "", kernel_constants(layout, dtype, x_dtype)


def _rows() -> set[tuple[Any, ...]]:
    """The rows of all jets up to order two in up to three dimensions."""
    return {jet_rows(order, d) for d in (1, 2, 3) for order in (0, 1, 2)}


def _rows_of_problems() -> set[tuple[Any, ...]]:
    found = set()
    few = {"n_residual": 8, "n_boundary": 8, "n_labels": 8}
    for problem_class in zoo().values():
        problem = problem_class()
        found.add(tuple(problem.rows))
        for kind in ("pinn", "data"):
            found |= {tuple(term.rows) for term in Task(kind, **few).objective(problem).terms}
    return found


if __name__ == "__main__":
    sys.exit(main())
