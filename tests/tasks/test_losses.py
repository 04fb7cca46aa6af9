"""Losses of the two tasks, worked out by hand; weights, minibatches and bad settings."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from diffhash import Jet
from diffhash.problems import Poisson1D, Problem
from diffhash.tasks import Task, Term, data_task, pinn_task

EPS = torch.finfo(torch.float64).eps


class Unsolved(Problem):
    """u_x = 1, whose solution nobody wrote down."""

    domain = ((0.0, 2.0),)
    order = 1

    def operator(self, x: Tensor, u: Jet) -> Tensor:
        return u[1,]

    def source(self, x: Tensor) -> Tensor:
        return torch.ones_like(x)


class Line(Unsolved):
    """u = 3x on [0, 2] with the operator u_x."""

    def solution(self, x: Tensor) -> Tensor:
        return 3 * x

    def source(self, x: Tensor) -> Tensor:
        return Problem.source(self, x)


def _jets(task: Task, u: Any, u_x: Any) -> list[Jet]:
    """Jets of a given function at the terms' points."""
    jets = []
    for term in task.terms:
        rows = [u(term.x)] + [u_x(term.x) for _ in range(len(term.rows) - 1)]
        jets.append(Jet(torch.stack(rows), term.rows))
    return jets


def test_the_data_loss_is_the_mean_squared_error_of_u() -> None:
    task = data_task(Line(), n_labels=5)
    (term,) = task.terms
    assert term.name == "data"
    assert len(term) == 5
    assert term.rows == ((0,),)
    assert term.x[:, 0].tolist() == [0, 0.5, 1, 1.5, 2]
    assert term.target[:, 0].tolist() == [0, 1.5, 3, 4.5, 6]
    # u = 2x errs by x: the mean of 0, 1/4, 1, 9/4, 4 is 3/2.
    loss = task.loss(_jets(task, lambda x: 2 * x, None))
    assert loss.shape == ()
    assert loss.item() == pytest.approx(1.5, rel=4 * EPS)


def test_the_papers_data_task_has_1000_even_labels() -> None:
    (term,) = data_task(Poisson1D()).terms
    assert len(term) == 1000
    assert term.x[:, 0].tolist() == pytest.approx([i / 999 for i in range(1000)], abs=1e-15)
    i = 123
    x = i / 999
    u = (2 * x**3 - 20 * x) * math.sin(2 * math.pi * x) / (2 * math.pi) + math.sin(8 * math.pi * x)
    assert term.target[i].item() == pytest.approx(u, rel=1e-13)


@pytest.mark.parametrize(("data_weight", "residual_weight"), [(1.0, 1.0), (0.1, 7.0), (0.0, 2.0)])
def test_the_pinn_loss_is_the_weighted_sum(data_weight: float, residual_weight: float) -> None:
    task = pinn_task(
        Line(), n_labels=3, n_residual=4, data_weight=data_weight, residual_weight=residual_weight
    )
    assert [term.name for term in task.terms] == ["data", "residual"]
    assert [len(term) for term in task.terms] == [3, 4]
    assert [term.rows for term in task.terms] == [((0,),), ((0,), (1,))]
    # u = x²: labels at 0, 1, 2 err by 0, -2, -2; u_x - 3 = 2x - 3 at 0, 2/3, 4/3, 2.
    data, residual = 8 / 3, (9 + 25 / 9 + 1 / 9 + 1) / 4
    loss = task.loss(_jets(task, lambda x: x**2, lambda x: 2 * x))
    expected = data_weight * data + residual_weight * residual
    assert loss.item() == pytest.approx(expected, rel=20 * EPS)


def test_the_papers_pinn_task_has_its_points_and_source() -> None:
    data, residual = pinn_task(Poisson1D()).terms
    assert (len(data), len(residual)) == (1000, 2000)
    assert (data.x.min(), data.x.max()) == (0, 0.5)
    assert (residual.x.min(), residual.x.max()) == (0, 1)
    assert residual.rows == ((0,), (1,), (2,))
    problem = Poisson1D()
    torch.testing.assert_close(residual.target, problem.source(residual.x), rtol=0, atol=0)


def test_the_exact_solution_has_no_loss() -> None:
    problem = Poisson1D()
    task = pinn_task(problem, n_labels=20, n_residual=30)
    jets = [problem.solution_jet(term.x, term.rows) for term in task.terms]
    assert task.loss(jets).item() == 0


def test_weights_are_live() -> None:
    task = pinn_task(Line(), n_labels=3, n_residual=4, data_weight=1, residual_weight=1)
    jets = _jets(task, lambda x: x**2, lambda x: 2 * x)
    data, residual = task.terms
    both = task.loss(jets).item()
    residual.weight.fill_(0.0)
    only_data = task.loss(jets).item()
    data.weight.fill_(0.25)  # an integer in the configuration, a fraction later
    assert task.loss(jets).item() == pytest.approx(only_data / 4, rel=4 * EPS)
    data.weight.fill_(0.0)
    residual.weight.fill_(2.5)
    assert task.loss(jets).item() == pytest.approx(2.5 * (both - only_data), rel=20 * EPS)


