"""The cost of a training-like call of the grid operator, beside other ways to compute it.

By operation, a call computes u = y(x)·w alone (`forward`), with ∂u/∂x_0 (`first`), or with ∂u/∂x_0
and ∂²u/∂x_0² (`second`), in float32. In half of the cells, it also computes the gradient, in the
table, of a randomly weighted sum of these rows. All contenders run in one process, in turns, with
the allocator setting of training (`keep_freed_memory`). A contender is timed only if its values are
those of `GridEncoding`.

A call is skipped, and marked in the results, if by the estimate from the smaller N it would need
more than `MAX_BYTES` of tensors or take longer than `max_seconds`.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from benchmarks.baselines import COMPILED, DIFFHASH, LOOP, PLANNED, Contender, Rows, contenders
from benchmarks.baselines import diffhash as diffhash_contender
from benchmarks.machine import ENVIRONMENT, environment_columns, progress
from benchmarks.timing import copy_bandwidth, interleave, peak_memory
from diffhash import GridEncoding
from diffhash.ops.backends import MultiIndex
from diffhash.ops.layout import locate

OPERATIONS = ("forward", "first", "second")  # the index is the order of the derivative
SIZES = (2**12, 2**14, 2**16, 2**18, 2**20)
PAPER_SIZES = (1000, 3000)  # numbers of points in the paper's 1-D problems
PAPER_INTERPOLATIONS = ("linear", "cubic")  # these are also in the figure
MAX_BYTES = 4e9
MAX_SECONDS = 20.0  # for the interpolations that the figure shows
MAX_SECONDS_OF_OTHERS = 1.0
REPETITIONS = 10
N_CHECKED = 256  # points at which numbers are compared

_KEY = ["operation", "table_gradient", "interpolation", "d", "n"]
COLUMNS = (
    *_KEY,
    *("contender", "backend", "status", "p20_ms", "p50_ms", "p80_ms", "ratio_to_loop"),
    *("repetitions", "peak_mb"),
    *ENVIRONMENT,
)
CEILING_COLUMNS = (
    *("interpolation", "d", "n", "order", "p50_ms", "bytes", "gb_per_s"),
    *("copy_gb_per_s", "fraction"),
    *ENVIRONMENT,
)

_N_POINT_SETS = 4
# The messages of errors that torch raises as a plain RuntimeError.
_OUT_OF_MEMORY = re.compile("out of memory|can't allocate memory|not enough memory", re.IGNORECASE)
_NO_DERIVATIVE = re.compile("derivative for .* is not implemented|not differentiable")

_SETTINGS: dict[int, dict[str, Any]] = {
    # The paper's grid in 1-D; small grids of the size that PINNs use in 2-D and 3-D.
    1: {
        "n_levels": 9,
        "n_features_per_level": 8,
        "base_resolution": 1,
        "per_level_scale": 2.0,
        "log2_hashmap_size": 19,
    },
    2: {
        "n_levels": 8,
        "n_features_per_level": 2,
        "base_resolution": 4,
        "per_level_scale": 1.5,
        "log2_hashmap_size": 14,
    },
    3: {
        "n_levels": 8,
        "n_features_per_level": 2,
        "base_resolution": 4,
        "per_level_scale": 1.38,
        "log2_hashmap_size": 14,
    },
}


@dataclass(frozen=True)
class Options:
    """The settings of a measurement.

    Attributes:
        sizes: the values of N; ``paper_sizes`` are added for linear and cubic in one dimension.
        seconds: the total time after which a call is not repeated any more.
    """

    device: torch.device
    interpolations: Sequence[str]
    dims: Sequence[int]
    sizes: Sequence[int]
    paper_sizes: Sequence[int] = PAPER_SIZES
    seconds: float = 0.5
    with_compiled: bool = False

    def sizes_of(self, interpolation: str, d: int) -> list[int]:
        """The values of N to measure, ascending."""
        paper = d == 1 and interpolation in PAPER_INTERPOLATIONS
        return sorted({*self.sizes, *(self.paper_sizes if paper else ())})

    def series(self) -> list[tuple[int, str]]:
        """Every pair of d and interpolation."""
        return list(product(self.dims, self.interpolations))


@dataclass(frozen=True)
class _Cost:
    """The cost of a call or a preparation at some N; costs grow at most in proportion to N."""

    n: int
    seconds: float
    bytes: float

    def reason_to_skip(self, n: int, max_seconds: float) -> str | None:
        factor = n / self.n
        if self.bytes * factor > MAX_BYTES:
            return "skipped: memory"
        return "skipped: time" if self.seconds * factor > max_seconds else None


@dataclass
class _Case:
    """A contender and an operation, with the results for smaller N.

    Attributes:
        status: the status of the contender's preparation.
        calls, statuses: of the calls, by whether the table's gradient is computed.
    """

    contender: Contender
    status: str
    preparation: _Cost
    calls: dict[bool, _Cost]
    max_seconds: float
    statuses: dict[bool, str] = field(default_factory=dict)


def max_seconds(interpolation: str) -> float:
    """The longest time that one call may take, in seconds."""
    return MAX_SECONDS if interpolation in PAPER_INTERPOLATIONS else MAX_SECONDS_OF_OTHERS


def settings(d: int) -> dict[str, Any]:
    """The arguments of `GridEncoding` in d dimensions."""
    return _SETTINGS[d]


def measure(options: Options) -> pd.DataFrame:
    """Check and time all contenders; one row per cell and contender, with `COLUMNS`.

    ``status`` is ``ok``, ``unsupported``, ``skipped: memory``, ``skipped: time`` or, for a
    contender that raises an error or whose values are not those of `GridEncoding`, ``failed: …``.
    """
    environment = environment_columns(options.device)
    rows: list[dict[str, Any]] = []
    n_cells = sum(
        2 * len(OPERATIONS) * len(options.sizes_of(name, d)) for d, name in options.series()
    )
    with progress("bench-ops", n_cells) as advance:
        for d, name in options.series():
            for row in _measure_series(options, d, name, advance):
                rows.append(row | environment)
    frame = pd.DataFrame(rows)
    loops = frame.query(f"contender == {LOOP!r}")[[*_KEY, "p50_ms"]]
    both = frame.merge(loops, how="left", on=_KEY, suffixes=("", "_loop"))
    frame["ratio_to_loop"] = both["p50_ms_loop"] / both["p50_ms"]
    return frame.reindex(columns=list(COLUMNS))


def _measure_series(
    options: Options, d: int, name: str, advance: Callable[[str], None]
) -> Iterator[dict[str, Any]]:
    device = options.device
    torch.manual_seed(0)
    encoding = GridEncoding(d, interpolation=name, init_scale=1.0, seed=0, **settings(d))
    encoding = encoding.to(device)
    read_out = torch.randn(encoding.n_output_dims, device=device)
    entries = contenders(encoding, read_out, options.with_compiled)
    for order, operation in enumerate(OPERATIONS):
        cases = [_check(entry, order, device, read_out) for entry in entries]
        for n in options.sizes_of(name, d):
            points = [torch.rand(n, d, device=device) for _ in range(_N_POINT_SETS)]
            weights = torch.randn(order + 1, n, device=device)
            prepared = {
                case.contender.name: rows
                for case in cases
                if (rows := _prepare(case, points, order, device)) is not None
            }
            for table_gradient in (False, True):
                advance(f"{d}-D {name} {operation}, N = {n}")
                key = (operation, table_gradient, name, d, n)
                for row in _measure_cell(cases, prepared, weights, table_gradient, options):
                    yield dict(zip(_KEY, key, strict=True)) | row


def _measure_cell(
    cases: Sequence[_Case],
    prepared: dict[str, Rows],
    weights: Tensor,
    table_gradient: bool,
    options: Options,
) -> Iterator[dict[str, Any]]:
    """Warm up and time all contenders in turns; ``weights [K, N]`` are the weights of the sum."""
    n = weights.shape[1]
    calls: dict[str, Callable[[int], object]] = {}
    for case in cases:
        name = case.contender.name
        status = case.statuses[table_gradient]
        if status == "ok":
            known = case.calls[table_gradient]
            status = known.reason_to_skip(n, case.max_seconds) or case.status
        if status == "ok":
            call = _call(case.contender, prepared[name], weights, table_gradient)
            status, n_bytes = _warm_up(case.contender, call, n, len(weights) - 1, options.device)
            if status == "ok":
                calls[name] = call
                case.calls[table_gradient] = _Cost(n, 0.0, n_bytes)
        case.statuses[table_gradient] = status
    times = interleave(calls, options.device, REPETITIONS, options.seconds)
    for case in cases:
        name = case.contender.name
        row: dict[str, Any] = {"contender": name, "backend": _backend(case.contender)}
        row["status"] = case.statuses[table_gradient]
        if name in times:
            quantiles = torch.tensor(times[name], dtype=torch.float64).quantile(
                torch.tensor([0.2, 0.5, 0.8], dtype=torch.float64)
            )
            row |= dict(zip(("p20_ms", "p50_ms", "p80_ms"), quantiles.tolist(), strict=True))
            cost = case.calls[table_gradient]
            case.calls[table_gradient] = _Cost(n, row["p50_ms"] / 1e3, cost.bytes)
            watched = options.device.type == "cuda" or case.contender.bytes_per_point is None
            row["peak_mb"] = cost.bytes / 1e6 if watched else math.nan
            row["repetitions"] = len(times[name])
        else:
            row |= dict.fromkeys(("p20_ms", "p50_ms", "p80_ms", "peak_mb"), math.nan)
            row["repetitions"] = 0
        yield row


def _backend(contender: Contender) -> str:
    """The backend of diffhash that computes the rows; empty for contenders of other code."""
    ours = contender.name in (DIFFHASH, PLANNED, COMPILED)
    return contender.encoding.backend if ours else ""


def _call(
    contender: Contender, rows: Rows, weights: Tensor, table_gradient: bool
) -> Callable[[int], tuple[Sequence[Tensor], Sequence[Tensor]]]:
    """The timed function: it computes the rows, and the gradients of Σ weights · rows or none."""

    def call(i: int) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        for table in contender.tables:
            table.requires_grad_(table_gradient)
        values = rows(i)
        if not table_gradient:
            return values, ()
        total = torch.stack([torch.dot(w, v) for w, v in zip(weights, values, strict=True)]).sum()
        return values, torch.autograd.grad(total, contender.tables)

    return call


def _warm_up(
    contender: Contender, call: Callable[[int], object], n: int, order: int, device: torch.device
) -> tuple[str, float]:
    """Call once and measure the memory; return the status and the peak in bytes."""
    try:
        if device.type == "cpu" and contender.bytes_per_point is not None:
            call(0)
            return "ok", float(n * contender.bytes_per_point(order))
        _, n_bytes, _ = peak_memory(lambda: call(0), device)
        return "ok", float(n_bytes)
    except (RuntimeError, MemoryError) as error:
        return _status_of(error), 0.0


def _prepare(
    case: _Case, points: Sequence[Tensor], order: int, device: torch.device
) -> Rows | None:
    """Prepare the contender's rows; None, with the reason in ``case.status``, if that fails."""
    n = len(points[0])
    reason = case.preparation.reason_to_skip(n, case.max_seconds)
    if case.status == "ok" and reason is not None:
        case.status = reason
    if case.status != "ok":
        return None
    start = time.perf_counter()
    try:
        rows, n_bytes, _ = peak_memory(lambda: case.contender.prepare(points, order), device)
    except (RuntimeError, MemoryError) as error:
        case.status = _status_of(error)
        return None
    case.preparation = _Cost(n, time.perf_counter() - start, n_bytes)
    return rows


