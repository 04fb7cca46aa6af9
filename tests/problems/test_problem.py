"""Properties of problems of the package, and of those that a user writes."""

from __future__ import annotations

import copy
import io
import math
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from diffhash.geometry import Box, Disc, Interval
from diffhash.optim import Task
from diffhash.problems import (
    EXACT,
    Coefficient,
    Condition,
    Derivatives,
    Poisson1D,
    Problem,
    stack,
)
from diffhash.training.fields import default_field

D = torch.float64


class Helmholtz2D(Problem):
    """Δu + u = f on a rectangle, as in a user's file."""

    domain = Box(x=(0, 2), y=(-1, 1))

    def conditions(self) -> list[Condition]:
        return [Condition("residual", self.domain, lambda x, d: d.u_xx + d.u_yy + d.u, EXACT)]

    def solution(self, x: Tensor) -> Tensor:
        return (torch.pi * x[:, 0]).sin() * (4 * x[:, 1]).cos()


class Kovasznay(Problem):
    """Three unknowns in one stacked solution."""

    unknowns = ("u", "v", "p")
    domain = Box(x=(-0.5, 1), y=(-0.5, 1.5))

    def __init__(self, nu: float = 0.025) -> None:
        self.nu = nu

    def conditions(self) -> list[Condition]:
        return [Condition("flow", self.domain, self._flow)]

    def _flow(self, x: Tensor, d: Derivatives) -> Tensor:
        return stack(
            d.u * d.u_x + d.v * d.u_y + d.p_x - self.nu * (d.u_xx + d.u_yy),
            d.u * d.v_x + d.v * d.v_y + d.p_y - self.nu * (d.v_xx + d.v_yy),
            d.u_x + d.v_y,
        )

    def solution(self, x: Tensor) -> Tensor:
        rate = 0.5 / self.nu - math.sqrt(0.25 / self.nu**2 + 4 * math.pi**2)
        e, angle = (rate * x[:, 0]).exp(), 2 * math.pi * x[:, 1]
        v = rate / (2 * math.pi) * e * angle.sin()
        return stack(1 - e * angle.cos(), v, (1 - e.square()) / 2)


def random_points(problem: Problem, n: int = 200) -> Tensor:
    return problem.domain.sample(n, "uniform", 3)


OWN = [Poisson1D, Helmholtz2D, Kovasznay]
EVERY = pytest.mark.parametrize("make", OWN, ids=lambda c: c.__name__)


@EVERY
def test_the_exact_jet_is_that_of_finite_differences(make: Any) -> None:
    problem = make()
    low, high = torch.tensor(problem.domain.bounds, dtype=D).T
    x = random_points(problem)
    x = (low + high) / 2 + 0.9 * (x - (low + high) / 2)

    def solution(x: Tensor) -> Tensor:
        return problem.solution(x).reshape(len(x), -1)

    jet = problem.exact_jet(x, problem.rows)
    assert not jet.data.requires_grad
    assert jet.data.shape == (len(problem.rows), 200, len(problem.unknowns))
    assert torch.equal(jet.value, solution(x))
    for row in problem.rows:
        if not sum(row):
            continue
        axis = next(j for j, m in enumerate(row) if m)
        lower = tuple(m - (j == axis) for j, m in enumerate(row))
        h = 1e-5 * (high - low)[axis]
        step = torch.zeros(problem.n_dims, dtype=D)
        step[axis] = h
        above, below = (problem.exact_jet(x + s * step, problem.rows)[lower] for s in (1, -1))
        expected = (above - below) / (2 * h)
        size = jet.data.abs().max().item()
        torch.testing.assert_close(jet[row], expected, rtol=0, atol=1e-5 * size)


@EVERY
def test_the_solution_satisfies_its_conditions(make: Any) -> None:
    problem = make()
    for term in Task(n_labels=20, n_residual=50, n_boundary=20).objective(problem).terms:
        exact = problem.exact_jet(term.x, term.rows)
        assert term.errors(exact).abs().max() < 1e-10 * max(1, exact.data.abs().max().item())


