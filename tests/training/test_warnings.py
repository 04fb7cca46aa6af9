"""Warnings at the end of training where a small estimated error means little."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import diffhash as dh
from diffhash.geometry import Box, Interval
from diffhash.networks import Linear
from diffhash.optim import Task
from diffhash.problems import measured


class Predators(dh.Problem):
    """Lotka's and Volterra's predators and prey."""

    unknowns = ("u", "v")

    def __init__(self, end: float) -> None:
        super().__init__()
        self.domain = Interval(t=(0, end))

    def conditions(self) -> list[dh.Condition]:
        start = self.domain.initial()
        return [
            dh.Condition("prey", self.domain, lambda x, d: d.u_t - d.u * (1 - d.v)),
            dh.Condition("predators", self.domain, lambda x, d: d.v_t - d.v * (d.u - 1)),
            dh.Condition("u_first", start, lambda x, d: d.u, target=1.5),
            dh.Condition("v_first", start, lambda x, d: d.v, target=1.0),
        ]


class Plates(dh.Problem):
    """Flow between plates, where v is 0, and so are all terms of the continuity equation."""

    unknowns = ("u", "v", "p")
    domain = Box(x=(0, 1), y=(0, 1))

    def conditions(self) -> list[dh.Condition]:
        domain, walls = self.domain, self.domain.boundary()
        return [
            dh.Condition("along", domain, lambda x, d: d.p_x - d.u_xx - d.u_yy),
            dh.Condition("across", domain, lambda x, d: d.p_y - d.v_xx - d.v_yy),
            dh.Condition("continuity", domain, lambda x, d: d.u_x + d.v_y),
            dh.Condition("u", walls, lambda x, d: d.u, target=lambda x: x[:, 1] * (1 - x[:, 1])),
            dh.Condition("v", walls, lambda x, d: d.v),
            dh.Condition("p", domain.boundary("x+"), lambda x, d: d.p),
        ]


class Beside(dh.Problem):
    """Two equations that have nothing to do with each other; v is 0."""

    unknowns = ("u", "v")
    domain = Box(x=(0, 1), y=(0, 1))

    def conditions(self) -> list[dh.Condition]:
        domain, edge = self.domain, self.domain.boundary()
        return [
            dh.Condition("first", domain, lambda x, d: d.u_xx + d.u_yy, target=1.0),
            dh.Condition("second", domain, lambda x, d: d.v_xx + d.v_yy),
            dh.Condition("edge", edge, lambda x, d: dh.stack(d.u, d.v)),
        ]


class Ring(dh.Problem):
    """u_t + u_x = 0, where the ends of x are joined by a condition that counts as an equation."""

    domain = Box(x=(0, 1), t=(0, 1))

    def conditions(self) -> list[dh.Condition]:
        joined, start = self.domain.periodic("x"), self.domain.initial()

        def wave(x: Tensor) -> Tensor:
            return (2 * math.pi * x[:, 0]).sin()

        return [
            dh.Condition("equation", self.domain, lambda x, d: d.u_t + d.u_x),
            dh.Condition("joined", joined, lambda x, d: d.u, kind="residual"),
            dh.Condition("start", start, lambda x, d: d.u, target=wave),
        ]


class Rod(dh.Problem):
    """A cooling rod: conduction and loss of heat both make its temperature decay."""

    domain = Box(x=(0, 1), t=(0, 1))

    def __init__(self, share: float) -> None:
        super().__init__()
        self.a, self.h = dh.Coefficient(0.45 * share), dh.Coefficient(1.44 * share)

    def conditions(self) -> list[dh.Condition]:
        x = self.domain.sample(200)
        decay = 0.45 * math.pi**2 + 1.44
        u = (-decay * x[:, 1]).exp() * (math.pi * x[:, 0]).sin()
        return [
            dh.Condition("heat", self.domain, lambda x, d: d.u_t - self.a * d.u_xx + self.h * d.u),
            dh.Condition("ends", self.domain.boundary("x"), lambda x, d: d.u),
            measured("u", {"x": x[:, 0], "t": x[:, 1], "u": u}, axes=["x", "t"], values=["u"]),
        ]


def given(problem: dh.Problem, pattern: str, **settings: Any) -> list[str]:
    """The warnings of a solution that hold ``pattern``."""
    task = Task(n_residual=4000, n_boundary=400)
    settings = {"optimizer": "gauss_newton", "epochs": 60, "task": task} | settings
    with warnings.catch_warnings(record=True) as every:
        warnings.simplefilter("always")
        dh.solve(problem, progress=False, evaluation_points=100, **settings)
    return [str(w.message) for w in every if pattern in str(w.message)]


@pytest.mark.parametrize(("end", "windows", "n"), [(5, 1, 0), (10, 1, 1), (10, 4, 0)])
def test_an_equation_that_is_not_satisfied_everywhere(end: float, windows: int, n: int) -> None:
    told = given(Predators(end), "is not satisfied at", windows=windows)
    assert len(told) == n
    assert all(text.startswith("predators is not satisfied") for text in told)


@pytest.mark.parametrize(
    ("optimizer", "epochs"),
    [("gauss_newton", 20), pytest.param("adam", 500, marks=pytest.mark.slow)],
)
def test_an_equation_whose_terms_are_all_small(optimizer: str, epochs: int) -> None:
    assert given(Plates(), "continuity is not", optimizer=optimizer, epochs=epochs) == []
    assert given(Beside(), "second is not", optimizer=optimizer, epochs=epochs) == []


class Fading(dh.Problem):
    """u' = -8 u, from u = ``start``."""

    domain = Interval(t=(0, 8))

    def __init__(self, start: float) -> None:
        super().__init__()
        self.start = start

    def conditions(self) -> list[dh.Condition]:
        first = dh.Condition("first", self.domain.initial(), lambda x, d: d.u, target=self.start)
        return [dh.Condition("equation", self.domain, lambda x, d: d.u_t + 8 * d.u), first]