def _status_of(error: Exception) -> str:
    out_of_memory = isinstance(error, MemoryError | torch.OutOfMemoryError)
    if out_of_memory or _OUT_OF_MEMORY.search(str(error)):
        return "skipped: memory"
    if _NO_DERIVATIVE.search(str(error)):
        return "unsupported"
    return "failed: " + str(error).strip().partition("\n")[0]


def _check(contender: Contender, order: int, device: torch.device, read_out: Tensor) -> _Case:
    """Compare a contender with `GridEncoding` at a few points, and measure its memory there."""
    encoding = contender.encoding
    points = [check_points(encoding, N_CHECKED)]
    n = len(points[0])
    weights = torch.randn(order + 1, n, device=device)
    truth = diffhash_contender(encoding, read_out)
    nothing = _Cost(n, 0.0, 0.0)
    limit = max_seconds(encoding.layout.interpolation.name)
    case = _Case(contender, "ok", nothing, {False: nothing, True: nothing}, limit)
    for table_gradient in (False, True):
        if order + table_gradient > contender.max_order:
            case.statuses[table_gradient] = "unsupported"
            continue
        call = _call(contender, contender.prepare(points, order), weights, table_gradient)
        status, n_bytes = _warm_up(contender, call, n, order, device)
        case.calls[table_gradient] = _Cost(n, 0.0, n_bytes)
        if status == "ok":
            expected = _call(truth, truth.prepare(points, order), weights, table_gradient)(0)
            rows, gradients = call(0)
            found = [*rows, *([contender.flat(gradients)] if table_gradient else [])]
            status = _compare(found, [*expected[0], *expected[1]], encoding)
        case.statuses[table_gradient] = status
    return case


