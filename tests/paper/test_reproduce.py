"""Reproduction of the tables runs only missing or changed rows, after any interruption."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from diffhash.experiment.checks import ConfigError
from diffhash.experiment.locks import exclusive
from diffhash.paper import second_order
from diffhash.paper.reproduce import ROWS, Job, plan, run_jobs
from diffhash.results import find_records, read_record

Call = Callable[..., Any]
FEW = ("table1/mlp_10k", "table1/ff", "table2/cubic")
SCRIPT = "scripts/reproduce_tables.py"


@pytest.fixture
def jobs(root: Path, tiny: tuple[str, ...], tmp_path: Path) -> Callable[..., list[Job]]:
    """``jobs(*overrides, rows=…, seeds=…)``: the plan of a few rows, made small."""

    def make(*overrides: str, rows: Sequence[str] = FEW, seeds: Sequence[int] = (0,)) -> list[Job]:
        return plan(root, tmp_path / "runs", rows, seeds, (*tiny, *overrides))

    return make


def test_plan_of_everything(root: Path, tmp_path: Path) -> None:
    planned = plan(root, tmp_path, ROWS, [0, 1])
    assert len(planned) == 2 * len(ROWS)
    assert {job.directory for job in planned} == {
        tmp_path / row / f"seed{seed}" for row in ROWS for seed in (0, 1)
    }
    assert len({job.config for job in planned}) == len(planned)
    assert not any(job.record() for job in planned)
    by_work = sorted(planned, key=lambda job: -job.work)
    assert {job.row for job in by_work[:4]} == {"table1/mlp_100k", "table2/mlp_50k"}


def test_only_what_is_missing_is_run(
    root: Path, jobs: Call, ran: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_jobs(root, jobs(rows=FEW[:2]), workers=1) == []
    assert sorted(ran) == ["table1/ff seed 0", "table1/mlp_10k seed 0"]
    ran.clear()
    capsys.readouterr()
    assert run_jobs(root, jobs(seeds=(0,)), workers=1) == []
    assert ran == ["table2/cubic seed 0"]
    assert capsys.readouterr().out == "3 runs: 2 finished already, 1 to do\n"
    ran.clear()
    assert run_jobs(root, jobs(rows=FEW[:2], seeds=(0, 1)), workers=1) == []
    assert sorted(ran) == ["table1/ff seed 1", "table1/mlp_10k seed 1"]
    records = {str(path.relative_to(tmp_path / "runs")): r for path, r in find_records(tmp_path)}
    assert sorted(records) == [
        *("table1/ff/seed0", "table1/ff/seed1", "table1/mlp_10k/seed0", "table1/mlp_10k/seed1"),
        "table2/cubic/seed0",
    ]
    assert records["table1/ff/seed1"].experiment == "table1/ff"
    assert records["table1/ff/seed1"].seed == 1


def test_rows_that_the_paper_does_not_have_are_run_in_the_same_way(
    root: Path, jobs: Call, ran: list[str]
) -> None:
    """Gauss–Newton can converge before the last epoch, which is a finished run."""
    planned = jobs("optimizer.tolerance=0.99", rows=second_order.ROWS[:1])
    assert run_jobs(root, planned, workers=1) == []
    assert ran == ["second_order/cubic_data seed 0"]
    assert read_record(planned[0].directory).status == "converged"
    assert run_jobs(root, planned, workers=1) == []
    assert len(ran) == 1


def test_a_changed_setting_runs_again_what_it_changes(
    root: Path, jobs: Call, ran: list[str]
) -> None:
    run_jobs(root, jobs(), workers=1)
    ran.clear()
    # A setting of the pinn task alone has no place in the others' config.
    run_jobs(root, jobs(rows=FEW[:2]) + jobs("task.data_weight=2", rows=FEW[2:]), workers=1)
    assert ran == ["table2/cubic seed 0"]
    ran.clear()
    run_jobs(root, jobs("trainer.learning_rate=1e-3"), workers=1)
    assert sorted(ran) == ["table1/ff seed 0", "table1/mlp_10k seed 0", "table2/cubic seed 0"]


def test_what_was_interrupted_is_run_again_what_diverged_is_not(
    root: Path, jobs: Call, ran: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = ("trainer.learning_rate=1e30",)
    [job] = jobs(*overrides, rows=FEW[:1])
    assert run_jobs(root, [job], workers=1) == []
    assert read_record(job.directory).status == "diverged"
    assert job.record()

    record = read_record(job.directory)
    text = (job.directory / "result.json").read_text()
    text = text.replace('"status": "diverged"', '"status": "interrupted"')
    text = text.replace(f'"diverged_epoch": {record.diverged_epoch}', '"diverged_epoch": null')
    (job.directory / "result.json").write_text(text)
    assert job.record() is None
    run_jobs(root, [job], workers=1)
    assert len(ran) == 2


def test_a_row_that_fails_does_not_stop_the_others(
    root: Path, jobs: Call, ran: list[str], tmp_path: Path
) -> None:
    (tmp_path / "runs/table1/mlp_10k").mkdir(parents=True)
    (tmp_path / "runs/table1/mlp_10k/seed0").write_text("in the way")
    planned = jobs()
    failed = run_jobs(root, planned, workers=1)
    assert [job.row for job in failed] == ["table1/mlp_10k"]
    assert len(ran) == 3
    assert sorted(record.experiment or "" for _, record in find_records(tmp_path)) == [
        *("table1/ff", "table2/cubic"),
    ]


def test_any_folder_will_do(root: Path, tiny: tuple[str, ...], ran: list[str], tmp_path: Path):
    runs = tmp_path / "it's, a=folder (1) [x]"
    planned = plan(root, runs, FEW[:1], [0], tiny)
    assert run_jobs(root, planned, workers=1) == []
    assert [path for path, _ in find_records(runs)] == [runs / "table1/mlp_10k/seed0"]


def test_rows_and_settings_are_checked(root: Path, jobs: Call, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="row 'table1/cubes' is unknown; rows are table1/mlp_10k"):
        jobs(rows=["table1/cubes"])
    for override in ("trainer.epoch=3", "trainer.epochs=abc", "trainer.epochs"):
        with pytest.raises(ConfigError, match=r"trainer\.epoch"):
            jobs(override)
    assert not list(tmp_path.iterdir())


def test_one_reproduction_at_a_time(tmp_path: Path) -> None:
    with exclusive(tmp_path / "runs"):
        with (
            pytest.raises(ConfigError, match="runs: another process is using it"),
            exclusive(tmp_path / "runs"),
        ):
            pass
        with exclusive(tmp_path / "others"):
            pass
    with exclusive(tmp_path / "runs"):
        pass
    (tmp_path / "file").touch()
    with (
        pytest.raises(ConfigError, match=r"file/runs: cannot be written \(Not a directory\)"),
        exclusive(tmp_path / "file/runs"),
    ):
        pass


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rows", "table1/cubes"], "reproduce_tables: row 'table1/cubes' is unknown; rows are"),
        (["trainer.epochs=abc", "--rows", "table1/ff"], "trainer.epochs"),
        (["--seeds", "0"], "--seeds 0: give at least 1"),
        (["--jobs", "0"], "--jobs 0: give at least 1"),
        (["--seeds", "many"], "invalid int value: 'many'"),
    ],
)
def test_bad_arguments_of_the_script(
    command_line: Call, tmp_path: Path, arguments: list[str], message: str
) -> None:
    runs = ["--runs", f"{tmp_path}/runs", "--output", f"{tmp_path}/output"]
    done = command_line(SCRIPT, *arguments, *runs)
    assert done.code in (1, 2)
    assert message in done.err
    assert "Traceback" not in done.err
    assert not (tmp_path / "output").exists()


@pytest.mark.slow
def test_the_script_says_which_row_failed(
    command_line: Call, ran: list[str], tiny: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "runs/table1/mlp_10k").mkdir(parents=True)
    (tmp_path / "runs/table1/mlp_10k/seed0").write_text("in the way")
    done = command_line(
        *(SCRIPT, *tiny, "--rows", *FEW[:2], "--runs", f"{tmp_path}/runs"),
        *("--output", f"{tmp_path}/output"),
    )
    assert done.code == 1
    assert "error: table1/mlp_10k seed 0 has no record" in done.err
    assert "error: table1/ff" not in done.err
    assert "1 timings: 0 finished already, 1 to do" in done.out
    assert [title for title in ran if "timing" in title] == ["timing of table1/ff"]
    assert (tmp_path / "output/tables/table1.md").exists()


# ----------------------------------------------------------------------- for real, and killed

FIRST, SECOND = FEW[:2]


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Wait until a condition holds, while the process runs."""
    while not condition():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def is_younger(path: Path, than: float) -> bool:
    return path.exists() and path.stat().st_mtime > than


