"""`make calibrate`: what is searched, and that nothing that was done is done again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pytest
from hydra import initialize_config_dir
from omegaconf import DictConfig
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from diffhash.experiment.checks import ConfigError
from diffhash.experiment.schema import register
from diffhash.paper.calibration import rows, search
from diffhash.paper.calibration.outcome import report_trial, write_outcome
from diffhash.paper.calibration.search import calibrate
from diffhash.paper.calibration.study import Study, distribution, load_study
from diffhash.paper.printed import load_paper_table
from diffhash.results import RunRecord

SCRIPT = "scripts/calibrate.py"
CHEAP, DEAR = "table1/cubic", "table2/cubic"
Load = Callable[..., Study]


class Here(Executor):
    """Runs what it is given at once, in this process."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except ConfigError as error:
            future.set_exception(error)
        return future


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
        study = studies[name]
        small = {"seeds": [10], "confirm_seeds": [0], "trials": 4, "finalists": 1}
        if name == "paper":
            small["rows"] = {CHEAP: None, DEAR: None}
        return replace(study, config=replace(study.config, **(small | settings)))

    return make


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def pool(workers: int) -> Iterator[Executor]:
        yield Here()

    monkeypatch.setattr(search, "process_pool", pool)


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
        names = ("mse_u", "mse_ux", "mse_uxx")
        mses = {n: None if decades is None else float(printed[n]) * 10**decades for n in names}
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
    monkeypatch.setattr(search, "run_row", fake)
    monkeypatch.setattr(search, "row_seconds", fake.seconds)
    return fake


def run_all(study: Study, folder: Path, workers: int = 1) -> dict[str, pd.DataFrame]:
    """Search and confirm; the tables by name."""
    output = folder / "tables"
    calibrate(study, folder, workers, lambda *ended: report_trial(study, *ended, output))
    return {path.stem: pd.read_csv(path) for path in output.glob("*.csv")}


@pytest.mark.parametrize(("name", "levels"), [("paper", 9), ("best", 9), ("compact", 10)])
def test_a_study_fits_its_rows(
    studies: dict[str, Study], tmp_path: Path, name: str, levels: int
) -> None:
    study = studies[name]
    for pick in (0, -1):
        params = {key: _ends(values)[pick] for key, values in study.space.items()}
        for row in study.rows:
            cfg = study.run_config(row, params, study.config.seeds, tmp_path)
            assert cfg.name == row
            assert cfg.seeds == study.config.seeds
            assert cfg.encoder.encoding.n_levels == params["encoder.encoding.n_levels"]
    assert study.preset["encoder.encoding.n_levels"] == levels


def _ends(values: Any) -> list[Any]:
    choices = getattr(values, "choices", None)
    return list(choices) if choices else [values.low, values.high]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ("choice(torch, xavier)", CategoricalDistribution(["torch", "xavier"])),
        ("1,2,4", CategoricalDistribution([1, 2, 4])),
        ("range(4,12,3)", IntDistribution(4, 10, step=3)),
        ("range(1.2,2.1,0.1)", FloatDistribution(1.2, 2.0, step=0.1)),
        ("range(1,2.05,0.5)", FloatDistribution(1.0, 2.0, step=0.5)),
        ("int(interval(4,12))", IntDistribution(4, 12)),
        ("tag(log, interval(1e-6,1))", FloatDistribution(1e-6, 1.0, log=True)),
    ],
)
def test_values_are_those_of_a_sweep(values: str, expected: object) -> None:
    assert distribution("key", values) == expected


@pytest.mark.parametrize(
    "values", ["3", "[1,2]", "range(4,4)", "range(4,9,0)", "interval(2,1)", "oops(", "choice()"]
)
def test_values_that_are_none(values: str) -> None:
    with pytest.raises(ConfigError, match=r"params: key: "):
        distribution("key", values)


