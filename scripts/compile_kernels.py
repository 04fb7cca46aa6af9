"""Compile the Triton kernels without a GPU, and write the registers and spills of each as CSV."""

from __future__ import annotations

import argparse
import csv
import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

# With the interpreter, the imported kernels could not be compiled.
os.environ["TRITON_INTERPRET"] = "0"

import torch
import triton
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, CompiledKernel

from diffhash.cli.command import run_command
from diffhash.jets import axis_rows, expanded
from diffhash.ops.backends import MultiIndex, triton_backend, triton_kernels
from diffhash.ops.interpolation import INTERPOLATIONS
from diffhash.ops.layout import grid_layout

ARCHITECTURES = ("sm_86", "sm_90")
COMMON = ("linear", "s1", "cubic")
POINTERS = {torch.float32: "*fp32", torch.float64: "*fp64"}
COLUMNS = (
    "kernel",
    "interpolation",
    "d",
    "alphas",
    "F",
    "dtype",
    "arch",
    "block",
    "num_warps",
    "registers",
    "spill_stores",
    "spill_loads",
    "ptx_bytes",
    "compile_seconds",
    "triton",
)


def indices(name: str, d: int) -> tuple[MultiIndex, ...]:
    """The multi-indices of a kernel: α = 0 for "value", all up to ∂_jj for "jet", and for "slope"
    those of "jet" with one more derivative along axis 0, as in its backward pass."""
    jet, _ = expanded(axis_rows([0 if name == "value" else 2] * d))
    return tuple((a + (name == "slope"), *rest) for a, *rest in jet)


@dataclass(frozen=True)
class Variant:
    """A kernel with the settings of one launch."""

    kernel: str  # gather, scatter (atomic), list (scatter's values, to be sorted), rows, segment
    interpolation: str
    d: int
    alphas: str
    F: int
    dtype: torch.dtype
    chunk: int = 0  # of the segment kernel

    def source(self) -> tuple[ASTSource, dict[str, Any]]:
        """The input of the compiler, and the constants in it."""
        kernel, constants = self._kernel()
        names = kernel.arg_names
        value = POINTERS[self.dtype]
        pointers = {"integers_ptr": "*i64", "starts_ptr": "*i64", "order_ptr": "*i32"}
        if self.kernel == "rows":
            pointers["out_ptr"] = "*i32"
        signature = {
            name: "constexpr"
            if name in constants
            else pointers.get(name, value)
            if name.endswith("_ptr")
            else "i32"
            for name in names
        }
        # torch's allocations are aligned, and a launch passes that to the compiler.
        attributes = {
            (i,): [["tt.divisibility", 16]] for i, name in enumerate(names) if name.endswith("_ptr")
        }
        paths = {(names.index(name),): constant for name, constant in constants.items()}
        return ASTSource(kernel, signature, paths, attributes), constants

    def _kernel(self) -> tuple[Any, dict[str, Any]]:
        if self.kernel == "segment":
            constants = triton_backend.segment_constants(self.F, self.dtype, self.chunk)
            return triton_kernels.segment_kernel, constants
        layout = grid_layout(self.d, self.interpolation, 4, 19, 16, 1.5)
        if self.kernel == "rows":
            return triton_kernels.rows_kernel, triton_backend.rows_constants(layout)
        alphas = indices(self.alphas, self.d)
        constants = triton_backend.launch_constants(layout, alphas, self.F, self.dtype)
        if self.kernel == "gather":
            return triton_kernels.gather_kernel, constants
        return triton_kernels.scatter_kernel, constants | {"ATOMIC": self.kernel == "scatter"}


