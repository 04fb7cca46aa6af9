"""log2f and exp2f of the layout are the C library's, to the last bit."""

from __future__ import annotations

import ctypes
import math
import platform
import random

import numpy as np
import pytest

from diffhash.ops.layout import grid_layout
from diffhash.ops.single_precision import exp2f, log2f

# Results of a C program with glibc 2.36; the first of each is not the nearest float32.
LOG2 = {
    "0x1.0007e2p+0": "0x1.6be5dep-13",
    "0x1.000fc4p+0": "0x1.6be044p-12",
    "0x1.006e5cp+0": "0x1.3e297ap-9",
    "0x1.007e2p+0": "0x1.6b91fp-9",
    "0x1.00ccf4p+0": "0x1.273934p-8",
    "0x1.00f45ep+0": "0x1.5fe444p-8",
    "0x1.010422p+0": "0x1.768ca8p-8",
    "0x1.0152f6p+0": "0x1.e7c1c8p-8",
    "0x1p+0": "0x0p+0",
    "0x1.8p+0": "0x1.2b8034p-1",
    "0x1p+20": "0x1.4p+4",
}
EXP2 = {
    "0x1.07a6a6p-2": "0x1.32048ep+0",
    "0x1.3551a6p-2": "0x1.3ba018p+0",
    "0x1.6f7968p-2": "0x1.484c4p+0",
    "0x1.ed0582p-2": "0x1.656aep+0",
    "0x1.64bdcap-1": "0x1.9ef0c2p+0",
    "0x1.6c972ep-1": "0x1.a35f8cp+0",
    "0x1.2a2902p+0": "0x1.1ef4dep+1",
    "0x1.6b03dap+0": "0x1.560aap+1",
    "0x0p+0": "0x1p+0",
    "0x1.8p+4": "0x1p+24",
}
# per_level_scale: exp2f(l·log2f(·)) · base_resolution - 1 of levels and resolutions (1, 16), (2, 4)
# and (7, 5), by the same program.
SCALES = {
    1.26: ("0x1.328f5cp+4", "0x1.566cf4p+2", "0x1.835a08p+4"),
    1.3819: ("0x1.51c432p+4", "0x1.a8dea8p+2", "0x1.78f15cp+5"),
    1.4: ("0x1.566666p+4", "0x1.b5c28ep+2", "0x1.9da76cp+5"),
    1.5: ("0x1.7p+4", "0x1p+3", "0x1.51b8p+6"),
    1.8: ("0x1.bcccccp+4", "0x1.7eb852p+3", "0x1.311c2cp+8"),
    2.0: ("0x1.fp+4", "0x1.ep+3", "0x1.3f8p+9"),
    2.5: ("0x1.38p+5", "0x1.800002p+4", "0x1.7d5848p+11"),
    3.0: ("0x1.78p+5", "0x1.18p+5", "0x1.55aff8p+13"),
}


@pytest.mark.parametrize(
    ("function", "table"), [(log2f, LOG2), (exp2f, EXP2)], ids=["log2", "exp2"]
)
def test_results_are_those_of_a_c_program(function: object, table: dict[str, str]) -> None:
    assert callable(function)
    for argument, result in table.items():
        value = function(float.fromhex(argument))
        assert value.dtype == np.float32
        assert float(value).hex() == float.fromhex(result).hex(), argument


@pytest.mark.parametrize("growth", SCALES)
def test_scales_are_those_of_a_c_program(growth: float) -> None:
    for (level, base), expected in zip([(1, 16), (2, 4), (7, 5)], SCALES[growth], strict=True):
        layout = grid_layout(2, "linear", level + 1, 19, base, growth)
        assert layout.levels[level].scales[0] == float.fromhex(expected)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library may round else")
def test_results_are_those_of_the_c_library_here() -> None:
    libm = ctypes.CDLL("libm.so.6")
    for name in ("log2f", "exp2f"):
        function = getattr(libm, name)
        function.argtypes, function.restype = [ctypes.c_float], ctypes.c_float
    generator = random.Random(0)
    for _ in range(20_000):
        growth = np.float32(math.exp(generator.uniform(0, math.log(16))))
        exponent = np.float32(generator.uniform(0, 24))
        assert log2f(growth) == libm.log2f(growth), growth
        assert exp2f(exponent) == libm.exp2f(exponent), exponent
