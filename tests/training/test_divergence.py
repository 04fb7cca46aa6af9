"""A loss or parameters that are not finite end the run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count

import pytest
from torch import Tensor

from diffhash.jets import Jet
from diffhash.problems import Condition, Poisson1D
from diffhash.training import FieldTraining

MakeTraining = Callable[..., FieldTraining]


class NaNSource(Poisson1D):
    def conditions(self) -> list[Condition]:
        return [replace(super().conditions()[1], target=float("nan"))]


class NaNDerivatives(Poisson1D):
    """u is finite and its derivatives are NaN; the source is finite."""

    def conditions(self) -> list[Condition]:
        labels, residual = super().conditions()
        return [labels, replace(residual, target=lambda x: x[:, 0])]

    def solution(self, x: Tensor) -> Tensor:
        return super().solution(x) + 0 * (x - x).sqrt()


def fail_in_epoch(training: FieldTraining, epoch: int, value: float) -> None:
    """Let the loss be ``value`` from an epoch on."""
    rate = training.rate

    def failing(epochs_done: int) -> float:
        if epochs_done + 1 >= epoch:
            training.objective.terms[0].weight.fill_(value)
        return rate(epochs_done)

    training.rate = failing  # type: ignore[method-assign]


def fail_at(training: FieldTraining, step: int, value: float) -> None:
    """Let the loss be ``value`` from a step of minibatches on."""
    loss, steps = training.objective.loss, count(1)

    def failing(jets: Sequence[Jet], rows: Sequence[Tensor] | None = None) -> Tensor:
        if next(steps) >= step:
            training.objective.terms[0].weight.fill_(value)
        return loss(jets, rows)

    training.objective.loss = failing  # type: ignore[method-assign]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("chunk", [1, 2, 3, 100])
def test_the_epoch_is_the_one_whose_loss_was_not_finite(
    make_training: MakeTraining, fit: Callable, chunk: int, value: float
) -> None:
    training = make_training(epochs=50, chunk=chunk)
    fail_in_epoch(training, 5, value)
    fit(training)
    assert training.replicas[0].diverged_epoch == 5
    assert training.epochs_done == 5
    assert training.replicas[0].history[-1]["epoch"] == 5
    assert training.replicas[0].outcome is not None


def test_in_minibatches(make_training: MakeTraining, fit: Callable) -> None:
    training = make_training(epochs=50, batch_size=4, derivatives="autograd")  # 3 steps an epoch
    fail_at(training, 8, float("nan"))
    fit(training)
    assert training.replicas[0].diverged_epoch == 3


def test_a_source_that_is_not_a_number_is_no_divergence(make_training: MakeTraining) -> None:
    with pytest.raises(ValueError, match="residual: its target is not finite at 10 of 10 points"):
        make_training(problem=NaNSource(), epochs=50)


def test_a_rate_beyond_all_bounds(make_training: MakeTraining, fit: Callable) -> None:
    training = make_training(learning_rate=1e30, epochs=50)
    fit(training)
    # The loss of epoch 1 was that of the initial field.
    assert training.replicas[0].diverged_epoch == 2


@pytest.mark.parametrize("rate", [1e39, 1e30], ids=["parameters", "loss"])
def test_the_very_last_step_overflows(
    make_training: MakeTraining, fit: Callable, rate: float
) -> None:
    training = make_training(learning_rate=rate, epochs=1)
    fit(training)
    assert training.replicas[0].diverged_epoch == 1


def test_exact_derivatives_that_are_not_finite_are_no_divergence(
    make_training: MakeTraining, fit: Callable
) -> None:
    training = make_training(problem=NaNDerivatives(), epochs=4, chunk=2)
    fit(training)
    assert training.replicas[0].diverged_epoch is None
    assert training.epochs_done == 4
