"""Claims of Section IV (discussion), and how near our tables are to the printed ones."""

from __future__ import annotations

from diffhash.results.evidence import ACCURATE, SYMBOLS, Evidence, Statements
from diffhash.results.paper import TABLES
from diffhash.results.record import METRICS
from diffhash.results.tables import format_decades

CLAIMS = Statements()
_MSE = METRICS[:3]
_PRINTED = [*(("table1", column) for column in _MSE), ("table2", "mse_u")]
_TASKS = {"table1": "data-driven", "table2": "physics-informed"}
_PAPER_OVERHEAD = round(781.3 / 574.3, 2)  # Cubic's Train Cost, Table II over Table I
_MEMORY_MB = 1500
_DISCUSSION, _OURS = "Section IV", "this repository"


@CLAIMS.add(
    _DISCUSSION,
    "the performance of smoothstep interpolation is quite limited",
    "S2 a decade or more worse than Cubic in every MSE the paper prints",
)
def _s2_limited(e: Evidence) -> tuple[bool, str]:
    held = all(e.value(t, "s2", c) >= 10 * e.value(t, "cubic", c) for t, c in _PRINTED)
    rows = ("s2", "cubic")
    return held, (
        f"data-driven {e.values('table1', rows, _MSE)}; "
        f"physics-informed {e.values('table2', rows, ('mse_u',))}"
    )


@CLAIMS.add(
    _DISCUSSION,
    "Cubic can reach high accuracy with relatively few epochs in both tasks",
    "accurate in u, and better there than every row with up to 10k epochs, in both tables",
)
def _cubic_potential(e: Evidence) -> tuple[bool, str]:
    held, texts = True, []
    for table in TABLES:
        rows = [row for row in e.rows(table) if e.epochs(table, row) <= 10_000]
        others = min(e.value(table, row, "mse_u") for row in rows if row != "cubic")
        held &= e.value(table, "cubic", "mse_u") < others
        held &= e.relative(table, "cubic", "mse_u") <= ACCURATE
        texts.append(f"{_TASKS[table]} {e.values(table, rows, ('mse_u',))}")
    return held, "; ".join(texts)


@CLAIMS.add(
    _DISCUSSION,
    "cubic interpolation has a high computational complexity",
    "at least twice the MLP's train seconds per epoch in both tasks",
)
def _cubic_expensive(e: Evidence) -> tuple[bool, str]:
    held, texts = True, []
    for table in TABLES:
        mlp, cubic = (_milliseconds(e, table, row) for row in ("mlp_10k", "cubic"))
        held &= cubic >= 2 * mlp
        texts.append(f"{_TASKS[table]} MLP {mlp:.2f}, Cubic {cubic:.2f} ms per epoch")
    return held, "; ".join(texts)


@CLAIMS.add(
    _DISCUSSION,
    "embedding the physics increases Cubic's training overhead significantly",
    f"physics-informed over data-driven train seconds at least the paper's {_PAPER_OVERHEAD}",
)
def _pinn_overhead(e: Evidence) -> tuple[bool, str]:
    cubic, mlp = (
        _milliseconds(e, "table2", row) / _milliseconds(e, "table1", row)
        for row in ("cubic", "mlp_10k")
    )
    return round(cubic, 2) >= _PAPER_OVERHEAD, (
        f"Cubic {cubic:.2f} times, MLP {mlp:.2f} times (paper: {_PAPER_OVERHEAD} and 1.34)"
    )


@CLAIMS.add(
    _OURS,
    "Cubic is at or past every error of the paper's cubic rows",
    "log10(ours / paper) <= 0 in every MSE the paper prints",
)
def _cubic_reaches_paper(e: Evidence) -> tuple[bool, str]:
    return _reaches_paper(e, "cubic")


@CLAIMS.add(
    _OURS,
    "so is Cubic with the preset `best`",
    "log10(ours / paper) <= 0 in every MSE the paper prints",
)
def _best_reaches_paper(e: Evidence) -> tuple[bool, str]:
    return _reaches_paper(e, "cubic_best")


@CLAIMS.add(
    _OURS,
    "every row is within a decade of the paper's errors, or better",
    "log10(ours / paper) <= 1 in every MSE and loss the paper prints",
)
def _within_a_decade(e: Evidence) -> tuple[bool, str]:
    beyond = [
        f"{_TASKS[table]} {e.name(table, row)} {SYMBOLS[column]} {format_decades(distance)}"
        for table, column in [*_PRINTED, ("table2", "loss")]
        for row in e.rows(table)
        if (distance := e.distance(table, row, column, paper_row=row)) > 1
    ]
    return not beyond, f"more than a decade worse: {', '.join(beyond) or 'none'}"


@CLAIMS.add(
    _OURS,
    "every row's run fits into a small machine's memory",
    f"peak memory of every run <= {_MEMORY_MB} MB",
)
def _fits(e: Evidence) -> tuple[bool, str]:
    peaks = {
        f"{_TASKS[table]} {e.name(table, row)}": e.peak_memory(table, row)
        for table in TABLES
        for row in e.rows(table)
    }
    largest = max(peaks, key=lambda name: peaks[name])
    return peaks[largest] <= _MEMORY_MB, f"largest: {peaks[largest]:.0f} MB, {largest}"


def _reaches_paper(e: Evidence, row: str) -> tuple[bool, str]:
    distances = [
        (table, column, e.distance(table, row, column, paper_row="cubic"))
        for table, column in _PRINTED
    ]
    return all(d <= 0 for *_, d in distances), "decades: " + ", ".join(
        f"{_TASKS[table]} {SYMBOLS[column]} {format_decades(d)}" for table, column, d in distances
    )


def _milliseconds(e: Evidence, table: str, row: str) -> float:
    return 1e3 * e.value(table, row, "train_seconds") / e.epochs(table, row)
