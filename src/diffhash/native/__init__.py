"""Kernels in C for CPUs, compiled on this machine at their first use."""

from diffhash.native.call import C_NAMES, C_TYPES, Argument, address, call, n_threads
from diffhash.native.compiler import (
    CompilerError,
    compiled,
    instruction_sets,
    prebuild,
    warn_slower,
)

__all__ = [
    "C_NAMES",
    "C_TYPES",
    "Argument",
    "CompilerError",
    "address",
    "call",
    "compiled",
    "instruction_sets",
    "n_threads",
    "prebuild",
    "warn_slower",
]