def is_alive(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def state(directory: Path) -> dict[str, tuple[int, bytes]]:
    return {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in directory.iterdir()}


def descendants(pid: int) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True)
    children = [int(line) for line in found.stdout.split()]
    return [*children, *(below for child in children for below in descendants(child))]


@pytest.mark.skipif(shutil.which("pgrep") is None, reason="needs pgrep")
@pytest.mark.slow
def test_killed_and_interrupted_no_finished_row_is_lost(
    start: Call, command_line: Call, tiny: tuple[str, ...], tmp_path: Path
) -> None:
    runs, output = tmp_path / "runs", tmp_path / "output"
    first, second = (runs / row / "seed0" for row in (FIRST, SECOND))
    arguments = [
        *(*tiny, "trainer.epochs=6000", "trainer.chunk=100", "--rows", FIRST, SECOND),
        *("--jobs", "1", "--runs", str(runs), "--output", str(output)),
    ]

    started = second.with_name("seed0.partial") / "config.yaml"

    # kill -9 while the second row runs.
    script = start(SCRIPT, *arguments)
    wait_until(started.exists, script)
    processes = descendants(script.pid)
    script.kill()
    script.wait()
    finished = state(first)
    assert read_record(first).status == "completed"
    assert [path for path, _ in find_records(runs)] == [first]
    assert processes
    while any(map(is_alive, processes)):  # its run dies with it
        time.sleep(0.02)

    # Ctrl-C: to the script and its runs alike.
    before = started.stat().st_mtime
    script = start(SCRIPT, *arguments)
    wait_until(lambda: is_younger(started, before), script)
    with pytest.raises(ConfigError, match="another process is using it"), exclusive(runs):
        pass
    os.killpg(script.pid, signal.SIGINT)
    out, err = script.communicate(timeout=60)
    assert script.returncode == 130
    assert "2 runs: 1 finished already, 1 to do" in out
    assert "interrupted: finished runs stay; the same command does the rest" in err
    assert "Traceback" not in err
    assert state(first) == finished
    statuses = {record.status for _, record in find_records(runs / SECOND)}
    assert statuses <= {"interrupted"}
    assert not output.exists()

    # The same command does the rest.
    done = command_line(SCRIPT, *arguments)
    assert done.code == 0, done.err
    assert "2 runs: 1 finished already, 1 to do" in done.out
    assert state(first) == finished
    assert read_record(second).status == "completed"
    assert {path.parent for path, _ in find_records(runs / "timing")} == {
        runs / "timing" / row for row in (FIRST, SECOND)
    }
    assert {"table1.csv", "table1.md"} <= {p.name for p in output.rglob("*")}
    assert {"figure1.png", "figure3.pdf"} <= {p.name for p in output.rglob("*")}
    assert "no records of Table II: its figures are left out" in done.err
