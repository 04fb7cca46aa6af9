"""A run that was stopped and resumed equals one that was not."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from diffhash.training import FieldTraining
from diffhash.training.adam import LeanAdam

MakeTraining = Callable[..., FieldTraining]


def parameters(training: FieldTraining) -> Tensor:
    return torch.cat([p.detach().flatten() for p in training.field.parameters()])


def without_seconds(training: FieldTraining) -> list[dict[str, float]]:
    [replica] = training.replicas
    return [{k: v for k, v in row.items() if k != "seconds"} for row in replica.history]


def stop_after(training: FieldTraining, epochs: int) -> None:
    """Request a stop after a number of epochs, as a signal does."""
    rate = training.rate

    def stopping(epoch: int) -> float:
        training.stop_requested = epoch + 1 == epochs
        return rate(epoch)

    training.rate = stopping  # type: ignore[method-assign]


@pytest.mark.parametrize("stopped_at", [4, 5], ids=["between chunks", "inside a chunk"])
@pytest.mark.parametrize("schedule", ["constant", "cosine"])
@pytest.mark.parametrize("batch_size", [None, 4], ids=["full batch", "minibatch"])
@pytest.mark.parametrize("encoder", ["mlp", "cubic"])
def test_resuming_is_exact(
    make_training: MakeTraining,
    fit: Callable,
    tmp_path: Path,
    encoder: str,
    batch_size: int | None,
    schedule: str,
    stopped_at: int,
) -> None:
    settings: dict[str, Any] = {
        "epochs": 9,
        "chunk": 2,
        "batch_size": batch_size,
        "schedule": schedule,
    }
    whole = make_training(encoder, **settings)
    fit(whole)

    first = make_training(encoder, **settings)
    stop_after(first, stopped_at)
    trainer = fit(first)
    assert first.epochs_done == stopped_at
    assert first.replicas[0].outcome is not None
    trainer.save_checkpoint(tmp_path / "checkpoint.ckpt")

    second = make_training(encoder, field_seed=7, **settings)
    fit(second, ckpt_path=tmp_path / "checkpoint.ckpt")
    assert second.epochs_done == 9
    assert torch.equal(parameters(second), parameters(whole))
    assert second.replicas[0].outcome is not None and whole.replicas[0].outcome is not None
    assert second.replicas[0].outcome.loss == whole.replicas[0].outcome.loss
    assert [row["epoch"] for row in without_seconds(first)][-1] == stopped_at
    assert without_seconds(second) == without_seconds(whole)


def test_seconds_add_up(make_training: MakeTraining, fit: Callable, tmp_path: Path) -> None:
    first = make_training(epochs=4, chunk=2)
    fit(first).save_checkpoint(tmp_path / "checkpoint.ckpt")
    second = make_training(epochs=8, chunk=2)
    fit(second, ckpt_path=tmp_path / "checkpoint.ckpt")
    seconds = [row["seconds"] for row in second.replicas[0].history]
    assert seconds[:2] == [row["seconds"] for row in first.replicas[0].history]
    assert seconds == sorted(seconds)
    assert second.train_seconds == seconds[-1] > first.train_seconds


def test_a_finished_run_goes_on_to_more_epochs(
    make_training: MakeTraining, fit: Callable, tmp_path: Path
) -> None:
    whole = make_training("cubic", epochs=8)
    fit(whole)
    first = make_training("cubic", epochs=5)
    fit(first).save_checkpoint(tmp_path / "checkpoint.ckpt")
    second = make_training("cubic", epochs=8)
    fit(second, ckpt_path=tmp_path / "checkpoint.ckpt")
    assert torch.equal(parameters(second), parameters(whole))


def test_a_resumed_run_has_its_own_betas(
    make_training: MakeTraining, fit: Callable, tmp_path: Path
) -> None:
    def resumed(**settings: tuple[float, float]) -> torch.Tensor:
        training = make_training("cubic", epochs=8, **settings)
        fit(training, ckpt_path=tmp_path / "checkpoint.ckpt")
        return parameters(training)

    fit(make_training("cubic", epochs=5)).save_checkpoint(tmp_path / "checkpoint.ckpt")
    assert not torch.equal(resumed(betas=(0.5, 0.5)), resumed())
    assert torch.equal(resumed(betas=(0.9, 0.999)), resumed())


def rates(training: FieldTraining, fit: Callable, ckpt_path: Path | None = None) -> list[float]:
    """Train, noting the learning rate of every step."""
    noted = []
    set_rate = LeanAdam.set_rate

    def noting(optimizer: LeanAdam, rate: float) -> None:
        set_rate(optimizer, rate)
        noted.append(optimizer.param_groups[0]["lr"])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LeanAdam, "set_rate", noting)
        trainer = fit(training, ckpt_path=ckpt_path)
    if ckpt_path is None:
        trainer.save_checkpoint(Path(trainer.default_root_dir) / "checkpoint.ckpt")
    return noted


def test_a_resumed_run_follows_its_own_schedule(
    make_training: MakeTraining, fit: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    noted = rates(make_training(epochs=4, schedule="cosine", learning_rate=0.1), fit)
    assert noted == pytest.approx([0.05 * (1 + math.cos(math.pi * e / 4)) for e in range(4)])
    for settings, expected in (
        # More epochs: the cosine of all eight, from its fifth epoch on.
        (
            {"schedule": "cosine", "learning_rate": 0.1},
            [0.05 * (1 + math.cos(math.pi * e / 8)) for e in range(4, 8)],
        ),
        ({"schedule": "constant", "learning_rate": 0.02}, [0.02] * 4),
    ):
        resumed = make_training(epochs=8, **settings)
        assert rates(resumed, fit, tmp_path / "checkpoint.ckpt") == pytest.approx(expected)
