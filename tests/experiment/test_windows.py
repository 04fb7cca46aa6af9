"""Runs in windows of time: `trainer.windows`."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from lightning.pytorch.callbacks import Callback
from omegaconf import DictConfig, OmegaConf

from diffhash import solve
from diffhash.cli.app import app
from diffhash.experiment.build import config_hash
from diffhash.experiment.checks import ConfigError
from diffhash.experiment.restore import restore
from diffhash.experiment.run import run
from diffhash.optim import Task
from diffhash.problems import Heat1D
from diffhash.results import read_history, read_predictions, read_record

Call = Callable[..., Any]
HEAT = (
    "problem=heat1d", "encoder=quintic", "task.n_residual=60", "task.n_boundary=12",
    "trainer.windows=3",
)  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*between the points of training")
@pytest.mark.parametrize(
    ("optimizer", "windows"), [("adam", 3), ("gauss_newton", 3), ("gauss_newton", [0.1, 0.5])]
)
def test_the_command_line_and_python_give_equal_numbers(
    train: Call, optimizer: Any, windows: Any
) -> None:
    settings = {"chunk": 2} if optimizer == "adam" else {}
    solution = solve(
        Heat1D(), task=Task(n_residual=60, n_boundary=12), optimizer=optimizer, epochs=6,
        windows=windows, evaluation_points=16, progress=False, accelerator="cpu", **settings,
    )  # fmt: skip
    chunk = f"trainer.chunk={settings.get('chunk', 1)}"
    given = f"trainer.windows={windows}".replace(" ", "")
    directory, record = train(*HEAT, f"optimizer={optimizer}", chunk, given)
    history = read_history(directory)
    pd.testing.assert_frame_equal(
        history.drop(columns="seconds"), solution.history.drop(columns="seconds"),
        check_exact=True, check_dtype=False,
    )  # fmt: skip
    metrics = {name: record.metrics[name] for name in solution.metrics}
    assert metrics == dict(solution.metrics)
    assert record.estimate == solution.estimate
    assert record.warnings == solution.warnings
    ends = [0, *windows, 1] if isinstance(windows, list) else []
    told = [text.partition(":")[0] for text in record.warnings if windows != 3]
    assert told == [f"t from {low:g} to {high:g}" for low, high in pairwise(ends)]
    assert record.epochs == history["epoch"].iloc[-1] == solution.history.epoch.iloc[-1]


def test_the_record_is_of_all_windows(train: Call, tmp_path: Path) -> None:
    directory, record = train(*HEAT, "logger=csv")
    assert (record.status, record.epochs, record.epochs_requested) == ("completed", 18, 18)
    history = read_history(directory)
    assert history["window"].tolist() == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert history["epoch"].tolist() == [2, 4, 6, 8, 10, 12, 14, 16, 18]
    assert history["seconds"].is_monotonic_increasing
    assert history["seconds"].iloc[-1] == pytest.approx(record.train_seconds)
    (logged,) = (directory / "logs").rglob("metrics.csv")
    steps = pd.read_csv(logged).dropna(subset="history/window")
    assert steps["step"].tolist() == history["epoch"].tolist()
    assert steps["history/window"].tolist() == history["window"].tolist()
    predictions = read_predictions(directory)
    error = ((predictions["u"] - predictions["exact_u"]) ** 2).mean()
    assert record.metrics["mse_u"] == pytest.approx(error)

    restored = restore(directory, 16)
    assert restored.metrics()["mse_u"] == pytest.approx(record.metrics["mse_u"], rel=1e-6)
    at = tmp_path / "points.csv"
    predictions[["x", "t"]].to_csv(at, index=False)
    table, call = tmp_path / "table.csv", CliRunner().invoke
    done = call(app, ["export", str(directory), "--at", str(at), "--output", str(table)])
    assert done.exit_code == 0
    found = pd.read_csv(table)
    np.testing.assert_allclose(found["u"], predictions["u"], rtol=1e-5, atol=1e-7)
    now = json.loads(call(app, ["evaluate", str(directory), "--points", "16", "--json"]).stdout)
    assert now["metrics"]["mse_u"]["ratio"] == pytest.approx(1, rel=1e-6)
    listed = call(app, ["list", str(tmp_path), "-w", "trainer.windows=3", "--json"]).stdout
    assert [Path(entry["run"]) for entry in json.loads(listed)] == [directory]


class Interrupting(Callback):
    """Sends this process a signal in the second chunk of the second window."""

    def __init__(self) -> None:
        self._chunks = 0

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        self._chunks += 1
        if self._chunks == 5:
            os.kill(os.getpid(), signal.SIGTERM)


def test_an_interrupted_run_says_so_and_leaves_what_it_has(
    command_line: Call, tiny: tuple[str, ...], tmp_path: Path
) -> None:
    name = f"{__name__}.{Interrupting.__name__}"
    arguments = (*tiny, *HEAT, f"run_dir={tmp_path}/run", f"+callbacks.mine._target_={name}")
    result = command_line("train.py", *arguments)
    assert result.code == 130
    assert "interrupted" in result.out
    assert "resume" not in result.err
    record = read_record(tmp_path / "run")
    assert (record.status, record.epochs, record.epochs_requested) == ("interrupted", 9, 18)
    assert record.estimate is None
    assert read_history(tmp_path / "run")["window"].tolist() == [1, 1, 1, 2, 2]
    now = restore(tmp_path / "run", 16, trust_code=True).metrics()
    assert now["mse_u"] == pytest.approx(record.metrics["mse_u"], rel=1e-6)


def test_a_window_that_diverges_is_the_last(train: Call) -> None:
    directory, record = train(*HEAT, "trainer.learning_rate=1e39")
    assert record.status == "diverged"
    assert set(read_history(directory)["window"]) == {1}


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("seeds=[0,1]", r"seeds=\[0, 1\] .* leave it out"),
        ("ckpt_path=some.ckpt", "ckpt_path=some.ckpt .* leave it out"),
        ("problem=poisson1d", "^trainer.windows=3: .* has no axis 't'"),
        ("problem=inverse_burgers", "^trainer.windows: InverseBurgers has coefficients"),
        ("trainer.windows=0", "^trainer.windows=0: give"),
        ("trainer.windows=null", "^trainer.windows=None: allowed are"),
        ("trainer.windows=[0.2,0.1]", r"^trainer.windows=\[0.2, 0.1\]: give the times"),
        ("trainer.windows=[0.1,2]", r"^trainer.windows=\[0.1, 2\]: give the times"),
    ],
)
def test_what_windows_cannot_do_is_refused_before_training(
    tiny_config: Callable[..., DictConfig], tmp_path: Path, override: str, named: str
) -> None:
    with pytest.raises(ConfigError, match=named):
        run(tiny_config(*HEAT, f"run_dir={tmp_path}/run", override))
    assert not list(tmp_path.iterdir())


def test_it_goes_on_from_no_checkpoint(
    train: Call, command_line: Call, tmp_path: Path, tiny_config: Callable[..., DictConfig]
) -> None:
    directory, record = train(*HEAT)
    result = command_line("train.py", f"resume={directory}", "trainer.epochs=8")
    assert result.code == 1
    assert result.err.startswith(
        "error: trainer.windows=3: windows are trained one after the other"
    )
    assert len(result.err.splitlines()) == 1
    # Killed before its record was published: it begins anew, and what was there is kept.
    directory.rename(tmp_path / "run.partial")
    again, other = train(*HEAT)
    assert other.metrics == record.metrics
    assert (again, again.exists()) == (directory, True)


def test_a_run_is_the_same_as_before_there_were_windows_and_betas(
    tiny_config: Callable[..., DictConfig],
) -> None:
    own = tiny_config()
    before = OmegaConf.to_container(own)
    assert isinstance(before, dict)
    assert before["trainer"].pop("windows") == 1
    assert before["trainer"].pop("betas") == [0.9, 0.999]
    assert config_hash(OmegaConf.create(before)) == config_hash(own)
    assert config_hash(tiny_config("problem=heat1d", "trainer.windows=2")) != config_hash(
        tiny_config("problem=heat1d")
    )
    assert config_hash(tiny_config("trainer.betas=[0.9,0.99]")) != config_hash(own)
