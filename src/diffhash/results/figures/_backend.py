"""matplotlib, imported whatever ``MPLBACKEND`` says.

The variable of a notebook reaches the processes that it starts. matplotlib refuses, when it is
imported, a backend that is not installed; figures here are drawn without any.
"""

from __future__ import annotations

import os
from contextlib import suppress

_backend = os.environ.pop("MPLBACKEND", None)
try:
    import matplotlib as mpl
finally:
    if _backend is not None:
        os.environ["MPLBACKEND"] = _backend
if _backend:
    with suppress(ValueError, ImportError):
        mpl.rcParams["backend"] = _backend  # as the import does, for who uses pyplot besides
