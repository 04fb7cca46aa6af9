"""The measurements of a run: history, errors, seconds."""

from __future__ import annotations

import math
from collections.abc import Callable
from math import isnan, pi
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from diffhash.geometry import Box, Interval
from diffhash.problems import EXACT, Coefficient, Condition, Derivatives, Problem, stack
from diffhash.training import ERRORS, Evaluation, FieldTraining, module

MakeTraining = Callable[..., FieldTraining]


class Waves(Problem):
    """u_x + u_yy = f on [0, 2] × [-1, 1]; u = sin x cos 3y."""

    domain = Box(x=(0, 2), y=(-1, 1))

    def conditions(self) -> list[Condition]:
        return [Condition("residual", self.domain, lambda x, d: d.u_x + d.u_yy, EXACT)]

    def solution(self, x: Tensor) -> Tensor:
        return x[:, 0].sin() * (3 * x[:, 1]).cos()


class NoSolution(Problem):
    """u″ = 1 on [0, 1], with no solution given."""

    domain = Interval(x=(0, 1))

    def conditions(self) -> list[Condition]:
        return [Condition("residual", self.domain, lambda x, d: d.u_xx, 1.0)]


class Rotation(Problem):
    """u_t = ω v, v_t = -ω u with a coefficient to be found, and another without a true value."""

    unknowns = ("u", "v")
    domain = Interval(t=(0, 1))

    def __init__(self) -> None:
        self.omega = Coefficient(1.0, true=2.0)
        self.shift = Coefficient(0.25)

    def conditions(self) -> list[Condition]:
        motion = Condition("motion", self.domain, self._motion, 0.0)
        start = Condition("start", self.domain.initial(), lambda x, d: stack(d.u, d.v - 1))
        return [motion, start, self.labels()]

    def _motion(self, x: Tensor, d: Derivatives) -> Tensor:
        return stack(d.u_t - self.omega * d.v, d.v_t + self.omega * d.u + self.shift)

    def solution(self, x: Tensor) -> Tensor:
        return torch.stack([(2 * x[:, 0]).sin(), (2 * x[:, 0]).cos()], dim=1)


def gradient(y: Tensor, x: Tensor) -> Tensor:
    return torch.autograd.grad(y.sum(), x, create_graph=True)[0]


def test_one_row_an_evaluation(make_training: MakeTraining, fit: Callable) -> None:
    training = make_training(epochs=10, chunk=4)
    fit(training)
    errors = [f"{kind}_{name}" for kind in ERRORS for name in ("u", "ux", "uxx")]
    names = ["epoch", "seconds", "loss", *errors]
    terms = ["loss_data", "loss_residual"]
    assert [list(row) for row in training.replicas[0].history] == [names + terms] * 3
    assert [row["epoch"] for row in training.replicas[0].history] == [4, 8, 10]
    assert training.replicas[0].outcome is not None
    last = training.replicas[0].history[-1]
    metrics = training.replicas[0].outcome.metrics
    assert [last[n] for n in names[3:]] == [metrics[name] for name in names[3:]]
    assert training.epochs_done == 10


def test_errors_of_the_papers_problem(make_training: MakeTraining, fit: Callable) -> None:
    training = make_training("cubic", dtype=torch.float64)
    fit(training)
    x = ((torch.arange(20, dtype=torch.float64) + 0.5) / 20)[:, None].requires_grad_(True)
    u = training.field(x)
    u_x = gradient(u, x)
    u_xx = gradient(u_x, x)
    # The solution of Eq. 15 and its derivatives.
    a, b = 2 * pi, 8 * pi
    g, g1, g2 = (2 * x**3 - 20 * x) / a, (6 * x**2 - 20) / a, 12 * x / a
    s, c = (a * x).sin(), (a * x).cos()
    v = g * s + (b * x).sin()
    v_x = g1 * s + g * a * c + b * (b * x).cos()
    v_xx = g2 * s + 2 * g1 * a * c - g * a**2 * s - b**2 * (b * x).sin()
    expected = [(p - q).square().mean().item() for p, q in ((u, v), (u_x, v_x), (u_xx, v_xx))]
    assert training.replicas[0].outcome is not None
    metrics = training.replicas[0].outcome.metrics
    names = ("u", "ux", "uxx")
    assert [metrics[f"mse_{n}"] for n in names] == pytest.approx(expected, rel=1e-10)
    sizes = [exact.square().mean().item() for exact in (v, v_x, v_xx)]
    relative = [math.sqrt(e / s) for e, s in zip(expected, sizes, strict=True)]
    assert [metrics[f"l2_{n}"] for n in names] == pytest.approx(relative, rel=1e-10)
    predicted = training.replicas[0].outcome.predictions[:, :, 0]
    torch.testing.assert_close(predicted, torch.stack([u, u_x, u_xx])[:, :, 0].detach())


