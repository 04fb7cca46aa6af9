"""Facts about the compiled Triton kernels, as JSON; a script that test_triton_compile runs.

It needs a separate process: where pytest runs in Triton's interpreter, nothing can be compiled.
"""

from __future__ import annotations

import json
import re
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import torch
import triton
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import MockTensor

from diffhash import GridEncoding

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "compile_kernels.py"


def _load() -> Any:
    spec = spec_from_file_location("compile_kernels", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


script = _load()


class _NoDriver:
    """A driver with all that a launch needs to compile."""

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


def _launched(variant: Any, n_points: int) -> str:
    """The TTIR of the kernel that a launch compiles."""
    kernel, constants = variant._kernel()
    source, _ = variant.source()
    dtypes = {"fp32": torch.float32, "fp64": torch.float64, "i32": torch.int32, "i64": torch.int64}
    types = [source.signature[name] for name in kernel.arg_names if name not in constants]
    arguments = [MockTensor(dtypes[t[1:]]) if t[0] == "*" else n_points for t in types]
    options = {"num_warps": script.triton_backend.WARPS, "grid": (1, 1, 1)}
    return kernel.warmup(*arguments, **constants, **options).asm["ttir"]


def _code(ttir: str) -> str:
    """The TTIR without source locations."""
    return re.sub(r" ?loc\([^()]*(\([^()]*\))*[^()]*\)|#loc.*", "", ttir)


def _narrow_offsets(ttir: str) -> list[str]:
    """The lines in which program numbers are multiplied or added before they are 64-bit."""
    numbers = re.findall(r"(%\w+) = tt\.get_program_id", ttir)
    uses = [line for line in ttir.splitlines() if re.search(r"arith\.(muli|addi)", line)]
    return [line for line in uses if any(re.search(rf"{n}\b", line) for n in numbers)]


def _refused() -> str:
    """The message of a grid on a CPU with Triton's backend."""
    try:
        GridEncoding(1, interpolation="cubic", backend="triton")(torch.rand(2, 1))
    except ValueError as error:
        return str(error)
    return ""


def main() -> None:
    """Print one JSON object."""
    knobs.compilation.always_compile = True
    knobs.nvidia.dump_ptxas_log = True
    driver: Any = _NoDriver()
    triton.runtime.driver.set_active(driver)
    single, double = torch.float32, torch.float64
    facts = []
    for variant in (
        script.Variant("gather", "cubic", 2, "jet", 2, single),
        script.Variant("scatter", "linear", 3, "jet", 8, single),
        script.Variant("list", "quadratic", 2, "slope", 3, single),
        script.Variant("gather", "quintic", 3, "value", 2, double),
        script.Variant("scatter", "quintic", 1, "jet", 1, double),
        script.Variant("rows", "cubic", 2, "", 0, single),
        script.Variant("segment", "", 0, "", 2, single, 32),
    ):
        compiled, _ = script.compile_variant(variant, "sm_90")
        ttir = compiled.asm["ttir"]
        pointers = re.findall(r"tt\.addptr [^:]*: ([^\n]*?)(?: loc|$)", ttir, flags=re.MULTILINE)
        facts.append(
            {
                "kernel": variant.kernel,
                "dtype": str(variant.dtype),
                "launched": [_code(_launched(variant, n)) == _code(ttir) for n in (1, 16, 1001)],
                "pointers": pointers,
                "has_f32": "f32" in ttir,
                "has_f64": "f64" in ttir,
                "constants": re.findall(r"arith\.constant (?:dense<)?([-\d.eE+]+)", ttir),
                # a 32-bit product or sum that becomes an offset
                "narrow": _narrow_offsets(ttir),
                "barriers": compiled.asm["ptx"].count("bar.sync"),
            }
        )
    print("JSON" + json.dumps({"kernels": facts, "on a CPU": _refused()}))


if __name__ == "__main__":
    main()