def test_minibatches_take_the_rows_they_are_given() -> None:
    task = pinn_task(Line(), n_labels=3, n_residual=4)
    rows = [torch.tensor([2, 0]), torch.tensor([1])]
    x = [term.x[r] for term, r in zip(task.terms, rows, strict=True)]
    jets = [
        Jet((x[0] ** 2)[None], ((0,),)),
        Jet(torch.stack([x[1] ** 2, 2 * x[1]]), ((0,), (1,))),
    ]
    # Labels at 2 and 0 err by -2 and 0; the residual at 2/3 is 4/3 - 3.
    assert task.loss(jets, rows).item() == pytest.approx(2 + 25 / 9, rel=20 * EPS)


def test_the_mean_over_even_minibatches_is_the_full_loss() -> None:
    task = pinn_task(Line(), n_labels=6, n_residual=6)
    jets = _jets(task, lambda x: x.sin(), lambda x: x.cos())
    order = torch.randperm(6, generator=torch.Generator().manual_seed(0))
    parts = []
    for chunk in order.split(2):
        picked = [Jet(jet.data[:, chunk], jet.rows) for jet in jets]
        parts.append(task.loss(picked, [chunk, chunk]).item())
    assert sum(parts) / 3 == pytest.approx(task.loss(jets).item(), rel=20 * EPS)


def test_float32_jets_give_a_float32_loss_with_gradients() -> None:
    task = pinn_task(Line(), n_labels=3, n_residual=4, data_weight=0.5)
    jets = [
        Jet(torch.zeros(len(t.rows), len(t), 1, requires_grad=True), t.rows) for t in task.terms
    ]
    loss = task.loss(jets)
    assert loss.dtype == torch.float32
    loss.backward()
    grad = jets[0].data.grad
    assert grad is not None
    # ∂/∂u_i of w/n Σ (u_i - t_i)² at u = 0
    torch.testing.assert_close(grad[0, :, 0], torch.tensor([0.0, -1.0, -2.0]))


def test_a_task_moves_its_points_with_it_and_saves_none() -> None:
    task = pinn_task(Line(), n_labels=3, n_residual=4)
    assert task.state_dict() == {}
    assert list(task.parameters()) == []
    moved = task.to("meta")
    assert all(term.x.device.type == term.target.device.type == "meta" for term in moved.terms)


def test_labels_can_be_left_out() -> None:
    (term,) = pinn_task(Line(), n_labels=0, n_residual=4).terms
    assert term.name == "residual"


def test_a_problem_without_a_solution_trains_on_its_residual_alone() -> None:
    task = pinn_task(Unsolved(), n_labels=0, n_residual=4)
    assert task.loss(_jets(task, lambda x: x, lambda x: 0 * x)).item() == 1


@pytest.mark.parametrize("make", [data_task, pinn_task])
def test_labels_of_a_problem_without_a_solution_are_refused(make: Any) -> None:
    with pytest.raises(ValueError, match=r"problem=Unsolved has no exact solution"):
        make(Unsolved())


@pytest.mark.parametrize("n_labels", [0, -1])
def test_a_data_task_needs_labels(n_labels: int) -> None:
    with pytest.raises(ValueError, match=rf"^n_labels={n_labels}: give at least 1"):
        data_task(Line(), n_labels=n_labels)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_labels", -1),
        ("n_residual", 0),
        ("n_residual", -5),
        ("data_weight", -1.0),
        ("data_weight", float("nan")),
        ("residual_weight", float("inf")),
        ("residual_weight", -0.5),
    ],
)
def test_counts_and_weights_out_of_range_are_named(name: str, value: float) -> None:
    settings: dict[str, Any] = {name: value}
    with pytest.raises(ValueError, match=rf"^{name}={value}"):
        pinn_task(Line(), **settings)


def test_any_terms_make_a_task() -> None:
    x = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    target = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64)
    term = Term("flux", x, target, (0,), lambda x, u, f: torch.cat([u.value, x], dim=1) - f, 2.0)
    jet = Jet(torch.zeros(1, 2, 1, dtype=torch.float64), (0,))
    # Errors (-1, -2), (-3, -3): the mean of the squares is 23/4, the weight 2.
    assert Task([term]).loss([jet]).item() == pytest.approx(11.5, rel=4 * EPS)


def test_a_solution_of_the_wrong_shape_is_refused_and_not_broadcast() -> None:
    class Flat(Line):
        def solution(self, x: Tensor) -> Tensor:
            return 3 * x[:, 0]

    with pytest.raises(ValueError, match=r"Flat.*solution.*\[5, 1\].*\[5\]"):
        data_task(Flat(), n_labels=5)


def test_an_operator_that_does_not_match_its_source_is_refused_and_not_broadcast() -> None:
    class Flat(Unsolved):
        def operator(self, x: Tensor, u: Jet) -> Tensor:
            return u[1,][:, 0]

    task = pinn_task(Flat(), n_labels=0, n_residual=4)
    with pytest.raises(ValueError, match=r"Flat.*operator.*\[4\].*source.*\[4, 1\]"):
        task.loss(_jets(task, lambda x: x, lambda x: x))
