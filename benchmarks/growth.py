"""The growth of a step's cost with points, levels, axes, and seeds that train as one program."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pandas as pd

from benchmarks.machine import environment_columns
from benchmarks.ours import OURS
from benchmarks.steps import JAX, Options, measure_case, with_ratios

_CUBIC_PINN = ("encoder=cubic", "task=pinn")
# For each growing quantity, the overrides of its values.
SERIES = {
    "points": {
        n: (
            *(f"task.n_labels={n // 2}", f"task.n_residual={n}"),
            f"trainer.chunk={min(100, 200_000 // n)}",  # shorter chunks for more points
        )
        for n in (1000, 4000, 16000, 64000)
    },
    "levels": {n: (f"encoder.encoding.n_levels={n}",) for n in (3, 6, 9, 12)},
    "dimensions": {
        d: (
            *("problem=helmholtz", "recipe=best", f"problem.d={d}"),
            "encoder.encoding.n_levels=5",
        )
        for d in (1, 2, 3)
    },
    "replicas": {r: (f"seeds={list(range(r))}",) for r in (1, 2, 4, 8, 16)},
}
_KEY = ["series", "value"]
COLUMNS = (*_KEY, "contender", "variant", "ms", "ms_min", "ms_max", "repetitions", "ours_over_this")


def measure(options: Options, advance: Callable[[str], None]) -> pd.DataFrame:
    """The milliseconds per step of a cubic PINN for each value of each series.

    Replicas are measured with the library alone, the others also with JAX and the floor.

    Args:
        advance: called with the series and the value before each measurement.
    """
    environment = environment_columns(options.device)
    rows = []
    for series, values in SERIES.items():
        for value, overrides in values.items():
            advance(f"{series} {value}")
            # The floor and JAX have no replicas: their case is that of a single seed.
            names = (OURS,) if series == "replicas" else (OURS, JAX)
            found = measure_case([*_CUBIC_PINN, *options.overrides, *overrides], options, names)
            rows += [
                {"series": series, "value": value, **row, **environment}
                for row in found
                if series != "replicas" or row["contender"] == OURS
            ]
    return with_ratios(pd.DataFrame(rows), _KEY)


def n_cases() -> int:
    """The number of calls of ``advance`` by `measure`."""
    return sum(len(values) for values in SERIES.values())


def summary(frame: pd.DataFrame) -> Iterator[str]:
    """A line for each series: our milliseconds per step by value."""
    for series in SERIES:
        part = frame.query(f"contender == {OURS!r} and series == {series!r}")
        cells = ", ".join(f"{v}: {ms:.3g}" for v, ms in zip(part["value"], part["ms"], strict=True))
        yield f"ms a step by {series}: {cells}"
