"""The train cost of rows, measured in short runs that leave everything else as it is."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from diffhash.paper.reproduce import Job, plan, plan_timings, run_jobs
from diffhash.paper.rows import row_records
from diffhash.paper.table import load_tables
from diffhash.paper.timing import find_timing, timing_directory
from diffhash.results import read_record

Call = Callable[..., Any]
ROWS = ("table1/ff", "table2/cubic")


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def jobs(root: Path, tiny: tuple[str, ...], runs: Path) -> Callable[..., list[Job]]:
    """``jobs(*overrides, rows=…, seeds=…)``: tiny runs of rows."""

    def make(*overrides: str, rows: Sequence[str] = ROWS[:1], seeds: Any = (0,)) -> list[Job]:
        return plan(root, runs, rows, seeds, (*tiny, *overrides))

    return make


@pytest.fixture
def time_jobs(root: Path, runs: Path) -> Callable[[list[Job]], list[str]]:
    """``time_jobs(jobs)``: run jobs and time them; returns the titles of failed ones."""

    def make(planned: list[Job]) -> list[str]:
        failed = run_jobs(root, planned, 1)
        failed += run_jobs(root, plan_timings(root, runs, planned, epochs=4), 1, "timings")
        return [job.title for job in failed]

    return make


def change(result: Path, **changes: Any) -> None:
    content = json.loads(result.read_text())
    content["environment"] |= changes.pop("environment", {})
    result.write_text(json.dumps(content | changes))


def test_a_timing_is_the_rows_run_made_short(
    jobs: Call, time_jobs: Call, ran: list[str], runs: Path
) -> None:
    [job] = planned = jobs("trainer.learning_rate=3e-3", "logger=csv")
    assert time_jobs(planned) == []
    record = read_record(job.directory)
    directory = timing_directory(runs, record)
    short = read_record(directory)
    assert (short.status, short.epochs, short.learning_rate) == ("completed", 4, 3e-3)
    assert short.environment["torch_threads"] == record.environment["torch_threads"]
    own, its = (
        yaml.safe_load((folder / "config.yaml").read_text())
        for folder in (job.directory, directory)
    )
    assert its["trainer"].pop("epochs") == 4
    assert own["trainer"].pop("epochs") == 6
    assert (own.pop("run_dir"), its.pop("run_dir")) == (str(job.directory), str(directory))
    assert own.pop("logger") and not its.pop("logger")
    assert its == own


def test_the_train_cost_is_that_of_an_epoch_alone_times_the_epochs(
    root: Path, jobs: Call, time_jobs: Call, ran: list[str], runs: Path
) -> None:
    [job] = planned = jobs()
    run_jobs(root, planned, 1)
    before = load_tables(runs)["table1"].frame.set_index("row").loc["ff"]
    assert before["train_seconds"] == read_record(job.directory).train_seconds
    time_jobs(planned)
    found = find_timing(runs, read_record(job.directory))
    assert found
    after = load_tables(runs)["table1"].frame.set_index("row").loc["ff"]
    assert after["train_seconds"] == pytest.approx(6 * found.seconds_per_epoch)
    changed = {"train_seconds", "decades_train_seconds", "timed_alone"}
    for name in set(before.index) - changed:
        assert before[name] == after[name] or before[name] != before[name], name
    assert (before["timed_alone"], after["timed_alone"]) == (False, True)


def test_timings_are_no_runs_of_a_row(
    jobs: Call, time_jobs: Call, ran: list[str], runs: Path
) -> None:
    planned = jobs(rows=ROWS)
    assert time_jobs(planned) == []
    found = row_records(runs)
    assert [[len(items) for items in rows.values()] for rows in found.values()] == [[1], [1]]


def test_one_timing_a_row_of_its_first_completed_run(
    jobs: Call, time_jobs: Call, ran: list[str], runs: Path
) -> None:
    planned = jobs(seeds=(0, 1))
    run = [*jobs("trainer.learning_rate=1e30"), planned[1]]
    # A row that only diverged has no cost to show.
    time_jobs([*run, *jobs("trainer.learning_rate=1e30", rows=ROWS[1:])])
    assert [title for title in ran if title.startswith("timing")] == ["timing of table1/ff"]
    assert find_timing(runs, read_record(planned[1].directory))
    assert find_timing(runs, read_record(planned[0].directory)) is None


@pytest.mark.slow
def test_what_has_been_timed_is_not_timed_again(
    jobs: Call, time_jobs: Call, ran: list[str]
) -> None:
    time_jobs(jobs())
    time_jobs(jobs(rows=ROWS))
    time_jobs(jobs(rows=ROWS, seeds=(0, 1)))
    timed = [title for title in ran if title.startswith("timing")]
    assert timed == ["timing of table1/ff", "timing of table2/cubic"]


@pytest.mark.parametrize(
    "reason",
    [
        *("config", "interrupted"),
        *(pytest.param(r, marks=pytest.mark.slow) for r in ("run again", "processor", "torch")),
    ],
)
def test_what_has_changed_is_timed_again(
    jobs: Call, time_jobs: Call, ran: list[str], runs: Path, reason: str
) -> None:
    [job] = planned = jobs()
    time_jobs(planned)
    result = timing_directory(runs, read_record(job.directory)) / "result.json"
    if reason == "config":
        planned = jobs("encoder.network.width=8")
    elif reason == "run again":
        later = time.time() + 60
        os.utime(job.directory / "result.json", (later, later))
    elif reason == "interrupted":
        change(result, status="interrupted")
        assert find_timing(runs, read_record(job.directory)) is None
    else:
        change(result, environment={reason: "another"})
    time_jobs(planned)
    assert [title for title in ran if title.startswith("timing")] == ["timing of table1/ff"] * 2
    assert find_timing(runs, read_record(job.directory))


def test_a_row_that_cannot_be_timed_does_not_stop_the_others(
    root: Path, jobs: Call, time_jobs: Call, ran: list[str], runs: Path
) -> None:
    planned = jobs(rows=ROWS)
    run_jobs(root, planned, 1)
    blocked = timing_directory(runs, read_record(planned[0].directory))
    blocked.parent.mkdir(parents=True)
    blocked.write_text("in the way")
    assert time_jobs(planned) == ["timing of table1/ff"]
    assert find_timing(runs, read_record(planned[1].directory))


@pytest.mark.slow
def test_ctrl_c_while_a_row_is_timed(
    start: Call, command_line: Call, tiny: tuple[str, ...], runs: Path, tmp_path: Path
) -> None:
    """The timing in progress ends at once, as a part of one is useless; it is repeated later."""
    row = "table1/ff"
    # Steps long enough for the timing to last until the signal is there.
    long = ("trainer.epochs=400", "trainer.chunk=20", "task.n_labels=30000")
    arguments = [*tiny, *long, "--rows", row, "--runs", f"{runs}", "--output", f"{tmp_path}/out"]
    script: subprocess.Popen[str] = start("scripts/reproduce_tables.py", *arguments)
    while not list((runs / "timing").rglob("*.partial/config.yaml")):
        assert script.poll() is None, script.communicate()
        time.sleep(0.05)
    os.killpg(script.pid, signal.SIGINT)
    _, err = script.communicate(timeout=60)
    assert script.returncode == 130
    assert "Traceback" not in err
    assert "interrupted: finished runs stay" in err
    record = read_record(runs / row / "seed0")
    assert record.status == "completed"
    assert find_timing(runs, record) is None
    assert command_line("scripts/reproduce_tables.py", *arguments).code == 0
    assert find_timing(runs, record)