def check_points(encoding: GridEncoding, n: int) -> Tensor:
    """At most n random points, a hundredth of a cell or more from all faces, where linear jumps."""
    x = torch.rand(8 * n, encoding.n_input_dims, device=encoding.params.device)
    clear = torch.ones(len(x), dtype=torch.bool, device=x.device)
    for level in encoding.layout.levels:
        _, t = locate(level, x)
        clear &= ((t > 0.01) & (t < 0.99)).all(dim=1)
    return x[clear][:n]


def _compare(found: Sequence[Tensor], expected: Sequence[Tensor], encoding: GridEncoding) -> str:
    """The status of a comparison, up to round-off relative to the largest entry of a tensor.

    Positions in the finest cells have a round-off error of eps · scale, and the error of a result
    is that times a condition number. The largest that was seen, with s3, is twice eps · scale.
    """
    finest = max(level.scales[0] for level in encoding.layout.levels)
    tolerance = 10 * torch.finfo(expected[0].dtype).eps * finest
    for one, other in zip(found, expected, strict=True):
        difference = float((one.detach() - other.detach()).abs().max())
        size = float(other.detach().abs().max())
        if not difference <= tolerance * size:
            return f"failed: differs from GridEncoding by {difference:.1e}, values up to {size:.1e}"
    return "ok"


