from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from diffhash.paper.printed import METRICS, TABLES, VALUES
from diffhash.paper.rows import decades, row_records
from diffhash.paper.table import load_tables, train_seconds
from diffhash.results.record import RecordError

WriteRun = Callable[..., Path]
DIVERGED = {"status": "diverged", "diverged_epoch": 120, "epochs": 120}


def _row(table: str, runs: Path, row: str) -> dict[Any, Any]:
    return load_tables(runs)[table].frame.set_index("row").loc[row].to_dict()


@pytest.mark.parametrize("table", TABLES)
def test_the_papers_own_numbers_are_no_decades_away(table: str, paper_runs: Path) -> None:
    frame = load_tables(paper_runs)[table].frame
    assert (frame["status"] == "completed").all()
    assert (frame["epochs"] == frame["paper_epochs"]).all()
    for value in VALUES:
        printed = frame[f"paper_{value}"].notna()
        assert (frame.loc[printed, f"decades_{value}"] == 0).all()
        assert frame.loc[~printed, f"decades_{value}"].isna().all()
    assert frame["paper_mse_uxx"].notna().all() == (table == "table1")
    assert frame["paper_loss"].notna().all() == (table == "table2")


def test_decades() -> None:
    assert decades(1e-5, 1e-7) == pytest.approx(2)
    assert decades(3.0e-13, 3.0e-12) == pytest.approx(-1)
    assert decades(0.0, 1.0) == -math.inf
    assert math.isnan(decades(math.nan, 1.0)) and math.isnan(decades(1.0, math.nan))


@pytest.mark.parametrize(("ours", "paper"), [(-1.0, 1.0), (1.0, 0.0), (1.0, -1.0)])
def test_decades_of_what_is_no_error(ours: float, paper: float) -> None:
    with pytest.raises(ValueError, match="expected ours >= 0 and paper > 0"):
        decades(ours, paper)


def test_several_seeds_give_the_median_of_each_value(tmp_path: Path, write_run: WriteRun) -> None:
    for seed, mse_u, mse_ux in ((0, 1e-12, 5.0), (1, 3e-12, 1.0), (2, 9e-12, 3.0)):
        write_run(tmp_path, "table1", "cubic", seed=seed, mse_u=mse_u, mse_ux=mse_ux)
    row = _row("table1", tmp_path, "cubic")
    assert (row["mse_u"], row["mse_ux"]) == (3e-12, 3.0)
    assert row["decades_mse_u"] == pytest.approx(0)
    assert (row["seeds"], row["n"], row["n_diverged"]) == ("0 1 2", 3, 0)


def test_two_seeds_give_the_mean_of_both(tmp_path: Path, write_run: WriteRun) -> None:
    for seed in (10, 9):
        write_run(tmp_path, "table1", "cubic", seed=seed, mse_u=float(seed))
    row = _row("table1", tmp_path, "cubic")
    assert (row["mse_u"], row["seeds"]) == (9.5, "9 10")
    assert (row["mse_u_low"], row["mse_u_high"]) == (9.0, 10.0)


def test_ten_seeds_give_the_interval_of_the_median(tmp_path: Path, write_run: WriteRun) -> None:
    for seed in range(10):
        write_run(tmp_path, "table1", "cubic", seed=seed, mse_u=float((7 * seed) % 10))
    row = _row("table1", tmp_path, "cubic")
    assert (row["mse_u_low"], row["mse_u"], row["mse_u_high"]) == (1.0, 4.5, 8.0)
    assert row["decades_mse_u"] == pytest.approx(math.log10(4.5 / 3.0e-12))


def test_one_seed_has_no_interval(tmp_path: Path, write_run: WriteRun) -> None:
    write_run(tmp_path, "table1", "cubic")
    row = _row("table1", tmp_path, "cubic")
    assert all(math.isnan(row[f"{value}_{end}"]) for value in VALUES for end in ("low", "high"))


