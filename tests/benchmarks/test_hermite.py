"""Hermite-NGP's setting: equal memory, tables from runs, and the claims of the committed table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hydra import compose, initialize_config_dir

from benchmarks import hermite
from benchmarks.hermite import GRIDS, INTERPOLATIONS, TABLES
from benchmarks.suite import run_jobs
from diffhash.experiment.schema import register

ROOT = Path(__file__).parents[2]
COMMITTED = ROOT / "results" / "tables" / "hermite.csv"


def test_memory_is_equal_within_two_hundredths() -> None:
    for table in TABLES:
        own = GRIDS[f"hermite {table} equal"].rows
        for name in INTERPOLATIONS:
            assert GRIDS[f"{name} {table} equal"].rows == pytest.approx(own, rel=0.02)
    quarter = GRIDS["cubic hashed quarter"].rows
    assert quarter == pytest.approx(GRIDS["hermite hashed equal"].rows / 4, rel=0.02)


def test_the_setting_is_the_published_one() -> None:
    register()
    [job] = [job for job in hermite.jobs([0], 9.0) if job.method == "hermite hashed equal"]
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        cfg = compose("train", list(job.overrides))
    encoding, network, task = cfg.encoder.encoding, cfg.encoder.network, cfg.task
    assert (encoding.n_levels, encoding.n_features_per_level) == (8, 2)
    assert (encoding.base_resolution, encoding.per_level_scale) == (4, 2.0)
    assert (encoding.log2_hashmap_size, encoding.interpolation) == (16, "hermite")
    assert network["_target_"].endswith("SIREN") and (network.width, network.depth) == (128, 2)
    assert (task.n_residual, task.n_boundary) == (10_000, 4 * 5000)
    assert (cfg.trainer.learning_rate, cfg.optimizer, cfg.sampler.every) == (1e-3, None, 1)
    assert (cfg.problem.a, cfg.problem.low) == (10, 0)


def made(errors: dict[str, float]) -> Any:
    """A table with an error for every grid, 0.5 unless it is given."""
    rows = [
        {"interpolation": g.interpolation, "table": g.table, "memory": g.memory, "seed": seed,
         "l2": errors.get(name, 0.5)}
        for name, g in GRIDS.items() for seed in (0, 1, 2)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_claims_are_of_medians_at_the_last_step() -> None:
    table = made({"cubic hashed equal": 1e-3, "hermite hashed equal": 1e-2})
    table.loc[table["seed"] == 2, "l2"] = 1.0  # one of three seeds
    found = {claim.text: claim for claim in hermite.claims(table)}
    assert not found["cubic, hashed, fails (> 0.1)"].holds
    assert found["cubic, small, fails (> 0.1)"].holds
    better = found["hashed: cubic is more accurate than hermite"]
    assert better.holds
    assert better.errors == "cubic 1.0e-3, hermite 1.0e-2"
    assert not found["dense: cubic is more accurate than hermite"].holds
    with pytest.raises(KeyError):
        hermite.claims(table[table["interpolation"] != "linear"])


@pytest.mark.slow
def test_runs_give_rows_curves_and_a_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = ("task.n_residual=50", "task.n_boundary=20", "trainer.evaluation_points=60")
    adam = ("optimizer=adam", "trainer.epochs=20", "trainer.chunk=5", *few)
    monkeypatch.setitem(hermite.OPTIMIZERS, "adam", adam)
    wanted = [job for job in hermite.jobs([0], 30.0) if "small" in job.method]
    run_jobs(ROOT, wanted, tmp_path / "runs", workers=1)
    for folder in ("tables", "figures"):
        (tmp_path / folder).mkdir()
    lines = hermite.write(wanted, tmp_path / "runs", tmp_path)
    assert lines[0].startswith("No claims: there is no run of ")
    table = pd.read_csv(tmp_path / "tables/hermite.csv")
    assert [*table["interpolation"]] == [*INTERPOLATIONS]
    assert set(table["steps"]) == {20}
    assert [*table["rows"]] == [GRIDS[f"{name} small equal"].rows for name in INTERPOLATIONS]
    network = table["parameters"] - 2 * table["rows"]  # 16 to 128 to 128 to 1
    assert set(network) == {17 * 128 + 129 * 128 + 129}
    curves = pd.read_csv(tmp_path / "tables/hermite_curves.csv")
    assert [*curves.groupby("interpolation", sort=False)["epoch"].last()] == [20] * 4
    last = curves.groupby("interpolation", sort=False)["l2"].last()
    assert last.to_numpy() == pytest.approx(table["l2"].to_numpy(), rel=1e-3)
    assert "| small" in (tmp_path / "tables/hermite.md").read_text()
    assert (tmp_path / "figures/hermite.png").stat().st_size > 1000


@pytest.mark.skipif(not COMMITTED.is_file(), reason="make hermite has not been run")
def test_committed_table_is_whole_and_its_page_says_what_it_shows() -> None:
    table: Any = pd.read_csv(COMMITTED)
    assert {*zip(table["interpolation"], table["table"], table["memory"], strict=True)} == {
        (grid.interpolation, grid.table, grid.memory) for grid in GRIDS.values()
    }
    assert table["budget_seconds"].nunique() == 1
    assert (table["train_seconds"] <= 1.1 * table["budget_seconds"]).all()
    page = COMMITTED.with_suffix(".md").read_text()
    for claim in hermite.claims(table):
        assert (
            f"- {'Holds' if claim.holds else 'Does not hold'}: {claim.text}: {claim.errors}" in page
        )


@pytest.mark.skipif(not COMMITTED.is_file(), reason="make hermite has not been run")
def test_cubic_does_not_fail_and_is_better_than_linear() -> None:
    verdicts = {claim.text: claim.holds for claim in hermite.claims(pd.read_csv(COMMITTED))}
    assert [text for text, holds in verdicts.items() if "fails" in text and holds] == []
    better = [holds for text, holds in verdicts.items() if text.endswith("than linear")]
    assert better == [True] * len(TABLES)
