"""Processes side by side: their start, end, failure and interruption."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from diffhash.experiment.workers import Command, run_side_by_side
from diffhash.results import find_records

MakeCommand = Callable[..., Command]


@pytest.fixture
def command(tmp_path: Path) -> MakeCommand:
    """``command(title, code, succeeded=…)``: a command that runs a script with this code."""

    def make(title: str, code: str, succeeded: Callable[[], bool] = lambda: True) -> Command:
        script = tmp_path / f"{title}.py"
        script.write_text(code)
        return Command(title, script, (), tmp_path / "logs" / f"{title}.log", succeeded)

    return make


def test_all_run_in_order_and_say_what_they_did(
    command: MakeCommand, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = tmp_path / "done"
    code = "import sys; open({!r}, 'a').write('{}'); print('noise'); print('result {}')"
    commands = [command(name, code.format(str(done), name, name)) for name in "abcde"]
    assert run_side_by_side(commands, workers=1) == []
    assert done.read_text() == "abcde"
    out = capsys.readouterr().out
    assert [line for line in out.splitlines() if line.startswith("started")] == [
        f"started  {name}" for name in "abcde"
    ]
    assert "finished a in 0 s: result a" in out
    assert "noise" not in out
    assert (tmp_path / "logs/a.log").read_text() == "noise\nresult a\n"


def test_as_many_at_a_time_as_there_are_workers(command: MakeCommand, tmp_path: Path) -> None:
    """Each waits until both have started: one after the other, they would fail."""
    code = (
        "import os, sys, time\n"
        "open('{0}/' + '{1}', 'w').close()\n"
        "end = time.monotonic() + 60\n"
        "while len(os.listdir('{0}')) < 2:\n"
        "    time.sleep(0.01)\n"
        "    if time.monotonic() > end: sys.exit(1)\n"
    )
    (tmp_path / "here").mkdir()
    commands = [command(name, code.format(tmp_path / "here", name)) for name in "ab"]
    assert run_side_by_side(commands, workers=2) == []


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two processor cores")
def test_workers_share_no_core(command: MakeCommand, tmp_path: Path) -> None:
    code = "import os; print(sorted(os.sched_getaffinity(0)), os.environ['OMP_NUM_THREADS'])"
    commands = [command(name, code + "; import time; time.sleep(0.5)") for name in "ab"]
    run_side_by_side(commands, workers=2)
    cores = []
    for name in "ab":
        numbers, _, threads = (tmp_path / f"logs/{name}.log").read_text().rpartition(" ")
        cores.append(set(map(int, numbers.strip("[]").split(", "))))
        assert len(cores[-1]) == int(threads)
    assert not cores[0] & cores[1]


def test_one_that_fails_does_not_stop_the_others(
    command: MakeCommand, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = command("wrong", "print('error: the reason'); raise SystemExit(3)")
    useless = command("useless", "print('no result')", succeeded=lambda: False)
    right = command("right", "print('a result')")
    assert run_side_by_side([wrong, useless, right], workers=1) == [wrong, useless]
    captured = capsys.readouterr()
    assert "failed   wrong with exit code 3" in captured.err
    assert "error: the reason" in captured.err
    assert "failed   useless with exit code 0" in captured.err
    assert "finished right" in captured.out


def test_one_that_takes_too_long_is_killed_and_failures_have_words_of_their_own(
    command: MakeCommand, capsys: pytest.CaptureFixture[str]
) -> None:
    told: list[tuple[int | None, bool]] = []

    def failed(code: int | None, is_late: bool) -> str:
        told.append((code, is_late))
        return "the reason"

    late = replace(command("late", "import time; time.sleep(60)"), limit=0.5, failed=failed)
    wrong = replace(command("wrong", "raise SystemExit(3)"), failed=failed)
    assert run_side_by_side([late, wrong], workers=1) == [late, wrong]
    assert told == [(-signal.SIGKILL, True), (3, False)]
    captured = capsys.readouterr()
    assert "failed   late: the reason" in captured.out
    assert not captured.err


@pytest.mark.skipif(sys.platform != "linux", reason="a limit of Linux")
def test_memory_is_limited(command: MakeCommand, tmp_path: Path) -> None:
    large = replace(command("large", "b = bytearray(1 << 32)"), memory=1 << 31)
    assert run_side_by_side([large], workers=1) == [large]
    assert "MemoryError" in (tmp_path / "logs/large.log").read_text()


def test_an_interrupt_stops_them_all_and_waits(command: MakeCommand, tmp_path: Path) -> None:
    """The signal reaches this process alone, as by `kill -INT`; Ctrl-C would reach its group."""
    code = (
        "import signal, sys, time\n"
        "def stop(*_):\n"
        "    time.sleep(0.2)\n"
        "    print('wrote the record', flush=True)\n"
        "    sys.exit(130)\n"
        "signal.signal(signal.SIGTERM, stop)\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)\n"
    )
    logs = [tmp_path / f"logs/{name}.log" for name in "ab"]

    def interrupt() -> None:
        while not all(log.exists() and "ready" in log.read_text() for log in logs):
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        run_side_by_side([command(name, code) for name in "abc"], workers=2)
    assert [log.read_text() for log in logs] == ["ready\nwrote the record\n"] * 2
    assert not (tmp_path / "logs/c.log").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ("-m", "launcher=joblib", "hydra.launcher.n_jobs=3", "seed=0,1"),
        pytest.param(
            ("trainer.devices=2",),
            marks=pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two cores"),
        ),
    ],
    ids=["joblib", "DDP"],
)
def test_no_process_outlives_a_killed_command_line(
    start: Callable, tiny: tuple[str, ...], tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    """Processes that train end and record their runs; those that wait for a job end, too."""
    run = start(
        *("train.py", *arguments, "encoder=mlp", *tiny, "trainer.epochs=10000000"),
        *("trainer.execution=eager", f"runs_dir={tmp_path}/runs", f"hydra.sweep.dir={tmp_path}/s"),
    )
    deadline = time.monotonic() + 120
    while not list(tmp_path.rglob("checkpoint.ckpt")) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(_of_session(run.pid)) > 1
    run.kill()
    run.wait()
    deadline = time.monotonic() + 20
    while (left := _of_session(run.pid)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not left
    if "-m" in arguments:
        assert {r.status for _, r in find_records(tmp_path / "runs")} == {"interrupted"}


def _of_session(session: int) -> list[str]:
    """The command lines of the processes in a session, such as one that `start` makes."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            text = stat.read_text()
            state, _, _, of = text.rpartition(")")[2].split()[:4]
            if int(of) == session and state != "Z":
                found.append(stat.with_name("cmdline").read_text().replace("\0", " "))
    return found
