"""`make bench`: the contenders take the same step, and a run writes what it says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from benchmarks import time_to_accuracy
from benchmarks.case import ENCODERS, TASKS, Case, build_case, build_task, compose_config
from benchmarks.straightforward import StraightforwardTraining
from diffhash.experiment.build import build

ROOT = Path(__file__).parents[2]
SMALL = ("task.n_labels=12", "trainer.evaluation_points=4", "trainer.accelerator=cpu",
         "trainer.num_threads=1")  # fmt: skip


def make(encoder: str, task: str, precision: str = "float64") -> tuple[Case, float, list[Tensor]]:
    """A case, and our loss and gradients of it."""
    size = ("task.n_residual=20",) if task == "pinn" else ()
    cfg = compose_config(
        [f"encoder={encoder}", f"task={task}", f"trainer.precision={precision}", *SMALL, *size]
    )
    case = build_case(cfg)
    setup = build(cfg)
    loss_terms = build_task(cfg, setup)
    plans = [setup.field.plan(term.x, term.orders) for term in loss_terms.terms]
    loss = loss_terms.loss([plan.jet() for plan in plans])
    parameters = list(setup.field.parameters())
    gradients = torch.autograd.grad(loss, parameters)
    network = gradients[-1]
    sizes = [p.numel() for layer in case.layers for p in layer]
    parts = list(network.split(sizes))
    table = [] if case.table is None else [gradients[0]]
    return case, loss.item(), [*table, *parts]


def assert_same(found: list[np.ndarray], expected: list[Tensor], eps: float) -> None:
    """To the round-off of sums over a few points and 64 units, three layers deep."""
    for one, other in zip(found, expected, strict=True):
        reference = other.numpy().ravel()
        atol = 2e4 * eps * max(abs(reference).max(), eps)
        np.testing.assert_allclose(np.asarray(one).ravel(), reference, rtol=0, atol=atol)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("encoder", ENCODERS)
def test_the_straightforward_way_computes_our_step(encoder: str, task: str) -> None:
    case, loss, gradients = make(encoder, task)
    training = StraightforwardTraining(case)
    value = training.loss(training.batch())
    found = torch.autograd.grad(value, list(training.parameters()))
    assert value.item() == pytest.approx(loss, rel=1e-10)
    assert_same([g.numpy() for g in found], gradients, torch.finfo(torch.float64).eps)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("encoder", ENCODERS)
def test_jax_computes_our_step(encoder: str, task: str) -> None:
    pytest.importorskip("jax", reason="the extra bench is not installed")
    from benchmarks.jax_step import JaxStep, variants

    case, loss, gradients = make(encoder, task, "float32")
    for variant in variants(case):
        value, found = JaxStep(case, *variant).loss_and_gradients()
        assert value == pytest.approx(loss, rel=1e-4)
        assert_same([np.asarray(g) for g in found], gradients, torch.finfo(torch.float32).eps)


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
def test_bad_options_are_named(option: str, message: str) -> None:
    done = subprocess.run(
        [sys.executable, "scripts/bench.py", option], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert message in done.stderr
