"""Gauss–Newton warns of unknowns and coefficients that the conditions do not determine."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence

import pytest
import torch

import diffhash as dh
from diffhash.geometry import Box, Interval
from diffhash.networks import MLP
from diffhash.optim import GaussNewton, Task
from diffhash.optim.gauss_newton import Method
from diffhash.problems import Heat1D, zoo
from diffhash.training.fields import problem_field


class Channel(dh.Problem):
    """u'' = p', p'' = 0, with u = 0 and p' = -1 at the ends: p is determined up to a constant."""

    unknowns = ("u", "p")
    domain = Interval(x=(0, 1))

    def conditions(self) -> list[dh.Condition]:
        return [
            dh.Condition("momentum", self.domain, lambda x, d: d.u_xx - d.p_x),
            dh.Condition("pressure", self.domain, lambda x, d: d.p_xx),
            dh.Condition("ends", self.domain.boundary(), lambda x, d: dh.stack(d.u, d.p_x + 1)),
        ]


class Beam(dh.Problem):
    """A loaded beam, u_xxxx = 1, with the first few of its supports."""

    domain = Interval(x=(0, 1))

    def __init__(self, supports: int) -> None:
        super().__init__()
        self.supports = supports

    def conditions(self) -> list[dh.Condition]:
        ends, first = self.domain.boundary(), self.domain.boundary("x-")
        every = [
            dh.Condition("ends", ends, lambda x, d: d.u),
            dh.Condition("slope", first, lambda x, d: d.u_x),
            dh.Condition("moment", self.domain.boundary("x+"), lambda x, d: d.u_xx),
        ]
        equation = dh.Condition("equation", self.domain, lambda x, d: d.u_xxxx, target=1.0)
        return [equation, *every[: self.supports]]


class OpenBurgers(dh.Problem):
    """u_t + u u_x = u_xx / 20, where nothing is known at the ends."""

    domain = Box(x=(0, 1), t=(0, 1))

    def conditions(self) -> list[dh.Condition]:
        start = self.domain.initial()
        return [
            dh.Condition("equation", self.domain, lambda x, d: d.u_t + d.u * d.u_x - d.u_xx / 20),
            dh.Condition("start", start, lambda x, d: d.u, target=lambda x: (3 * x[:, 0]).sin()),
        ]


class Decay(dh.Problem):
    """u' = -a b u with known values of u: only the product of a and b is determined."""

    domain = Interval(t=(0, 1))

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = dh.Coefficient(1.0), dh.Coefficient(3.0)

    def conditions(self) -> list[dh.Condition]:
        equation = dh.Condition("equation", self.domain, lambda x, d: d.u_t + self.a * self.b * d.u)
        return [equation, self.labels()]

    def solution(self, x: torch.Tensor) -> torch.Tensor:
        return (-2 * x[:, 0]).exp()


def found(
    problem: dh.Problem, field: dh.Field | None = None, method: Method = "sparse",
    points: dict[str, int] | None = None, windows: int = 1,
) -> Sequence[str]:  # fmt: skip
    """The names that a warning lists."""
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        dh.solve(
            problem, field, task=Task(points=points or {}), progress=False, evaluation_points=100,
            optimizer=GaussNewton(method=method), epochs=30, windows=windows,
        )  # fmt: skip
    texts = [re.search("do not determine (.*): other", str(w.message)) for w in given]
    return [name for match in texts if match is not None for name in match[1].split(", ")]


@pytest.mark.parametrize("method", ["sparse", "primal"])
@pytest.mark.parametrize(
    ("points", "names"), [({}, []), ({"ends": 0}, ["u"]), ({"start": 0}, ["u"])]
)
def test_a_missing_condition(points: dict[str, int], names: list[str], method: Method) -> None:
    assert found(Heat1D(), method=method, points=points) == names


def test_windows_of_time_are_warned_of_once() -> None:
    assert found(Heat1D(), points={"start": 0}, windows=3) == ["u"]


def test_an_unknown_of_which_only_derivatives_are_known() -> None:
    assert found(Channel()) == ["p"]


def test_coefficients_of_which_only_the_product_is_known() -> None:
    assert found(Decay()) == ["a", "b"]


class Arrhenius(Decay):
    """u' = -a exp(-b) u with known values of u: only a exp(-b) is determined."""

    def conditions(self) -> list[dh.Condition]:
        def equation(x: torch.Tensor, d: dh.Derivatives) -> torch.Tensor:
            return d.u_t + 10 * self.a * (-self.b).exp() * d.u

        return [dh.Condition("equation", self.domain, equation), self.labels()]


