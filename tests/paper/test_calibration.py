"""`make calibrate`: what is searched, and that nothing that was done is done again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pytest
from hydra import initialize_config_dir
from omegaconf import DictConfig

from diffhash.experiment.checks import ConfigError
from diffhash.experiment.schema import register
from diffhash.paper import calibration
from diffhash.paper.calibration import (
    Study,
    calibrate,
    calibration_figure,
    load_study,
    write_outcome,
    write_report,
)
from diffhash.paper.printed import load_paper_table
from diffhash.results import RunRecord

SCRIPT = "scripts/calibrate.py"
CHEAP, DEAR = "table1/cubic", "table2/cubic"
MSES = ("mse_u", "mse_ux", "mse_uxx")
Load = Callable[..., Study]
Make = Callable[..., RunRecord]


@pytest.fixture(scope="module")
def studies(root: Path, tiny: tuple[str, ...]) -> dict[str, Study]:
    """All, of runs of a moment."""
    register()
    with initialize_config_dir(str(root / "configs"), version_base="1.3"):
        return {name: load_study(root, name, tiny) for name in ("paper", "best", "compact")}


@pytest.fixture
def load(studies: dict[str, Study]) -> Load:
    """``load(name, **settings)``: a study of one seed, made small; ``paper`` of two rows."""

    def make(name: str = "paper", **settings: Any) -> Study:
        config = deepcopy(studies[name].config)
        small = {"seeds": [10], "confirm_seeds": [0], "trials": 4, "finalists": 1}
        if name == "paper":
            small["rows"] = {CHEAP: None, DEAR: None}
        for key, value in (small | settings).items():
            config[key] = value
        return replace(studies[name], config=config)

    return make


class Rows:
    """Stands in for the runs of a row: how far off they are depends on n_levels alone."""

    def __init__(self, paper: Path) -> None:
        self.ran: list[tuple[str, int, list[int]]] = []  # row, n_levels, seeds
        self.outcome: Callable[[str, int], float | None] = lambda row, levels: abs(levels - 7) / 10
        self.dies_before: int | None = None
        self.limits: set[float | None] = set()  # the seconds that runs were given
        self.timed: list[str] = []  # rows whose seconds were measured
        self._paper = paper

    def __call__(self, cfg: DictConfig, seconds: float | None) -> list[RunRecord]:
        self.limits.add(seconds)
        if len(self.ran) == self.dies_before:
            self.dies_before = None
            raise SystemExit("killed")
        levels = cfg.encoder.encoding.n_levels
        self.ran.append((cfg.name, levels, list(cfg.seeds)))
        decades = self.outcome(cfg.name, levels)
        table, _, row = cfg.name.partition("/")
        printed = load_paper_table(table, self._paper).loc[row]
        mses = {n: None if decades is None else float(printed[n]) * 10**decades for n in MSES}
        diverged = {} if decades is not None else {"status": "diverged", "diverged_epoch": 3}
        return [_record(cfg, seed, metrics=mses | {"loss": 1.0}, **diverged) for seed in cfg.seeds]

    def seconds(self, cfg: DictConfig) -> float:
        self.timed.append(cfg.name)
        return 7.0


def _record(cfg: DictConfig, seed: int, **changes: Any) -> RunRecord:
    known: dict[str, Any] = {
        "status": "completed",
        "experiment": cfg.name,
        "encoder": cfg.encoder.name,
        "preset": cfg.encoder.preset,
        "task": cfg.task.name,
        "problem": cfg.problem.name,
        "seed": seed,
        "epochs": cfg.trainer.epochs,
        "epochs_requested": cfg.trainer.epochs,
        "learning_rate": cfg.trainer.learning_rate,
        **dict.fromkeys(("train_seconds", "warmup_seconds", "evaluation_seconds"), 1.0),
        **{"wall_seconds": 2.0, "n_parameters": 1, "peak_memory_mb": 1.0, "config_hash": "0"},
    }
    return RunRecord(**(known | changes))


@pytest.fixture
def ran(root: Path, monkeypatch: pytest.MonkeyPatch) -> Rows:
    fake = Rows(root / "results" / "paper")
    monkeypatch.setattr(calibration, "run_row", fake)
    monkeypatch.setattr(calibration, "row_seconds", fake.seconds)
    return fake


def run_all(study: Study, folder: Path) -> dict[str, pd.DataFrame]:
    """Search and confirm; the tables by name."""
    write_outcome(study, *calibrate(study, folder), folder / "tables")
    return {path.stem: pd.read_csv(path) for path in (folder / "tables").glob("*.csv")}


@pytest.mark.parametrize(("name", "levels"), [("paper", 9), ("best", 9), ("compact", 10)])
def test_a_study_fits_its_rows(
    studies: dict[str, Study], tmp_path: Path, name: str, levels: int
) -> None:
    study = studies[name]
    for pick in (0, -1):
        params = {key: _ends(values)[pick] for key, values in study.space.items()}
        for row in study.config.rows:
            cfg = study.run_config(row, params, study.config.seeds, tmp_path)
            assert cfg.name == row
            assert cfg.seeds == study.config.seeds
            assert cfg.encoder.encoding.n_levels == params["encoder.encoding.n_levels"]
    assert study.preset["encoder.encoding.n_levels"] == levels


def _ends(values: Any) -> list[Any]:
    choices = getattr(values, "choices", None)
    return list(choices) if choices else [values.low, values.high]


# ---------------------------------------------------------------------------------------- scores


def test_distance_counts_every_printed_mse(load: Load, make_record: Make, paper: Path) -> None:
    row = load_paper_table("table1", paper).loc["cubic"].to_dict()
    off = make_record(mse_u=row["mse_u"] / 100, mse_ux=row["mse_ux"] * 10, mse_uxx=row["mse_uxx"])
    scores = load().scores(CHEAP, [off])
    assert scores == pytest.approx({"mse_u": -2.0, "mse_ux": 1.0, "mse_uxx": 0.0})
    assert set(load().scores(DEAR, [off])) == {"mse_u"}
    assert load().objective({CHEAP: scores}) == pytest.approx(1.0)


def test_distance_is_of_the_median_and_bounded(load: Load, make_record: Make, paper: Path) -> None:
    printed = load_paper_table("table2", paper).loc["cubic"].to_dict()["mse_u"]
    gone = make_record(status="diverged", diverged_epoch=7, mse_u=None)
    close = [make_record(seed=i, mse_u=printed * factor) for i, factor in enumerate((1, 10))]
    assert load().scores(DEAR, [gone]) == {"mse_u": 10.0}
    assert load().scores(DEAR, [gone, *close])["mse_u"] == pytest.approx(1.0)
    for far, bound in ((0.0, -10.0), (1e30, 10.0)):
        assert load().scores(DEAR, [make_record(mse_u=far)]) == {"mse_u": bound}


def test_error_is_that_of_the_geometric_mean(load: Load, make_record: Make) -> None:
    study = load("best")
    records = [make_record(seed=i, mse_u=mse) for i, mse in enumerate((1e-8, 1e-4, 1e-6))]
    assert study.scores(CHEAP, records)["mse_u"] == pytest.approx(-6.0)
    gone = make_record(seed=3, status="diverged", diverged_epoch=1)
    assert study.scores(CHEAP, [*records, gone])["mse_u"] == pytest.approx((-18 + 1) / 4)


# ---------------------------------------------------------------------------------------- search


def test_search_and_confirmation(load: Load, tmp_path: Path) -> None:
    study = load(trials=2, rows={CHEAP: None})
    tables = run_all(study, tmp_path)
    trials, runs = tables["paper"], tables["paper-runs"]
    assert list(trials["trial"]) == [0, 1]
    assert trials.loc[0, "encoder.encoding.n_levels"] == 9  # the preset comes first
    assert set(runs["seed"]) == {10}
    scores = [f"{CHEAP} {name}" for name in MSES]
    assert list(trials["objective"]) == pytest.approx(list(trials[scores].abs().mean(axis=1)))
    confirmed = tables["paper-confirmed"]
    assert list(confirmed["candidate"]) == ["preset", "trial 1"]
    assert confirmed.loc[0, "searched"] == pytest.approx(trials.loc[0, "objective"])
    assert set(tables["paper-confirmed-runs"]["seed"]) == {0}
    kinds = {path.suffix for path in (tmp_path / "tables").glob("paper.*")}
    assert kinds == {".csv", ".md", ".png", ".pdf"}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["study.db", "tables"]


def test_killed_and_resumed_repeats_no_trial(load: Load, ran: Rows, tmp_path: Path) -> None:
    study = load(trials=6)
    for dies_before in (1, 4, 5):
        ran.dies_before = dies_before
        with pytest.raises(SystemExit):
            run_all(study, tmp_path)
    tables = run_all(study, tmp_path)
    assert len(tables["paper"]) == 6
    assert len(tables["paper-runs"].drop_duplicates(["trial", "row"])) == len(tables["paper-runs"])
    ran.ran.clear()
    run_all(study, tmp_path)
    assert ran.ran == []
    assert len(run_all(load(trials=8), tmp_path)["paper"]) == 8


def test_what_falls_behind_is_stopped(load: Load, ran: Rows, tmp_path: Path) -> None:
    trials = run_all(load(trials=8), tmp_path)["paper"]
    stopped = trials[trials["status"] == "pruned"]
    assert len(stopped) > 0
    assert (stopped["rows_run"] == 1).all()
    assert stopped["objective"].isna().all()
    assert stopped["so_far"].notna().all()
    assert len([row for row, *_ in ran.ran if row == DEAR]) < len(ran.ran) / 2
    assert trials.loc[0, "status"] == "complete"


def test_diverged_trials_count_and_are_named(load: Load, ran: Rows, tmp_path: Path) -> None:
    ran.outcome = lambda row, levels: None if levels != 9 and row == DEAR else abs(levels - 7) / 10
    tables = run_all(load(trials=5, diverged=6.0), tmp_path)
    trials = tables["paper"]
    reached = trials[(trials["rows_run"] == 2) & (trials["trial"] > 0)]
    assert len(reached) > 0
    assert (reached["status"] == "diverged").all()
    assert (reached["n_diverged"] == 1).all()
    assert (reached[f"{DEAR} mse_u"] == 6.0).all()
    gone = tables["paper-runs"].query("status == 'diverged'")
    assert list(gone["diverged_epoch"]) == [3] * len(gone)
    assert gone["mse_u"].isna().all()


def test_values_that_cannot_be_run(load: Load, ran: Rows, tmp_path: Path) -> None:
    def refuse(row: str, levels: int) -> float:
        if levels != 9:
            raise ConfigError(f"n_levels={levels}: too many")
        return 0.5

    ran.outcome = refuse
    tables = run_all(load(trials=4), tmp_path)
    assert list(tables["paper"]["status"]) == ["complete", "fail", "fail", "fail"]
    assert tables["paper"]["error"].iloc[1:].str.contains("too many").all()
    assert list(tables["paper-confirmed"]["candidate"]) == ["preset"]


def test_another_study_in_the_same_folder(load: Load, ran: Rows, tmp_path: Path) -> None:
    run_all(load(trials=1), tmp_path)
    with pytest.raises(ConfigError, match=r"seeds: was \[10\] when .* now it is \[11\]"):
        run_all(load(trials=1, seeds=[11]), tmp_path)


def test_limits_are_measured_where_something_is_to_be_run(
    load: Load, ran: Rows, tmp_path: Path
) -> None:
    limited = load(trials=2, rows={CHEAP: DEAR, DEAR: None})
    run_all(limited, tmp_path)
    assert ran.timed == [DEAR] * 2, "for the search and for the confirmation"
    assert sorted(ran.limits, key=str) == [pytest.approx(7.7), None]
    run_all(limited, tmp_path)
    assert len(ran.timed) == 2


@pytest.mark.parametrize(("seconds", "epochs"), [(0.2, 6), (0.01, 1), (10.0, 8)])
def test_as_many_epochs_as_fit(
    load: Load, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, seconds: float, epochs: int
) -> None:
    monkeypatch.setattr(calibration, "chunk_seconds", lambda directory: (0.03,))
    study = load("best")
    cfg = study.run_config("table1/cubic_best", study.preset, [0, 1], tmp_path)
    cfg.trainer.epochs = 8
    records = calibration.run_row(cfg, seconds)
    assert [(record.seed, record.epochs) for record in records] == [(0, epochs), (1, epochs)]
    assert all(record.epochs_requested == epochs for record in records)  # the schedule's end


# --------------------------------------------------------------------------------- what is written

LINE = {
    "trial": 0, "status": "complete", "objective": 0.5, "so_far": 0.5, "rows_run": 2,
    "n_diverged": 0, "seconds": 7.0, "encoder.encoding.base_resolution": 3,
    "encoder.encoding.per_level_scale": 2.0, "encoder.encoding.n_levels": 5,
    "encoder.network.init": "torch",
}  # fmt: skip


def test_report(tmp_path: Path) -> None:
    failed = LINE | {"trial": 1, "status": "fail", "rows_run": 0, "seconds": 0.0}
    pd.DataFrame([LINE, failed]).to_csv(tmp_path / "paper.csv", index=False)
    rows = {"table1/cubic mse_u": 0.5, "table1/s2 mse_u": -3.0}
    confirmed = pd.DataFrame([LINE | {"candidate": "preset", "searched": 0.4} | rows])
    confirmed.to_csv(tmp_path / "paper-confirmed.csv", index=False)
    path, summary = write_report(tmp_path, "paper", "a title", {"device": "cpu"}, behind=True)
    assert summary.startswith("2 trials (1 complete, 1 fail) in 0.00 hours")
    cells = [[c.strip() for c in line.split("|")[1:-1]] for line in path.read_text().splitlines()]
    for line in (["", "preset"], ["table1/cubic mse_u", "0.5"], ["encoder.network.init", "torch"],
                 ["behind, mean", "0.25"], ["behind, most", "0.5"]):  # fmt: skip
        assert line in cells
    assert "device cpu" in path.read_text()
    path, _ = write_report(tmp_path, "paper", "a title", {})
    assert "behind" not in path.read_text()


@pytest.mark.parametrize(
    "lines",
    [
        [LINE],
        [LINE | {"status": "fail", "objective": None, "so_far": None}],
        [LINE, LINE | {"objective": None, "so_far": 0.1, "encoder.network.init": "xavier"}],
        [LINE | {"trainer.learning_rate": 1e-4}, LINE | {"trainer.learning_rate": 1.0}],
    ],
    ids=["one", "none known", "the best was stopped early", "log axis"],
)
def test_figure_draws_what_there_is(tmp_path: Path, lines: list[dict[str, Any]]) -> None:
    trials = pd.DataFrame(lines).astype({"objective": float, "so_far": float})
    importances = pd.DataFrame({"parameter": pd.Series(dtype=str), "importance": []})
    figure = calibration_figure(trials, importances)
    panels = {ax.get_title(): ax for ax in figure.axes}
    assert {"importance", "init"} <= panels.keys()
    drawn = {t.get_label() for ax in figure.axes for t in ax.collections if len(t.get_offsets())}
    assert ("best" in drawn) == trials["objective"].notna().any()
    found = {float(x) for dots in panels["finest resolution"].collections
             for x, _ in dots.get_offsets()}  # fmt: skip
    assert found == ({3 * 2.0**4} if trials["so_far"].notna().any() else set())
    figure.savefig(tmp_path / "a.png")


# ---------------------------------------------------------------------------------- command line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none"], "error: study 'none' is unknown; studies are best, compact, paper"),
        (["paper", "--trials", "0"], "error: trials=0: give at least 1"),
        (["paper", "trainer.epoch=3"], "error: "),
    ],
)
def test_bad_command_line(
    command_line: Callable[..., Any], tmp_path: Path, arguments: list[str], message: str
) -> None:
    place = ("--runs", str(tmp_path / "runs"), "--output", str(tmp_path / "tables"))
    outcome = command_line(SCRIPT, *arguments, *place)
    assert outcome.code == 1
    assert message in outcome.err
    assert len(outcome.err.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_without_optuna(command_line: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in sys.modules if n.startswith("diffhash.paper.calibration")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "optuna", None)
    outcome = command_line(SCRIPT, "paper")
    assert outcome.code == 1
    assert outcome.err.startswith("error: Optuna is not installed; pip install")


@pytest.mark.slow
def test_killed_process(
    start: Callable[..., subprocess.Popen[str]],
    root: Path,
    tiny: tuple[str, ...],
    tmp_path: Path,
) -> None:
    command = (SCRIPT, "paper", "--trials", "4", "--runs", f"{tmp_path}/runs",
               "--output", f"{tmp_path}/tables", *tiny)  # fmt: skip
    process = start(*command)
    assert process.stdout
    assert process.stdout.readline().startswith("search ")
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    storage = f"sqlite:///{tmp_path}/runs/paper/study.db"
    before = optuna.load_study(study_name="search", storage=storage)
    kept = [t.params for t in before.trials if t.state.is_finished()]
    again = start(*command)
    _, err = again.communicate(timeout=300)
    assert again.returncode == 0, err
    trials = pd.read_csv(tmp_path / "tables" / "paper.csv")
    assert len(trials) == 4
    after = optuna.load_study(study_name="search", storage=storage).trials
    assert all(trial.state.is_finished() for trial in after)
    assert all(params in [t.params for t in after] for params in kept)
