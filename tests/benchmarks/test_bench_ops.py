"""`make bench-ops`: the baselines compute what the library does, and a run writes its files."""

from __future__ import annotations

import re
import runpy
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor

from benchmarks import baselines, machine, ops, timing
from diffhash import GridEncoding
from tests.thinned import pairwise

SCRIPT = Path(__file__).parents[2] / "scripts" / "bench_ops.py"
CPU = torch.device("cpu")
Run = Callable[..., int]
ERRORS = [
    (torch.OutOfMemoryError("tried to allocate 5 TB"), "skipped: memory"),
    (RuntimeError("DefaultCPUAllocator: can't allocate memory: 5 TB"), "skipped: memory"),
    (RuntimeError("derivative for aten::f is not implemented"), "unsupported"),
    (RuntimeError("no such kernel\nmore"), "failed: no such kernel"),
]


@pytest.fixture
def bench_ops(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run the script, with its output in ``tmp_path / "out"``; few points are checked."""
    monkeypatch.setattr(ops, "N_CHECKED", 16)

    def run(*arguments: object, device: str = "cpu") -> int:
        given = ["--output", tmp_path / "out", "--device", device, "--threads", 1, *arguments]
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, given)])
        with pytest.raises(SystemExit) as exit_:
            runpy.run_path(str(SCRIPT), run_name="__main__")
        return int(exit_.value.code or 0)

    return run


def _encoding(name: str, d: int, hashed: bool = False) -> GridEncoding:
    return GridEncoding(
        d,
        n_levels=2,
        n_features_per_level=2,
        log2_hashmap_size=3 if hashed else 20,
        base_resolution=3,
        per_level_scale=1.7,
        interpolation=name,
        init_scale=1.0,
        dtype=torch.float64,
        seed=0,
    )


def _values_and_gradients(
    contender: baselines.Contender, x: Tensor, order: int, table_gradient: bool = True
) -> list[Tensor]:
    for table in contender.tables:
        table.requires_grad_(table_gradient)
    rows = contender.prepare([x], order)(0)
    if not table_gradient:
        return list(rows)
    weights = torch.linspace(0.5, 1.5, len(x), dtype=x.dtype)
    total = torch.stack([(m + 1) * weights @ row for m, row in enumerate(rows)]).sum()
    return [*rows, contender.flat(torch.autograd.grad(total, contender.tables))]


def _assert_equal(found: list[Tensor], expected: list[Tensor], scale: float) -> None:
    """Equal up to the round-off eps·scale of positions, relative to the largest value."""
    for one, other in zip(found, expected, strict=True):
        bound = 10 * torch.finfo(other.dtype).eps * scale * float(other.detach().abs().max())
        torch.testing.assert_close(one, other, rtol=0, atol=bound)


@pytest.mark.parametrize(
    ("name", "d", "hashed"), pairwise(list(baselines.WEIGHTS), [1, 2, 3], [False, True])
)
def test_loop_and_plan_equal_the_encoding(name: str, d: int, hashed: bool) -> None:
    encoding = _encoding(name, d, hashed)
    read_out = torch.linspace(-1, 1, encoding.n_output_dims, dtype=torch.float64)
    torch.manual_seed(0)
    x = ops.check_points(encoding, 4).double()
    truth = baselines.diffhash(encoding, read_out)
    scale = encoding.layout.levels[-1].scales[0]
    for other in (baselines.loop(encoding, read_out), baselines.planned(encoding, read_out)):
        for order in (0, 2):
            expected = _values_and_gradients(truth, x, order)
            _assert_equal(_values_and_gradients(other, x, order), expected, scale)
        alone = _values_and_gradients(other, x, 2, table_gradient=False)
        _assert_equal(alone, _values_and_gradients(truth, x, 2)[:3], scale)


@pytest.mark.parametrize("d", [2, 3])
def test_grid_sample_equals_its_dense_nested_encoding(d: int) -> None:
    encoding = _encoding("linear", d, hashed=True)
    read_out = torch.linspace(-1, 1, encoding.n_output_dims, dtype=torch.float64)
    contender = baselines.torch_grid_sample(encoding, read_out)
    torch.manual_seed(0)
    x = ops.check_points(contender.encoding, 20).double()
    truth = baselines.diffhash(contender.encoding, read_out)
    scale = contender.encoding.layout.levels[-1].scales[0]
    for order, table_gradient in ((0, False), (0, True), (1, False)):
        found = _values_and_gradients(contender, x, order, table_gradient)
        _assert_equal(found, _values_and_gradients(truth, x, order, table_gradient), scale)


def test_who_takes_part() -> None:
    def names(name: str, d: int, **options: bool) -> list[str]:
        encoding = _encoding(name, d)
        read_out = torch.ones(encoding.n_output_dims)
        return [c.name for c in baselines.contenders(encoding, read_out, **options)]

    assert names("cubic", 1) == ["diffhash", "diffhash, planned", "loop"]
    assert names("linear", 3) == ["diffhash", "diffhash, planned", "loop", "grid_sample"]
    assert "diffhash compiled" in names("linear", 1, with_compiled=True)


def test_peak_memory_counts_what_is_alive_at_a_time() -> None:
    def call() -> Tensor:
        for _ in range(3):
            a = torch.ones(1000)  # 4 kB
            b = a + 1
            a = (a.view(10, 100).T, b)  # a view is no new memory
            del a, b
        return torch.ones(10)

    result, peak, left = timing.peak_memory(call, CPU)
    assert len(result) == 10
    assert (peak, left) == (8000, 40)


def test_peak_memory_sees_the_backward_pass() -> None:
    table = torch.ones(1000, requires_grad=True)
    _, peak, left = timing.peak_memory(lambda: torch.autograd.grad(table.exp().sum(), table), CPU)
    assert peak >= 8000  # exp's result, and the gradient
    assert left == 4000


def test_calls_take_turns_until_their_time_is_up() -> None:
    log: list[tuple[str, int]] = []
    calls = {name: partial(lambda name, i: log.append((name, i)), name) for name in "ab"}
    times = timing.interleave(calls, CPU, repetitions=3, seconds=60.0)
    assert log == [(name, i) for i in range(3) for name in "ab"]
    assert all(len(times[name]) == 3 for name in "ab")
    times = timing.interleave(calls, CPU, repetitions=3, seconds=0.0)
    assert all(len(times[name]) == 1 for name in "ab")


@pytest.mark.slow
def test_a_run_writes_table_and_figure_and_prints_the_ratios(
    bench_ops: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setattr(ops, "PAPER_SIZES", (48,))
    arguments = ("--dims", 1, 2, "--interpolations", "linear", "cubic", "--seconds", 0)
    assert bench_ops(*arguments, "--sizes", 32, 48) == 0
    printed = capsys.readouterr()
    out = tmp_path / "out"
    assert sorted(p.name for p in out.iterdir()) == ["ops-cpu.csv", "ops-cpu.pdf", "ops-cpu.png"]
    assert (out / "ops-cpu.png").read_bytes().startswith(b"\x89PNG")
    for path in out.iterdir():
        assert str(path) in printed.out
    frame = pd.read_csv(out / "ops-cpu.csv")
    assert tuple(frame.columns) == ops.COLUMNS
    # Three contenders at two sizes for two interpolations, six calls; grid_sample: 2-D linear.
    assert len(frame) == 2 * (3 * 2 * 2 * 6) + 2 * 6
    done = frame.query("status == 'ok'")
    # Before 2.13, torch has only one derivative of grid_sample.
    rest = frame.query("contender == 'grid_sample' and status == 'unsupported'")
    assert len(done) + len(rest) == len(frame)
    assert len(done.query("0 < p20_ms <= p50_ms <= p80_ms and peak_mb > 0")) == len(done)
    assert set(done.query("contender == 'loop'")["ratio_to_loop"]) == {1}
    ours = frame.query("contender in ('diffhash', 'diffhash, planned')")
    assert set(ours["backend"]) <= {"torch", "native"}
    key = "operation == 'second' and table_gradient and d == 1 and n == 48"
    lines = done.query(f"{key} and interpolation == 'cubic'").to_dict("records")
    cell = {line["contender"]: line for line in lines}
    loop, planned = (cell[name]["p50_ms"] for name in ("loop", "diffhash, planned"))
    # The file has five digits.
    ratio = cell["diffhash, planned"]["ratio_to_loop"]
    assert ratio == pytest.approx(loop / planned, rel=1e-3)
    [said] = re.findall(r"planned (\S+) ms, loop (\S+) ms", printed.out)
    # To three digits: rounded from the measured time, not from the file's five.
    assert list(map(float, said)) == pytest.approx([planned, loop], rel=6e-3)
    assert "target: at least 10×" in printed.out
    assert "2-D, N = 4096: ?×" in printed.out
    assert set(frame["threads"]) == {1} and set(frame["device"]) == {"cpu"}


def _tiny(**changes: Any) -> ops.Options:
    values: dict[str, Any] = {"interpolations": ("cubic",), "dims": (1,), "sizes": (32, 64)}
    return ops.Options(CPU, **(values | {"paper_sizes": (), "seconds": 0.0} | changes))


def test_what_would_need_too_much_memory_is_skipped_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    frame = ops.measure(_tiny())
    loops = frame.query("contender == 'loop' and operation == 'second' and table_gradient")
    monkeypatch.setattr(ops, "MAX_BYTES", max(loops["peak_mb"]) * 0.75e6)
    frame = ops.measure(_tiny())
    loops = frame.query("contender == 'loop' and operation == 'second' and table_gradient")
    assert list(loops["status"]) == ["ok", "skipped: memory"]
    assert loops["p50_ms"].isna().tolist() == [False, True]
    forward = frame.query("contender == 'loop' and operation == 'forward'")
    assert set(forward["status"]) == {"ok"}


def test_what_would_take_too_long_is_skipped_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops, "MAX_SECONDS", 0.0)
    frame = ops.measure(_tiny(sizes=(32, 64, 128)))
    assert set(frame.query("n == 32")["status"]) == {"ok"}
    assert set(frame.query("n > 32")["status"]) == {"skipped: time"}
    assert not frame.query("n > 32")["ratio_to_loop"].notna().to_numpy().any()


@pytest.mark.parametrize(("case", "while_preparing"), pairwise(ERRORS, [False, True], values=1))
def test_errors_of_one_contender_leave_the_others(
    case: tuple[Exception, str], while_preparing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    error, status = case

    def planned(encoding: GridEncoding, read_out: Tensor) -> baselines.Contender:
        right = baselines.diffhash(encoding, read_out)

        def prepare(points: Sequence[Tensor], order: int) -> baselines.Rows:
            def rows(i: int) -> tuple[Tensor, ...]:
                raise error

            if len(points[0]) != 32:  # the check before it
                return right.prepare(points, order)
            if while_preparing:
                raise error
            return rows

        return baselines.Contender("planned", encoding, right.tables, prepare)

    monkeypatch.setattr(baselines, "planned", planned)
    frame = ops.measure(_tiny(sizes=(32,)))
    assert set(frame.query("contender == 'planned'")["status"]) == {status}
    assert set(frame.query("contender != 'planned'")["status"]) == {"ok"}


def test_other_numbers_are_not_timed(
    bench_ops: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    right = baselines.WEIGHTS["cubic"]
    wrong = {**baselines.WEIGHTS, "cubic": lambda t: [*right(t)[:3], right(t)[3] * 1.1]}
    monkeypatch.setattr(baselines, "WEIGHTS", wrong)
    arguments = ("--dims", 1, "--interpolations", "linear", "cubic", "--seconds", 0, "--sizes", 32)
    assert bench_ops(*arguments) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("bench_ops: loop, 1-D cubic, forward: failed: differs from Grid")
    frame = pd.read_csv(tmp_path / "out" / "ops-cpu.csv").query("contender == 'loop'")
    linear = frame.query("interpolation == 'linear'")
    assert set(linear["status"]) == {"ok"}
    cubic = frame.query("interpolation == 'cubic'")
    assert all(status.startswith("failed: differs") for status in cubic["status"])
    assert not cubic["p50_ms"].notna().to_numpy().any()


def test_an_interrupted_run_leaves_what_was_there(
    bench_ops: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    (tmp_path / "out").mkdir()
    before = tmp_path / "out" / "ops-cpu.csv"
    before.write_text("earlier results\n")
    cells = iter(range(3))

    def interleave(*arguments: Any) -> dict[str, list[float]]:
        if next(cells, None) is None:
            raise KeyboardInterrupt
        return timing.interleave(*arguments)

    monkeypatch.setattr(ops, "interleave", interleave)
    assert bench_ops("--dims", 1, "--interpolations", "linear", "--sizes", 32) == 130
    assert capsys.readouterr().err == "bench_ops: interrupted, nothing is written\n"
    assert list((tmp_path / "out").iterdir()) == [before]
    assert before.read_text() == "earlier results\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--interpolations", "cubik"), "--interpolations cubik: unknown; choose from linear, s1"),
        (("--dims", "4"), "argument --dims: invalid choice"),
        (("--threads", "0"), "--threads 0: give at least 1"),
        (("--sizes", "0", "5"), "--sizes 0: give at least 1"),
    ],
)
def test_bad_arguments(bench_ops: Run, arguments: tuple[str, ...], message: str, capsys) -> None:
    assert bench_ops(*arguments) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert message in last


def test_an_output_that_cannot_be_written_is_found_before_measuring(
    bench_ops: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    (tmp_path / "out").touch()
    monkeypatch.setattr(ops, "measure", lambda options: pytest.fail("it measured"))
    assert bench_ops() == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert str(tmp_path / "out") in line


def test_touched_rows_are_distinct() -> None:
    encoding = _encoding("cubic", 2)
    x = torch.tensor([[0.41, 0.13]], dtype=torch.float64)
    assert ops.touched_rows(encoding, x) == 2 * 4**2  # one cell on each of two levels
    assert ops.touched_rows(encoding, x.expand(5, 2)) == 2 * 4**2
    # Cells on both diagonal corners of the level of 5 cells share nothing, of 3 cells 2² vertices.
    far = torch.tensor([[0.01, 0.01], [0.99, 0.99]], dtype=torch.float64)
    assert ops.touched_rows(encoding, far) == 2 * 2 * 4**2 - 2**2


def test_the_ceiling_is_the_traffic_over_the_copys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops, "copy_bandwidth", lambda device: 10.0)
    frame = ops.measure_ceiling(_tiny(sizes=(100,)))
    assert tuple(frame.columns) == ops.CEILING_COLUMNS
    assert list(frame["order"]) == [0, 1, 2]
    settings = ops.settings(1)
    encoding = GridEncoding(1, interpolation="cubic", **settings)
    outputs = 100 * settings["n_levels"] * settings["n_features_per_level"]
    step = frame["bytes"].diff().dropna()
    assert (step == 4 * outputs).all()  # another row of the jet
    most = 4 * (100 + encoding.params.numel() + outputs)
    assert 4 * (100 + outputs) < frame["bytes"][0] <= most
    rate = frame["bytes"] / frame["p50_ms"] / 1e6
    assert frame["fraction"].tolist() == pytest.approx((rate / 10).tolist())


@pytest.mark.gpu
def test_on_a_gpu_there_is_a_table_of_the_memory_ceiling(bench_ops: Run, tmp_path: Path) -> None:
    arguments = ("--dims", 1, 2, "--interpolations", "linear", "cubic", "--seconds", 0)
    assert bench_ops(*arguments, "--sizes", 4096, device="cuda") == 0
    stem = f"ops-{machine.slug(torch.device('cuda'))}"
    frame = pd.read_csv(tmp_path / "out" / f"{stem}.csv")
    assert not frame["status"].str.startswith("failed").any()
    ceiling = pd.read_csv(tmp_path / "out" / f"{stem}-memory.csv")
    assert tuple(ceiling.columns) == ops.CEILING_COLUMNS
    # A cache can serve tables faster than the memory does, a few times at most.
    assert ceiling["fraction"].between(0, 5, inclusive="neither").all()