def compile_variant(variant: Variant, arch: str) -> tuple[CompiledKernel, dict[str, Any]]:
    """The compiled kernel, and its line of the CSV.

    Raises:
        RuntimeError: ptxas did not report the registers and spills of the kernel.
    """
    source, constants = variant.source()
    target = GPUTarget("cuda", int(arch.removeprefix("sm_")), 32)
    log = StringIO()
    start = time.perf_counter()
    with redirect_stdout(log):  # Triton prints the output of ptxas
        options = {"num_warps": triton_backend.WARPS}
        compiled = triton.compile(source, target=target, options=options)
    seconds = time.perf_counter() - start
    used = re.search(r"Used (\d+) registers", log.getvalue())
    spilled = re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", log.getvalue())
    if used is None or spilled is None:
        raise RuntimeError(f"{variant} on {arch}: ptxas reports no registers: {log.getvalue()!r}")
    line = {
        "kernel": variant.kernel,
        "interpolation": variant.interpolation,
        "d": variant.d or "",
        "alphas": variant.alphas,
        "F": variant.F or "",
        "dtype": str(variant.dtype).removeprefix("torch."),
        "arch": arch,
        "block": constants["ROWS"] if variant.kernel == "segment" else constants["BLOCK"],
        "num_warps": triton_backend.WARPS,
        "registers": int(used[1]),
        "spill_stores": int(spilled[1]),
        "spill_loads": int(spilled[2]),
        "ptx_bytes": len(compiled.asm["ptx"]),
        "compile_seconds": f"{seconds:.2f}",
        "triton": triton.__version__,
    }
    return compiled, line


def variants(quick: bool, names: Sequence[str]) -> Iterator[Variant]:
    """The variants of the interpolations ``names``; with ``quick``, only the common ones."""
    single, double = torch.float32, torch.float64
    for name in names:
        for d in (1, 2, 3) if quick else (1, 2, 3, 4):
            if not quick:
                yield Variant("rows", name, d, "", 0, single)
            for kernel in ("gather", "scatter"):
                yield Variant(kernel, name, d, "jet", 2, single)
                if (d < 4 and not quick) or name == "cubic":
                    yield Variant(kernel, name, d, "jet", 8, single)
                if quick:
                    continue
                yield Variant(kernel, name, d, "value", 2, single)
                if d < 4:
                    yield Variant(kernel, name, d, "slope", 2, single)
                if d < 3:
                    yield Variant(kernel, name, d, "jet", 2, double)
            if not quick and d < 3:
                yield Variant("list", name, d, "jet", 2, single)
    for chunk in (32,) if quick else (4, 32, 256):
        for dtype in (single,) if quick else (single, double):
            for F in (2, 8):
                yield Variant("segment", "", 0, "", F, dtype, chunk)


def main() -> int:
    """Parse the command line, compile, write the CSV, print a summary and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    option = parser.add_argument
    option("--out", default="results/benchmarks/kernels.csv", help="default: %(default)s")
    option("--arch", nargs="+", default=ARCHITECTURES, metavar="ARCH", help="sm_86 sm_90")
    option("--interpolations", nargs="+", choices=INTERPOLATIONS, metavar="NAME", help="(all)")
    option("--quick", action="store_true", help=f"common cases only, of {', '.join(COMMON)}")
    arguments = parser.parse_args()
    if unknown := [arch for arch in arguments.arch if not re.fullmatch(r"sm_\d+", arch)]:
        parser.error(f"--arch {unknown[0]}: give names such as sm_90")
    knobs.compilation.always_compile = True  # a kernel from the cache has no ptxas log
    knobs.nvidia.dump_ptxas_log = True
    names = arguments.interpolations or (COMMON if arguments.quick else INTERPOLATIONS)
    todo = [(v, arch) for arch in arguments.arch for v in variants(arguments.quick, tuple(names))]
    lines, failed = [], 0
    start = time.perf_counter()
    for count, (variant, arch) in enumerate(todo, 1):
        try:
            _, line = compile_variant(variant, arch)
        except Exception as error:  # of any kind: the others are still compiled
            print(f"error: {variant} on {arch}: {error}", file=sys.stderr)
            failed += 1
            continue
        lines.append(line)
        keys = ("arch", "kernel", "interpolation", "d", "alphas", "F", "dtype")
        print(
            f"[{count}/{len(todo)}]",
            *(line[key] for key in keys if line[key] != ""),
            f"{line['registers']} registers, {line['spill_stores']} bytes spilled,",
            f"{line['compile_seconds']} s",
            flush=True,
        )
    path = Path(arguments.out)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
    spilling = sum(line["spill_stores"] > 0 for line in lines)
    most = max((line["registers"] for line in lines), default=0)
    print(
        f"{len(lines)} of {len(todo)} kernels compiled in {time.perf_counter() - start:.0f} s; "
        f"at most {most} registers; {spilling} spill; {path}"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    run_command("compile_kernels", main)
