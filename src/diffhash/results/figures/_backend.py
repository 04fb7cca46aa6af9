"""Import matplotlib whatever the value of ``MPLBACKEND`` is.

A notebook's processes inherit the notebook's variable. matplotlib refuses at its import a backend
that is not installed, but figures here are drawn without any backend.
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
        mpl.rcParams["backend"] = _backend  # as the import does, for users of pyplot
