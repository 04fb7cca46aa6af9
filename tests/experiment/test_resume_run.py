"""`train.py resume=RUN`, and checkpoints that it refuses."""

from __future__ import annotations

import math
import os
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml

from diffhash.experiment.build import build
from diffhash.experiment.checks import ConfigError
from diffhash.experiment.resume import hydra_value, resume_argument
from diffhash.results import read_history, read_record

Call = Callable[..., Any]
SETTINGS = ("encoder=cubic", "encoder.encoding.n_levels=2", "trainer.schedule=cosine", "seed=3")


def test_the_run_is_all_that_is_named(
    command_line: Call, train: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The printed argument works for a name with characters special to Hydra and the shell."""
    monkeypatch.chdir(tmp_path)
    directory, _ = train(*SETTINGS, "task=data", "run_dir='lr=0.1, a [b] λ(1)'")
    [argument] = shlex.split(resume_argument(directory))
    done = command_line("train.py", argument, "trainer.epochs=12", "logger=none")
    assert done.code in (0, None), done.err
    record = read_record(directory)
    assert (record.status, record.epochs, record.seed, record.task) == ("completed", 12, 3, "data")
    assert list(read_history(directory)["epoch"]) == [2, 4, 6, 8, 10, 12]
    half = 1.4e-3 * (1 + math.cos(math.pi / 2)) / 2
    assert (
        "schedule=cosine: at epoch 6 the learning rate was 0, of the cosine over 6 epochs; "
        f"it goes on with {half:.3g} and falls to 0 at epoch 12"
    ) in done.err
    stored = yaml.safe_load((directory / "config.yaml").read_text())
    assert (stored["resume"], stored["trainer"]["epochs"]) == (None, 12)
    assert [path.name for path in tmp_path.iterdir()] == [directory.name]


@pytest.mark.parametrize(
    "text",
    ["", "- 1", "a: &a [*a]", "a: " + "[" * 50_000, "\x00", '"\\e[2J": 1', "a: !!js x"],
)
def test_a_config_that_is_none(
    command_line: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run/checkpoint.ckpt").touch()
    (tmp_path / "run/config.yaml").write_text(text)
    done = command_line("train.py", "resume=run", "encoder=mlp")
    [line] = done.err.splitlines()
    assert (done.code, done.out) == (1, "") and line.isprintable()
    assert line.startswith("error: ")


@pytest.mark.parametrize("name", ["a\nb", "\x1b[31m it's", "tab\t\\'", "\u202e", "\udcff"])
def test_a_name_that_does_not_print_is_still_one_word_for_the_shell(name: str) -> None:
    argument = resume_argument(Path("runs") / name)
    assert argument.isprintable()
    echo = ["bash", "-c", f"printf %s {argument}"]
    said = os.fsdecode(subprocess.run(echo, capture_output=True, check=True).stdout)
    assert said == f"resume={hydra_value(f'runs/{name}/checkpoint.ckpt')}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("resume=nowhere",), "resume=nowhere: nowhere/config.yaml: there is no such file"),
        (("resume=run",), "resume=run: it has 6 epochs already, trainer.epochs=6 asks for no more"),
        (("resume=run", "seed=4"), "resume=run: was trained with seed=3, here it is 4"),
        (("resume=run", "task=data"), "resume=run: task=data: its run is of task=pinn"),
        (("resume=run", "encoder=ff"), "resume=run: encoder=ff: its run is of encoder=cubic"),
        (
            ("resume=run", "optimizer=lbfgs"),
            "optimizer=lbfgs: its run has its own",
        ),
        (("resume=run", "encoder/preset=best"), "encoder/preset=best: its run has its own"),
        (("resume=run", "ckpt_path=run/checkpoint.ckpt"), "give no ckpt_path with it"),
    ],
)
def test_what_cannot_be_resumed(
    command_line: Call,
    train: Call,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    train(*SETTINGS)
    done = command_line("train.py", *arguments)
    assert done.code == 1
    assert done.err.startswith("error: ") and done.err.count("\n") == 1
    assert message in done.err


def test_the_choices_of_the_run_may_be_given_again(
    command_line: Call, train: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    train(*SETTINGS)
    done = command_line("train.py", "encoder=cubic", "task=pinn", "resume=run", "trainer.epochs=7")
    assert done.code == 0, done.err
    assert read_record(tmp_path / "run").epochs == 7


def test_a_run_that_was_killed_before_its_first_checkpoint(
    command_line: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.partial").mkdir()
    (tmp_path / "run.partial/config.yaml").write_text("seed: 0\n")
    done = command_line("train.py", "resume=run")
    assert done.code == 1
    assert "resume=run: run.partial/checkpoint.ckpt: there is no such file" in done.err
    assert "killed before its first checkpoint; start it anew" in done.err


def test_a_history_is_that_of_the_undisturbed_run(
    train: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first run ends between two evaluations, and is then continued."""
    first, _ = train(f"run_dir={tmp_path}/first", "trainer.epochs=5")
    assert list(read_history(first)["epoch"]) == [2, 4, 5]
    longer, _ = train(f"ckpt_path={first}/checkpoint.ckpt", "trainer.epochs=9")
    whole, _ = train(f"run_dir={tmp_path}/whole", "trainer.epochs=9")
    one, other = (read_history(d).drop(columns="seconds") for d in (longer, whole))
    pd.testing.assert_frame_equal(one, other, check_exact=True)


# ---------------------------------------------------------------------------- which checkpoint


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        ("seed=7", "seed=0, here it is 7"),
        ("seeds=[0,1]", "seed=0, here it is [0, 1]"),
        ("task=data", "was trained with task."),
        ("task.n_labels=9", "task.n_labels=8, here it is 9"),
        ("problem.k=3", "problem.k="),
    ],
)
def test_of_another_seed_task_or_problem(
    tiny_config: Call, train: Call, other: str, difference: str
) -> None:
    directory, _ = train()
    with pytest.raises(ConfigError, match="was trained with ") as caught:
        build(tiny_config(other, f"ckpt_path={directory}/checkpoint.ckpt", "trainer.epochs=9"))
    assert difference in str(caught.value)


