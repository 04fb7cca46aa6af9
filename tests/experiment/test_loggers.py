"""`logger=csv`, `tensorboard` and `mlflow`, and callbacks: Lightning's own, by `_target_`."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from lightning_utilities.core.imports import RequirementCache

from diffhash.experiment.checks import ConfigError
from diffhash.experiment.restore import restore
from diffhash.experiment.run import run
from diffhash.results import read_history

Call = Callable[..., Any]
Logged = dict[str, list[tuple[int, float]]]
PINN = ("task=pinn", "task.n_residual=8")


def read_csv(folder: Path) -> Logged:
    frame = pd.read_csv(folder / "logs/csv/metrics.csv")
    names = [name for name in frame if name != "step"]
    columns = {name: frame[["step", name]].dropna() for name in names}
    return {str(n): [(int(s), float(v)) for s, v in c.to_numpy()] for n, c in columns.items()}


def read_tensorboard(folder: Path) -> Logged:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "logs/tensorboard"))
    events.Reload()
    return {
        name: [(event.step, event.value) for event in events.Scalars(name)]
        for name in events.Tags()["scalars"]
    }


def read_mlflow(store: Path, title: str) -> Logged:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{store}")
    [experiment] = [e for e in client.search_experiments() if e.name == "diffhash"]
    [one] = client.search_runs([experiment.experiment_id], f"tags.mlflow.runName = '{title}'")
    assert one.info.status == "FINISHED" and one.data.params["encoder/name"] == "mlp"
    history = {name: client.get_metric_history(one.info.run_id, name) for name in one.data.metrics}
    return {name: [(m.step, m.value) for m in rows] for name, rows in history.items()}


def check(logged: Logged, folder: Path, record: Any) -> None:
    """Every column of the history at every evaluation, and the metrics of the end."""
    history = read_history(folder)
    for name in [str(column) for column in history if column != "epoch"]:
        steps, values = zip(*logged[f"history/{name}"], strict=True)
        assert list(steps) == list(history["epoch"]), name
        np.testing.assert_allclose(values, history[name], rtol=1e-6)
    for name, value in record.metrics.items():
        [(step, last)] = logged[name]
        assert step == record.epochs and last == pytest.approx(value, rel=1e-6)


@pytest.mark.parametrize(("name", "read"), [("csv", read_csv), ("tensorboard", read_tensorboard)])
def test_files_lie_in_the_record_of_each_seed(
    tiny_config: Call, tmp_path: Path, name: str, read: Callable[[Path], Logged]
) -> None:
    found = run(tiny_config(*PINN, f"logger={name}", "seeds=[0,1]", f"run_dir={tmp_path}/run"))
    assert len(found) == 2
    for folder, record in found:
        logged = read(folder)
        assert {"history/loss_data", "history/loss_residual", "history/mse_uxx"} <= set(logged)
        check(logged, folder, record)
    assert read(found[0][0])["history/loss"] != read(found[1][0])["history/loss"]


@pytest.mark.parametrize(("name", "read"), [("csv", read_csv), ("tensorboard", read_tensorboard)])
def test_a_resumed_run_has_its_whole_history(
    tiny_config: Call, tmp_path: Path, name: str, read: Callable[[Path], Logged]
) -> None:
    logger = (f"logger={name}", f"run_dir={tmp_path}/run")
    run(tiny_config(*logger))
    longer = ("trainer.epochs=10", f"ckpt_path={tmp_path}/run/checkpoint.ckpt")
    [(folder, record)] = run(tiny_config(*logger, *longer))
    assert record.epochs == 10
    history = read_history(folder)
    steps = [step for step, _ in read(folder)["history/mse_u"]]
    assert steps == list(history["epoch"]) == [2, 4, 6, 8, 10]


@pytest.mark.slow  # of creating its database
def test_mlflow_goes_on_with_its_own_run(tiny_config: Call, tmp_path: Path) -> None:
    store = tmp_path / "store.db"
    logger = ("logger=mlflow", f"logger.mlflow.tracking_uri=sqlite:///{store}")
    [(folder, record)] = run(tiny_config(*logger, f"run_dir={tmp_path}/run"))
    check(read_mlflow(store, "mlp pinn seed 0"), folder, record)
    longer = ("trainer.epochs=8", f"ckpt_path={folder}/checkpoint.ckpt")
    run(tiny_config(*logger, *longer, f"run_dir={tmp_path}/run"))
    logged = read_mlflow(store, "mlp pinn seed 0")  # the only run of that name
    assert [step for step, _ in logged["history/loss"]] == [2, 4, 6, 8]


def test_several_loggers_and_one_that_fails(
    tiny_config: Call,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from lightning.pytorch.loggers import TensorBoardLogger

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no room")

    monkeypatch.setattr(TensorBoardLogger, "log_metrics", fail)
    other = "+logger.other={_target_: lightning.pytorch.loggers.CSVLogger, save_dir: null, name: b}"
    [(folder, record)] = run(tiny_config("logger=tensorboard", other, f"run_dir={tmp_path}/run"))
    assert record.status == "completed"
    assert (folder / "logs/b/version_0/metrics.csv").is_file()
    assert "logger.tensorboard logs no more: no room" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("+logger.a._target_=no.such.Logger", r"logger\.a"),
        ("+logger.a._target_=torch.nn.Identity", r"logger\.a\._target_=torch\.nn\.Identity: makes"),
        ("+logger.a.save_dir=b", r"logger\.a: give a _target_"),
        ("+callbacks.a._target_=torch.nn.Identity", r"callbacks\.a\._target_=.*makes a Identity"),
    ],
)
def test_what_is_no_logger_or_callback_is_refused(
    tiny_config: Call, tmp_path: Path, override: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        run(tiny_config(f"run_dir={tmp_path}/run", override))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("tensorboard", "lightning.fabric.loggers.tensorboard"),
        ("mlflow", "lightning.pytorch.loggers.mlflow"),
    ],
)
def test_a_missing_package_is_one_error_before_training(
    tiny_config: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, module: str
) -> None:
    for flag in [flag for flag in vars(import_module(module)) if flag.endswith("_AVAILABLE")]:
        monkeypatch.setattr(f"{module}.{flag}", RequirementCache(f"no-such-{name}"))
    with pytest.raises(ConfigError, match=rf"^logger\.{name}: .*{name}.*pip install"):
        run(tiny_config(f"logger={name}", f"run_dir={tmp_path}/run"))
    assert not list(tmp_path.iterdir())


STOPS = """
from lightning.pytorch.callbacks import Callback

