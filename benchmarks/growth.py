"""How a step's cost grows: with points, levels, axes, and seeds that train as one program."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pandas as pd

from benchmarks.machine import environment_columns
from benchmarks.ours import OURS
from benchmarks.steps import JAX, Options, measure_case, with_ratios

_CUBIC_PINN = ("encoder=cubic", "task=pinn")
# What grows → the overrides of its values; contenders besides the floor.
SERIES = {
    "points": {
        n: (
            *(f"task.n_labels={n // 2}", f"task.n_residual={n}"),
            f"trainer.chunk={min(100, 200_000 // n)}",  # as many steps as a sample is long
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
    """Milliseconds per step of the cubic PINN, along each series; JAX where it is the same case.

    Args:
        advance: told what comes next.
    """
    environment = environment_columns(options.device)
    rows = []
    for series, values in SERIES.items():
        for value, overrides in values.items():
            advance(f"{series} {value}")
            # A replica's case is one seed's: the floor and JAX have no such thing.
            names = (OURS,) if series == "replicas" else (OURS, JAX)
            found = measure_case([*_CUBIC_PINN, *options.overrides, *overrides], options, names)
            rows += [
                {"series": series, "value": value, **row, **environment}
                for row in found
                if series != "replicas" or row["contender"] == OURS
            ]
    return with_ratios(pd.DataFrame(rows), _KEY)


def n_cases() -> int:
    """How often `measure` calls ``advance``."""
    return sum(len(values) for values in SERIES.values())


def summary(frame: pd.DataFrame) -> Iterator[str]:
    """A line for each series."""
    for series in SERIES:
        part = frame.query(f"contender == {OURS!r} and series == {series!r}")
        cells = ", ".join(f"{v}: {ms:.3g}" for v, ms in zip(part["value"], part["ms"], strict=True))
        yield f"ms a step by {series}: {cells}"
