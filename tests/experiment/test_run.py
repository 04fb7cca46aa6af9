"""One run and the record that it leaves."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from diffhash.experiment import folder
from diffhash.experiment.build import ConfigError, config_hash
from diffhash.experiment.run import run
from diffhash.results import find_records, read_history, read_predictions, read_record
from diffhash.training import ERRORS, FieldTraining
from diffhash.training.steps import EagerStep

Call = Callable[..., Any]
CUBIC = ("encoder=cubic", "encoder.encoding.n_levels=2", "encoder.encoding.log2_hashmap_size=6")
FILES = {
    "result.json",
    "config.yaml",
    "history.csv",
    "predictions.csv",
    "predictions.png",
    "checkpoint.ckpt",
}
SECONDS = ("train_seconds", "warmup_seconds", "evaluation_seconds", "wall_seconds")


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


@pytest.mark.usefixtures("real_figure")
def test_a_record_is_whole(train: Call, tiny_config: Call, tmp_path: Path) -> None:
    directory, record = train(*CUBIC, "task=data", "seed=3", "name=my/experiment")
    assert directory == tmp_path / "run"
    assert names(directory) == FILES
    assert names(tmp_path) == {"run"}
    assert read_record(directory) == record
    assert (record.status, record.diverged_epoch) == ("completed", None)
    assert (record.epochs, record.epochs_requested) == (6, 6)
    assert (record.encoder, record.preset, record.task) == ("cubic", "best", "data")
    assert (record.problem, record.seed) == ("poisson1d", 3)
    assert record.experiment == "my/experiment"
    assert record.learning_rate == 1.4e-3
    # (2 + 3) and (1 + 3) vertices, in rows of 8; the network is the preset's.
    table, network = (8 + 8) * 8, (16 + 1) * 64 + 2 * (64 + 1) * 64 + 64 + 1
    assert record.n_parameters == table + network
    assert record.train_seconds > 0
    assert record.evaluation_seconds > 0
    assert record.wall_seconds > record.train_seconds + record.evaluation_seconds
    assert {"torch", "python", "git_commit", "device"} <= set(record.environment)

    history = read_history(directory)
    errors = [f"{kind}_{name}" for kind in ERRORS for name in ("u", "ux", "uxx")]
    assert list(history.columns) == ["epoch", "seconds", "loss", *errors, "loss_data"]
    assert list(history["epoch"]) == [2, 4, 6]
    assert history["seconds"].iloc[-1] == pytest.approx(record.train_seconds)

    predictions = read_predictions(directory)
    columns = ["x", "u", "u_x", "u_xx", "exact_u", "exact_u_x", "exact_u_xx"]
    assert list(predictions.columns) == columns
    for metric, column in (("mse_u", "u"), ("mse_ux", "u_x"), ("mse_uxx", "u_xx")):
        mse = ((predictions[column] - predictions[f"exact_{column}"]) ** 2).mean()
        assert getattr(record, metric) == pytest.approx(mse)
        assert history[metric].iloc[-1] == pytest.approx(mse)

    stored = yaml.safe_load((directory / "config.yaml").read_text())
    assert stored["encoder"]["encoding"]["interpolation"] == "cubic"
    assert stored["trainer"]["epochs"] == 6
    assert (directory / "predictions.png").read_bytes().startswith(b"\x89PNG")
    cfg = tiny_config(*CUBIC, "task=data", "seed=3")
    assert record.config_hash == config_hash(cfg)


def test_a_run_can_be_had_again(train: Call, tmp_path: Path) -> None:
    first, second, other = (
        train(*CUBIC, f"seed={seed}", f"run_dir={tmp_path}/{name}")[0]
        for seed, name in ((0, "first"), (0, "second"), (1, "other"))
    )
    tables = [(d / "predictions.csv").read_bytes() for d in (first, second, other)]
    assert tables[0] == tables[1] != tables[2]


def test_runs_get_folders_of_their_own(tiny_config: Call, tmp_path: Path) -> None:
    for _ in range(2):
        run(tiny_config(f"runs_dir={tmp_path}"))
    directories = [directory for directory, _ in find_records(tmp_path)]
    assert len(directories) == 2
    assert {directory.parent for directory in directories} == {tmp_path / "mlp_pinn"}


def test_a_second_run_replaces_the_first(
    train: Call, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory, _ = train()
    assert "earlier record" not in capsys.readouterr().err
    (directory / "wandb").mkdir()  # where logger=wandb puts its files
    (directory / "wandb" / "files").touch()
    _, second = train("seed=1")
    told = f"run_dir={directory}: has an earlier record, which this run replaces when it ends"
    assert told in capsys.readouterr().err
    assert names(directory) == FILES
    assert read_record(directory) == second
    assert names(tmp_path) == {"run"}


def test_a_folder_of_the_name_is_used(train: Call, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "run")
    train(f"run_dir={tmp_path}/link")
    assert names(tmp_path) == {"run", "link"}
    assert names(tmp_path / "run") == FILES


@pytest.mark.parametrize("stage", ["training", "publishing"])
def test_a_run_that_breaks_leaves_the_earlier_record(
    train: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    directory, before = train()

    def breaks(*_: object, **__: object) -> None:
        raise RuntimeError("broken")

    if stage == "training":
        monkeypatch.setattr(FieldTraining, "training_step", breaks)
    else:
        monkeypatch.setattr(folder, "write_record", breaks)
    with pytest.raises(RuntimeError, match="broken"):
        train("seed=1")
    monkeypatch.undo()
    assert read_record(directory) == before
    assert names(directory) == FILES
    assert find_records(tmp_path) == [(directory, before)]

    _, after = train("seed=1")  # whatever was left is no hindrance
    assert find_records(tmp_path) == [(directory, after)]
    assert names(tmp_path) == {"run"}


def test_a_diverged_run(train: Call) -> None:
    directory, record = train("trainer.learning_rate=1e30", "trainer.epochs=50")
    assert names(directory) == FILES
    assert (record.status, record.diverged_epoch, record.epochs) == ("diverged", 2, 2)
    assert [record.mse_u, record.mse_ux, record.mse_uxx, record.loss] == [None] * 4
    result = json.loads((directory / "result.json").read_text())
    assert result["loss"] is None
    assert list(read_history(directory)["epoch"]) == [2]
    assert len(read_predictions(directory)) == 16


NAN_SOURCE = """
from diffhash.problems import Condition, Poisson1D

