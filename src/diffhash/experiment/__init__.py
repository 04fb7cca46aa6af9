"""Compose a config into objects, run them, record the outcome.

Imports nothing, so that `--help` and a mistyped override need not wait seconds for Lightning, with
one exception: Lightning imports matplotlib, which may refuse the backend that a notebook has set
for itself.
"""

import os

if os.environ.get("MPLBACKEND", "agg").lower() != "agg":
    from diffhash.results.figures import _backend  # noqa: F401
