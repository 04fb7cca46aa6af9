"""The train cost of rows, measured in short runs that leave everything else as it is."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from diffhash.experiment.checks import ConfigError
from diffhash.experiment.run import run
from diffhash.paper import reproduce as timing
from diffhash.paper.reproduce import time_rows
from diffhash.paper.rows import row_records
from diffhash.paper.table import load_tables
from diffhash.paper.timing import find_timing, timing_directory
from diffhash.results import RunRecord, read_record

Call = Callable[..., Any]
ROWS = ("table1/ff", "table2/cubic")
PAPER = Path(__file__).parents[2] / "results/paper"


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def run_row(config: Call, tiny: tuple[str, ...], runs: Path) -> Callable[..., RunRecord]:
    """``run_row(row, *overrides, seed=0)``: a tiny run of a row, where a reproduction has it."""

    def make(row: str, *overrides: str, seed: int = 0) -> RunRecord:
        directory = f"run_dir={runs}/{row}/seed{seed}"
        cfg = config(f"experiment={row}", *tiny, f"seed={seed}", directory, *overrides)
        [(_, record)] = run(cfg, [f"experiment={row}"])
        return record

    return make


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Experiments of the timings that were run; they run here."""
    names: list[str] = []

    def here(cfg: Any, overrides: list[str]) -> None:
        names.append(cfg.name)
        timing.run_here(cfg, overrides)

    monkeypatch.setattr(timing, "run_alone", here)
    return names


def change(result: Path, **changes: Any) -> None:
    content = json.loads(result.read_text())
    content["environment"] |= changes.pop("environment", {})
    result.write_text(json.dumps(content | changes))


def test_a_timing_is_the_rows_run_made_short(run_row: Call, timed: list[str], runs: Path) -> None:
    record = run_row("table1/ff", "trainer.learning_rate=3e-3")
    assert time_rows(runs, ["table1/ff"], epochs=4) == []
    directory = timing_directory(runs, record)
    short = read_record(directory)
    assert (short.status, short.epochs, short.learning_rate) == ("completed", 4, 3e-3)
    assert short.environment["torch_threads"] == record.environment["torch_threads"]
    own, its = (
        yaml.safe_load((folder / "config.yaml").read_text())
        for folder in (runs / "table1/ff/seed0", directory)
    )
    assert its["trainer"].pop("epochs") == 4
    assert own["trainer"].pop("epochs") == 6
    assert (own.pop("run_dir"), its.pop("run_dir")) == (
        str(runs / "table1/ff/seed0"),
        str(directory),
    )
    assert its == own


def test_the_train_cost_is_that_of_an_epoch_alone_times_the_epochs(
    run_row: Call, timed: list[str], runs: Path
) -> None:
    record = run_row("table1/ff")
    before = load_tables(runs, PAPER)["table1"].frame.set_index("row").loc["ff"]
    assert before["train_seconds"] == record.train_seconds
    time_rows(runs, ["table1/ff"])
    found = find_timing(runs, record)
    assert found
    after = load_tables(runs, PAPER)["table1"].frame.set_index("row").loc["ff"]
    assert after["train_seconds"] == pytest.approx(6 * found.seconds_per_epoch)
    changed = {"train_seconds", "decades_train_seconds", "timed_alone"}
    for name in set(before.index) - changed:
        assert before[name] == after[name] or before[name] != before[name], name
    assert (before["timed_alone"], after["timed_alone"]) == (False, True)


def test_timings_are_no_runs_of_a_row(run_row: Call, timed: list[str], runs: Path) -> None:
    for row in ROWS:
        run_row(row)
    before = {table: row_records(table, runs) for table in ("table1", "table2")}
    assert time_rows(runs, ROWS) == []
    assert {table: row_records(table, runs) for table in ("table1", "table2")} == before


def test_one_timing_a_row_of_its_first_completed_run(
    run_row: Call, timed: list[str], runs: Path
) -> None:
    run_row("table1/ff", "trainer.learning_rate=1e30")
    shutil.move(runs / "table1/ff/seed0", runs / "diverged")
    first = run_row("table1/ff", seed=1)
    shutil.move(runs / "diverged", runs / "table1/ff/seed0")
    change(runs / "table1/ff/seed0/result.json", learning_rate=first.learning_rate)
    run_row("table1/ff", seed=2)
    # A row that only diverged, or was never run, has no cost to show.
    run_row("table2/cubic", "trainer.learning_rate=1e30")
    time_rows(runs, [*ROWS, "table2/ff"])
    assert timed == ["table1/ff"]
    assert find_timing(runs, first)