def test_search_and_confirmation(load: Load, tmp_path: Path) -> None:
    study = load(trials=2, rows={CHEAP: None})
    tables = run_all(study, tmp_path)
    parts = calibrate(study, tmp_path, 1, lambda *ended: pytest.fail("there was nothing to do"))
    write_outcome(study, *parts, tmp_path / "tables")
    trials, runs = tables["paper"], tables["paper-runs"]
    assert list(trials["trial"]) == [0, 1]
    assert trials.loc[0, "encoder.encoding.n_levels"] == 9  # the preset comes first
    assert set(runs["seed"]) == {10}
    scores = [f"{CHEAP} {name}" for name in ("mse_u", "mse_ux", "mse_uxx")]
    assert list(trials["objective"]) == pytest.approx(list(trials[scores].abs().mean(axis=1)))
    confirmed = tables["paper-confirmed"]
    assert list(confirmed["candidate"]) == ["preset", "trial 1"]
    assert confirmed.loc[0, "searched"] == pytest.approx(trials.loc[0, "objective"])
    assert set(tables["paper-confirmed-runs"]["seed"]) == {0}
    assert {p.suffix for p in (tmp_path / "tables").glob("paper.*")} == {
        *(".csv", ".md", ".png", ".pdf"),
    }
    assert sorted(p.name for p in tmp_path.iterdir()) == ["study.db", "tables"]


def test_killed_and_resumed_is_the_same_search(load: Load, ran: Rows, tmp_path: Path) -> None:
    study = load(trials=6)
    whole = run_all(study, tmp_path / "whole")
    n_runs, ran.ran = len(ran.ran), []
    for dies_before in (1, 4, 5, n_runs - 1):
        ran.dies_before = dies_before
        with pytest.raises(SystemExit):
            run_all(study, tmp_path / "parts")
    parts = run_all(study, tmp_path / "parts")
    assert len(ran.ran) == n_runs  # none was repeated
    for name, table in whole.items():
        pd.testing.assert_frame_equal(parts[name], table)


def test_side_by_side(load: Load, ran: Rows, tmp_path: Path) -> None:
    tables = run_all(load(trials=6), tmp_path, workers=3)
    assert list(tables["paper"]["trial"]) == list(range(6))
    assert len(tables["paper-runs"].drop_duplicates(["trial", "row", "seed"])) == len(
        tables["paper-runs"]
    )


def test_more_trials_later(load: Load, ran: Rows, tmp_path: Path) -> None:
    first = run_all(load(trials=3), tmp_path)
    ran.ran.clear()
    run_all(load(trials=3), tmp_path)
    assert ran.ran == []
    second = run_all(load(trials=8), tmp_path)
    assert len(second["paper"]) == 8
    pd.testing.assert_frame_equal(second["paper"].head(3), first["paper"], check_dtype=False)
    assert (9, [0]) not in [(levels, seeds) for _, levels, seeds in ran.ran]  # the preset again


def test_what_falls_behind_is_stopped(load: Load, ran: Rows, tmp_path: Path) -> None:
    trials = run_all(load(trials=8), tmp_path)["paper"]
    stopped = trials[trials["status"] == "pruned"]
    assert len(stopped) > 0
    assert (stopped["rows_run"] == 1).all()
    assert stopped["objective"].isna().all()
    assert stopped["so_far"].notna().all()
    assert len([row for row, *_ in ran.ran if row == DEAR]) < len(ran.ran) / 2
    assert trials.loc[0, "status"] == "complete"