def test_diverged_seeds_are_infinite_in_the_median_and_are_named(
    tmp_path: Path, write_run: WriteRun
) -> None:
    write_run(tmp_path, "table1", "cubic", seed=0, **DIVERGED)
    for seed, mse in ((1, 7.0), (2, 5.0)):
        write_run(tmp_path, "table1", "cubic", seed=seed, mse_u=mse, train_seconds=mse)
    row = _row("table1", tmp_path, "cubic")
    assert (row["mse_u_low"], row["mse_u"], row["mse_u_high"]) == (5.0, 7.0, math.inf)
    assert row["train_seconds"] == 6.0, "a diverged run does not say what a whole one costs"
    assert row["status"] == "completed; seed 0 diverged @ epoch 120"
    assert (row["seeds"], row["n"], row["n_diverged"]) == ("1 2", 3, 1)


def test_a_row_that_only_diverged(tmp_path: Path, write_run: WriteRun) -> None:
    write_run(tmp_path, "table1", "cubic", **DIVERGED)
    row = _row("table1", tmp_path, "cubic")
    assert row["status"] == "diverged @ epoch 120"
    assert row["epochs"] == 3000
    assert all(row[metric] == math.inf for metric in METRICS)
    assert math.isnan(row["train_seconds"])
    write_run(tmp_path, "table1", "cubic", seed=1, **DIVERGED)
    assert _row("table1", tmp_path, "cubic")["status"] == (
        "seed 0 diverged @ epoch 120; seed 1 diverged @ epoch 120"
    )


def test_an_interrupted_run_counts_for_no_value(tmp_path: Path, write_run: WriteRun) -> None:
    write_run(tmp_path, "table2", "cubic", status="interrupted", epochs=40)
    row = _row("table2", tmp_path, "cubic")
    assert row["status"] == "interrupted @ epoch 40"
    assert math.isnan(row["mse_u"])
    assert (row["seeds"], row["n"], row["n_diverged"]) == ("", 0, 0)
    write_run(tmp_path, "table2", "cubic", seed=1, mse_u=2.0)
    row = _row("table2", tmp_path, "cubic")
    assert (row["mse_u"], row["seeds"], row["n"]) == (2.0, "1", 1)


def test_a_missing_row_is_there_and_says_so(paper_runs: Path) -> None:
    shutil.rmtree(paper_runs / "table1" / "ff")
    frame = load_tables(paper_runs)["table1"].frame
    assert list(frame.loc[frame["status"] == "missing", "row"]) == ["ff"]
    row = _row("table1", paper_runs, "ff")
    assert pd.isna(row["epochs"])
    assert (row["paper_mse_u"], row["n"]) == (1.3e-6, 0)


def test_a_value_that_was_not_finite_is_nan(tmp_path: Path, write_run: WriteRun) -> None:
    write_run(tmp_path, "table1", "cubic", mse_uxx=math.nan)
    row = _row("table1", tmp_path, "cubic")
    assert row["status"] == "completed"
    assert math.isnan(row["mse_uxx"]) and math.isnan(row["decades_mse_uxx"])
    assert row["mse_u"] > 0
    for seed in (1, 2):
        write_run(tmp_path, "table1", "cubic", seed=seed, mse_uxx=float(seed))
    row = _row("table1", tmp_path, "cubic")
    assert (row["mse_uxx"], row["mse_uxx_high"]) == (2.0, math.inf), "not dropped"


def test_rows_that_are_not_the_papers_come_last(paper_runs: Path, write_run: WriteRun) -> None:
    write_run(paper_runs, "table1", "cubic_best", preset="best", mse_u=1e-13)
    write_run(paper_runs, "table1", "s1_wide", preset=None)
    frame = load_tables(paper_runs)["table1"].frame
    assert list(frame["row"])[-3:] == ["cubic", "cubic_best", "s1_wide"]
    assert list(frame["model"])[-3:] == ["Cubic", "Cubic (best)", "S1 (s1_wide)"]
    last = frame.iloc[-2]
    assert last["mse_u"] == 1e-13
    assert last[[f"paper_{value}" for value in VALUES]].isna().all()
    assert last[[f"decades_{value}" for value in VALUES]].isna().all()