def test_what_has_been_timed_is_not_timed_again(
    run_row: Call, timed: list[str], runs: Path
) -> None:
    run_row("table1/ff")
    time_rows(runs, ["table1/ff"])
    run_row("table2/cubic")
    time_rows(runs, ROWS)
    assert timed == ["table1/ff", "table2/cubic"]
    run_row("table1/ff", seed=1)
    time_rows(runs, ROWS)
    assert len(timed) == 2


@pytest.mark.parametrize("reason", ["config", "run again", "processor", "torch", "interrupted"])
def test_what_has_changed_is_timed_again(
    run_row: Call, timed: list[str], runs: Path, reason: str
) -> None:
    record = run_row("table1/ff")
    time_rows(runs, ["table1/ff"])
    result = timing_directory(runs, record) / "result.json"
    if reason == "config":
        record = run_row("table1/ff", "encoder.network.width=8")
        assert find_timing(runs, record) is None
    elif reason == "run again":
        later = time.time() + 60
        os.utime(runs / "table1/ff/seed0/result.json", (later, later))
    elif reason == "interrupted":
        change(result, status="interrupted")
        assert find_timing(runs, record) is None
    else:
        change(result, environment={reason: "another"})
    time_rows(runs, ["table1/ff"])
    assert timed == ["table1/ff"] * 2
    assert find_timing(runs, record)


def test_a_row_that_cannot_be_timed_does_not_stop_the_others(
    run_row: Call, timed: list[str], runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = [run_row(row) for row in ("table1/ff", "table1/siren", "table2/cubic")]
    blocked = timing_directory(runs, records[0])
    blocked.parent.mkdir(parents=True)
    blocked.write_text("in the way")
    (runs / "table1/siren/seed0/config.yaml").unlink()
    assert time_rows(runs, ("table1/siren", *ROWS)) == ["table1/siren", "table1/ff"]
    err = capsys.readouterr().err
    assert "failed   timing of table1/ff: run_dir=" in err
    assert "failed   timing of table1/siren: " in err and "config.yaml" in err
    assert find_timing(runs, records[2])


def test_an_interrupt_keeps_what_was_timed(
    run_row: Call, timed: list[str], runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [run_row(row) for row in ROWS]
    here = timing.run_alone

    def interrupted(cfg: Any, overrides: list[str]) -> None:
        here(cfg, overrides)
        if cfg.name == ROWS[1]:
            change(Path(cfg.run_dir) / "result.json", status="interrupted")

    monkeypatch.setattr(timing, "run_alone", interrupted)
    with pytest.raises(KeyboardInterrupt):
        time_rows(runs, ROWS)
    assert find_timing(runs, records[0])
    monkeypatch.setattr(timing, "run_alone", here)
    time_rows(runs, ROWS)
    assert timed == [ROWS[0], ROWS[1], ROWS[1]]


# ------------------------------------------------------------------------------------- for real


def test_in_a_process_of_its_own(run_row: Call, runs: Path) -> None:
    record = run_row("table1/ff")
    assert time_rows(runs, ["table1/ff"]) == []
    log = timing_directory(runs, record).with_suffix(".log")
    assert "table1/ff seed 0: 6/6" in log.read_text()
    assert find_timing(runs, record)


def test_an_error_of_that_process_arrives(run_row: Call, config: Call, runs: Path) -> None:
    run_row("table1/ff")
    cfg = config("experiment=table1/ff", f"run_dir={runs}/timed", "trainer.epochs=0")
    with pytest.raises(ConfigError, match=r"trainer\.epochs=0"):
        timing.run_alone(cfg, [])


@pytest.mark.slow
def test_ctrl_c_while_a_row_is_timed(
    start: Call, tiny: tuple[str, ...], runs: Path, tmp_path: Path
) -> None:
    """The timing under way ends at once: a part of one is of no use. The next attempt makes it."""
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
    assert time_rows(runs, [row]) == []
    assert find_timing(runs, record)
