"""Problems solved in windows of time."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from diffhash import Field, GridEncoding, solve
from diffhash.geometry import Box, Interval
from diffhash.networks import Linear
from diffhash.optim import GaussNewton, Task
from diffhash.problems import Coefficient, Condition, Poisson1D, Problem, measured, stack
from diffhash.training.solution import Solution


class Oscillator(Problem):
    """u″ + 16 u = 0, u(0) = 1, u′(0) = 0."""

    domain = Interval(t=(0, 3))

    def conditions(self) -> list[Condition]:
        return [
            Condition("motion", self.domain, lambda x, d: d.u_tt + 16 * d.u),
            Condition("start", self.domain.initial(), lambda x, d: stack(d.u - 1, d.u_t)),
        ]

    def solution(self, x: Tensor) -> Tensor:
        return (4 * x[:, 0]).cos()


class Growth(Problem):
    """u_t = u (1 - u) at every x, from (1 + x)/4: not linear."""

    domain = Box(x=(0, 1)) * Interval(t=(0, 4))

    def conditions(self) -> list[Condition]:
        return [
            Condition("growth", self.domain, lambda x, d: d.u_t - d.u * (1 - d.u)),
            Condition(
                "start", self.domain.initial(), lambda x, d: d.u, lambda x: (1 + x[:, 0]) / 4
            ),
        ]

    def _start(self, x: Tensor) -> Tensor:
        return (1 + x[:, 0]) / 4

    def solution(self, x: Tensor) -> Tensor:
        grown = self._start(x) * x[:, 1].exp()
        return grown / (1 - self._start(x) + grown)


def spline(problem: Problem) -> Field:
    """A field of at most 96 cells along an axis, coarser than the points of these tasks."""
    encoding = GridEncoding(
        problem.n_dims, n_levels=1, n_features_per_level=2,
        base_resolution=96 if problem.n_dims == 1 else 12, init_scale=1e-3,
        log2_hashmap_size=14, interpolation="quintic", dtype=torch.float64, seed=0,
    )  # fmt: skip
    network = Linear(encoding.n_output_dims, 1, dtype=torch.float64)
    return Field(encoding, network, problem.domain.bounds, problem.names)


def solved(problem: Problem, windows: Any, **settings: Any) -> Solution:
    settings.setdefault("field", spline(problem))
    return solve(
        problem, task=Task(n_residual=1500, n_boundary=60, wave_number=10.0),
        optimizer=GaussNewton(), epochs=20, evaluation_points=300, progress=False,
        windows=windows, **settings,
    )  # fmt: skip


@pytest.mark.parametrize("windows", [3, [0.4, 1.5]], ids=["equal", "given"])
@pytest.mark.parametrize("problem", [Oscillator(), Growth()], ids=["oscillator", "growth"])
def test_windows_continue_one_another(problem: Problem, windows: Any, tmp_path: Path) -> None:
    """Values are continued, and derivatives where the problem has a condition for them."""
    solution = solved(problem, windows)
    assert solution.relative_l2["u"] < 1e-5
    assert solution.history.window.tolist() == sorted(solution.history.window)
    assert set(solution.history.window) == {1, 2, 3}
    assert solution.history.epoch.is_monotonic_increasing
    assert 0 < solution.estimate < 1e-4
    _, high = problem.domain.bounds[-1]
    x = torch.rand(50, problem.n_dims, dtype=torch.float64)
    for time in [high / 3, high * 2 / 3] if windows == 3 else windows:
        x[:, -1] = time
        before = x.clone()
        before[:, -1] -= 1e-12
        rows = ("u", "u_t")
        gap = solution.jet(x, rows).data - solution.jet(before, rows).data
        assert gap.abs().max() < 1e-5
    torch.testing.assert_close(solution.jet(x, "u_t").value, solution(x))
    solution.save(tmp_path / "solution.pt")
    again = Solution.load(tmp_path / "solution.pt", problem, solution.field)
    assert again.estimate == solution.estimate
    assert torch.equal(again(x), solution(x))
    assert solution.plot() is not None


def test_windows_of_given_times_have_points_of_their_own() -> None:
    """A short window has as many points as a long one."""
    solution = solved(Oscillator(), [0.3, 1.0])
    t = solution.points["motion"][:, 0]
    counts = [int(((low <= t) & (t <= high)).sum()) for low, high in ((0, 0.3), (0.3, 1), (1, 3))]
    assert counts == [1501, 1502, 1501]  # ends of windows are in both


def test_points_are_answered_in_their_order() -> None:
    solution = solved(Oscillator(), 3)
    x = torch.linspace(0, 3, 31, dtype=torch.float64)[torch.randperm(31), None]
    torch.testing.assert_close(solution(x)[:, 0], (4 * x[:, 0]).cos(), atol=1e-5, rtol=0)
    assert solution(x[:0]).shape == (0, 1)


def test_a_field_of_ones_own_is_left_as_it_is() -> None:
    problem = Oscillator()
    field = spline(problem)
    before = [p.clone() for p in field.parameters()]
    solved(problem, 2, field=field)
    assert all(map(torch.equal, before, field.parameters()))


class _Unknown(Oscillator):
    def __init__(self) -> None:
        super().__init__()
        self.k = Coefficient(1.0)


class _Observed(Oscillator):
    def conditions(self) -> list[Condition]:
        return [*super().conditions(), measured("seen", {"t": [0.5], "u": [0.0]}, ("t",), ("u",))]


class _Ends(Oscillator):
    def __init__(self, *parts: str) -> None:
        super().__init__()
        self.ends = parts

    def conditions(self) -> list[Condition]:
        return [Condition("ends", self.domain.boundary(*self.ends), lambda x, d: d.u)]


class _Mixed(Problem):
    domain = Box(x=(0, 1), t=(0, 1))

    def conditions(self) -> list[Condition]:
        return [Condition("ends", self.domain.boundary("t-", "x-"), lambda x, d: d.u)]


class _Elsewhere(Oscillator):
    """A problem whose equation is on a domain that windows do not cut."""

    def conditions(self) -> list[Condition]:
        _, start = super().conditions()
        everywhere = Interval(t=(0, 3))
        return [Condition("motion", everywhere, lambda x, d: d.u_tt + 16 * d.u), start]


@pytest.mark.parametrize(
    ("problem", "windows", "message"),
    [
        (Poisson1D(), 2, "windows=2: .* has no axis 't'"),
        (Poisson1D(), [0.5], r"windows=\[0\.5\]: .* has no axis 't'"),
        (Oscillator(), 0, "windows=0"),
        *(
            (Oscillator(), given, rf"windows={re.escape(str(given))}: .* above 0 and below 3")
            for given in ([], [1.0, 1.0], [2, 1], [0.0], [1, 3], [math.nan], ["1"], [True])
        ),
        (Oscillator(), None, "windows=None"),
        (Oscillator(), 2.0, "windows=2.0"),
        (Oscillator(), "12", "windows='12'"),
        (Oscillator(), True, "windows=True"),
        (_Unknown(), 2, "windows: _Unknown has coefficients that are trained; give windows=1"),
        (_Observed(), 2, "windows: seen is of measured values"),
        (_Mixed(), 2, "windows: ends is of the start and of"),
        (_Ends("t+"), 2, "windows: ends is of the end of the time"),
        (_Ends("t"), 2, "windows: ends is of the end of the time"),
        (_Elsewhere(), 2, r"windows: motion is from t = 0 to 3 in the window 0 to 1\.5: .*self\.d"),
    ],
)
def test_what_cannot_be_cut_is_refused(problem: Problem, windows: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        solved(problem, windows)


def test_a_hard_problem_starts_from_an_easier_one() -> None:
    """Continuation: training for a coefficient starts from the field of the one before."""

    class Steep(Problem):
        domain = Interval(x=(-1, 1))

        def __init__(self, nu: float) -> None:
            super().__init__()
            self.nu = nu

        def conditions(self) -> list[Condition]:
            return [
                Condition("equation", self.domain, lambda x, d: d.u * d.u_x - self.nu * d.u_xx),
                Condition("left", self.domain.boundary("x-"), lambda x, d: d.u, 1.0),
                Condition("right", self.domain.boundary("x+"), lambda x, d: d.u, -1.0),
            ]

    field = None
    for nu in (1.0, 0.3, 0.1):
        solution = solve(
            Steep(nu), field or spline(Steep(nu)), task=Task(n_residual=400, n_boundary=1),
            optimizer=GaussNewton(), epochs=40, progress=False,
        )  # fmt: skip
        field = solution.field
    c = 1.0  # u = -c tanh(c x / 2ν) with c tanh(c / 2ν) = 1
    for _ in range(100):
        c = 1 / math.tanh(c / 0.2)
    x = torch.linspace(-1, 1, 41, dtype=torch.float64)[:, None]
    exact = -c * torch.tanh(c * x / 0.2)
    torch.testing.assert_close(solution(x), exact, atol=1e-4, rtol=0)


@pytest.mark.parametrize("shape", [(2,), (3, 2), (1, 3, 1)])
def test_points_of_a_wrong_shape_are_refused(shape: tuple[int, ...]) -> None:
    solution = solved(Oscillator(), 2)
    with pytest.raises(ValueError, match=r"^solution: points of the shape .*; give \[N, 1\]"):
        solution(torch.zeros(shape))
