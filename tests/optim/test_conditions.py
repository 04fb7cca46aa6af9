"""Losses and every gradient of every kind of condition, against the loss written out by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from diffhash import Field
from diffhash.jets import Jet, autograd_jet
from diffhash.optim import Objective, Task
from diffhash.training.planned import PlannedBackward
from tests.optim.written import EXPECTED, by_hand, make_field, parameters

D = torch.float64
EVERY = pytest.mark.parametrize("name", EXPECTED)
SIZES = Task(n_residual=9, n_boundary=7, wave_number=None)


def gradients(loss: Tensor, of: list[Tensor]) -> list[Tensor]:
    found = torch.autograd.grad(loss.sum(), of, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(of, found, strict=True)]


def assert_close(found: list[Tensor], expected: list[Tensor]) -> None:
    for one, other in zip(found, expected, strict=True):
        atol = 1e-11 * max(other.abs().max().item(), 1e-3)
        torch.testing.assert_close(one, other, rtol=1e-10, atol=atol)


def jets(objective: Objective, field: Field, rows: Any = None, oracle: bool = False) -> list[Jet]:
    found = []
    for index, term in enumerate(objective.terms):
        x = term.points(None if rows is None else rows[index])
        if oracle:
            jet = autograd_jet(field, x, term.rows)
            found.append(Jet(jet.data, jet.rows, field.names))
        else:
            found.append(field.jet(x, term.rows))
    return found


@EVERY
def test_what_is_read_and_whether_it_is_linear_is_found(name: str) -> None:
    expected = EXPECTED[name]
    objective = SIZES.objective(expected.make())
    assert tuple(len(term.rows) for term in objective.terms) == expected.n_rows
    assert tuple(term.coefficients is not None for term in objective.terms) == expected.linear
    kernels = tuple(term.kernel_form() is not None for term in objective.terms)
    assert kernels == expected.linear


@pytest.mark.parametrize("encoding", ["identity", "quintic"])
@EVERY
def test_losses_and_gradients(name: str, encoding: str) -> None:
    problem = EXPECTED[name].make()
    objective, field = SIZES.objective(problem), make_field(problem, encoding=encoding)
    of = parameters(field, problem)
    expected = by_hand(problem, objective, field)
    total = sum(expected.values(), torch.zeros((), dtype=D))
    wanted = gradients(total, of)
    assert all(g.abs().max() > 0 for g in wanted)

    for oracle in (False, True):
        loss = objective.loss(jets(objective, field, oracle=oracle))
        assert_close(objective.parts, [part.detach() for part in expected.values()])
        assert_close(gradients(loss, of), wanted)
    planned = PlannedBackward(objective, [field.plan(t.x, t.rows) for t in objective.terms])
    assert_close([planned()], [total.detach()])
    assert_close(planned.parts, [part.detach() for part in expected.values()])
    assert_close([p.grad for p in of], wanted)  # type: ignore[misc]


@EVERY
def test_minibatches_are_losses_at_some_of_the_points(name: str) -> None:
    """All minibatches of an epoch together have the whole loss and gradient."""
    problem = EXPECTED[name].make()
    objective, field = SIZES.objective(problem), make_field(problem)
    of = parameters(field, problem)
    whole = objective.loss(jets(objective, field))
    expected, parts = gradients(whole, of), list(objective.parts)
    generator = torch.Generator().manual_seed(0)
    orders = [torch.randperm(len(t), generator=generator) for t in objective.terms]
    found = [torch.zeros_like(p) for p in of]
    sums = [torch.zeros((), dtype=D) for _ in parts]
    for step in range(3):
        rows = [order.tensor_split(3)[step] for order in orders]
        if not all(map(len, rows)):  # a boundary of single points
            rows = [r if len(r) else order[:1] for r, order in zip(rows, orders, strict=True)]
        objective.loss(jets(objective, field, rows), rows)
        for index, (term, r) in enumerate(zip(objective.terms, rows, strict=True)):
            if len(term) < 3 and step:
                continue
            share = len(r) / len(term)
            own = term.loss(jets(objective, field, rows)[index], r)
            sums[index] = sums[index] + share * own.detach()
            for total, g in zip(found, gradients(share * own, of), strict=True):
                total += g
    assert_close(sums, parts)
    assert_close(found, expected)


@EVERY
def test_shares_of_devices_add_up(name: str) -> None:
    problem = EXPECTED[name].make()
    objective, field = SIZES.objective(problem), make_field(problem)
    of = parameters(field, problem)
    objective.terms[0].weight.fill_(0.7)
    count = min(3, *(len(term) for term in objective.terms))
    expected = gradients(objective.loss(jets(objective, field)), of)
    parts = list(objective.parts)
    shares = [objective.shard(index, count) for index in range(count)]
    losses = [share.loss(jets(share, field)) for share in shares]
    assert_close([sum(ps) for ps in zip(*(s.parts for s in shares), strict=True)], parts)
    assert_close(gradients(torch.stack(losses).sum(), of), expected)
    for parameter in of:
        parameter.grad = None
    for share in shares:
        PlannedBackward(share, [field.plan(t.x, t.rows) for t in share.terms])()
    assert_close([p.grad for p in of], expected)  # type: ignore[misc]
    objective.terms[0].weight.fill_(0.0)  # the weight is the whole one's own
    assert all(share.terms[0].loss(jets(share, field)[0]) == 0 for share in shares)
