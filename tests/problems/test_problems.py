"""What holds for every problem of the package, and for one that a user writes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import diffhash.problems
from diffhash.jets import Jet, axis_rows, expanded, row_order
from diffhash.problems import Poisson1D, Problem, even_points

PROBLEMS = [
    c
    for c in (getattr(diffhash.problems, name) for name in diffhash.problems.__all__)
    if isinstance(c, type) and issubclass(c, Problem) and c is not Problem
]
EVERY_PROBLEM = pytest.mark.parametrize("make", PROBLEMS, ids=lambda c: c.__name__)

# Central differences of eighth order: weights of u(x), u(x ± h), u(x ± 2h), …
FIRST = [0.0, 4 / 5, -1 / 5, 4 / 105, -1 / 280]
SECOND = [-205 / 72, 8 / 5, -1 / 5, 8 / 315, -1 / 560]


class Helmholtz2D(Problem):
    """Δu + u = f on a box with sides of their own: what a user's file would hold."""

    domain = ((0.0, 2.0), (-1.0, 1.0))
    order = 2

    def operator(self, x: Tensor, u: Jet) -> Tensor:
        return u[2, 0] + u[0, 2] + u.value

    def solution(self, x: Tensor) -> Tensor:
        return (torch.pi * x[:, :1]).sin() * (4 * x[:, 1:]).cos()


class Convection(Problem):
    """u_t + x u_x = f with its source given and no solution known."""

    domain = ((0.0, 1.0), (0.0, 3.0))
    order = (1, 1)

    def operator(self, x: Tensor, u: Jet) -> Tensor:
        return u[0, 1] + x[:, :1] * u[1, 0]

    def source(self, x: Tensor) -> Tensor:
        return torch.ones(len(x), 1, dtype=x.dtype)


def _difference_jet(problem: Problem, x: Tensor) -> Jet:
    """The exact solution's jet by finite differences."""
    rows = []
    for alpha in expanded(problem.rows)[0]:
        if sum(alpha) == 0:
            rows.append(problem.solution(x))
            continue
        axis = next(j for j, m in enumerate(alpha) if m)
        low, high = problem.domain[axis]
        step = torch.zeros(problem.n_dims, dtype=torch.float64)
        step[axis] = h = 2e-3 * (high - low)
        odd = alpha[axis] == 1
        total = torch.zeros_like(rows[0])
        for k, weight in enumerate(FIRST if odd else SECOND):
            forward = problem.solution(x + k * step)
            backward = problem.solution(x - k * step) if k else torch.zeros_like(forward)
            total = total + weight * (forward - backward if odd else forward + backward)
        rows.append(total / h ** alpha[axis])
    return Jet(torch.stack(rows), problem.rows)


