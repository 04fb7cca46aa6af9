"""Benchmarks of the library, run from a clone; not part of the package."""
