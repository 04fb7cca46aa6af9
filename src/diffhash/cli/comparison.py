"""Two runs compared: settings, results and environment."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from diffhash.cli.selection import ABSENT, Entry, flatten
from diffhash.results.metrics import metric_names

COSTS = (
    "train_seconds", "warmup_seconds", "evaluation_seconds", "wall_seconds", "peak_memory_mb",
    "n_parameters",
)  # fmt: skip


@dataclass(frozen=True)
class Ratio:
    """A number of two runs, their ratio and its decades; None where these are undefined."""

    a: float | None
    b: float | None

    @property
    def ratio(self) -> float | None:
        """The ratio b / a."""
        return self.b / self.a if self.a and self.b is not None else None

    @property
    def decades(self) -> float | None:
        """log10(b / a)."""
        return math.log10(self.ratio) if self.ratio else None


def compare(a: Entry, b: Entry) -> dict[str, dict[str, Any]]:
    """The ``settings`` and the ``environment`` in which two runs differ, and all ``metrics``, with
    the estimated error, and ``costs``.

    Settings and environment have the values of both runs, or `ABSENT` if a run has no value;
    metrics and costs have a `Ratio` each.

    Raises:
        RecordError: a config is missing or corrupt.
    """
    differing: dict[str, dict[str, Any]] = {"settings": {}, "environment": {}}
    for part, first, second in (
        ("settings", a.settings, b.settings),
        ("environment", *(flatten(entry.record.environment) for entry in (a, b))),
    ):
        for key in dict.fromkeys((*first, *second)):
            values = first.get(key, ABSENT), second.get(key, ABSENT)
            if values[0] != values[1]:
                differing[part][key] = values
    metrics = metric_names((a.record.metrics, b.record.metrics))
    names = {"metrics": [*metrics, "estimate"], "costs": COSTS}
    return differing | {
        part: {name: Ratio(a.fields.get(name), b.fields.get(name)) for name in of_part}
        for part, of_part in names.items()
    }
