"""What a run measures: history, errors, seconds."""

from __future__ import annotations

from collections.abc import Callable
from math import isnan, pi
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from diffhash.jets import Jet
from diffhash.problems import Problem
from diffhash.training import FieldTraining, module

MakeTraining = Callable[..., FieldTraining]


class Waves(Problem):
    """u_x + u_yy = f on [0, 2] × [-1, 1]; u = sin x cos 3y."""

    domain = ((0.0, 2.0), (-1.0, 1.0))
    order = (1, 2)

    def operator(self, x: Tensor, u: Jet) -> Tensor:
        return u[1, 0] + u[0, 2]

    def solution(self, x: Tensor) -> Tensor:
        return x[:, :1].sin() * (3 * x[:, 1:]).cos()


class NoSolution(Problem):
    """u″ = 1 on [0, 1], with no solution given."""

    domain = ((0.0, 1.0),)
    order = 2

    def operator(self, x: Tensor, u: Jet) -> Tensor:
        return u[2,]

    def source(self, x: Tensor) -> Tensor:
        return torch.ones_like(x)


def gradient(y: Tensor, x: Tensor) -> Tensor:
    return torch.autograd.grad(y.sum(), x, create_graph=True)[0]


def test_one_row_an_evaluation(make_training: MakeTraining, fit: Callable) -> None:
    training = make_training(epochs=10, chunk=4)
    fit(training)
    names = ["epoch", "seconds", "loss", "mse_u", "mse_ux", "mse_uxx"]
    terms = ["loss_data", "loss_residual"]
    assert [list(row) for row in training.replicas[0].history] == [names + terms] * 3
    assert [row["epoch"] for row in training.replicas[0].history] == [4, 8, 10]
    assert training.replicas[0].outcome is not None
    last = training.replicas[0].history[-1]
    metrics = training.replicas[0].outcome.metrics
    assert [last[n] for n in names[3:]] == [metrics["mse_u"], metrics["mse_ux"], metrics["mse_uxx"]]
    assert training.epochs_done == 10


def test_errors_of_the_papers_problem(make_training: MakeTraining, fit: Callable) -> None:
    training = make_training("cubic", dtype=torch.float64)
    fit(training)
    x = ((torch.arange(20, dtype=torch.float64) + 0.5) / 20)[:, None].requires_grad_(True)
    u = training.field(x)
    u_x = gradient(u, x)
    u_xx = gradient(u_x, x)
    # Eq. 15 and its derivatives.
    a, b = 2 * pi, 8 * pi
    g, g1, g2 = (2 * x**3 - 20 * x) / a, (6 * x**2 - 20) / a, 12 * x / a
    s, c = (a * x).sin(), (a * x).cos()
    v = g * s + (b * x).sin()
    v_x = g1 * s + g * a * c + b * (b * x).cos()
    v_xx = g2 * s + 2 * g1 * a * c - g * a**2 * s - b**2 * (b * x).sin()
    expected = [(p - q).square().mean().item() for p, q in ((u, v), (u_x, v_x), (u_xx, v_xx))]
    assert training.replicas[0].outcome is not None
    metrics = training.replicas[0].outcome.metrics
    assert [metrics["mse_u"], metrics["mse_ux"], metrics["mse_uxx"]] == pytest.approx(
        expected, rel=1e-10
    )
    predicted = training.replicas[0].outcome.predictions[:, :, 0]
    torch.testing.assert_close(predicted, torch.stack([u, u_x, u_xx])[:, :, 0].detach())


def test_errors_of_two_axes_are_their_mean(make_training: MakeTraining, fit: Callable) -> None:
    training = make_training("cubic", dtype=torch.float64, problem=Waves())
    fit(training)
    x = training.evaluation.x.clone().requires_grad_(True)
    assert x.shape == (20, 2)
    assert (x.amin(0) > torch.tensor([0.0, -1.0])).all()
    assert (x.amax(0) < torch.tensor([2.0, 1.0])).all()
    assert x[:, 0].max() - x[:, 0].min() > 1.5  # the whole domain
    y, z = x[:, :1], 3 * x[:, 1:]
    error = training.field(x) - y.sin() * z.cos()
    first = gradient(error, x)
    second = torch.stack([gradient(first[:, j], x)[:, j] for j in (0, 1)])
    assert training.replicas[0].outcome is not None
    metrics = training.replicas[0].outcome.metrics
    assert metrics["mse_u"] == pytest.approx(error.square().mean().item(), rel=1e-10)
    assert metrics["mse_ux"] == pytest.approx(first.square().mean().item(), rel=1e-10)
    assert metrics["mse_uxx"] == pytest.approx(second.square().mean().item(), rel=1e-10)


def test_errors_are_not_taken_at_training_points(make_training: MakeTraining) -> None:
    training = make_training()
    trained = {x.item() for term in training.task.terms for x in term.x}
    assert not trained & {x.item() for x in training.evaluation.x}


def test_without_a_solution_there_are_no_errors(make_training: MakeTraining, fit: Callable) -> None:
    training = make_training(problem=NoSolution(), n_labels=0, epochs=4, chunk=2)
    fit(training)
    [replica] = training.replicas
    assert replica.diverged_epoch is None
    assert training.epochs_done == 4
    assert replica.outcome is not None
    assert isnan(replica.outcome.metrics["mse_u"])
    assert replica.outcome.loss == pytest.approx(replica.history[-1]["loss"], rel=0.5)


def test_seconds_of_steps_and_of_evaluations_are_apart(
    make_training: MakeTraining, fit: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that moves 1 an epoch, 100 an evaluation and 10 000 a plan."""
    now = 0.0

    def passing(seconds: float, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any) -> Any:
            nonlocal now
            now += seconds
            return function(*arguments)

        return timed

    training = make_training(epochs=10, chunk=4)
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: now))
    monkeypatch.setattr(training, "_rate", passing(1, training._rate))
    metrics = passing(100, training.evaluation.metrics)
    monkeypatch.setattr(training.evaluation, "metrics", metrics)
    monkeypatch.setattr(training.field, "plan", passing(10_000, training.field.plan))
    fit(training)
    assert training.train_seconds == 10
    assert [row["seconds"] for row in training.replicas[0].history] == [4, 8, 10]
    assert training.evaluation_seconds == 3 * 100 + 100  # the last is the outcome's
    assert training.warmup_seconds == 3 * 10_000  # labels, residual, evaluation