@EVERY
def test_evaluation_points_lie_in_the_domain_and_are_not_trained_on(make: Any) -> None:
    problem = make()
    x = problem.domain.sample(2_000, "evaluation")
    assert problem.domain.contains(x).all()
    objective = Task().objective(problem)
    trained = {tuple(point) for term in objective.terms for point in term.x.tolist()}
    assert trained.isdisjoint(tuple(point) for point in x.tolist())


@EVERY
def test_a_problem_is_copied_and_pickled(make: Any) -> None:
    problem = make()
    for other in (copy.deepcopy(problem), pickle.loads(pickle.dumps(problem))):
        assert other.rows == problem.rows
        x = random_points(problem)
        assert torch.equal(other.solution(x), problem.solution(x))


def test_several_unknowns() -> None:
    problem = Kovasznay()
    assert [name for name in problem.derivatives if name.startswith("v")] == [
        *("v", "v_x", "v_y", "v_xx", "v_yy"),
    ]
    (term,) = Task(n_residual=30).objective(problem).terms
    assert term.target.shape == (30, 3)
    labels = Task("data", n_labels=12).objective(problem).terms[0]
    torch.testing.assert_close(labels.target, problem.solution(labels.x), rtol=0, atol=0)


class Unsolved(Problem):
    """u_t + x u_x = 1, with no solution known."""

    domain = Box(x=(0, 1), t=(0, 3))

    def conditions(self) -> list[Condition]:
        return [Condition("residual", self.domain, lambda x, d: d.u_t + x[:, 0] * d.u_x, 1.0)]


def test_a_problem_knows_whether_it_has_a_solution() -> None:
    assert Poisson1D().has_solution
    assert not Unsolved().has_solution
    with pytest.raises(NotImplementedError, match=r"Unsolved has no exact solution: define"):
        Unsolved().solution(torch.zeros(1, 2))


@pytest.mark.parametrize(
    ("solution", "message"),
    [
        (lambda x: x.sin() * x.T, r"Own\.solution must return the shape \[9, 1\], got \[9, 9\]"),
        (lambda x: x.sin().mean(), r"got \[\]"),
        (lambda x: x[:1], r"got \[1, 1\]"),
        (lambda x: x.expand(9, 2), r"got \[9, 2\]"),
        (lambda x: 1.0, r"got float"),
        (lambda x: None, r"got NoneType"),
    ],
)
def test_a_solution_of_the_wrong_shape_is_refused_and_not_broadcast(
    solution: Any, message: str
) -> None:
    class Own(Poisson1D):
        def solution(self, x: Tensor) -> Tensor:
            return solution(x)

    with pytest.raises(ValueError, match=message):
        Own().exact_jet(Poisson1D.domain.sample(9), ((0,),))
    with pytest.raises(ValueError, match=r"Own\.solution must return"):
        Task("data", n_labels=9).objective(Own())


def test_a_solution_may_be_flat_or_a_column() -> None:
    class Flat(Poisson1D):
        def solution(self, x: Tensor) -> Tensor:
            return super().solution(x)[:, 0]

    x = Poisson1D.domain.sample(9)
    expected = Poisson1D().exact_jet(x, Poisson1D().rows)
    assert torch.equal(Flat().exact_jet(x, expected.rows).data, expected.data)


def test_a_solution_out_of_autograds_sight_has_no_derivatives() -> None:
    class Numpy(Poisson1D):
        def solution(self, x: Tensor) -> Tensor:
            return torch.from_numpy(np.sin(x.detach().numpy()))

    problem = Numpy()
    x = problem.domain.sample(9)
    with pytest.raises(ValueError, match=r"Numpy\.solution varies with x where autograd cannot"):
        Task().objective(problem)
    assert torch.equal(problem.exact_jet(x, ((0,),)).value, problem.solution(x))  # labels need none


