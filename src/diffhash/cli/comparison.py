"""Two runs compared: settings, results and environment."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from diffhash.cli.selection import Entry
from diffhash.results.metrics import metric_names

COSTS = (
    "train_seconds", "warmup_seconds", "evaluation_seconds", "wall_seconds", "peak_memory_mb",
    "n_parameters",
)  # fmt: skip
_ENVIRONMENT = "environment."

ABSENT = "–"
"""Stands for a setting that a run does not have."""

Pair = tuple[Any, Any]


@dataclass(frozen=True)
class Ratio:
    """A number of two runs, and how they compare; None where there is nothing to compare."""

    a: float | None
    b: float | None

    @property
    def ratio(self) -> float | None:
        """b / a."""
        return self.b / self.a if self.a and self.b is not None else None

    @property
    def decades(self) -> float | None:
        """log10(b / a)."""
        return math.log10(self.ratio) if self.ratio else None


@dataclass(frozen=True)
class Comparison:
    """The differences of two runs, key by key, and all their numbers."""

    settings: dict[str, Pair]
    environment: dict[str, Pair]
    metrics: dict[str, Ratio]
    costs: dict[str, Ratio]


def compare(a: Entry, b: Entry) -> Comparison:
    """Compare two runs.

    Raises:
        RecordError: a config is missing or corrupt.
    """
    where = [
        {k.removeprefix(_ENVIRONMENT): v for k, v in e.fields.items() if k.startswith(_ENVIRONMENT)}
        for e in (a, b)
    ]
    return Comparison(
        _differences(a.settings, b.settings),
        _differences(*where),
        *({name: Ratio(a.fields.get(name), b.fields.get(name)) for name in names}
          for names in (metric_names((a.record.metrics, b.record.metrics)), COSTS)),
    )  # fmt: skip


def _differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Pair]:
    """Keys whose values differ, or that only one has (the other's is `ABSENT`)."""
    keys = [*a, *(key for key in b if key not in a)]
    pairs = {key: (a.get(key, ABSENT), b.get(key, ABSENT)) for key in keys}
    return {key: (first, second) for key, (first, second) in pairs.items() if first != second}
