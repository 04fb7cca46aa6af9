"""Problems of every kind train as a bare loop over their loss does, alone and several together."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch

from diffhash import Field
from diffhash.networks import stack_fields
from diffhash.optim import Task
from diffhash.training import Evaluation, FieldTraining
from tests.optim.written import EXPECTED, by_hand, make_field, parameters
from tests.thinned import pairwise

SIZES = Task(n_residual=9, n_boundary=7, wave_number=None)


def assert_close(found: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "derivatives"),
    pairwise([n for n in EXPECTED if n != "plate"], ["taylor", "autograd"], values=1),
)
def test_replicas_train_as_each_does_alone(name: str, derivatives: str, fit: Callable) -> None:
    def train(problem: Any, field: Field) -> FieldTraining:
        training = FieldTraining(
            field, SIZES.objective(problem), Evaluation(problem, 5), epochs=6, chunk=3,
            learning_rate=1e-2, derivatives=derivatives,
        )  # fmt: skip
        fit(training)
        return training

    seeds = (3, 0, 5)
    problem = EXPECTED[name].make()
    fields = [make_field(problem, seed) for seed in seeds]
    alone = [train(EXPECTED[name].make(), copy.deepcopy(field)) for field in fields]
    together = train(problem, stack_fields(fields))
    for index, one in enumerate(alone):
        [replica], other = one.replicas, together.replicas[index]
        assert_close(
            [p.detach()[index] for p in together.field.parameters()],
            [p.detach() for p in one.field.parameters()],
        )
        for coefficient, own in zip(
            problem.parameters(), one.objective.problem.parameters(), strict=True
        ):
            assert coefficient.detach()[index].item() == pytest.approx(own.item(), rel=1e-9)
        for row, expected in zip(other.history, replica.history, strict=True):
            del row["seconds"], expected["seconds"]
            assert row == pytest.approx(expected, rel=1e-8, nan_ok=True)


def test_a_coefficient_of_several_numbers_does_not_take_replicas(fit: Callable) -> None:
    problem = EXPECTED["plate"].make()
    field = stack_fields([make_field(problem, seed) for seed in (0, 1)])
    with pytest.raises(ValueError, match=r"^problem\.stiffness\.weight: of the shape \[1, 2\]"):
        FieldTraining(
            *(field, SIZES.objective(problem), Evaluation(problem, 5)), epochs=1, learning_rate=1e-3
        )


@pytest.mark.parametrize("name", EXPECTED)
def test_training_follows_a_bare_loop_over_the_written_loss(name: str, fit: Callable) -> None:
    problem, reference = EXPECTED[name].make(), EXPECTED[name].make()
    field, own = make_field(problem), make_field(reference)
    training = FieldTraining(
        *(field, SIZES.objective(problem), Evaluation(problem, 5)), epochs=4, learning_rate=1e-2
    )
    fit(training)
    of = parameters(own, reference)
    objective = SIZES.objective(reference)
    optimizer = torch.optim.Adam(of, lr=1e-2)
    for _ in range(4):
        optimizer.zero_grad()
        sum(
            by_hand(reference, objective, own).values(), torch.zeros((), dtype=torch.float64)
        ).backward()
        optimizer.step()
    for one, other in zip(parameters(field, problem), of, strict=True):
        torch.testing.assert_close(one.detach(), other.detach(), rtol=1e-8, atol=1e-9)
