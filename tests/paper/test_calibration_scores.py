"""Scores of hyper-parameters from records, and what is written of a search."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from diffhash.paper.calibration.figure import calibration_figure
from diffhash.paper.calibration.outcome import read_trials, write_report, write_trials
from diffhash.paper.calibration.study import decades_from_paper, log_error
from diffhash.paper.printed import load_paper_table
from diffhash.results import RecordError, RunRecord

Make = Callable[..., RunRecord]
MSES = ("mse_u", "mse_ux", "mse_uxx")
LINE = {"trial": 0, "status": "complete", "objective": 0.5, "so_far": 0.5, "rows_run": 2,
        "n_diverged": 0, "seconds": 7.0, "encoder.network.init": "torch"}  # fmt: skip


@pytest.fixture
def printed(paper: Path) -> Callable[[str, str], dict[str, Any]]:
    return lambda table, row: load_paper_table(table, paper).loc[row].to_dict()


def test_distance_counts_every_printed_mse(make_record: Make, printed: Callable[..., Any]) -> None:
    row = printed("table1", "cubic")
    same = make_record(**{name: row[name] for name in MSES})
    assert decades_from_paper([same], row, 10.0) == pytest.approx(dict.fromkeys(MSES, 0.0))
    off = make_record(mse_u=row["mse_u"] / 100, mse_ux=row["mse_ux"] * 10, mse_uxx=row["mse_uxx"])
    assert decades_from_paper([off], row, 10.0) == pytest.approx(
        {"mse_u": -2.0, "mse_ux": 1.0, "mse_uxx": 0.0}
    )
    assert set(decades_from_paper([off], printed("table2", "cubic"), 10.0)) == {"mse_u"}


def test_distance_is_of_the_median(make_record: Make, printed: Callable[..., Any]) -> None:
    row = printed("table2", "s2")
    records = [make_record(seed=i, mse_u=row["mse_u"] * f) for i, f in enumerate((1e-5, 10, 1e9))]
    assert decades_from_paper(records, row, 10.0)["mse_u"] == pytest.approx(1.0)


def test_a_distance_is_bounded(make_record: Make, printed: Callable[..., Any]) -> None:
    row = printed("table2", "cubic")
    gone = make_record(status="diverged", diverged_epoch=7, mse_u=None)
    close = make_record(seed=1, mse_u=row["mse_u"])
    assert decades_from_paper([gone], row, 10.0) == {"mse_u": 10.0}
    assert decades_from_paper([gone, close], row, 10.0) == {"mse_u": 10.0}
    also_close = make_record(seed=2, mse_u=row["mse_u"])
    assert decades_from_paper([gone, close, also_close], row, 10.0)["mse_u"] == pytest.approx(0.0)
    for far, bound in ((0.0, -10.0), (1e30, 10.0)):
        assert decades_from_paper([make_record(mse_u=far)], row, 10.0) == {"mse_u": bound}


def test_error_is_that_of_the_geometric_mean(make_record: Make) -> None:
    records = [make_record(seed=i, mse_u=mse) for i, mse in enumerate((1e-8, 1e-4, 1e-6))]
    assert log_error(records, 1.0)["mse_u"] == pytest.approx(-6.0)
    gone = make_record(seed=3, status="diverged", diverged_epoch=1)
    assert log_error([*records, gone], 1.0)["mse_u"] == pytest.approx((-18 + 1) / 4)
    assert log_error([make_record(mse_u=1e9)], 1.0)["mse_u"] == 1.0


def test_scores_of_nothing(make_record: Make, printed: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match="error of no records"):
        log_error([], 1.0)
    with pytest.raises(ValueError, match="0 records from 3 printed MSEs"):
        decades_from_paper([], printed("table1", "s2"), 10.0)
    nothing = dict.fromkeys(MSES, math.nan)
    with pytest.raises(ValueError, match="1 records from 0 printed MSEs"):
        decades_from_paper([make_record()], nothing, 10.0)


def test_a_table_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "paper.csv"
    with pytest.raises(FileNotFoundError):
        read_trials(path)
    for content in ("", "trial,status\n0,complete\n"):
        path.write_text(content)
        with pytest.raises(RecordError, match=r"corrupt file .*paper\.csv"):
            read_trials(path)


def test_report(tmp_path: Path) -> None:
    failed = {"trial": 1, "status": "failed", "rows_run": 0, "n_diverged": 0, "seconds": 0.0}
    write_trials(tmp_path / "paper.csv", [LINE, failed])
    path, summary = write_report(tmp_path, "paper", "a title", {"device": "cpu"})
    assert summary.startswith("2 trials (1 complete, 1 failed) in 0.00 hours")
    assert "Confirmed" not in path.read_text()
    confirmed = LINE | {"candidate": "preset", "searched": 0.4, "table1/cubic mse_u": 0.5}
    write_trials(tmp_path / "paper-confirmed.csv", [confirmed])
    text = write_report(tmp_path, "paper", "a title", {"device": "cpu"})[0].read_text()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    assert ["", "preset"] in rows
    assert ["table1/cubic mse_u", "0.5"] in rows
    assert ["encoder.network.init", "torch"] in rows
    assert "device cpu" in text
    assert "behind" not in text
    write_trials(tmp_path / "paper-confirmed.csv", [confirmed | {"table1/s2 mse_u": -3.0}])
    text = write_report(tmp_path, "paper", "a title", {}, behind=True)[0].read_text()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    assert ["behind, mean", "0.25"] in rows and ["behind, most", "0.5"] in rows


@pytest.mark.parametrize(
    "lines",
    [
        [LINE],
        [LINE | {"status": "failed", "objective": None, "so_far": None}],
        [LINE, LINE | {"objective": None, "so_far": 0.1, "encoder.network.init": "xavier"}],
        [LINE | {"trainer.learning_rate": 1e-4}, LINE | {"trainer.learning_rate": 1.0}],
    ],
    ids=["one", "none known", "the best was stopped early", "log axis"],
)
def test_figure_draws_what_there_is(tmp_path: Path, lines: list[dict[str, Any]]) -> None:
    write_trials(tmp_path / "a.csv", lines)
    trials = read_trials(tmp_path / "a.csv")
    importances = pd.DataFrame({"parameter": [], "importance": []})
    figure = calibration_figure(trials, importances)
    titles = {ax.get_title() for ax in figure.axes}
    assert {"importance", "init"} <= titles
    drawn = {t.get_label() for ax in figure.axes for t in ax.collections if len(t.get_offsets())}
    assert ("best" in drawn) == (trials["objective"].notna().any())
    figure.savefig(tmp_path / "a.png")


def test_figure_shows_the_finest_resolution_of_a_grid(tmp_path: Path) -> None:
    grid = {"base_resolution": 3, "per_level_scale": 2.0, "n_levels": 5}
    write_trials(tmp_path / "a.csv", [LINE | {f"encoder.encoding.{k}": v for k, v in grid.items()}])
    figure = calibration_figure(
        read_trials(tmp_path / "a.csv"), pd.DataFrame({"parameter": [], "importance": []})
    )
    [ax] = [ax for ax in figure.axes if ax.get_title() == "finest resolution"]
    assert {float(x) for points in ax.collections for x, _ in points.get_offsets()} == {3 * 2**4}