def test_importances_rank_what_got_further_first(
    load: Load, ran: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The cheap row's values are far below the dear one's: a mean over it alone beats every other.
    ran.outcome = lambda row, levels: abs(levels - 7) / 100 + (5 if row == DEAR else 0)
    study = load(trials=8)
    opened, _ = calibrate(study, tmp_path, 1, lambda *ended: None)
    found = search.importances(study, opened)
    assert found.keys() == study.space.keys()
    assert sum(found.values()) == pytest.approx(1.0)
    ranked: list[optuna.Study] = []
    monkeypatch.setattr(optuna.importance, "get_param_importances", lambda s, **_: ranked.append(s))
    search.importances(study, opened)
    complete = [t for t in opened.trials if t.state == optuna.trial.TrialState.COMPLETE]
    best_first = sorted(ranked[0].trials, key=lambda trial: trial.value or 0)
    assert 1 <= len(complete) < len(best_first) == 8
    by_objective = sorted(complete, key=lambda trial: trial.value or 0)
    assert [t.params for t in best_first[: len(complete)]] == [t.params for t in by_objective]


def test_diverged_trials_count_and_are_named(load: Load, ran: Rows, tmp_path: Path) -> None:
    ran.outcome = lambda row, levels: None if levels != 9 and row == DEAR else abs(levels - 7) / 10
    study = load(trials=5, diverged=6.0)
    tables = run_all(study, tmp_path)
    trials = tables["paper"]
    reached = trials[(trials["rows_run"] == 2) & (trials["trial"] > 0)]
    assert len(reached) > 0
    assert (reached["status"] == "diverged").all()
    assert (reached["n_diverged"] == 1).all()
    assert (reached[f"{DEAR} mse_u"] == 6.0).all()
    assert reached["objective"].between(0, 6).all()
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
    assert list(tables["paper"]["status"]) == ["complete", "failed", "failed", "failed"]
    assert tables["paper"]["error"].iloc[1:].str.contains("too many").all()
    assert list(tables["paper-confirmed"]["candidate"]) == ["preset"]


def test_another_study_in_the_same_folder(load: Load, ran: Rows, tmp_path: Path) -> None:
    run_all(load(trials=1), tmp_path)
    with pytest.raises(ConfigError, match=r"seeds: was \[10\] when .* now it is \[11\]"):
        run_all(load(trials=1, seeds=[11]), tmp_path)


def test_limits_are_measured_where_something_is_to_be_run(
    load: Load, ran: Rows, tmp_path: Path
) -> None:
    limited = load(trials=2, rows={CHEAP: "table1/linear", DEAR: None})
    run_all(limited, tmp_path, workers=2)
    # Two at once as in the search, then one: nothing runs beside what is confirmed.
    assert ran.timed == ["table1/linear"] * 3
    assert sorted(ran.limits, key=str) == [pytest.approx(7.7), None]
    run_all(limited, tmp_path, workers=2)
    assert len(ran.timed) == 3


def test_the_seconds_of_a_row(load: Load, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(rows, "chunk_seconds", lambda directory: (0.03,))
    cfg = load("best").run_config("table1/cubic_best", {}, [0, 1], tmp_path / "row")
    cfg.trainer.epochs = 8
    assert rows.row_seconds(cfg) == pytest.approx(0.24)
    assert not tmp_path.exists() or not list(tmp_path.iterdir())


@pytest.mark.parametrize(("seconds", "epochs"), [(0.2, 6), (0.01, 1), (10.0, 8)])
def test_as_many_epochs_as_fit(
    load: Load, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, seconds: float, epochs: int
) -> None:
    monkeypatch.setattr(rows, "chunk_seconds", lambda directory: (0.03,))
    study = load("best")
    cfg = study.run_config("table1/cubic_best", study.preset, [0, 1], tmp_path / "row")
    cfg.trainer.epochs = 8
    records = rows.run_row(cfg, seconds)
    assert [(record.seed, record.epochs) for record in records] == [(0, epochs), (1, epochs)]
    assert all(record.epochs_requested == epochs for record in records)  # the schedule's end
    assert not tmp_path.exists() or not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none"], "error: study 'none' is unknown; studies are best, compact, paper"),
        (["paper", "--trials", "0"], "error: trials=0: give at least 1"),
        (["paper", "trainer.epoch=3"], "error: "),
        (["paper", "encoder.encoding.n_levels=3"], "leaves out 3, the preset's value"),
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
    command = (SCRIPT, "paper", "--trials", "4", "--jobs", "2", "--runs", f"{tmp_path}/runs",
               "--output", f"{tmp_path}/tables", *tiny)  # fmt: skip
    process = start(*command)
    assert process.stdout
    assert process.stdout.readline().startswith("search ")
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    storage = f"sqlite:///{tmp_path}/runs/paper/study.db"
    before = optuna.load_study(study_name="search", storage=storage).trials
    again = start(*command)
    _, err = again.communicate(timeout=300)
    assert again.returncode == 0, err
    after = optuna.load_study(study_name="search", storage=storage).trials
    assert len(after) == 4
    assert all(trial.state.is_finished() for trial in after)
    assert [t.params for t in after[: len(before)]] == [t.params for t in before]