@pytest.mark.parametrize("steps", [0, 1])
def test_a_solution_that_is_constant_between_steps(steps: int) -> None:
    class Constant(Poisson1D):
        def solution(self, x: Tensor) -> Tensor:
            return (x.detach() > 0.5).to(x.dtype) * steps

    problem = Constant()
    assert not problem.exact_jet(problem.domain.sample(9), problem.rows).data[1:].any()


@pytest.mark.parametrize("unknowns", [(), ("u", "u"), ("u v",), "pressure", ("u", 3)])
def test_unknowns_have_names_of_their_own(unknowns: Any) -> None:
    class Own(Unsolved):
        pass

    Own.unknowns = unknowns
    with pytest.raises(ValueError, match=r"Own\.unknowns=.*: give different names"):
        Task(n_residual=4).objective(Own())


@pytest.mark.parametrize("name", ["x", "exact_u"])
def test_an_unknown_does_not_have_the_name_of_another_column_of_files(name: str) -> None:
    class Own(Unsolved):
        unknowns = ("u", name)

    with pytest.raises(ValueError, match=rf"Own\.unknowns=.*'{name}' is the name of"):
        _ = Own().names


@pytest.mark.parametrize("name", ["u_x", "u_xxt", "u_n"])
def test_an_unknown_does_not_have_the_name_of_a_derivative(name: str) -> None:
    class Own(Unsolved):
        domain = Box(x=(0, 1), t=(0, 1))
        unknowns = ("u", name)

    with pytest.raises(ValueError, match=rf"Own\.unknowns=.*'{name}' is a derivative of another"):
        _ = Own().names
    Own.unknowns = (name, "v", "v_in")
    assert Own().names.unknowns == (name, "v", "v_in")


@pytest.mark.parametrize("domain", [None, ((0.0, 1.0),), [0, 1]])
def test_a_domain_is_one(domain: Any) -> None:
    class Own(Unsolved):
        pass

    Own.domain = domain
    with pytest.raises(ValueError, match=r"Own\.domain=.*: give a domain of diffhash\.geometry"):
        _ = Own().names


class Lotka(Problem):
    """A problem that sets coefficients without a call of the base class's constructor."""

    unknowns = ("prey", "c_n")
    domain = Interval(t=(0, 1))

    def __init__(self, alpha: float = 0.5) -> None:
        self.alpha = Coefficient(alpha, true=2.0)
        self.beta = Coefficient(3.0)
        self.gamma = 1.5

    def conditions(self) -> list[Condition]:
        return [
            Condition("growth", self.domain, lambda x, d: d.prey_t - self.alpha * d.prey),
            Condition("decay", self.domain, lambda x, d: d.c_n_t + self.gamma * d.c_n),
        ]


@pytest.mark.parametrize("axes", [("n",), ("x", "xx"), ("x", "t", "xt")])
def test_derivatives_along_axes_have_names_of_their_own(axes: tuple[str, ...]) -> None:
    class Own(Unsolved):
        domain = Box(**dict.fromkeys(axes, (0, 1)))

    name = axes[-1]
    with pytest.raises(ValueError, match=f"Own.domain: the axis '{name}' needs .*: u_{name} is"):
        _ = Own().names


@pytest.mark.parametrize(
    ("domain", "periodic", "message"),
    [
        (Box(x=(0, 1), t=(0, 1)), ("y",), r"periodic=\('y',\): give names of the domain's axes"),
        (Box(x=(0, 1), t=(0, 1)), (0,), r"periodic=\(0,\): give names of the domain's axes"),
        (Box(x=(0, 1), t=(0, 1)), 1, r"periodic=1: give names of the domain's axes"),
        (Disc(), ("x",), "x"),
    ],
)
def test_periods_are_along_axes_with_two_sides(domain: Any, periodic: Any, message: str) -> None:
    class Own(Unsolved):
        pass

    Own.domain, Own.periodic = domain, periodic
    with pytest.raises(ValueError, match=message):
        Own().checked_conditions()
    if "axes" in message:  # before a field is made of them
        with pytest.raises(ValueError, match=message):
            default_field(Own())


