"""The plots of the report: what they are made of, and the arrays inside."""

from __future__ import annotations

import base64
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from diffhash.paper.report.plots import encode, thin_out
from diffhash.results import RecordError, read_history, read_record, write_record
from tests.paper.report_page import report


def decode(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), dtype="<f4")


def columns(trace: dict[str, Any]) -> dict[str, np.ndarray]:
    return {
        key: decode(value) if isinstance(value, str) else value
        for key, value in trace["columns"].items()
    }


def test_a_line_per_seed_and_the_median(paper_runs: Path, write_run, tmp_path: Path) -> None:
    scores = {1: 4e-13, 2: 1e-11}
    for seed, score in scores.items():
        write_run(paper_runs, "table1", "cubic", seed=seed, epochs=3000, mse_u=score)
    page, _ = report(paper_runs, tmp_path / "out")
    plot = page.plots["histories-table1"]
    own = [t for t in plot["traces"] if t["when"] == {"row": "cubic"}]
    names = [t["style"]["name"].removeprefix("Cubic 3k, ") for t in own]
    assert names == ["seed 0", "seed 1", "seed 2", "median"]
    history = read_history(paper_runs / "table1" / "cubic" / "seed1")
    drawn = columns(own[1])
    np.testing.assert_allclose(drawn["epoch"], history["epoch"])
    np.testing.assert_allclose(drawn["mse_u"], history["mse_u"], rtol=1e-6)
    three = [columns(t)["mse_u"] for t in own[:3]]
    np.testing.assert_allclose(columns(own[3])["mse_u"], np.median(three, axis=0), rtol=1e-6)
    predictions = [t for t in page.plots["predictions-table1"]["traces"] if t["when"]]
    assert sum(t["when"] == {"row": "cubic"} for t in predictions) == 2 * 3
    errors = columns([t for t in predictions if t["when"] == {"row": "cubic"}][5])["u"]
    np.testing.assert_allclose(errors, np.sqrt(scores[2]), rtol=1e-2)


def test_seconds_are_those_of_a_row_timed_alone(paper_runs: Path, write_run, tmp_path) -> None:
    run = read_record(paper_runs / "table1" / "cubic" / "seed0")
    folder = write_run(tmp_path / "short", "table1", "cubic", epochs=400, train_seconds=4.0)
    shutil.copytree(folder, paper_runs / "timing" / "table1" / "cubic" / run.config_hash[:12])
    page, _ = report(paper_runs, tmp_path / "out")
    traces = page.plots["histories-table1"]["traces"]
    [own] = [columns(t) for t in traces if t["when"] == {"row": "cubic"}]
    np.testing.assert_allclose(own["seconds"], 0.01 * own["epoch"], rtol=1e-5)