@pytest.mark.parametrize("make", [*PROBLEMS, Helmholtz2D], ids=lambda c: c.__name__)
def test_the_source_is_the_operator_on_the_solution(make: Any) -> None:
    problem = make()
    unit = torch.rand(
        200, problem.n_dims, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    low, high = torch.tensor(problem.domain, dtype=torch.float64).T
    x = low + (high - low) * (0.01 + 0.98 * unit)  # the differences reach 4 steps of 0.002
    jet = _difference_jet(problem, x)
    source = problem.source(x)
    assert source.shape == problem.operator(x, jet).shape
    # Relative truncation (ωh)⁸ / 3150 stays below 1e-7 up to 25 periods; rounding is eps/h².
    size = jet.data.abs().max().item()
    torch.testing.assert_close(problem.operator(x, jet), source, rtol=0, atol=1e-7 * size)


@EVERY_PROBLEM
def test_problems_describe_their_domain(make: Any) -> None:
    problem = make()
    assert problem.n_dims == len(problem.domain) == len(problem.rows[0])
    assert all(low < high for low, high in problem.domain)
    assert max(map(row_order, problem.rows)) <= 2


@pytest.mark.parametrize("make", [*PROBLEMS, Helmholtz2D, Convection], ids=lambda c: c.__name__)
def test_points_lie_in_the_domain_in_float64(make: Any) -> None:
    problem = make()
    low, high = torch.tensor(problem.domain, dtype=torch.float64).T
    for points in (problem.domain_points, problem.label_points, problem.evaluation_points):
        x = points(64)
        assert x.shape == (64, problem.n_dims)
        assert x.dtype == torch.float64
        assert (x >= low).all()
        assert (x <= high).all()
    x = problem.evaluation_points(64)
    # They reach all of the domain: every half of every axis holds its share.
    share = (x < (low + high) / 2).double().mean(dim=0)
    assert ((share > 0.4) & (share < 0.6)).all()
    assert (problem.evaluation_points(64) == x).all()


@pytest.mark.parametrize("make", [*PROBLEMS, Helmholtz2D], ids=lambda c: c.__name__)
@pytest.mark.parametrize("n_training", [1000, 2000])
def test_evaluation_points_are_not_training_points(make: Any, n_training: int) -> None:
    problem = make()
    evaluation = {tuple(point) for point in problem.evaluation_points(10_000).tolist()}
    for points in (problem.domain_points, problem.label_points):
        assert evaluation.isdisjoint(tuple(point) for point in points(n_training).tolist())


def test_even_points_of_an_interval_have_both_ends() -> None:
    x = even_points([(-1.0, 3.0)], 5)
    assert x[:, 0].tolist() == [-1, 0, 1, 2, 3]
    assert even_points([(2.0, 3.0)], 1).tolist() == [[2.0]]


def test_even_points_of_a_box_fill_it_without_repeats() -> None:
    x = even_points([(0.0, 1.0), (10.0, 20.0)], 256)
    assert len({tuple(point) for point in x.tolist()}) == 256
    # A Sobol' sequence: each of the 16 × 16 squares holds one of the 256 points.
    squares = ((x - torch.tensor([0.0, 10.0])) / torch.tensor([1.0, 10.0]) * 16).floor()
    assert len({tuple(square) for square in squares.tolist()}) == 256


def test_label_points_are_the_domains_unless_overridden() -> None:
    problem = Helmholtz2D()
    assert (problem.label_points(10) == problem.domain_points(10)).all()


def test_a_problem_knows_whether_it_has_a_solution() -> None:
    assert Poisson1D().has_solution
    assert Helmholtz2D().has_solution
    assert not Convection().has_solution


def test_orders_are_spelled_out() -> None:
    assert Helmholtz2D().rows == axis_rows((2, 2))
    assert Convection().rows == ((0, 0), (1, 0), (0, 1))


def test_a_given_source_serves_a_problem_without_a_solution() -> None:
    problem = Convection()
    x = problem.domain_points(8)
    # u = t solves u_t + x u_x = 1.
    zeros, ones = torch.zeros(8, 1), torch.ones(8, 1)
    jet = Jet(torch.stack([x[:, 1:], zeros.double(), ones.double()]), problem.rows)
    assert problem.residual(x, jet).abs().max() == 0
    assert (problem.residual(x, jet, 3 * ones.double()) == -2).all()


def test_neither_solution_nor_source_is_one_clear_error() -> None:
    class Nothing(Problem):
        domain = ((0.0, 1.0),)
        order = 1

        def operator(self, x: Tensor, u: Jet) -> Tensor:
            return u[1,]

    with pytest.raises(NotImplementedError, match=r"Nothing.*solution.*source"):
        Nothing().source(torch.zeros(1, 1, dtype=torch.float64))


def test_a_solution_out_of_autograds_sight_has_no_derivatives() -> None:
    class Numpy(Poisson1D):
        def solution(self, x: Tensor) -> Tensor:
            return torch.from_numpy(np.sin(x.detach().numpy()))

    problem = Numpy()
    x = problem.domain_points(9)
    with pytest.raises(ValueError, match=r"Numpy.solution varies with x where autograd cannot"):
        problem.source(x)
    assert torch.equal(
        problem.solution_jet(x, ((0,),)).value, problem.solution(x)
    )  # labels need none


@pytest.mark.parametrize("steps", [0, 1])
def test_a_solution_that_is_constant_between_steps(steps: int) -> None:
    class Constant(Poisson1D):
        def solution(self, x: Tensor) -> Tensor:
            return (x.detach() > 0.5).to(x.dtype) * steps

    problem = Constant()
    assert not problem.solution_jet(problem.domain_points(9), axis_rows([2])).data[1:].any()


def test_coefficients_of_a_linear_operator() -> None:
    problem = Poisson1D(k=0.3)
    x = problem.domain_points(5)
    coefficients = problem.coefficients(x)
    assert coefficients is not None
    assert coefficients[:, 0, :, 0].T.tolist() == [[0.0, 0.0, 0.3]] * 5


def test_coefficients_may_depend_on_x_and_on_axes() -> None:
    class Waves(Problem):
        """x u_t + u_xx, and u."""

        domain = ((0.0, 1.0), (0.0, 2.0))
        order = (2, 1)
        linear = True

        def operator(self, x: Tensor, u: Jet) -> Tensor:
            first = x[:, :1] * u[0, 1] + u[2, 0]
            return torch.cat([first, u.value], dim=-1)

    problem = Waves()
    x = problem.domain_points(4)
    coefficients = problem.coefficients(x)
    assert coefficients is not None
    rows = ((0, 0), (1, 0), (0, 1), (2, 0))
    assert problem.rows == rows and coefficients.shape == (4, 1, 4, 2)
    expected = torch.zeros(4, 4, 2, dtype=torch.float64)
    expected[3, :, 0], expected[2, :, 0], expected[0, :, 1] = 1, x[:, 0], 1
    assert torch.equal(coefficients[:, 0], expected)


def test_an_operator_that_is_not_linear_is_not_taken_for_it() -> None:
    class Burgers(Poisson1D):
        def operator(self, x: Tensor, u: Jet) -> Tensor:
            return u.value * u[1,]

    with pytest.raises(ValueError, match=r"Burgers\.linear=True: its operator is not linear"):
        Burgers().coefficients(Poisson1D().domain_points(3))
    Burgers.linear = False
    assert Burgers().coefficients(Poisson1D().domain_points(3)) is None