def test_errors_of_two_axes_are_those_of_each_derivative(
    make_training: MakeTraining, fit: Callable
) -> None:
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
    second = gradient(first[:, 1], x)[:, 1]
    assert training.replicas[0].outcome is not None
    metrics = training.replicas[0].outcome.metrics
    errors = {"u": error, "ux": first[:, 0], "uy": first[:, 1], "uyy": second}
    found = {name: metrics[f"mse_{name}"] for name in errors}
    assert found == pytest.approx({n: e.square().mean().item() for n, e in errors.items()}, 1e-10)
    assert set(metrics) == {f"{kind}_{name}" for kind in ERRORS for name in errors}


@pytest.mark.parametrize("settings", [{}, {"batch_size": 3}, {"derivatives": "autograd"}], ids=str)
def test_metrics_of_two_unknowns_and_of_coefficients(
    make_training: MakeTraining, fit: Callable, settings: dict[str, Any]
) -> None:
    training = make_training("cubic", dtype=torch.float64, problem=Rotation(), **settings)
    fit(training)
    problem = training.objective.problem
    assert isinstance(problem, Rotation)
    names = ("u", "ut", "v", "vt")
    coefficients = ["omega", "error_omega", "shift"]
    errors = [f"{kind}_{name}" for kind in ERRORS for name in names]
    terms = ["loss_motion", "loss_start", "loss_data"]
    row = training.replicas[0].history[-1]
    assert list(row) == ["epoch", "seconds", "loss", *errors, *coefficients, *terms]
    t = training.evaluation.x[:, 0]
    u, v = training.field(training.evaluation.x).detach().T
    assert row["mse_u"] == pytest.approx((u - (2 * t).sin()).square().mean().item(), rel=1e-10)
    expected = (v - (2 * t).cos()).square().mean() / (2 * t).cos().square().mean()
    assert row["l2_v"] == pytest.approx(expected.sqrt().item(), rel=1e-10)
    omega, shift = problem.omega.item(), problem.shift.item()
    assert omega != 1 and shift != 0.25
    assert [row[name] for name in coefficients] == [omega, abs(omega / 2 - 1), shift]
    assert sum(row[name] for name in terms) == pytest.approx(row["loss"], rel=1e-12) or settings


def test_a_relative_error_of_what_is_0_is_not_a_number(
    make_training: MakeTraining, fit: Callable
) -> None:
    class Rest(NoSolution):
        def solution(self, x: Tensor) -> Tensor:
            return 0 * x[:, 0]

    training = make_training(problem=Rest(), epochs=1)
    fit(training)
    row = training.replicas[0].history[-1]
    assert row["mse_u"] > 0
    assert isnan(row["l2_u"])


@pytest.mark.parametrize("name", ["mse_u", "error_k", "l2_uxx"])
def test_two_metrics_of_one_name(name: str) -> None:
    class Taken(NoSolution):
        def __init__(self) -> None:
            self.k = Coefficient(1.0, true=2.0)
            self.register_parameter(name, Coefficient(1.0))

    with pytest.raises(ValueError, match=f"Taken: two of its metrics are named {name}: rename"):
        Evaluation(Taken(), 5)


@pytest.mark.parametrize("name", ["loss", "epoch", "seconds", "loss_residual"])
def test_a_coefficient_is_no_other_column_of_the_history(
    make_training: MakeTraining, name: str
) -> None:
    class Taken(NoSolution):
        def __init__(self) -> None:
            self.register_parameter(name, Coefficient(1.0))

    with pytest.raises(ValueError, match=f"{name}: a coefficient cannot have the name of a column"):
        make_training(problem=Taken())


def test_errors_are_not_taken_at_training_points(make_training: MakeTraining) -> None:
    training = make_training()
    trained = {x.item() for term in training.objective.terms for x in term.x}
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
    """The clock advances by 1 in an epoch, 100 in an evaluation and 10 000 in a plan."""
    now = 0.0

    def passing(seconds: float, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any) -> Any:
            nonlocal now
            now += seconds
            return function(*arguments)

        return timed

    training = make_training(epochs=10, chunk=4)
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: now))
    monkeypatch.setattr(training, "rate", passing(1, training.rate))
    metrics = passing(100, training.evaluation.metrics)
    monkeypatch.setattr(training.evaluation, "metrics", metrics)
    monkeypatch.setattr(training.field, "plan", passing(10_000, training.field.plan))
    fit(training)
    assert training.train_seconds == 10
    assert [row["seconds"] for row in training.replicas[0].history] == [4, 8, 10]
    assert training.evaluation_seconds == 3 * 100 + 100  # the last is the outcome's
    assert training.warmup_seconds == 3 * 10_000  # labels, residual, evaluation
