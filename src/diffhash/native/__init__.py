"""C for CPUs, compiled on this machine when it is first needed."""

from diffhash.native.compiler import REAL, CompilerError, compiled

__all__ = ["REAL", "CompilerError", "compiled"]