@pytest.mark.parametrize(("start", "windows"), [(0.0, 1), (1.0, 4)])
def test_a_solution_that_is_0(start: float, windows: int) -> None:
    assert given(Fading(start), "is not satisfied", windows=windows) == []


def test_conditions_that_join_sides_are_no_equations() -> None:
    assert given(Ring(), "") == []


@pytest.mark.parametrize(("share", "n"), [(0.7, 0), (0.02, 1)])
def test_coefficients_far_from_their_starts(share: float, n: int) -> None:
    assert len(given(Rod(share), "another minimum")) == n


def test_a_coefficient_that_diverges() -> None:
    told = given(Rod(0.7), "", optimizer="adam", learning_rate=1e30, epochs=100)
    assert len(told) == 1
    assert "diverged" in told[0]


class Decay(dh.Problem):
    """u' = -k u with measurements of u, of which some are wrong."""

    domain = Interval(t=(0, 2))

    def __init__(self, wrong: list[int], noise: float) -> None:
        super().__init__()
        self.k = dh.Coefficient(1.0)
        t = torch.linspace(0, 2, 100, dtype=torch.float64)
        errors = torch.randn(100, generator=torch.Generator().manual_seed(0), dtype=t.dtype)
        u = (-1.5 * t).exp() + noise * errors
        u[wrong] = 3.0
        self.data = measured("data", {"t": t, "u": u}, axes=["t"], values=["u"])

    def conditions(self) -> list[dh.Condition]:
        return [dh.Condition("decay", self.domain, lambda x, d: d.u_t + self.k * d.u), self.data]


@pytest.mark.parametrize(
    ("wrong", "noise"),
    [([], 0.0), ([], 0.01), ([], 0.2), ([7], 0.0), ([7], 0.01), ([7, 38, 69], 0.01)],
)
def test_wrong_measurements(wrong: list[int], noise: float) -> None:
    told = given(Decay(wrong, noise), "times as far from the field")
    places = "; ".join(f"{row + 1} (t = {2 * row / 99:.4g})" for row in wrong)
    assert len(told) == bool(wrong)
    assert all(f"as the others are: counted from 1, {places}. If" in text for text in told)


