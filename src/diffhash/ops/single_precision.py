"""log2f and exp2f to the last bit of the C library, on every processor and with any libm.

tiny-cuda-nn's layout depends on these functions. Their results are not always the nearest float32,
so that correctly rounded results would give other grids; numpy's results depend on the processor.
This is the algorithm of ARM's Optimized Routines (S. Nagy) in glibc and musl: double precision and
a few table entries, here in IEEE additions and multiplications alone.
"""

from __future__ import annotations

import math
import struct
from decimal import Decimal

import numpy as np

_HEX = float.fromhex
# 1/c and log2 c for a number c in each sixteenth of an octave.
_LOG2 = [
    (_HEX("0x1.661ec79f8f3bep+0"), _HEX("-0x1.efec65b963019p-2")),
    (_HEX("0x1.571ed4aaf883dp+0"), _HEX("-0x1.b0b6832d4fca4p-2")),
    (_HEX("0x1.49539f0f010bp+0"), _HEX("-0x1.7418b0a1fb77bp-2")),
    (_HEX("0x1.3c995b0b80385p+0"), _HEX("-0x1.39de91a6dcf7bp-2")),
    (_HEX("0x1.30d190c8864a5p+0"), _HEX("-0x1.01d9bf3f2b631p-2")),
    (_HEX("0x1.25e227b0b8eap+0"), _HEX("-0x1.97c1d1b3b7afp-3")),
    (_HEX("0x1.1bb4a4a1a343fp+0"), _HEX("-0x1.2f9e393af3c9fp-3")),
    (_HEX("0x1.12358f08ae5bap+0"), _HEX("-0x1.960cbbf788d5cp-4")),
    (_HEX("0x1.0953f419900a7p+0"), _HEX("-0x1.a6f9db6475fcep-5")),
    (1.0, 0.0),
    (_HEX("0x1.e608cfd9a47acp-1"), _HEX("0x1.338ca9f24f53dp-4")),
    (_HEX("0x1.ca4b31f026aap-1"), _HEX("0x1.476a9543891bap-3")),
    (_HEX("0x1.b2036576afce6p-1"), _HEX("0x1.e840b4ac4e4d2p-3")),
    (_HEX("0x1.9c2d163a1aa2dp-1"), _HEX("0x1.40645f0c6651cp-2")),
    (_HEX("0x1.886e6037841edp-1"), _HEX("0x1.88e9c2c1b9ff8p-2")),
    (_HEX("0x1.767dcf5534862p-1"), _HEX("0x1.ce0a44eb17bccp-2")),
]
_FIRST = 0x3F330000  # bits of the float32 at which the first sixteenth starts
_LOG2_TERMS = [
    _HEX(c)
    for c in (
        *("-0x1.712b6f70a7e4dp-2", "0x1.ecabf496832ep-2"),
        *("-0x1.715479ffae3dep-1", "0x1.715475f35c8b8p+0"),
    )
]
# 2^(i/32), rounded to the nearest.
_EXP2 = [float(Decimal(2) ** (Decimal(i) / 32)) for i in range(32)]
_EXP2_TERMS = [
    _HEX(c) for c in ("0x1.c6af84b912394p-5", "0x1.ebfce50fac4f3p-3", "0x1.62e42ff0c52d6p-1")
]


def log2f(x: float) -> np.float32:
    """log2f of a positive, normal float32."""
    (bits,) = struct.unpack("<I", struct.pack("<f", x))
    part, k = (bits - _FIRST) >> 19 & 15, (bits - _FIRST) >> 23
    (z,) = struct.unpack("<f", struct.pack("<I", bits - (k << 23)))
    inverse, log = _LOG2[part]
    a, b, c, d = _LOG2_TERMS
    r = z * inverse - 1
    square = r * r
    y = a * square + (b * r + c)
    return np.float32(y * square + (d * r + (log + k)))


def exp2f(x: float) -> np.float32:
    """exp2f of a float32 in [-126, 128)."""
    x = float(x)
    n = round(x * 32)
    r = x - n / 32
    a, b, c = _EXP2_TERMS
    y = (a * r + b) * (r * r) + (c * r + 1)
    return np.float32(y * math.ldexp(_EXP2[n % 32], n // 32))
