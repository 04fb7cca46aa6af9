"""The look of all figures."""

from __future__ import annotations

from diffhash.results.figures import _backend  # noqa: F401  # before any import of matplotlib
