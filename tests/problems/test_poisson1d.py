"""The paper's problem against a second derivative worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from diffhash.optim import Task
from diffhash.problems import Poisson1D

X = np.linspace(0, 1, 257)


def _by_hand(x: Any) -> tuple[Any, Any, Any]:
    """u of Eq. 15, u′ and u″ by the product rule, with g = (2x³ - 20x) / 2π."""
    a, b = 2 * np.pi, 8 * np.pi
    g, g1, g2 = (2 * x**3 - 20 * x) / a, (6 * x**2 - 20) / a, 12 * x / a
    sin, cos = np.sin(a * x), np.cos(a * x)
    u = g * sin + np.sin(b * x)
    u1 = g1 * sin + g * a * cos + b * np.cos(b * x)
    u2 = g2 * sin + 2 * g1 * a * cos - g * a**2 * sin - b**2 * np.sin(b * x)
    return u, u1, u2


def test_the_solution_and_its_derivatives_are_those_of_equation_15() -> None:
    x = torch.from_numpy(X)[:, None]
    problem = Poisson1D()
    expected = _by_hand(X)
    np.testing.assert_allclose(problem.solution(x)[:, 0].numpy(), expected[0], rtol=0, atol=1e-14)
    jet = problem.exact_jet(x, ((0,), (1,), (2,)))
    for order in range(3):
        got = jet[order,][:, 0].numpy()
        # Round-off of sin(8πx) for |8πx| ≤ 26, times the amplitude (8π)^order.
        tolerance = 26 * 2.2e-16 * (8 * np.pi) ** order * 2
        np.testing.assert_allclose(got, expected[order], rtol=0, atol=tolerance)
    assert not jet.data.requires_grad
    alone = problem.exact_jet(x, ((2,),))  # without those below it
    assert alone.rows == ((2,),)
    assert torch.equal(alone[2,], jet[2,])


def _target(problem: Poisson1D, x: torch.Tensor) -> torch.Tensor:
    _, residual = problem.conditions()
    return problem.target(residual, x)


@pytest.mark.parametrize("k", [0.01, 1.0, -2.5])
def test_the_target_makes_the_solution_satisfy_the_equation(k: float) -> None:
    x = torch.from_numpy(X)[:, None]
    target = _target(Poisson1D(k=k), x)
    assert target.shape == (len(X), 1)
    assert target.dtype == torch.float64
    assert not target.requires_grad
    np.testing.assert_allclose(
        target[:, 0].numpy(), k * _by_hand(X)[2], rtol=0, atol=abs(k) * 1e-11
    )


def test_a_finite_difference_of_the_solution_gives_the_target() -> None:
    problem = Poisson1D()
    x = torch.linspace(0.05, 0.95, 37, dtype=torch.float64)[:, None]
    h = 1e-4
    u = problem.solution
    second = (u(x + h) - 2 * u(x) + u(x - h)) / h**2
    # Truncation h²/12 · |u⁗| ≤ h²/12 · (8π)⁴ (and as much again for the rest), rounding 4 eps u/h².
    tolerance = 0.01 * (2 * h**2 / 12 * (8 * np.pi) ** 4 + 8 * 2.2e-16 * 4 / h**2)
    torch.testing.assert_close(_target(problem, x), 0.01 * second, rtol=0, atol=tolerance)


def test_the_solution_vanishes_at_zero_and_one() -> None:
    u = Poisson1D().solution(torch.tensor([[0.0], [1.0]], dtype=torch.float64))
    assert u[0] == 0
    assert u[1].abs() < 1e-13  # sin 2π and sin 8π in floating point, times 18/2π


def test_labels_lie_in_their_region_evenly_with_both_ends() -> None:
    labels, residual = Task(n_residual=2000).objective(Poisson1D()).terms
    assert labels.x.dtype == torch.float64
    for term, expected in (
        (labels, np.linspace(0, 0.5, 1000)),
        (residual, np.linspace(0, 1, 2000)),
    ):
        np.testing.assert_allclose(term.x[:, 0].numpy(), expected, rtol=0, atol=2e-16)
    labels, _ = Task(n_labels=4).objective(Poisson1D(label_region=[0.25, 1.0])).terms
    torch.testing.assert_close(labels.x[:, 0].tolist(), [0.25, 0.5, 0.75, 1.0])


def test_its_derivatives_and_their_names() -> None:
    problem = Poisson1D()
    assert problem.rows == ((0,), (1,), (2,))
    assert problem.derivatives == ["u", "u_x", "u_xx"]
    assert (problem.names.axes, problem.names.unknowns) == (("x",), ("u",))


@pytest.mark.parametrize(
    "region",
    [(-0.1, 0.5), (0.5, 1.1), (0.5, 0.5), (0.7, 0.2), (0.5,), (0.0, 0.5, 1.0), (float("nan"), 1)],
)
def test_a_label_region_outside_the_domain_is_refused(region: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=r"^label_region=\["):
        Poisson1D(label_region=region)


@pytest.mark.parametrize("k", [0.0, float("nan"), float("inf")])
def test_a_coefficient_that_makes_no_equation_is_refused(k: float) -> None:
    with pytest.raises(ValueError, match=rf"^k={k}"):
        Poisson1D(k=k)