class Stops(Callback):
    def __init__(self, after): self.after = after
    def on_train_batch_end(self, trainer, module, *_):
        trainer.should_stop = trainer.should_stop or module.epochs_done >= self.after
"""


def test_callbacks_take_part_and_count(
    tiny_config: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_callbacks.py").write_text(STOPS)
    monkeypatch.syspath_prepend(tmp_path)
    stops = "+callbacks.mine={_target_: my_callbacks.Stops, after: 4}"
    [(_, record)] = run(tiny_config(stops, f"run_dir={tmp_path}/stopped"))
    [(_, other)] = run(tiny_config(f"run_dir={tmp_path}/whole"))
    assert (record.epochs, record.status) == (4, "interrupted") and other.epochs == 6
    assert record.config_hash != other.config_hash
    timer = "+callbacks.t={_target_: lightning.pytorch.callbacks.Timer, duration: {seconds: 0}}"
    with pytest.raises(ConfigError, match="callbacks=t: training was ended before its first step"):
        run(tiny_config(timer, f"run_dir={tmp_path}/none"))


def test_a_record_with_a_logger_is_evaluated_without_trust(
    tiny_config: Call, tmp_path: Path
) -> None:
    [(folder, record)] = run(tiny_config("logger=csv", f"run_dir={tmp_path}/run"))
    assert restore(folder, 16).metrics()["mse_u"] == pytest.approx(record.metrics["mse_u"])