def test_coefficients_are_the_problems_parameters() -> None:
    problem = Lotka()
    assert dict(problem.named_parameters()) == {"alpha": problem.alpha, "beta": problem.beta}
    assert (problem.alpha.item(), problem.alpha.true, problem.beta.true) == (0.5, 2.0, None)
    assert problem.alpha.dtype == D
    assert problem.alpha.shape == ()
    assert problem.derivatives == ["prey", "prey_t", "c_n", "c_n_t"]  # c_n: no normal derivative


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_coefficient_is_finite(number: float) -> None:
    with pytest.raises(ValueError, match=f"start={number}: give a finite number"):
        Coefficient(number)
    with pytest.raises(ValueError, match=f"true={number}: give a finite number"):
        Coefficient(1.0, number)


@pytest.mark.parametrize("value", [[1.0, 2.0], "1", None, torch.ones(2)])
def test_a_coefficient_is_one_number(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^start=.*: give a finite number; each .* of its own"):
        Coefficient(value)


def test_coefficients_are_copied_and_saved_with_their_true_values() -> None:
    problem = Lotka()
    problem.alpha.data.fill_(0.75)
    file = io.BytesIO()
    torch.save(problem.state_dict(), file)
    for other in (copy.deepcopy(problem), pickle.loads(pickle.dumps(problem))):
        assert isinstance(other.alpha, Coefficient)
        assert (other.alpha.item(), other.alpha.start, other.alpha.true) == (0.75, 0.5, 2.0)
        other.alpha.data.fill_(0.0)
        assert problem.alpha.item() == 0.75
    file.seek(0)
    again = Lotka()
    again.load_state_dict(torch.load(file, weights_only=True))
    assert (again.alpha.item(), again.alpha.true) == (0.75, 2.0)


def test_the_value_of_a_coefficient_is_set_in_its_data() -> None:
    problem = Lotka()
    with pytest.raises(TypeError, match=r"^Lotka\.alpha=0\.3: .*problem\.alpha\.data\.fill_\(…\)"):
        problem.alpha = 0.3  # pyright: ignore
    problem.alpha.data.fill_(0.3)
    assert problem.alpha.item() == 0.3
    problem.alpha = Coefficient(0.4)
    assert [p.item() for name, p in problem.named_parameters() if name == "alpha"] == [0.4]


def test_columns_beside_each_other() -> None:
    a, b = torch.arange(3.0), torch.ones(3, dtype=D)
    assert torch.equal(stack(a, b, 2), torch.stack([a.double(), b, 2 * b], dim=1))
    assert stack(torch.zeros(2, 3), 1.0).shape == (2, 3, 2)  # of replicas
    moved = stack(0.5, torch.zeros(3, device="meta"))
    assert moved.device.type == "meta"


def test_a_coefficient_of_the_class_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^Shared\.k: .*set it in __init__, self\.k = Coeff"):

        class Shared(Poisson1D):
            k = Coefficient(1.0)


def test_a_residual_takes_points_and_derivatives() -> None:
    domain = Interval(x=(0, 1))
    with pytest.raises(ValueError, match=r"^motion: its residual is a function of \(d\); give"):
        Condition("motion", domain, lambda d: d.u)  # type: ignore[arg-type]
    Condition("motion", domain, lambda x, d, k=2.0: k * d.u)


def test_a_solution_that_torch_cannot_follow() -> None:
    class ByNumpy(Poisson1D):
        def solution(self, x: Tensor) -> Tensor:
            return np.sin(x[:, 0])  # type: ignore[return-value]

    problem = ByNumpy()
    with pytest.raises(ValueError, match=r"^ByNumpy\.solution cannot be computed .*torch\.sin$"):
        problem.exact_jet(torch.rand(3, 1, dtype=torch.float64), ((0,), (1,)))
