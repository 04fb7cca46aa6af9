"""`make bench`: the contenders take the same step, and a run writes its files."""

from __future__ import annotations

import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import torch
from hydra.core.config_store import ConfigStore
from torch import Tensor

from benchmarks import growth, time_to_accuracy
from benchmarks.case import ENCODERS, TASKS, Case, build_case, build_objective, compose_config
from benchmarks.ours import fit
from benchmarks.straightforward import StraightforwardTraining
from diffhash.experiment.build import build
from tests.thinned import pairwise

ROOT = Path(__file__).parents[2]
SMALL = ("task.n_labels=12", "trainer.evaluation_points=4", "trainer.accelerator=cpu",
         "trainer.num_threads=1")  # fmt: skip


@pytest.fixture(autouse=True)
def leave_no_problem() -> Iterator[None]:
    """Remove the benchmarks' problem from Hydra's store, which all tests of the process share."""
    yield
    ConfigStore.instance().repo.get("problem", {}).pop("helmholtz.yaml", None)


def make(encoder: str, task: str, precision: str = "float64") -> tuple[Case, float, list[Tensor]]:
    """A case, and the library's loss and gradients for it."""
    size = ("task.n_residual=20",) if task == "pinn" else ()
    cfg = compose_config(
        [f"encoder={encoder}", f"task={task}", f"trainer.precision={precision}", *SMALL, *size]
    )
    case = build_case(cfg)
    setup = build(cfg)
    objective = build_objective(cfg, setup)
    plans = [setup.field.plan(term.x, term.rows) for term in objective.terms]
    loss = objective.loss([plan.jet() for plan in plans])
    parameters = list(setup.field.parameters())
    gradients = torch.autograd.grad(loss, parameters)
    network = gradients[-1]
    sizes = [p.numel() for layer in case.layers for p in layer]
    parts = list(network.split(sizes))
    table = [] if case.table is None else [gradients[0]]
    return case, loss.item(), [*table, *parts]


def assert_same(found: list[np.ndarray], expected: list[Tensor], eps: float) -> None:
    """Equal up to the round-off of sums over a few points and 64 units in three layers."""
    for one, other in zip(found, expected, strict=True):
        reference = other.numpy().ravel()
        atol = 2e4 * eps * max(abs(reference).max(), eps)
        np.testing.assert_allclose(np.asarray(one).ravel(), reference, rtol=0, atol=atol)


@pytest.mark.parametrize(("encoder", "task"), pairwise(ENCODERS, TASKS, values=1))
def test_the_straightforward_way_computes_our_step(encoder: str, task: str) -> None:
    case, loss, gradients = make(encoder, task)
    training = StraightforwardTraining(case)
    value = training.loss(training.batch())
    found = torch.autograd.grad(value, list(training.parameters()))
    assert value.item() == pytest.approx(loss, rel=1e-10)
    assert_same([g.numpy() for g in found], gradients, torch.finfo(torch.float64).eps)


@pytest.fixture(scope="session")
def jax_step() -> ModuleType:
    """The module of steps in JAX with two devices, among which steps can be divided."""
    pytest.importorskip("jax", reason="the extra bench is not installed")
    from benchmarks import jax_step

    assert jax_step.configure(torch.device("cpu"), 2)
    return jax_step


def assert_jax_computes_it(
    encoder: str, task: str, precision: str, jax_step: ModuleType, n_variants: int
) -> None:
    case, loss, gradients = make(encoder, task, precision)
    eps = torch.finfo(case.dtype).eps
    with jax_step.jax.enable_x64(precision == "float64"):
        for variant in jax_step.variants(case)[:n_variants]:
            value, found = jax_step.JaxStep(case, *variant).loss_and_gradients()
            assert value == pytest.approx(loss, rel=1e3 * eps)
            assert_same([np.asarray(g) for g in found], gradients, eps)


@pytest.mark.parametrize(("encoder", "task"), pairwise(ENCODERS, TASKS, values=1))
def test_jax_computes_our_step(encoder: str, task: str, jax_step: ModuleType) -> None:
    assert_jax_computes_it(encoder, task, "float64", jax_step, n_variants=1)