class Own(Poisson1D):
    def conditions(self):
        return [Condition("residual", self.domain, lambda x, d: d.u_xx, lambda x: x[:, 0] / 0)]
"""
NO_SOLUTION = """
from diffhash.geometry import Interval
from diffhash.problems import Condition, Problem

class Own(Problem):
    domain = Interval(x=(0, 1))

    def conditions(self):
        return [Condition("residual", self.domain, lambda x, d: d.u_xx, 1.0)]
"""


def test_a_source_that_is_not_finite(train: Call, own_problem: Call) -> None:
    with pytest.raises(ConfigError, match=r"residual: its target is not finite at \d+ of"):
        train(own_problem(NAN_SOURCE), "problem=own")


def test_a_problem_without_a_solution(train: Call, own_problem: Call) -> None:
    directory, record = train(own_problem(NO_SOLUTION), "problem=own")
    assert names(directory) == FILES
    assert record.status == "completed"
    assert record.mse_u is record.mse_ux is record.mse_uxx is None
    assert record.loss is not None
    predictions = read_predictions(directory)
    assert predictions["u_xx"].notna().all()
    assert predictions["exact_u"].isna().all()


def test_a_problem_without_a_solution_can_diverge(train: Call, own_problem: Call) -> None:
    searchpath = own_problem(NO_SOLUTION)
    for epochs in (1, 50):
        _, record = train(
            *(searchpath, "problem=own", "trainer.learning_rate=1e39"),
            f"trainer.epochs={epochs}",
        )
        assert (record.status, record.diverged_epoch) == ("diverged", 1 if epochs == 1 else 2)


# ------------------------------------------------------------------ interrupted, and resumed


@pytest.fixture
def interrupt(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], None]:
    """``interrupt(step, signal)``: send this process a signal in that step of every run."""

    def arm(step: int, signum: int) -> None:
        backward = EagerStep.backward
        steps = 0

        def sending(self: EagerStep, rows: Any = None) -> Any:
            nonlocal steps
            steps += 1
            if steps == step:
                os.kill(os.getpid(), signum)
            return backward(self, rows)

        monkeypatch.setattr(EagerStep, "backward", sending)

    return arm


def contents(directory: Path) -> tuple[pd.DataFrame, bytes, dict[str, torch.Tensor]]:
    history = read_history(directory).drop(columns="seconds")
    state = torch.load(directory / "checkpoint.ckpt", weights_only=True)["state_dict"]
    return history, (directory / "predictions.csv").read_bytes(), state


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("batch_size", ["null", "3"])
def test_an_interrupted_run_is_recorded_and_resumed_exactly(
    train: Call, tmp_path: Path, interrupt: Call, signum: int, batch_size: str
) -> None:
    settings = (*CUBIC, "trainer.epochs=9", f"trainer.batch_size={batch_size}", "task=data")
    whole, record = train(*settings, f"run_dir={tmp_path}/whole")
    assert record.status == "completed"

    interrupt(4 if batch_size == "null" else 10, signum)  # three steps an epoch
    directory, record = train(*settings)
    assert (record.status, record.epochs, record.epochs_requested) == ("interrupted", 4, 9)
    assert names(directory) == FILES
    assert record.mse_u is not None

    # The run is resumed in its own folder.
    _, record = train(*settings, f"ckpt_path={directory}/checkpoint.ckpt")
    assert (record.status, record.epochs) == ("completed", 9)
    for resumed, uninterrupted in zip(contents(directory), contents(whole), strict=True):
        if isinstance(resumed, pd.DataFrame):
            pd.testing.assert_frame_equal(resumed, uninterrupted, check_exact=True)
        elif isinstance(resumed, dict):
            assert all(torch.equal(resumed[name], uninterrupted[name]) for name in resumed)
        else:
            assert resumed == uninterrupted


def test_an_interruption_while_the_record_is_written_comes_too_late(
    train: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.getsignal(signal.SIGINT)
    publish = folder.RunFolder.publish

    def interrupted(*arguments: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        publish(*arguments)

    monkeypatch.setattr(folder.RunFolder, "publish", interrupted)
    directory, record = train()
    assert record.status == "completed"
    assert read_record(directory) == record
    assert signal.getsignal(signal.SIGINT) == before


def test_resumed_with_another_rate_the_record_says_so_and_uses_it(
    train: Call, tmp_path: Path
) -> None:
    first, _ = train("trainer.learning_rate=1e-3", f"run_dir={tmp_path}/first")
    losses = []
    for rate in ("1e-3", "1e-1"):
        _, record = train(
            *(f"ckpt_path={first}/checkpoint.ckpt", "trainer.epochs=12"),
            f"trainer.learning_rate={rate}",
        )
        assert record.learning_rate == float(rate)
        losses.append(record.loss)
    assert not np.isclose(losses[0], losses[1])
