"""Compose a config into objects, run them, record the outcome.

Imports nothing: `--help` and a mistyped override need not wait for Lightning, seconds long. But for
one case: Lightning imports matplotlib, which may refuse what a notebook has set for itself.
"""

import os

if os.environ.get("MPLBACKEND", "agg").lower() != "agg":
    from diffhash.results.figures import _backend  # noqa: F401