def test_records_elsewhere_below_the_runs_are_not_table_rows(
    tmp_path: Path, write_run: WriteRun
) -> None:
    write_run(tmp_path, "other", "cubic")
    with pytest.raises(RecordError, match="no records"):
        load_tables(tmp_path)


def test_a_row_is_found_by_its_experiment_wherever_its_run_lies(
    tmp_path: Path, write_run: WriteRun
) -> None:
    def elsewhere(name: str, **changes: Any) -> Path:
        made = write_run(tmp_path / "made", "table1", "cubic", **changes)
        target = tmp_path / "runs" / "cubic_data" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        return made.rename(target)

    runs = tmp_path / "runs"
    first = elsewhere("1", overrides=["experiment=table1/cubic", "seed=0"])
    assert [d for d, _ in row_records(runs)["table1"]["cubic"]] == [first]
    os.utime(first / "result.json", (1, 1))
    newer = elsewhere("2", overrides=["experiment=table1/cubic"])
    elsewhere("3", status="interrupted", epochs=9)  # is newer, and not completed
    elsewhere("4", seed=1, overrides=["experiment=table1/cubic", "encoder.encoding.n_levels=9"])
    for folder in ("timing", "calibration"):
        made = write_run(tmp_path / "made", "table1", "cubic", seed=2)
        (runs / folder).mkdir()
        made.rename(runs / folder / "x")
    assert [d for d, _ in row_records(runs)["table1"]["cubic"]] == [newer]
    own = write_run(runs, "table1", "cubic", seed=0)
    assert [d for d, _ in row_records(runs)["table1"]["cubic"]] == [own]


def test_most_of_a_rows_seeds_say_what_its_settings_are(
    tmp_path: Path, write_run: WriteRun
) -> None:
    for seed in range(3):
        write_run(tmp_path, "table1", "cubic", seed=seed)
    write_run(tmp_path, "table1", "cubic", seed=3, learning_rate=0.5)
    problems: list[RecordError] = []
    found = row_records(tmp_path, problems.append)["table1"]["cubic"]
    assert [record.seed for _, record in found] == [0, 1, 2]
    [problem] = map(str, problems)
    assert "seed3 has learning_rate = 0.5" in problem


def test_a_record_among_the_wrong_rows(tmp_path: Path, write_run: WriteRun) -> None:
    write_run(tmp_path, "table1", "cubic", experiment="table1/s2")
    with pytest.raises(RecordError, match=r"seed0 lies among .* table1/cubic .* 'table1/s2'"):
        row_records(tmp_path)


def test_two_records_of_one_seed(tmp_path: Path, write_run: WriteRun) -> None:
    directory = write_run(tmp_path, "table1", "cubic")
    shutil.copytree(directory, directory.with_name("copy"))
    with pytest.raises(RecordError, match=r"two records of seed 0: .*copy and .*seed0"):
        row_records(tmp_path)


@pytest.mark.parametrize("change", [{"epochs": 50, "epochs_requested": 50}, {"encoder": "s2"}])
def test_seeds_of_different_settings_are_not_mixed(
    tmp_path: Path, write_run: WriteRun, change: dict[str, Any]
) -> None:
    write_run(tmp_path, "table1", "cubic", seed=0)
    write_run(tmp_path, "table1", "cubic", seed=1, **change)
    with pytest.raises(RecordError, match=r"seed1 has (epochs_requested|encoder) = .*seed0"):
        row_records(tmp_path)


def test_train_totals(paper_runs: Path, write_run: WriteRun) -> None:
    write_run(paper_runs, "table1", "cubic_best", preset="best", train_seconds=1e6)
    rows = train_seconds(load_tables(paper_runs).values())
    assert len(rows) == 14, "rows that are not the paper's do not count"
    assert list(rows.sum()) == pytest.approx([6884.2, 6884.2])

    shutil.rmtree(paper_runs / "table1" / "cubic")
    rows = train_seconds(load_tables(paper_runs).values())
    assert rows["paper"].sum() == pytest.approx(6884.2)
    assert len(rows.dropna()) == 13
    assert list(rows.dropna().sum()) == pytest.approx([6884.2 - 574.3] * 2)
