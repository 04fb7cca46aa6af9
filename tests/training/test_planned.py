"""Losses over fixed points and their gradients, whatever the terms are."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from diffhash.problems import Derivatives, Poisson1D
from diffhash.training import FieldTraining
from diffhash.training.planned import PlannedBackward

MakeTraining = Callable[..., FieldTraining]


class Reaction(Poisson1D):
    """k u″ + u³ = f."""

    def _equation(self, x: Tensor, d: Derivatives) -> Tensor:
        return super()._equation(x, d) + d.u**3


@pytest.mark.parametrize("problem", [Poisson1D(), Reaction()], ids=["linear", "not linear"])
@pytest.mark.parametrize("encoder", ["mlp", "ff", "siren", "linear", "s2", "cubic"])
def test_it_is_the_backward_pass(
    make_training: MakeTraining, encoder: str, problem: Poisson1D
) -> None:
    training = make_training(encoder, dtype=torch.float64, problem=problem)
    field, objective = training.field, training.objective
    objective.terms[0].weight.fill_(0.3)
    plans = [field.plan(term.x, term.rows) for term in objective.terms]
    loss = objective.loss([plan.jet() for plan in plans])
    expected = torch.autograd.grad(loss, list(field.parameters()))
    planned = PlannedBackward(objective, plans)
    torch.testing.assert_close(planned(), loss.detach(), rtol=1e-12, atol=0)
    for parameter, gradient in zip(field.parameters(), expected, strict=True):
        assert parameter.grad is not None
        atol = 1e-11 * gradient.abs().max().item()
        torch.testing.assert_close(parameter.grad, gradient, rtol=0, atol=atol)
    objective.terms[0].weight.fill_(0.0)  # read anew
    objective.terms[1].weight.fill_(0.0)
    assert planned() == 0


def test_a_problem_that_is_not_linear_trains(make_training: MakeTraining, fit: Callable) -> None:
    results = []
    for derivatives in ("taylor", "autograd"):
        training = make_training(
            "cubic", dtype=torch.float64, problem=Reaction(), derivatives=derivatives
        )
        fit(training)
        results.append(torch.cat([p.detach().flatten() for p in training.field.parameters()]))
    torch.testing.assert_close(results[0], results[1], rtol=1e-10, atol=1e-11)
