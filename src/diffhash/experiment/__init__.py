"""Make objects from a config, run them, record the outcome.

This package imports nothing, so that `--help` and a mistyped override need not wait seconds for
Lightning. The exception is a module for matplotlib, which Lightning imports, and which may refuse
the backend that a notebook has set for itself.
"""

import os

if os.environ.get("MPLBACKEND", "agg").lower() != "agg":
    from diffhash.results.figures import _backend  # noqa: F401
