"""`make calibrate`: the search, and that finished runs are not repeated."""

from __future__ import annotations

import os
import runpy
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pytest
from omegaconf import OmegaConf

from diffhash.paper.printed import load_paper_table
from diffhash.results import RunRecord

SCRIPT = "scripts/calibrate.py"
DATA, PINN = "table1/cubic", "table2/cubic"
Call = Callable[..., Any]
Make = Callable[..., RunRecord]


@pytest.fixture
def search(command_line: Call, tiny: tuple[str, ...], tmp_path: Path) -> Call:
    """``search(study, trials)``: search with short runs; returns the tables by name."""

    def call(study: str, trials: int, *overrides: str) -> dict[str, pd.DataFrame]:
        place = ("--runs", f"{tmp_path}/runs", "--output", f"{tmp_path}/tables")
        done = command_line(SCRIPT, study, "--trials", f"{trials}", *place, *tiny, *overrides)
        assert done.code == 0, done.err
        return {path.stem: pd.read_csv(path) for path in (tmp_path / "tables").glob("*.csv")}

    return call


# ---------------------------------------------------------------------------------------- scores


@pytest.fixture(scope="module")
def scores() -> Call:
    """``scores(objective, row, records)``, where a diverged run has the score 10."""
    found = runpy.run_path(str(Path(__file__).parents[2] / SCRIPT))["scores"]
    return lambda objective, *rest: found(
        OmegaConf.create({"objective": objective, "diverged": 10.0}), *rest
    )


def test_distance_counts_every_printed_mse(scores: Call, make_record: Make, paper: Path) -> None:
    row = load_paper_table("table1", paper).loc["cubic"].to_dict()
    off = make_record(mse_u=row["mse_u"] / 100, mse_ux=row["mse_ux"] * 10, mse_uxx=row["mse_uxx"])
    assert scores("distance", DATA, [off]) == pytest.approx(
        {f"{DATA} mse_u": -2.0, f"{DATA} mse_ux": 1.0, f"{DATA} mse_uxx": 0.0}
    )
    assert set(scores("distance", PINN, [off])) == {f"{PINN} mse_u"}


def test_distance_is_of_the_median_and_bounded(
    scores: Call, make_record: Make, paper: Path
) -> None:
    printed = load_paper_table("table2", paper).loc["cubic"].to_dict()["mse_u"]
    gone = make_record(status="diverged", diverged_epoch=7, mse_u=None)
    close = [make_record(seed=i, mse_u=printed * factor) for i, factor in enumerate((1, 10))]
    for records, distance in (
        ([gone], 10.0),
        ([gone, *close], 1.0),
        ([make_record(mse_u=0.0)], -10.0),
        ([make_record(mse_u=1e30)], 10.0),
    ):
        assert scores("distance", PINN, records)[f"{PINN} mse_u"] == pytest.approx(distance)


def test_error_is_that_of_the_geometric_mean(scores: Call, make_record: Make) -> None:
    records = [make_record(seed=i, mse_u=mse) for i, mse in enumerate((1e-8, 1e-4, 1e-6))]
    assert scores("error", DATA, records)[f"{DATA} mse_u"] == pytest.approx(-6.0)
    gone = make_record(seed=3, status="diverged", diverged_epoch=1)
    assert scores("error", DATA, [*records, gone])[f"{DATA} mse_u"] == pytest.approx((-18 + 10) / 4)


# ---------------------------------------------------------------------------------------- search


@pytest.mark.slow
def test_search_and_confirmation(search: Call, tmp_path: Path) -> None:
    tables = search("paper", 3)
    trials, confirmed = tables["paper"], tables["paper-confirmed"]
    assert list(trials["number"]) == [0, 1, 2]
    assert trials.loc[0, "encoder.encoding.n_levels"] == 9, "the preset comes first"
    values = [name for name in trials if "/" in name]
    whole = trials[trials["state"] == "COMPLETE"]
    assert list(whole["value"]) == pytest.approx(list(whole[values].abs().mean(axis=1)), rel=1e-4)
    assert confirmed.loc[0, "encoder.encoding.n_levels"] == 9
    assert 1 < len(confirmed) <= 4
    page = (tmp_path / "tables" / "paper.md").read_text()
    assert "3 trials (" in page and "torch" in page
    kinds = {path.suffix for path in (tmp_path / "tables").glob("paper.*")}
    assert kinds == {".csv", ".md", ".png", ".pdf"}


@pytest.mark.slow
def test_what_was_run_is_not_run_again(search: Call) -> None:
    before = search("best", 2)
    again = search("best", 2)
    for name, table in before.items():
        pd.testing.assert_frame_equal(table, again[name])
    assert len(search("best", 3)["best"]) == 3


@pytest.mark.slow
def test_other_settings_are_another_search(search: Call) -> None:
    search("compact", 2)
    assert list(search("compact", 1, "trainer.epochs=4")["compact"]["number"]) == [0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none"], "invalid choice: 'none' (choose from "),
        (["paper", "trainer.epoch=3"], "calibrate: "),
    ],
)
def test_bad_command_line(
    command_line: Call, tmp_path: Path, arguments: list[str], message: str
) -> None:
    place = ("--runs", str(tmp_path / "runs"), "--output", str(tmp_path / "tables"))
    outcome = command_line(SCRIPT, *arguments, *place)
    assert outcome.code in (1, 2)
    assert message in outcome.err and "Traceback" not in outcome.err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_killed_process(start: Call, tiny: tuple[str, ...], tmp_path: Path) -> None:
    command = (SCRIPT, "paper", "--trials", "4", "--runs", f"{tmp_path}/runs",
               "--output", f"{tmp_path}/tables", *tiny)  # fmt: skip
    process: subprocess.Popen[str] = start(*command)
    assert process.stderr
    while "Trial 1" not in process.stderr.readline():
        assert process.poll() is None
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    storage = f"sqlite:///{tmp_path}/runs/paper/study.db"
    [name] = [n for n in optuna.get_all_study_names(storage) if n.startswith("search")]
    before = optuna.load_study(study_name=name, storage=storage)
    kept = [t.params for t in before.trials if t.state.is_finished()]
    again = start(*command)
    _, err = again.communicate(timeout=300)
    assert again.returncode == 0, err
    assert len(pd.read_csv(tmp_path / "tables" / "paper.csv")) == 4
    after = optuna.load_study(study_name=name, storage=storage).trials
    assert len(kept) >= 2 and all(params in [t.params for t in after] for params in kept)
