"""The device of a run, the backend of its grid and the execution of its steps; no GPU is needed to
find them."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig

from diffhash.experiment import checks
from diffhash.experiment.build import build
from diffhash.experiment.checks import ConfigError
from diffhash.ops import backends
from diffhash.results import RunRecord
from diffhash.training import FieldTraining

Call = Callable[..., DictConfig]
GPU = "trainer.accelerator=gpu"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let torch report a GPU, on which nothing is computed."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(checks, "gpu_memory", lambda: 2**34)


@pytest.fixture
def tinycudann(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the package tinycudann be found; it is not imported before it computes."""
    # The package's own attribute of that name is the function.
    for module in (import_module("diffhash.experiment.build"), backends):
        monkeypatch.setattr(module, "find_spec", lambda name: name)


@pytest.mark.usefixtures("gpu")
def test_a_grid_that_leaves_the_choice_is_accepted_on_a_gpu(tiny_config: Call) -> None:
    for encoder in ("cubic", "linear", "s2"):
        assert build(tiny_config(f"encoder={encoder}", GPU)).grid_backend in ("triton", "torch")


@pytest.mark.usefixtures("gpu", "tinycudann")
def test_linear_is_tiny_cuda_nn_where_that_can_run(tiny_config: Call) -> None:
    def backend(*overrides: str) -> str | None:
        return build(tiny_config(*overrides)).grid_backend

    assert backend("encoder=linear", GPU) == "tcnn"
    assert backend("encoder=linear", GPU, "encoder.encoding.backend=torch") == "torch"
    for other in (
        "encoder=cubic",
        "encoder.encoding.level_offset=true",
        "encoder.encoding.layout=nested",
        "problem=convection",  # which is periodic
        "trainer.precision=float64",
    ):
        assert backend("encoder=linear", GPU, other) != "tcnn"
    assert backend("encoder=linear") != "tcnn"


@pytest.mark.usefixtures("gpu")
def test_a_backend_for_cpus_is_refused_on_a_gpu(tiny_config: Call) -> None:
    with pytest.raises(ConfigError, match=r"encoder\.encoding: backend='native' runs on CPUs"):
        build(tiny_config("encoder=cubic", GPU, "encoder.encoding.backend=native"))


def test_the_record_says_which(train: Callable[..., tuple[Path, RunRecord]]) -> None:
    _, record = train("encoder=cubic", "encoder.encoding.backend=torch")
    assert record.environment["grid_backend"] == "torch"


def test_without_a_grid_there_is_none(tiny_config: Call) -> None:
    assert build(tiny_config("encoder=mlp")).grid_backend is None


@pytest.mark.usefixtures("gpu")
def test_an_optimizer_that_computes_on_a_cpu_does_so_where_there_is_a_gpu(
    tiny_config: Call,
) -> None:
    solver = ("encoder=cubic", "optimizer=gauss_newton", "trainer.precision=float64")
    assert build(tiny_config(*solver, "trainer.accelerator=auto")).accelerator == "cpu"
    message = "trainer.accelerator=gpu: optimizer=GaussNewton computes on a CPU; give cpu or auto"
    with pytest.raises(ConfigError, match=message):
        build(tiny_config(*solver, GPU))


@pytest.mark.usefixtures("gpu")
def test_steps_of_adam_alone_become_a_graph_by_themselves(tiny_config: Call) -> None:
    long = ("encoder=cubic", "trainer.accelerator=auto", "trainer.epochs=1000")
    adam, soap = (build(tiny_config(*long, f"optimizer={name}")) for name in ("adam", "soap"))
    assert isinstance(adam.training, FieldTraining)
    assert isinstance(soap.training, FieldTraining)
    assert (adam.accelerator, adam.training.execution) == ("gpu", "cudagraph")
    assert (soap.accelerator, soap.training.execution) == ("gpu", "eager")
