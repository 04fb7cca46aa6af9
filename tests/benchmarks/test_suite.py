"""The suite: the records of its runs, which are not repeated, and the tables made of them."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pandas as pd
import pytest
from lightning.pytorch.callbacks import Callback

from benchmarks import suite, suite_table
from benchmarks.suite import METHODS, OPTIMIZERS, Case, Job, Outcome
from diffhash.experiment.checks import ConfigError
from diffhash.results import RunRecord
from diffhash.results.record import write_record

ROOT = Path(__file__).parents[2]
SMALL = {"task.n_residual": "30", "task.n_boundary": "8", "trainer.evaluation_points": "40"}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make runs with Adam small, with two epochs each."""
    settings = tuple(f"{key}={value}" for key, value in SMALL.items())
    monkeypatch.setitem(OPTIMIZERS, "adam", ("optimizer=adam", "trainer.epochs=2", *settings))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


def job(problem: str, method: str, seed: int = 0, **settings: str) -> Job:
    return Job(Case(problem, settings), method, "adam", seed, seconds=5.0)


def test_every_problem_is_in_it_and_every_method_and_optimizer() -> None:
    from diffhash.problems import zoo

    assert {case.problem for case in suite.CASES} == {*zoo()}
    chosen = suite.jobs([0], "", 1.0)
    assert {job.method for job in chosen} == {*METHODS}
    assert {job.optimizer for job in chosen} == {*OPTIMIZERS}
    assert len({job.directory(Path()) for job in chosen}) == len(chosen)
    of_one = suite.jobs([0, 1], "cavity_reynolds=400 ff", 1.0)
    assert len(of_one) == 2 * len(OPTIMIZERS)
    of_two = suite.jobs([0], "heat1d kdv quintic_hashed gauss_newton", 1.0)
    assert [job.case.name for job in of_two] == ["heat1d", "kdv"]
    with pytest.raises(ConfigError, match=r"ONLY=heat2: there is .*; there are .*kdv"):
        suite.jobs([0], "heat2", 1.0)