class Plate(dh.Problem):
    """A loaded plate on supports, where the condition of no moment at its edge is missing."""

    domain = Box(x=(0, 1), y=(0, 1))

    def conditions(self) -> list[dh.Condition]:
        def equation(x: torch.Tensor, d: dh.Derivatives) -> torch.Tensor:
            return d.u_xxxx + 2 * d.u_xxyy + d.u_yyyy

        return [
            dh.Condition("equation", self.domain, equation, target=1.0),
            dh.Condition("edge", self.domain.boundary(), lambda x, d: d.u),
        ]


def test_an_edge_without_a_second_condition() -> None:
    assert found(Plate()) == ["u"]


class Ramp(Decay):
    """u' = a b with known values of u, which the coarsest splines satisfy exactly."""

    def conditions(self) -> list[dh.Condition]:
        equation = dh.Condition("equation", self.domain, lambda x, d: d.u_t - self.a * self.b)
        return [equation, self.labels()]

    def solution(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * x[:, 0]


def test_coefficients_of_a_solution_without_error() -> None:
    assert found(Ramp()) == ["a", "b"]


def test_coefficients_of_an_exponential() -> None:
    assert found(Arrhenius()) == ["a", "b"]


class Source(dh.Problem):
    """u'' + b u' = c sin(3x), whose true b is 0, with known values of u."""

    domain = Interval(x=(0, 1))

    def __init__(self, start: float) -> None:
        super().__init__()
        self.b, self.c = dh.Coefficient(start, true=0.0), dh.Coefficient(1.0, true=-9.0)

    def conditions(self) -> list[dh.Condition]:
        def equation(x: torch.Tensor, d: dh.Derivatives) -> torch.Tensor:
            return d.u_xx + self.b * d.u_x - self.c * (3 * x[:, 0]).sin()

        return [dh.Condition("equation", self.domain, equation), self.labels()]

    def solution(self, x: torch.Tensor) -> torch.Tensor:
        return (3 * x[:, 0]).sin()


@pytest.mark.parametrize("start", [0.0, 1.0])
def test_a_coefficient_that_is_0(start: float) -> None:
    assert found(Source(start)) == []


class Conductor(dh.Problem):
    """u_x + k(x) u = 0 with a network k, and known values of u."""

    domain = Interval(x=(0, 1))

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.k = torch.nn.Linear(1, 1, dtype=torch.float64)

    def conditions(self) -> list[dh.Condition]:
        equation = dh.Condition("equation", self.domain, lambda x, d: d.u_x + self.k(x)[:, 0] * d.u)
        return [equation, self.labels()]

    def solution(self, x: torch.Tensor) -> torch.Tensor:
        return (-x[:, 0] - x[:, 0] ** 2).exp()


def test_the_weights_of_a_network_are_no_unknowns() -> None:
    assert found(Conductor()) == []


@pytest.mark.parametrize(("supports", "names"), [(1, ["u"]), (2, ["u"]), (3, [])])
def test_a_missing_condition_of_an_equation_of_fourth_order(
    supports: int, names: list[str]
) -> None:
    assert found(Beam(supports)) == names


def test_ends_that_are_open() -> None:
    assert found(OpenBurgers()) == ["u"]


def test_an_equation_without_points() -> None:
    assert found(Heat1D(), points={"equation": 0}) == ["u"]


def test_unknowns_in_parts_of_the_domain() -> None:
    assert found(zoo()["poisson_interface"]()) == []


def test_too_few_points_are_not_a_missing_condition() -> None:
    assert found(Heat1D(), points={"equation": 2500, "ends": 300, "start": 300}) == []


@pytest.mark.parametrize(("start", "names"), [(200, []), (0, ["u"])])
def test_a_field_with_a_network(start: int, names: list[str]) -> None:
    problem, points = Heat1D(), {"equation": 1000, "ends": 200, "start": start}
    encoding = dh.GridEncoding(
        2, n_levels=1, n_features_per_level=1, base_resolution=12, interpolation="quintic",
        init_scale=0.0, dtype=torch.float64,
    )  # fmt: skip
    torch.manual_seed(0)
    network = MLP(encoding.n_output_dims, 1, width=8, depth=1, skip=True, dtype=torch.float64)
    assert found(problem, problem_field(problem, encoding, network), points=points) == names


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(zoo()))
def test_the_problems_of_the_package_determine_their_solutions(name: str) -> None:
    assert found(zoo()[name]()) == []
