"""C for CPUs, compiled on this machine when it is first needed."""

from diffhash.native.call import C_NAMES, C_TYPES, call, n_threads
from diffhash.native.compiler import CompilerError, compiled

__all__ = ["C_NAMES", "C_TYPES", "CompilerError", "call", "compiled", "n_threads"]