# sin and cos of its own; all variants
@pytest.mark.slow
@pytest.mark.parametrize("encoder", ["siren", "cubic"])
def test_jax_computes_our_step_in_float32(encoder: str, jax_step: ModuleType) -> None:
    case, _, _ = make(encoder, "pinn")
    variants = jax_step.variants(case)
    assert len(variants) == {"siren": 2, "cubic": 4}[encoder]
    assert_jax_computes_it(encoder, "pinn", "float32", jax_step, len(variants))


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ["siren", "cubic"])  # a constant rate, and one that falls
def test_all_train_alike(encoder: str, jax_step: ModuleType) -> None:
    n_steps = 5
    overrides = (f"encoder={encoder}", "task=pinn", f"trainer.epochs={n_steps}", *SMALL)
    cfg = compose_config([*overrides, "task.n_residual=20", "trainer.precision=float64"])
    case = build_case(cfg)
    setup = build(cfg)
    fit(setup.training, "cpu")
    ours = torch.cat([p.detach().flatten() for p in setup.field.parameters()])

    training = StraightforwardTraining(case)
    [optimizer], [scheduler] = training.configure_optimizers()
    for _ in range(n_steps):
        optimizer.zero_grad()
        training.loss(training.batch()).backward()
        optimizer.step()
        scheduler.step()
    theirs = torch.cat([p.detach().flatten() for p in training.parameters()])

    with jax_step.jax.enable_x64(True):
        step = jax_step.JaxStep(case, *jax_step.variants(case)[-1])
        step.train(n_steps)
        jaxs = np.concatenate([np.asarray(p).ravel() for p in step.parameters])

    start = torch.cat([p.flatten() for p in case.parameters])
    moved = (ours - start).abs().max().item()
    assert moved > case.learning_rate
    # Adam divides a gradient by its own size: one that is almost zero comes out less exact.
    for found in (theirs.numpy(), jaxs):
        np.testing.assert_allclose(found, ours.numpy(), rtol=0, atol=1e-7 * moved)


@pytest.mark.parametrize("series", growth.SERIES)
def test_cases_of_growth_can_be_built(series: str) -> None:
    value = list(growth.SERIES[series])[1]
    overrides = growth.SERIES[series][value]
    if series == "points":  # fewer of them
        overrides = overrides[2:]
    case = build_case(compose_config(["encoder=cubic", "task=pinn", *SMALL, *overrides]))
    assert case.terms[-1].coefficients[0] == (1 if series == "dimensions" else 0)
    assert len(case.layers) == 4 and case.layers[-1][0].shape == (1, 64)


def test_times_to_an_error() -> None:
    curve = pd.DataFrame(
        {"epoch": [1, 2, 3, 4], "seconds": [0.1, 0.2, 0.3, 0.4], "mse_u": [1.0, 0.1, 0.5, 0.05]}
    )
    found = time_to_accuracy._times(curve, 0.2)
    assert (found["seconds_to_reach"], found["seconds_to_stay"]) == (0.2, 0.4)
    assert found["final_mse_u"] == 0.05
    never = time_to_accuracy._times(curve, 0.01)
    assert np.isnan(never["seconds_to_reach"]) and np.isnan(never["seconds_to_stay"])
    always = time_to_accuracy._times(curve, 2.0)
    assert (always["seconds_to_reach"], always["seconds_to_stay"]) == (0.1, 0.1)


def test_the_mark_is_the_papers_mlp_after_50k_epochs() -> None:
    assert time_to_accuracy.mark() == 1.1e-5


@pytest.mark.slow
def test_a_quick_run_writes_table_and_figure(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "scripts/bench.py", "--quick", "--device", "cpu", "--output", tmp_path],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    frame = pd.read_csv(tmp_path / "steps-cpu-quick.csv")
    assert {"ours", "straightforward", "floor"} <= set(frame["contender"])
    assert (frame["ms"] > 0).all()
    assert (tmp_path / "steps-cpu-quick.png").stat().st_size > 0
    assert "cubic over mlp, pinn:" in done.stdout


@pytest.mark.parametrize(("option", "message"), [("--threads=0", "give at least 1")])
def test_bad_options_are_named(
    option: str, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench.py", option])
    with pytest.raises(SystemExit) as exit_:
        runpy.run_path(str(ROOT / "scripts/bench.py"), run_name="__main__")
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err