def measure_ceiling(options: Options) -> pd.DataFrame:
    """The rate of gather beside the device's memory bandwidth; with `CEILING_COLUMNS`.

    A jet of K = order + 1 rows must move at least

        4 · (N·d + T·F + K·N·L·F) bytes:

    the points and each of the T distinct table rows that they touch are read once, and the result
    is written once. ``fraction`` is the rate of this traffic over the rate of a large copy within
    the device, reads and writes counted.
    """
    copy = copy_bandwidth(options.device)
    environment = environment_columns(options.device)
    rows = []
    for d, name in options.series():
        encoding = GridEncoding(d, interpolation=name, seed=0, **settings(d)).to(options.device)
        encoding.params.requires_grad_(False)
        for n in options.sizes:
            x = torch.rand(n, d, device=options.device)
            touched = touched_rows(encoding, x)
            for order in range(len(OPERATIONS)):
                call = partial(_jet, encoding, x, (order, *[0] * (d - 1)))
                call(0)
                times = interleave({DIFFHASH: call}, options.device, REPETITIONS, options.seconds)
                p50 = float(torch.tensor(times[DIFFHASH]).median())
                features = touched * encoding.n_features_per_level
                outputs = (order + 1) * n * encoding.n_output_dims
                n_bytes = 4 * (n * d + features + outputs)
                rate = n_bytes / (1e6 * p50)
                values = (name, d, n, order, p50, n_bytes, rate, copy, rate / copy)
                row = dict(zip(CEILING_COLUMNS[: len(values)], values, strict=True))
                rows.append(row | environment)
    return pd.DataFrame(rows, columns=list(CEILING_COLUMNS))