class Inside(dh.Problem):
    """A cooling rod with measurements inside, and perhaps nothing that holds the ends."""

    domain = Box(x=(0, 1), t=(0, 1))

    def __init__(self, has_ends: bool, noise: float = 0.01) -> None:
        super().__init__()
        self.k, self.has_ends = dh.Coefficient(0.3), has_ends
        x = self.domain.sample(300, "uniform", seed=0)
        normal = torch.randn(300, generator=torch.Generator().manual_seed(0), dtype=x.dtype)
        u = (-0.1 * math.pi**2 * x[:, 1]).exp() * (math.pi * x[:, 0]).sin()
        data = {"x": x[:, 0], "t": x[:, 1], "u": u + noise * normal}
        self.data = measured("data", data, axes=["x", "t"], values=["u"])

    def conditions(self) -> list[dh.Condition]:
        heat = dh.Condition("heat", self.domain, lambda x, d: d.u_t - self.k * d.u_xx)
        ends = dh.Condition("ends", self.domain.boundary("x"), lambda x, d: d.u)
        return [heat, self.data, *([ends] if self.has_ends else [])]


def test_unknowns_that_are_large_where_nothing_is_measured() -> None:
    settings = {"task": Task(), "epochs": 100}
    assert len(given(Inside(has_ends=False), "where nothing is measured", **settings)) == 1
    assert given(Inside(has_ends=True), "measured", **settings) == []


@pytest.mark.parametrize(("epochs", "windows", "n"), [(4, 1, 1), (4, 2, 2), (60, 1, 0)])
def test_an_optimizer_that_has_not_ended(epochs: int, windows: int, n: int) -> None:
    assert len(given(Predators(5), "had not ended after", epochs=epochs, windows=windows)) == n


class Oscillator(dh.Problem):
    """u'' + ω² u = 0, from u = 1 and u' = 0."""

    domain = Interval(t=(0, 40))

    def __init__(self, omega: float) -> None:
        super().__init__()
        self.omega = omega

    def conditions(self) -> list[dh.Condition]:
        start = self.domain.initial()
        return [
            dh.Condition("equation", self.domain, lambda x, d: d.u_tt + self.omega**2 * d.u),
            dh.Condition("place", start, lambda x, d: d.u, target=1.0),
            dh.Condition("speed", start, lambda x, d: d.u_t),
        ]

    def solution(self, x: Tensor) -> Tensor:
        return (self.omega * x).cos()


@pytest.mark.parametrize(("omega", "windows", "n"), [(15.0, 1, 1), (3.0, 4, 0)])
def test_residuals_that_add_up(omega: float, windows: int, n: int) -> None:
    assert len(given(Oscillator(omega), "add up over long times", windows=windows)) == n


@pytest.mark.parametrize(("noise", "n"), [(0.1, 1), (1e-3, 0)])
def test_noise_that_moves_a_coefficient(noise: float, n: int) -> None:
    problem, double = Inside(has_ends=True, noise=noise), torch.float64
    encoding = dh.GridEncoding(
        2, n_levels=1, n_features_per_level=1, base_resolution=6, interpolation="quintic",
        init_scale=0.0, dtype=double,
    )  # fmt: skip
    linear = Linear(1, 1, dtype=double)
    field = dh.Field(encoding, linear, problem.domain.bounds, problem.names)
    settings = {"field": field, "task": Task(n_residual=1000, n_boundary=100)}
    assert len(given(problem, "give way to errors", **settings)) == n


class Pair(dh.Problem):
    """u' = v and v' = 1 from u = 1 and v = 0, of which u is measured near the start."""

    unknowns = ("u", "v")
    domain = Interval(t=(0, 1))

    def conditions(self) -> list[dh.Condition]:
        data = {"t": [0.0, 0.01], "u": [1.0, 1.00005]}
        return [
            dh.Condition("first", self.domain, lambda x, d: d.u_t - d.v),
            dh.Condition("second", self.domain, lambda x, d: d.v_t, target=1.0),
            dh.Condition("start", self.domain.initial(), lambda x, d: d.v),
            measured("data", data, axes=["t"], values=["u"]),
        ]


def test_an_unknown_that_is_not_measured_may_be_larger_elsewhere() -> None:
    assert given(Pair(), "where nothing is measured") == []


def test_warnings_stay_with_the_solution(tmp_path: Path) -> None:
    task, path = Task(n_residual=4000, n_boundary=400), tmp_path / "solution.pt"
    with pytest.warns(UserWarning, match="predators is not satisfied at") as given:
        solution = dh.solve(
            Predators(10), task=task, optimizer="gauss_newton", epochs=60, progress=False
        )
    assert solution.warnings == [str(warning.message) for warning in given]
    assert solution.title.endswith(", with a warning")
    assert solution.warnings[0] in repr(solution)
    solution.save(path)
    assert dh.Solution.load(path, Predators(10)).warnings == solution.warnings
