"""Every problem of the package is solved by its own solution."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from diffhash.geometry import Box
from diffhash.jets import Jet
from diffhash.optim import Task
from diffhash.problems import Problem, zoo
from diffhash.problems.condition import Condition, Measured
from diffhash.problems.derivatives import Derivatives
from diffhash.problems.problem import points_of
from diffhash.problems.tracer import as_equations, trace

ZOO = zoo()
EVERY = pytest.mark.parametrize("name", ZOO)
SETTINGS = {  # of problems that have others besides
    "helmholtz2d": {"a": (1, 4), "low": -1},
    "cavity": {"reynolds": 400.0},
}
ROUND_OFF = 1e-10  # of the largest of the numbers that a residual is computed from
# Bounds where a condition holds only nearly: a soliton at the ends of its interval.
NEARLY = {"kdv": 1e-8}
# Root mean squares of the residuals of solutions from files. u of allen_cahn has a kink at
# the period's ends at t = 0, and the pressure of cavity has a logarithm in two corners.
LEFT = {
    "allen_cahn": 1e-6,
    "allen_cahn period": 1e-3,
    "cavity": 1e-4,
    "cavity momentum": 2e-2,
    "gray_scott": 1e-4,
    "kdv_cosine": 1e-4,
    "kuramoto_sivashinsky": 1e-4,
}


def _residual(problem: Problem, condition: Condition, n: int) -> tuple[Tensor, Tensor, float]:
    """The residual of the exact solution at random points, its target, and the size of the jet."""
    x, normal = points_of(condition, problem.domain, n, "uniform", seed=3)
    is_paired = len(x) == 2 * n
    first = x[:n] if is_paired else x
    rows, _ = trace(condition, problem.names, first, normal)
    jet = problem.exact_jet(x, rows)
    size = max(1.0, jet.data.abs().max().item())
    if is_paired:
        jet = Jet(jet.data[:, :n] - jet.data[:, n:], rows, problem.names)
    value = condition.residual(first, Derivatives(jet, normal))
    value = as_equations(condition, value, (len(first),))
    return value, problem.target(condition, first, normal), size


@pytest.mark.parametrize(("name", "settings"), [*((n, {}) for n in ZOO), *SETTINGS.items()])
def test_the_exact_solution_satisfies_every_condition(name: str, settings: dict[str, Any]) -> None:
    problem: Any = ZOO[name](**settings)
    for parameter in problem.parameters():
        parameter.data.fill_(parameter.true)
    for condition in problem.conditions():
        value, target, size = _residual(problem, condition, 500)
        tolerance = NEARLY.get(name, ROUND_OFF) * size
        assert target.isfinite().all(), condition.name
        if name in LEFT:
            left = (value - target).square().mean().sqrt().item()
            assert left < LEFT.get(f"{name} {condition.name}", LEFT[name]), condition.name
            continue
        torch.testing.assert_close(value, target, rtol=0, atol=tolerance, msg=condition.name)


@EVERY
def test_another_field_does_not_satisfy_them(name: str) -> None:
    """A condition that every field satisfies would test nothing."""
    problem = ZOO[name]()
    generator = torch.Generator().manual_seed(0)
    for condition in problem.conditions():
        x, normal = points_of(condition, problem.domain, 50, "uniform", seed=3)
        first = x[:50] if len(x) == 100 and not isinstance(condition.where, Measured) else x
        rows, _ = trace(condition, problem.names, first, normal)
        shape = (len(rows), len(first), len(problem.unknowns))
        data = torch.randn(shape, generator=generator, dtype=torch.float64)
        value = condition.residual(first, Derivatives(Jet(data, rows, problem.names), normal))
        value = as_equations(condition, value, (len(first),))
        error = value - problem.target(condition, first, normal)
        assert (error.abs().amax(dim=0) > 0.1).all(), condition.name


@EVERY
def test_a_problem_and_its_conditions_have_names(name: str) -> None:
    problem = ZOO[name]()
    assert ZOO[name].__name__.lower() == name.replace("_", "")
    names = [condition.name for condition in problem.conditions()]
    assert len(set(names)) == len(names)
    assert all(n.isidentifier() and n == n.lower() for n in names)
    assert (ZOO[name].__doc__ or "").count("\n") > 2  # the equation, the domain, the conditions


def test_they_are_imported_with_all_other_names() -> None:
    found: dict[str, Any] = {}
    exec("from diffhash.problems import *", found)
    assert {kind.__name__ for kind in ZOO.values()} | {"Condition", "measured"} <= set(found)
    assert found["Problem"] is Problem


def test_they_are_found_by_name() -> None:
    import diffhash.problems as problems

    assert problems.Helmholtz2D is ZOO["helmholtz2d"]
    with pytest.raises(AttributeError, match="Helmholz2D"):
        _ = problems.Helmholz2D


@pytest.mark.parametrize("nu", [0.002, 0.01 / torch.pi, 0.1])
def test_the_quadrature_for_burgers_equation_has_converged(nu: float) -> None:
    problem = ZOO["burgers1d"](nu=nu)  # type: ignore[call-arg]
    x = problem.domain.sample(500, "uniform", seed=1)
    exact = problem._quadrature(x, 300)  # type: ignore[operator]
    torch.testing.assert_close(problem.solution(x), exact, rtol=0, atol=1e-12)
    x[:, 1] = 0
    torch.testing.assert_close(problem.solution(x), -(torch.pi * x[:, 0]).sin(), rtol=0, atol=1e-12)
    rows = problem.rows
    assert problem.exact_jet(x, rows).data.isfinite().all()


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("helmholtz2d", {"a": 0.0}, r"^a=0.0: give"),
        ("helmholtz2d", {"a": (1.0, -4.0)}, r"^a=-4.0: give"),
        ("helmholtz2d", {"a": (1.0, 2.0, 4.0)}, r"^a=\(1.0, 2.0, 4.0\): give a number, or two"),
        ("helmholtz2d", {"low": 1.0}, r"^low=1.0: give a finite number below 1"),
        ("cavity", {"reynolds": 0.0}, r"^reynolds=0.0: give"),
        ("heat2d", {"kappa": 0.0}, r"^kappa=0.0: give"),
        ("poisson_interface", {"k_in": -1.0}, r"^k_in=-1.0: give"),
        ("poisson_mesh", {"k": 0.0}, r"^k=0.0: give"),
        ("inverse_burgers", {"noise": -0.1}, r"^noise=-0.1: give"),
        ("inverse_burgers", {"viscosity": 0.0}, r"^viscosity=0.0: give"),
        ("inverse_heat_field", {"n_data": 0}, r"^n_data=0"),
        ("helmholtz3d", {"a": float("nan")}, r"^a=nan: give"),
        ("multiscale_poisson2d", {"frequencies": []}, r"^frequencies=\[\]: give"),
        ("multiscale_poisson2d", {"frequencies": [4, -1]}, r"^frequencies\[1\]=-1: give"),
        ("heat1d", {"kappa": -1.0}, r"^kappa=-1.0: give"),
        ("wave1d", {"c": float("inf")}, r"^c=inf: give"),
        ("convection", {"beta": "fast"}, r"^beta=fast: give"),
        ("burgers1d", {"nu": 1e-3}, r"^nu=0.001: give at least 0.002"),
        ("kdv", {"half_width": 5.0}, r"^half_width=5.0: the soliton of c=4.0 needs at least 13"),
        ("kovasznay", {"reynolds": 0}, r"^reynolds=0: give"),
        ("taylor_green", {"nu": 0.0}, r"^nu=0.0: give"),
        ("poisson_holes", {"f": float("nan")}, r"^f=nan: give"),
        ("inverse_poisson", {"k": 0.0}, r"^k=0.0: give"),
        ("inverse_poisson", {"n_data": 0}, r"^n_data=0"),
        ("inverse_poisson_field", {"noise": -0.1}, r"^noise=-0.1: give"),
    ],
)
def test_settings_that_make_no_problem_are_refused(
    name: str, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ZOO[name](**settings)


def test_measured_values_may_be_noisy() -> None:
    make: Any = ZOO["inverse_poisson_field"]
    [exact] = [c for c in make().conditions() if isinstance(c.where, Measured)]
    [noisy] = [c for c in make(noise=0.1).conditions() if isinstance(c.where, Measured)]
    [again] = [c for c in make(noise=0.1).conditions() if isinstance(c.where, Measured)]
    assert isinstance(exact.where, Measured)
    assert isinstance(noisy.where, Measured)
    assert isinstance(again.where, Measured)
    assert (noisy.where.values == again.where.values).all()
    deviation = (noisy.where.values - exact.where.values).std().item()
    assert deviation == pytest.approx(0.1, rel=0.05)


def test_weights_by_the_size_of_an_equation_do_not_depend_on_its_units() -> None:
    class Scaled(Problem):
        """s (u_xx + u_y) = 0 on a box of width l, with u given at y = 0."""

        def __init__(self, s: float, width: float) -> None:
            super().__init__()
            self.s, self.domain = s, Box(x=(0, width), y=(0, width**2))

        def conditions(self) -> list[Condition]:
            return [
                Condition("equation", self.domain, lambda x, d: self.s * (d.u_xx + d.u_y)),
                Condition("start", self.domain.boundary("y-"), lambda x, d: 3 * d.u),
            ]

    def weights(s: float, width: float, wave_number: float | None) -> list[float]:
        task = Task(n_residual=16, n_boundary=4, wave_number=wave_number)
        return [term.weight.item() for term in task.objective(Scaled(s, width)).terms]

    k = 5.0
    assert weights(1.0, 1.0, None) == weights(7.0, 2.0, None) == [1, 1]
    assert weights(1.0, 1.0, k) == pytest.approx([1 / (k**4 + k**2), 1 / 9])
    assert weights(7.0, 2.0, k) == pytest.approx([16 / 49 / (k**4 + k**2), 1 / 9])
    with pytest.raises(ValueError, match=r"^wave_number=-1.0: give"):
        weights(1.0, 1.0, -1.0)