def _jet(encoding: GridEncoding, x: Tensor, row: MultiIndex, _: int) -> object:
    return encoding.jet(x, row)


def touched_rows(encoding: GridEncoding, x: Tensor) -> int:
    """The number T of distinct table rows that the stencils of ``x [N, d]`` touch."""
    layout = encoding.layout
    stencil = layout.interpolation
    touched = torch.zeros(layout.n_rows, dtype=torch.bool, device=x.device)
    for level in layout.levels:
        cell, _ = locate(level, x)
        for taps in product(range(stencil.taps), repeat=layout.n_input_dims):
            vertex = cell + (torch.tensor(taps, device=x.device) + stencil.first_tap)
            touched[layout.rows(level, vertex)] = True
    return int(touched.sum())


def summary(frame: pd.DataFrame) -> list[str]:
    """The headline ratios, each with its target; "?" stands for a missing measurement."""

    def p50(name: str, d: int, n: int, contender: str) -> float:
        chosen = frame.query(
            f"operation == 'second' and table_gradient and interpolation == {name!r} "
            f"and d == {d} and n == {n} and contender == {contender!r}"
        )
        return float(chosen["p50_ms"].iloc[0]) if len(chosen) else math.nan

    n = PAPER_SIZES[-1]
    ours, planned, loop = (p50("cubic", 1, n, c) for c in (DIFFHASH, PLANNED, LOOP))
    times = f"diffhash {_say(ours)} ms, planned {_say(planned)} ms, loop {_say(loop)} ms"
    lines = [
        f"value + u_xx + table gradient, cubic, 1-D, N = {n}: {times}: "
        f"{_say(loop / ours)}× / {_say(loop / planned)}× faster (target: at least 10×)"
    ]
    for d, at, target in ((1, n, 2.5), (2, SIZES[0], 5.0)):
        ours, planned = (
            p50("cubic", d, at, c) / p50("linear", d, at, c) for c in (DIFFHASH, PLANNED)
        )
        lines.append(
            f"cubic over linear, the same call, {d}-D, N = {at}: {_say(ours)}×, "
            f"planned {_say(planned)}× (target: at most {target:g}×)"
        )
    counts = frame["status"].str.partition(":")[0].value_counts()
    lines.append("cells: " + ", ".join(f"{count} {status}" for status, count in counts.items()))
    return lines


def failures(frame: pd.DataFrame) -> list[str]:
    """A line for each failed case of a contender, with the first cause."""
    found: dict[str, str] = {}
    for row in frame.to_dict("records"):
        if str(row["status"]).startswith("failed"):
            case = f"{row['contender']}, {row['d']}-D {row['interpolation']}, {row['operation']}"
            found.setdefault(case, row["status"])
    return [f"{case}: {status}" for case, status in found.items()]


def _say(value: float) -> str:
    return "?" if math.isnan(value) else f"{value:.3g}"