def test_a_report_of_many_seeds_stays_small(paper_runs: Path, write_run, tmp_path: Path) -> None:
    x = np.linspace(0, 1, 10_001)
    frame = pd.DataFrame({n: np.sin(900 * x) for n in ("u", "u_x", "u_xx")}, index=x)
    for name in list(frame):
        frame[f"exact_{name}"] = np.cos(x)
    folder = paper_runs / "table1" / "cubic" / "seed0"
    frame.rename_axis("x").to_csv(folder / "predictions.csv")
    sizes = []
    for n_seeds in (1, 12):
        for seed in range(1, n_seeds):
            copy = shutil.copytree(folder, folder.with_name(f"seed{seed}"))
            write_record(copy, replace(read_record(copy), seed=seed))
        page, _ = report(paper_runs, tmp_path / f"out{n_seeds}")
        traces = page.plots["predictions-table1"]["traces"]
        sizes.append(sum(len(text) for t in traces for text in t["columns"].values()))
        own = [columns(t) for t in traces if t["when"] == {"row": "cubic"}]
        assert all(np.isclose(np.abs(c["u"]).max(), [1, 1.9], rtol=0.1).any() for c in own)
    assert sizes[1] < 6 * sizes[0]
    assert (tmp_path / "out12" / "index.html").stat().st_size < 10e6


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("n", [1, 2, 7, 100, 1000])
def test_thinning_out_loses_no_peak(n: int, log: bool) -> None:
    rng = np.random.default_rng(n)
    x = np.sort(rng.uniform(1, 100, 997))
    a, b = rng.normal(size=(2, 997))
    a[500], b[3], b[700] = 40.0, -50.0, np.nan
    kept = thin_out(x, [a, b], n, log=log)
    assert (np.diff(kept) > 0).all() and kept[0] == 0 and kept[-1] == 996
    assert {500, 3} <= set(kept)
    assert len(kept) <= max(4 * max(1, n // 2) + 2, 2) or n > 997
    assert list(thin_out(x[:0], [a[:0]], n)) == []


def test_numbers_survive_and_what_cannot_be_drawn_is_nan() -> None:
    values = np.array([0.0, -1.5, 1e-30, 3e8, np.nan, np.inf, -1e40])
    back = decode(encode(values))
    np.testing.assert_allclose(back[:4], values[:4], rtol=1e-6)
    assert np.isnan(back[4:]).all()


def test_linear_grids_have_a_staircase_for_a_slope_and_cubic_ones_follow_the_sine(
    _paper_runs: Path, tmp_path: Path
) -> None:
    page, _ = report(_paper_runs, tmp_path)
    traces = {t["when"].get("grid"): columns(t) for t in page.plots["continuity"]["traces"]}
    x = traces["linear"]["x"]
    slope = np.isfinite(traces["linear"]["u_x"]) & np.isfinite(x)
    assert len(np.unique(np.round(traces["linear"]["u_x"][slope], 3))) <= 16, "one a cell"
    np.testing.assert_allclose(traces["linear"]["u_xx"][slope], 0)
    assert np.isnan(traces["linear"]["u_x"]).sum() == 16, "a gap after each"
    cubic = traces["cubic"]["u_x"][slope]
    np.testing.assert_allclose(cubic, np.cos(x[slope]), atol=1e-3)
    assert len(traces[None]["u"]) == np.isfinite(traces["cubic"]["u"]).sum()


# ---------------------------------------------------------------------------------- benchmarks


def test_benchmarks_are_shown_where_there_are_any(_paper_runs: Path, tmp_path: Path) -> None:
    page, _ = report(_paper_runs, tmp_path / "without", tmp_path)
    assert "benchmarks" not in {a.get("id") for _, a in page.elements}
    (tmp_path / "steps-cpu.csv").write_text(
        "encoder,task,contender,ms,device_name,date\n"
        "mlp,data,ours,0.5,Some CPU,2026-01-02T03:04\nmlp,data,another,1.5,Some CPU,\n"
    )
    (tmp_path / "growth-cpu.csv").write_text(
        "series,value,contender,ms\npoints,1000,ours,1.5\npoints,4000,ours,6\nlevels,3,jax,2\n"
    )
    (tmp_path / "accuracy-cuda-curves.csv").write_text(
        "encoder,seed,epoch,seconds,mse_u\nmlp,0,25,0.5,1e-3\nmlp,0,50,1.0,\n"
    )
    page, _ = report(_paper_runs, tmp_path / "out", tmp_path)
    assert "Milliseconds per training step (CPU)" in page.text
    assert "Measured on Some CPU, 2026-01-02." in page.text
    assert "Physics-informed training to an accuracy (GPU)" in page.text
    assert list(page.options("steps-cpu", "contender")) == ["ours", "another"]
    assert list(page.options("growth-cpu", "series")) == ["points", "levels"]
    lines = {tuple(t["when"].values()): columns(t) for t in page.plots["growth-cpu"]["traces"]}
    assert set(lines) == {("points", "ours"), ("levels", "jax")}
    assert lines["points", "ours"]["value"] == ["1000", "4000"]
    np.testing.assert_allclose(lines["points", "ours"]["ms"], [1.5, 6])
    [curve] = [columns(t) for t in page.plots["accuracy-cuda"]["traces"]]
    np.testing.assert_allclose(curve["mse_u"], [1e-3, np.nan])


def test_a_corrupt_benchmark_is_named(_paper_runs: Path, tmp_path: Path) -> None:
    (tmp_path / "steps-cpu.csv").write_text("encoder,ms\nmlp,1\n")
    with pytest.raises(RecordError, match=r"steps-cpu\.csv: no column task, contender"):
        report(_paper_runs, tmp_path / "out", tmp_path)
