"""`train.py` as a user calls it: exit codes, and the output on each stream."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from diffhash.results import find_records, read_history, read_record

Call = Callable[..., Any]


@pytest.mark.parametrize(
    ("override", "names"),
    [
        ("trainer.epoch=3", ["trainer.epoch"]),
        ("trainer.epochs=abc", ["trainer.epochs", "abc", "Integer"]),
        ("trainer.epochs=2.5", ["trainer.epochs", "2.5", "Integer"]),
        ("trainer.epochs=null", ["trainer.epochs", "not Optional"]),
        ("trainer.learning_rate=fast", ["trainer.learning_rate", "fast", "Float"]),
        ("encoder.encoding.n_levels=1.5", ["encoder.encoding.n_levels", "1.5", "Integer"]),
        ("encoder.encoding.level=3", ["encoder.encoding.level"]),
        ("encoder.encoding.level_offset=3.5", ["level_offset", "3.5", "valid bool"]),
        ("encoder=cubical", ["encoder/cubical", "cubic", "siren"]),
        ("encoder/preset=good", ["encoder/preset/good", "best", "compact", "paper"]),
        ("task=fit", ["task/fit", "data", "pinn"]),
        ("problem=heat", ["problem/heat", "poisson1d"]),
        ("experiment=table1/cubes", ["experiment/table1/cubes"]),
        ("logger=visdom", ["logger/visdom", "tensorboard", "wandb", "none"]),
        ("trainer.precision=float16", ["float16", "float32, float64"]),
        ("trainer.schedule=linear", ["linear", "constant, cosine"]),
        ("trainer.derivatives=forward", ["forward", "taylor, autograd"]),
        ("trainer.accelerator=tpu", ["tpu", "auto, cpu, gpu"]),
        ("problem.label_region=0.5", ["problem.label_region"]),
        ("seed=one", ["seed", "one", "Integer"]),
        ("epochs=3", ["epochs"]),
        ("problem=heat1d encoder.network.skip=true", ["encoder/preset=neural"]),
        ("task.weights.equation=2", ["put a + before, +task.weights.equation=…"]),
        (
            "optimizer.damping=2",
            ["this optimizer has no settings; with optimizer=…", "gauss_newton"],
        ),
        ("sampler.k=2", ["this sampler has no settings; with sampler=… choose", "rad, resample"]),
        ("logger.wandb.project=x", ["this logger has no settings", "csv, mlflow"]),
    ],
)
def test_what_hydra_refuses(
    command_line: Call, tmp_path: Path, override: str, names: list[str]
) -> None:
    done = command_line("train.py", f"runs_dir={tmp_path}/runs", *override.split())
    assert done.code == 1
    assert done.out == ""
    assert "Traceback" not in done.err
    for name in names:
        assert name in done.err
    assert not list(tmp_path.iterdir())


def test_what_we_refuse(command_line: Call, tmp_path: Path) -> None:
    done = command_line("train.py", f"run_dir={tmp_path}/run", "trainer.epochs=0")
    assert done.code == 1
    assert done.out == ""
    assert done.err == "error: trainer.epochs=0: give at least 1\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "override",
    [
        "trainer.epochs=0",
        "encoder=[[0]]",
        f"seed={'9' * 5000}",
        "seed=3 encoder=null",
        "encoder=\x1b[2J",
        "\x1b[2J=1",
    ],
)  # fmt: skip
def test_one_line_that_a_terminal_shows_as_it_is(
    command_line: Call, tmp_path: Path, override: str
) -> None:
    name = f"'{tmp_path}/\x1b]0;x\x07\n\x9b2J'"
    overrides = override.split(" ") if "=null" in override else [override]
    done = command_line("train.py", f"run_dir={name}", *overrides)
    assert (done.code, done.out) == (1, "")
    [line] = done.err.splitlines()
    assert line.isprintable()
    wanted = overrides[-1].replace("\x1b", "\\x1b")
    assert line.startswith(f"error: {wanted}: ")


def test_a_name_that_a_terminal_would_obey(
    command_line: Call, tiny: tuple[str, ...], tmp_path: Path
) -> None:
    setting = f"run_dir='{tmp_path}/\x1b[2J'"
    done = command_line("train.py", "encoder=mlp", "name='\x1b[2J'", setting, *tiny)
    assert done.code in (0, None)
    assert "/\\x1b[2J" in done.out and "\\x1b[2J seed 0" in done.err
    assert all(line.isprintable() for line in (done.out + done.err).splitlines())
    assert (tmp_path / "\x1b[2J" / "result.json").is_file()


def test_looking_runs_nothing(
    command_line: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = command_line("train.py", "--cfg", "job", "experiment=table1/ff")
    assert done.code in (0, None)
    job = yaml.safe_load(done.out)
    assert (job["name"], job["trainer"]["epochs"]) == ("table1/ff", 10000)
    done = command_line("train.py", "--help")
    assert done.code in (0, None)
    encoders = "cubic, ff, hermite, linear, mlp, quintic, s1, s2, siren"
    for line in (f"encoder: {encoders}", "task: data, pinn"):
        assert line in done.out.splitlines()
    assert not list(tmp_path.iterdir())


def test_looking_does_not_wait_for_the_training_code(root: Path) -> None:
    code = (
        "import runpy, sys; sys.argv = ['train.py', '--cfg', 'job']; "
        "runpy.run_path('train.py', run_name='__main__'); "
        "print({'lightning', 'diffhash.training'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "set()", done.stderr


def test_full_error_on_request(
    command_line: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(ValueError, match=r"trainer\.epochs=0"):
        command_line("train.py", f"run_dir={tmp_path}/run", "trainer.epochs=0")


@pytest.mark.parametrize("where", ["__init__", "solution", "conditions", "_equation", "import"])
def test_a_bug_in_the_users_code_has_its_traceback(
    command_line: Call,
    own_problem: Callable[[str], str],
    tiny: tuple[str, ...],
    tmp_path: Path,
    where: str,
) -> None:
    code = "from diffhash.problems import Poisson1D\nclass Own(Poisson1D):\n"
    code += "    def __init__(self):\n        super().__init__()\n"
    code += "    def solution(self, x):\n        return super().solution(x)\n"
    code += "    def conditions(self):\n        return super().conditions()\n"
    code += "    def _equation(self, x, d):\n        return super()._equation(x, d)\n"
    bug = "        [].index('a bug')\n"  # a ValueError, of which settings make use as well
    head = code.find(f"def {where}(")
    body = code.find("\n", head) + 1
    code = "{}['a bug']\n" + code if where == "import" else code[:body] + bug + code[body:]
    if where == "__init__":
        code = code.replace(bug, "        {}['a bug']\n")
    searchpath = own_problem(code)
    done = command_line(
        "train.py", searchpath, "problem=own", "encoder=mlp", *tiny, f"runs_dir={tmp_path}/runs"
    )
    assert done.code == 1
    assert "Traceback" in done.err
    assert "'a bug'" in done.err
    assert str(tmp_path / "outside") in done.err  # the file, and the line in it
    assert find_records(tmp_path) == []


def test_streams_of_a_run(start: Call, tiny: tuple[str, ...], tmp_path: Path) -> None:
    """The run is a separate process, not on a terminal."""
    run = start("train.py", "encoder=mlp", *tiny, f"run_dir={tmp_path}/run", cwd=tmp_path)
    out, err = run.communicate(timeout=120)
    assert run.returncode == 0
    assert re.fullmatch(
        r"completed after 6 epochs: mse_u \S+  l2_u \S+  max_u \S+  loss \S+  "
        rf"estimated error \S+  train \S+ s  {re.escape(str(tmp_path))}/run\n",
        out,
    )
    # One line of progress, at the end, and nothing of Lightning's or Hydra's.
    assert re.fullmatch(r"mlp pinn seed 0: 6/6  loss \S+  mse_u \S+  \d+ s\n", err)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_diverged_run(command_line: Call, tiny: tuple[str, ...], tmp_path: Path) -> None:
    done = command_line(
        *("train.py", "encoder=mlp", *tiny, f"run_dir={tmp_path}/run", "trainer.learning_rate=1e30")
    )
    assert done.code == 0
    assert done.out.startswith("diverged at epoch 2  train ")
    assert done.out.count("\n") == 1


def test_a_sweep_goes_on_after_a_divergence(
    command_line: Call, tiny: tuple[str, ...], tmp_path: Path
) -> None:
    done = command_line(
        *("train.py", "-m", "encoder=mlp", *tiny, "trainer.learning_rate=1e30,1e-3"),
        *(f"runs_dir={tmp_path}/runs", f"hydra.sweep.dir={tmp_path}/sweep"),
    )
    assert done.code == 0
    records = [record for _, record in find_records(tmp_path / "runs")]
    assert sorted((r.status, r.learning_rate) for r in records) == [
        ("completed", 1e-3),
        ("diverged", 1e30),
    ]


def test_a_sweep_goes_on_after_a_run_with_a_bad_setting(
    command_line: Call, tiny: tuple[str, ...], tmp_path: Path
) -> None:
    done = command_line(
        *("train.py", "-m", "encoder=mlp", *tiny, "seed=-1,1"),
        *(f"runs_dir={tmp_path}/runs", f"hydra.sweep.dir={tmp_path}/sweep"),
    )
    assert str(done.code).startswith("error: seed=-1: give 0 to")  # the exit code 1 of a process
    assert "error: seed=-1: give 0 to" in done.err
    assert "Traceback" not in done.err
    assert [record.seed for _, record in find_records(tmp_path / "runs")] == [1]


@pytest.mark.parametrize(
    ("overrides", "start"),
    [
        ("problem=heat1d,nope", "problem=nope: could not find problem/nope; choose one of"),
        ("seed=0,abc,2", "seed=abc: Value 'abc' of type 'str' could not be converted to Integer"),
        ("trainer.schedule=constant,linear", "trainer.schedule=linear: Invalid value 'linear'"),
        ("trainer.schedule=linear seed=0,1", "trainer.schedule=linear: Invalid value 'linear'"),
        ("encoder=null problem=heat1d,wave1d", "encoder=null: choose one of cubic, "),
        ("a=b=c seed=0,1", "a=b=c: mismatched input '='"),
        ("launcher=nope seed=0,1", "launcher=nope: could not find launcher/nope; choose one of"),
    ],
)
def test_a_sweep_that_cannot_be_composed_runs_nothing(
    command_line: Call, tmp_path: Path, overrides: str, start: str
) -> None:
    done = command_line(
        *("train.py", "-m", *overrides.split(), f"runs_dir={tmp_path}/runs"),
        f"hydra.sweep.dir={tmp_path}/sweep",
    )
    assert (done.code, done.out) == (1, "")
    [line] = done.err.splitlines()
    assert line.startswith(f"error: {start}")
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_multirun(start: Call, tiny: tuple[str, ...], tmp_path: Path) -> None:
    run = start(
        *("train.py", "-m", "encoder=mlp,ff", "task=data,pinn", *tiny),
        *(f"runs_dir={tmp_path}/runs", f"hydra.sweep.dir={tmp_path}/sweep"),
    )
    out, err = run.communicate(timeout=120)
    assert run.returncode == 0, err
    assert out.count("\n") == 4
    records = find_records(tmp_path / "runs")
    assert sorted((record.encoder, record.task) for _, record in records) == [
        *(("ff", "data"), ("ff", "pinn"), ("mlp", "data"), ("mlp", "pinn")),
    ]
    for directory, record in records:
        assert record.status == "completed"
        assert str(directory) in out
        assert {f"encoder={record.encoder}", f"task={record.task}"} <= set(record.overrides)


def test_a_terminal_shows_a_bar_and_takes_ctrl_c(
    root: Path, tiny: tuple[str, ...], tmp_path: Path
) -> None:
    """After Ctrl-C the run is recorded as interrupted, and can be resumed."""
    arguments = ["encoder=mlp", *tiny, "trainer.epochs=1000000", f"run_dir={tmp_path}/run"]
    pid, terminal = pty.fork()  # a terminal of its own, whose Ctrl-C reaches the process
    if pid == 0:
        os.environ["TERM"] = "xterm-256color"
        with (tmp_path / "out").open("w") as out:
            os.dup2(out.fileno(), 1)
        os.execv(sys.executable, [sys.executable, str(root / "train.py"), *arguments])
    shown = ""
    while select.select([terminal], [], [], 120)[0]:
        try:
            shown += os.read(terminal, 4096).decode(errors="replace")
        except OSError:  # the process has ended
            break
        if "/1000000" in shown and "\x03" not in shown:
            os.write(terminal, b"\x03")
            shown += "\x03"
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 130
    assert "\x1b[" in shown and "━" in shown  # a bar
    assert "stopping after this epoch" in shown
    assert f"resume with resume={tmp_path}/run/checkpoint.ckpt" in shown
    [line] = (tmp_path / "out").read_text().splitlines()
    assert line.startswith("interrupted after ")

    record = read_record(tmp_path / "run")
    assert record.status == "interrupted"
    assert record.epochs_requested == 1000000 > record.epochs > 0
    checkpoint = torch.load(tmp_path / "run" / "checkpoint.ckpt", weights_only=True)
    assert checkpoint["diffhash"]["epochs_done"] == record.epochs
    assert read_history(tmp_path / "run")["epoch"].iloc[-1] == record.epochs


def test_kill_leaves_the_earlier_record_and_can_be_resumed(
    start: Call, train: Call, tiny: tuple[str, ...], tmp_path: Path
) -> None:
    directory, before = train()
    partial = directory.with_name("run.partial")
    run = start(
        *("train.py", "encoder=mlp", *tiny, "trainer.epochs=1000000", f"run_dir={directory}")
    )
    checkpoint = partial / "checkpoint.ckpt"
    while not checkpoint.exists() and run.poll() is None:
        select.select([], [], [], 0.05)
    # No other run can use the folder meanwhile.
    with pytest.raises(ValueError, match="another run is writing there"):
        train()
    run.kill()
    run.wait(timeout=60)
    assert read_record(directory) == before
    assert not (partial / "result.json").exists()
    assert [path for path, _ in find_records(tmp_path)] == [directory]

    # The killed run's last checkpoint, in the folder that the new run writes to itself.
    done = torch.load(checkpoint, weights_only=True)["diffhash"]["epochs_done"]
    _, after = train(f"ckpt_path={checkpoint}", f"trainer.epochs={done + 2}")
    assert after.status == "completed"
    assert after.epochs == done + 2
    assert read_record(directory) == after
    assert not partial.exists()
