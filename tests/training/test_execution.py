"""The executions of a step give the same results."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from diffhash.training import FieldTraining

MakeTraining = Callable[..., FieldTraining]

# The learning rate is a float32 number on the device, as torch's fused Adam reads it.
GRAPH = pytest.param("cudagraph", 1e-6, marks=pytest.mark.gpu)
COMPILED = pytest.param("compile", 1e-9, marks=pytest.mark.slow)


def parameters(training: FieldTraining) -> Tensor:
    return torch.cat([p.detach().flatten().cpu() for p in training.field.parameters()])


class Meddler(Callback):
    """A callback that sets another rate and another weight of the last term after some chunks."""

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *_: object
    ) -> None:
        assert isinstance(pl_module, FieldTraining)
        if pl_module.epochs_done == 80:
            pl_module.learning_rate = 3e-3
            pl_module.objective.terms[-1].weight.fill_(0.25)


@pytest.mark.parametrize(("execution", "tolerance"), [COMPILED, GRAPH])
@pytest.mark.parametrize("encoder", ["mlp", "ff", "siren", "cubic"])
def test_200_steps_give_the_same_parameters_with_live_settings(
    make_training: MakeTraining, fit: Callable, encoder: str, execution: str, tolerance: float
) -> None:
    """Parameters agree to a tolerance in float64; rate and weight change half-way."""
    results = []
    for chosen in ("eager", execution):
        training = make_training(
            encoder,
            dtype=torch.float64,
            epochs=200,
            chunk=40,
            schedule="cosine",
            execution=chosen,
        )
        accelerator = "gpu" if execution == "cudagraph" else "cpu"
        fit(training, [Meddler()], accelerator=accelerator)
        results.append(training)
    eager, other = results
    torch.testing.assert_close(parameters(other), parameters(eager), rtol=tolerance, atol=tolerance)
    one, two = eager.replicas[0].history, other.replicas[0].history
    assert [row["loss"] for row in one] == pytest.approx([row["loss"] for row in two], rel=1e-6)


ENCODERS = ("mlp", "skip", "siren", "ff", "linear", "s1", "s2", "cubic")
IN_SHORT = ("cubic", "pinn", torch.float32)  # one compilation, of seconds
PRODUCT = [
    pytest.param(
        encoder,
        task,
        dtype,
        marks=[] if (encoder, task, dtype) == IN_SHORT else pytest.mark.slow,
    )
    for encoder in ENCODERS
    for task in ("data", "pinn")
    for dtype in (torch.float32, torch.float64)
]


@pytest.mark.parametrize(("encoder", "task", "dtype"), PRODUCT)
def test_compiled_steps_are_eager_ones(
    make_training: MakeTraining, fit: Callable, encoder: str, task: str, dtype: torch.dtype
) -> None:
    """The losses of a few steps agree, for every encoder, task and precision."""
    torch._dynamo.reset()
    losses = []
    for execution in ("eager", "compile"):
        training = make_training(encoder, task, dtype, epochs=4, chunk=1, execution=execution)
        fit(training)
        losses.append([row["loss"] for row in training.replicas[0].history])
    rel = 1e-3 if dtype == torch.float32 else 1e-9
    assert losses[1] == pytest.approx(losses[0], rel=rel)


def test_rate_and_weights_are_live(make_training: MakeTraining, fit: Callable) -> None:
    """The comparison above relies on this: both change the result."""
    plain, meddled = (make_training(epochs=120, chunk=40) for _ in range(2))
    fit(plain)
    fit(meddled, [Meddler()])
    assert not torch.allclose(parameters(plain), parameters(meddled), rtol=1e-3)


@pytest.mark.parametrize("setting", [{"batch_size": 4}, {"derivatives": "autograd"}], ids=str)
@pytest.mark.parametrize("execution", ["compile", "cudagraph"])
def test_what_cannot_be_compiled_or_captured_is_refused(
    make_training: MakeTraining, execution: str, setting: dict[str, object]
) -> None:
    with pytest.raises(ValueError, match=rf"^execution={execution}: needs no batch_size"):
        make_training(execution=execution, **setting)


@pytest.mark.gpu
def test_a_graph_resumes_an_eager_run(
    make_training: MakeTraining, fit: Callable, tmp_path: Path
) -> None:
    first = make_training("cubic", epochs=40, chunk=20)
    fit(first, accelerator="gpu").save_checkpoint(tmp_path / "checkpoint.ckpt")
    results = []
    for execution in ("eager", "cudagraph"):
        training = make_training("cubic", epochs=80, chunk=20, execution=execution)
        fit(training, ckpt_path=tmp_path / "checkpoint.ckpt", accelerator="gpu")
        results.append(parameters(training))
    torch.testing.assert_close(results[1], results[0], rtol=1e-4, atol=1e-6)