def test_of_an_older_version(tiny_config: Call, train: Call, tmp_path: Path) -> None:
    """Such a checkpoint has neither the seed and the task nor a digest."""
    directory, _ = train()
    checkpoint = torch.load(directory / "checkpoint.ckpt", weights_only=True)
    own = checkpoint["diffhash"]
    own["origin"] = {k: v for k, v in own["origin"].items() if k.startswith(("enc", "trainer"))}
    del own["schedule"]
    torch.save(checkpoint, tmp_path / "old.ckpt")
    more = (f"ckpt_path={tmp_path}/old.ckpt", "trainer.epochs=9")
    build(tiny_config(*more))
    _, record = train(*more)
    assert record.epochs == 9
    with pytest.raises(ConfigError, match="was trained with encoder"):
        build(tiny_config("encoder=siren", *more))


def test_damaged_bytes_are_noticed(tiny_config: Call, train: Call, tmp_path: Path) -> None:
    directory, _ = train()
    whole = (directory / "checkpoint.ckpt").read_bytes()
    damaged = tmp_path / "damaged.ckpt"
    cfg = tiny_config(f"ckpt_path={damaged}", "trainer.epochs=9")
    shutil.copy(directory / "checkpoint.ckpt", damaged)
    build(cfg)
    for position in (*range(0, len(whole), len(whole) // 12), *range(-90, 0, 11)):
        changed = bytearray(whole)
        changed[position] ^= 4
        damaged.write_bytes(changed)
        with pytest.raises(ConfigError, match=r"^ckpt_path=.*damaged"):
            build(cfg)