@pytest.mark.slow
def test_what_is_finished_stays_and_a_failure_is_an_outcome(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(METHODS, "spline", ("recipe=pde", "encoder=linear", "encoder.name=spline"))
    done, refused = job("heat1d", "ff"), job("heat1d", "spline")
    suite.run_jobs(ROOT, [done, refused], tmp_path, workers=2)
    record, outcome = (suite.result(each, tmp_path) for each in (done, refused))
    assert isinstance(record, RunRecord)
    assert (record.epochs, record.problem, record.encoder) == (2, "heat1d", "ff")
    assert isinstance(outcome, Outcome)
    assert outcome.status == "not possible"
    assert "take an interpolation of a higher degree" in outcome.reason
    assert "failed   heat1d, spline, adam, seed 0: not possible: " in capsys.readouterr().out
    # Runs with other settings are not found.
    assert suite.result(Job(Case("heat1d"), "ff", "adam", 0, 6.0), tmp_path) is None

    table = suite_table.make_table([done, refused, job("heat1d", "mlp")], tmp_path)
    assert [*table["method"].unique()] == ["ff", "spline"]
    own = table.set_index("quantity").loc["u"]
    assert own["error"] == record.l2_u
    assert set(table["quantity"]) == {"u", "u_x", "u_t", "u_xx", ""}
    assert table.set_index("method").at["spline", "reason"] == outcome.reason
    suite_table.write_tables(table, tmp_path / "out")
    page = (tmp_path / "out/suite.md").read_text()
    assert f"- `heat1d`, spline, adam: not possible: {outcome.reason}" in page
    assert len(pd.read_csv(tmp_path / "out/suite.csv")) == len(table)


class EndsItself(Callback):
    """Ends the process in the middle of training, as a scheduler does."""

    def on_train_start(self, *_: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.slow
def test_a_run_that_a_signal_has_ended_is_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    callback = f"+callbacks.own._target_={EndsItself.__module__}.{EndsItself.__qualname__}"
    monkeypatch.setitem(OPTIMIZERS, "adam", (*OPTIMIZERS["adam"], callback))
    suite.run_jobs(ROOT, [job("heat1d", "ff")], tmp_path, workers=1)
    assert "failed   heat1d, ff, adam, seed 0: it was asked to end" in capsys.readouterr().out
    assert suite.result(job("heat1d", "ff"), tmp_path) is None


def _write(job: Job, runs: Path, l2_u: float | None, **metrics: float) -> None:
    """Write the record of a run of the job, which has diverged if there is no error."""
    status = {"status": "completed", "diverged_epoch": None}
    if l2_u is None:
        status = {"status": "diverged", "diverged_epoch": 2}
    record = RunRecord(
        **status, experiment=None, encoder="cubic", preset=None, task="pinn",
        problem=job.case.problem, seed=job.seed, epochs=2, epochs_requested=2, learning_rate=1e-3,
        metrics={"mse_u": 1.0, "l2_u": l2_u, **metrics, "loss": 1.0}, train_seconds=1.0,
        warmup_seconds=0.1, evaluation_seconds=0.1, wall_seconds=2.0, n_parameters=10,
        peak_memory_mb=1.0, config_hash="", overrides=[*job.overrides, "run_dir=there"],
        environment={"torch_threads": 1, "processor": "P"},
    )  # type: ignore[arg-type]  # fmt: skip
    job.directory(runs).mkdir(parents=True)
    write_record(job.directory(runs), record)


def floor_of(page: str, case: str) -> str:
    """The cell of a page in the row of a case and the column of the floor."""
    lines = [[cell.strip() for cell in line.split("|")] for line in page.splitlines()]
    [heads] = [line for line in lines if "Problem" in line]
    [own] = [line for line in lines if f"`{case}`" in line[:2]]
    return own[heads.index("floor")]


def test_errors_below_the_references_and_beside_published_ones(tmp_path: Path) -> None:
    burgers = [job("burgers1d", "cubic", seed) for seed in (0, 1, 2)]
    for one, l2 in zip(burgers, (1e-13, 2e-13, None), strict=True):  # the reference: 4e-11
        _write(one, tmp_path, l2)
    flow = [job("flow_mixing", "mlp"), job("flow_mixing", "quintic")]
    _write(flow[0], tmp_path, 1e-4)  # published: 2.35e-4
    _write(flow[1], tmp_path, 1e-3)
    coefficients = job("inverse_burgers", "cubic")
    _write(coefficients, tmp_path, 1e-3, error_speed=1e-4, error_viscosity=0.024)  # twice that
    free = job("heat1d", "cubic")
    _write(free, tmp_path, 1e-5)
    jobs = [*burgers, *flow, coefficients, free]

    made = suite_table.make_table(jobs, tmp_path)
    table = made.set_index(["case", "method", "quantity"])
    own = table.loc[("burgers1d", "cubic", "u")]
    assert (own["seeds"], own["diverged"], own["error"], own["error_low"]) == (3, 1, 2e-13, 1e-13)
    assert own["error_high"] == float("inf")
    assert bool(own["is_below_reference"])
    assert not table.at[("flow_mixing", "mlp", "u"), "is_below_reference"]

    (tmp_path / "out").mkdir()
    found = [
        ("burgers1d", 24, 1e-3, 0.1),
        ("burgers1d", 96, 1e-12, 0.94),
        ("flow_mixing", 8, 2e-4, 3),
    ]
    floor = pd.DataFrame(found, columns=["problem", "cells", "l2", "seconds"])
    floor.assign(quantity="u").to_csv(tmp_path / "out/floor.csv", index=False)
    summary = suite_table.write_tables(made, tmp_path / "out")
    page = (tmp_path / "out/suite.md").read_text()
    assert "≤ 4.0e-11 A" in page
    assert [floor_of(page, case) for case in ("burgers1d", "flow_mixing", "heat1d")] == [
        *("≤ 4.0e-11, 0.94 s", "2.0e-4, 3 s", "–"),
    ]
    written = pd.read_csv(tmp_path / "out/suite.csv").set_index(["case", "method", "quantity"])
    assert written.loc[("burgers1d", "cubic", "u"), ["floor_error", "floor_seconds"]].tolist() == [
        *(1e-12, 0.94),
    ]
    assert "with a grid and a network: 1 of 3 problems" in summary[0]
    assert "with any field: 2 of 3 problems" in summary[1]
    [missed] = [line for line in summary if line.startswith("- ")]
    assert missed.startswith("- `inverse_burgers`: ")
    assert "2.0 times" in missed
    assert "heat1d" not in "".join(summary)


def test_fields_with_settings_of_their_own_count_apart(tmp_path: Path) -> None:
    """Fields of ``make solvers``: a network with two good seeds of three, splines with one
    coefficient worse than published, and splines with both better."""
    flow, burgers = job("flow_mixing", "quintic"), job("inverse_burgers", "cubic")
    _write(flow, tmp_path, 1e-3)  # published: 2.35e-4
    _write(burgers, tmp_path, 1e-3, error_speed=1.0, error_viscosity=1.0)  # 4.2e-4 and 1.2e-2
    made = suite_table.make_table([flow, burgers], tmp_path)
    rows = [
        ("flow_mixing pinn: septic 9 cells + MLP 8", seed, "u", l2, 8, 40.0)
        for seed, l2 in enumerate((1e-5, 1e-2, 2e-5))
    ]

    def splines(cells: int, speed: float, viscosity: float) -> list[tuple[object, ...]]:
        row = f"inverse_burgers pinn: nonic {cells} cells"
        errors = {"u": 1e-9, "speed": speed, "viscosity": viscosity}
        return [(row, 0, name, l2, 0, 7.0) for name, l2 in errors.items()]

    def written(*rows: tuple[object, ...]) -> tuple[str, str, list[list[str]]]:
        columns = ["row", "seed", "unknown", "l2", "width", "seconds"]
        table = pd.DataFrame(rows, columns=columns).assign(kind="pinn")
        table.to_csv(tmp_path / "solvers.csv", index=False)
        network, any_field, *_ = suite_table.write_tables(made, tmp_path)
        page = (tmp_path / "suite.md").read_text().partition("## Settings")[2]
        lines = [line.split("|")[3:-1] for line in page.splitlines() if line[:3] == "| `"]
        return network, any_field, [[cell.strip() for cell in line] for line in lines]

    worse = splines(64, 1e-4, 2.4e-2)
    network, any_field, lines = written(*rows, *worse)
    assert "0 of 2 problems that have one; 1 with those of" in network
    assert "0 of 2 problems that have one; 1 with those of" in any_field
    of_flow = ["u", "2.0e-5", "40", "3", "2.3e-4"]
    assert lines == [of_flow, ["speed, viscosity", "8.4e-4", "7", "1", "4.2e-4"]]

    network, any_field, lines = written(*rows, *worse, *splines(128, 1e-4, 6e-3))
    assert "; 1 with those of" in network
    assert "; 2 with those of" in any_field
    assert lines[-1] == ["speed, viscosity", "2.1e-4", "7", "1", "4.2e-4"]

    same_field = [("wave1d pinn: nonic 64 cells", 0, "u", 3e-9, 0, 2.0)]
    *_, lines = written(*worse, *same_field)  # a field of two problems is a line of each
    assert [line[1] for line in lines] == ["8.4e-4", "3.0e-9"]


def test_a_published_mean_is_held_against_the_mean_of_ours(tmp_path: Path) -> None:
    """For the lid-driven cavity, the mean over u, v and p was published as 1.13e-4."""
    flow = job("cavity", "quintic")
    _write(flow, tmp_path, 3e-5, l2_v=3e-5, l2_p=2.4e-4)
    made = suite_table.make_table([flow], tmp_path)
    errors = [("u", 1e-5), ("v", 2e-5), ("p", 3e-4)]
    rows = [("cavity pinn: quintic 9 cells", 0, name, l2, 0, 7.0) for name, l2 in errors]
    columns = ["row", "seed", "unknown", "l2", "width", "seconds"]
    table = pd.DataFrame(rows, columns=columns).assign(kind="pinn")
    table.to_csv(tmp_path / "solvers.csv", index=False)
    network, any_field, *_ = suite_table.write_tables(made, tmp_path)
    assert "1 of 1 problems" in network
    assert "1 of 1 problems" in any_field
    [line] = [
        line for line in (tmp_path / "published.md").read_text().splitlines() if "`cavity`" in line
    ]
    assert [cell.strip() for cell in line.split("|")[2:-1]] == [
        *("mean of u, v, p", "1.1e-4", "**1.1e-4**", "7.0", "–", "–"),
    ]


def test_published_numbers_are_of_cases_and_quantities_that_there_are() -> None:
    published = pd.read_csv(suite_table.PUBLISHED, keep_default_na=False)
    tuned = suite_table.own_settings(suite_table.RESULTS / "tables" / "solvers.csv")["case"]
    assert set(published["case"]) <= {case.name for case in suite.CASES} | {*tuned}
    assert set(published["read"]) == set(published["comparable"]) == {"yes", "no"}
    assert all(float(error) > 0 for error in published["error"])
    assert all(published["source"]) and all(published["definition"])
