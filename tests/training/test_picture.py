"""`Solution.plot`: the panels of each kind of problem."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from torch import Tensor

import diffhash as dh
from diffhash.geometry import Box, Disc, Interval
from diffhash.optim import GaussNewton, Task
from diffhash.problems import Heat2D, Helmholtz3D, Kovasznay, PoissonHoles, PoissonInterface
from diffhash.training.fields import default_field, problem_field


def solved(problem: dh.Problem) -> dh.Solution:
    """A solution after one step of Adam: the panels do not depend on its accuracy."""
    n_dims, n_unknowns = problem.n_dims, len(problem.unknowns)
    encoding = dh.GridEncoding(n_dims, 1, 2, base_resolution=4, interpolation="quintic", seed=0)
    field = problem_field(problem, encoding, dh.Linear(2, n_unknowns))
    task = Task(n_residual=50, n_boundary=20)
    return dh.solve(problem, field, task=task, epochs=1, evaluation_points=50, progress=False)


def titles(figure: object) -> list[str]:
    """The titles of the panels, without the numbers of the errors."""
    found = [axes.get_title() for axes in figure.axes]  # type: ignore[attr-defined]
    return [title.split(", up to ")[0] for title in found if title]


class Decay(dh.Problem):
    """Two unknowns in time, without a known solution."""

    unknowns = ("u", "v")
    domain = Interval(t=(0, 1))

    def conditions(self) -> list[dh.Condition]:
        start = self.domain.initial()
        return [
            dh.Condition("motion", self.domain, lambda x, d: dh.stack(d.u_t + d.u, d.v_t - d.u)),
            dh.Condition("start", start, lambda x, d: dh.stack(d.u - 1, d.v)),
        ]


def test_curves_over_one_axis() -> None:
    solution = solved(Decay())
    assert titles(solution.plot()) == ["u", "v", "|residual|", "convergence", "points"]
    assert titles(solution.plot("solution")) == ["u", "v"]
    with pytest.raises(ValueError, match="error: cannot be drawn: the exact solution is not known"):
        solution.plot("error")
    with pytest.raises(ValueError, match="'errors': no part of the picture; those are solution, "):
        solution.plot("errors")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="t: all axes are fixed"):
        solution.plot(t=0.5)


def test_a_map_shows_the_values_where_they_are_and_nothing_outside() -> None:
    problem = PoissonHoles()
    solution = solved(problem)
    figure = solution.plot()
    assert titles(figure) == ["u", "|residual|", "convergence", "error of u", "points"]
    panels = [a for a in figure.axes if a.get_title().startswith(("u", "error of u"))]
    u, error = (panel.images[0] for panel in panels)
    values = u.get_array()
    left, right, bottom, top = u.get_extent()
    assert (left, right, bottom, top) == (-0.5, 0.5, -0.5, 0.5)
    n = len(values)
    x = torch.tensor([[0.4, -0.2]], dtype=torch.float64)  # a node of the lattice
    i, j = round((0.4 - left) * (n - 1)), round((-0.2 - bottom) * (n - 1))
    assert values[j, i] == pytest.approx(solution(x).item(), rel=1e-5)
    hole = round(0.8 * (n - 1))
    assert np.ma.getmaskarray(values)[hole, hole]
    assert not problem.domain.contains([[0.3, 0.3]]).item()
    low, high = error.get_clim()
    assert low == -high
    largest = np.abs(error.get_array()).max()
    assert panels[1].get_title() == f"error of u, up to {largest:.1e}"
    assert figure.axes[0].get_aspect() == 1.0


def test_a_few_large_values_do_not_hide_the_others() -> None:
    class Peak(dh.Problem):
        domain = Box(x=(0, 1), y=(0, 1))

        def conditions(self) -> list[dh.Condition]:
            return [dh.Condition("equation", self.domain, lambda x, d: d.u_xx + d.u_yy)]

        def solution(self, x: Tensor) -> Tensor:
            return x[:, 0] + 1e3 * torch.exp(-1e4 * x.square().sum(dim=1))

    figure = solved(Peak()).plot("error")
    error = next(a for a in figure.axes if a.images)
    largest = float(error.get_title().split(" up to ")[1])
    assert 500 < largest < 1500
    assert error.images[0].get_clim()[1] < 100
    assert error.images[0].colorbar.extend in ("min", "max", "both")


def test_time_goes_from_left_to_right_beside_curves_at_four_times() -> None:
    class Rod(dh.Problem):
        domain = Box(x=(0, 2), t=(0, 1))

        def conditions(self) -> list[dh.Condition]:
            return [dh.Condition("equation", self.domain, lambda x, d: d.u_t - d.u_xx)]

        def solution(self, x: Tensor) -> Tensor:
            return x[:, 0]

    figure = solved(Rod()).plot("solution", "error")
    assert titles(figure) == ["u", "error of u", "u at times"]
    assert figure.axes[0].get_xlabel() == "t"
    assert figure.axes[0].images[0].get_extent() == [0.0, 1.0, 0.0, 2.0]
    assert titles(solved(Rod()).plot("solution", t=0.5)) == ["u at t = 0.5"]


def test_slices_of_a_third_axis() -> None:
    solution = solved(Heat2D())
    assert titles(solution.plot()) == [
        *("u at t = 0", "u at t = 0.5", "u at t = 1", "error of u at t = 1"),
        *("|residual| at t = 1", "points near t = 1", "convergence"),
    ]
    assert titles(solution.plot("error", t=0.25)) == ["error of u at t = 0.25"]
    assert titles(solved(Helmholtz3D()).plot("solution", "error")) == [
        *("u at z = 0.25", "u at z = 0.5", "u at z = 0.75", "error of u at z = 0.5"),
    ]
    for fixed, words in {
        "z": "z: not an axis; those are x, y, t",
        "t": "t=2.0: not in the",
    }.items():
        with pytest.raises(ValueError, match=words):
            solution.plot(**{fixed: 2.0})


def test_a_velocity_has_streamlines_and_other_pairs_have_none() -> None:
    assert "streamlines of (u, v), speed" in titles(solved(Kovasznay()).plot("solution"))
    figure = solved(PoissonInterface()).plot("solution")
    assert titles(figure) == ["u", "v"]
    inside, around = (axes.images[0].get_array() for axes in figure.axes[:2])
    middle = len(inside) // 2
    assert not np.ma.getmaskarray(inside)[middle, middle]
    assert np.ma.getmaskarray(around)[middle, middle]


def test_what_is_not_finite_is_said() -> None:
    class Edge(dh.Problem):
        domain = Disc(radius=1.0)

        def conditions(self) -> list[dh.Condition]:
            return [dh.Condition("edge", self.domain.boundary(), lambda x, d: d.u)]

    solution = solved(Edge())
    with torch.no_grad():
        solution.field.network.params.fill_(float("nan"))
    figure = solution.plot()
    assert titles(figure) == ["u", "convergence", "points"]
    assert figure.axes[0].texts[0].get_text() == "not finite"


def test_a_title_says_what_was_solved_how_and_how_well(tmp_path: Path) -> None:
    problem = Decay()
    task = Task(n_residual=50)
    solution = dh.solve(
        problem, task=task, optimizer=GaussNewton(), epochs=2, evaluation_points=50, progress=False
    )
    assert solution.title.startswith("Decay: quintic splines, 12–")
    assert "cells, Gauss–Newton; estimated relative error " in solution.title
    assert repr(solution).startswith(f"<Solution of {solution.title}; ")
    solution.save(tmp_path / "decay.pt")
    again = dh.Solution.load(tmp_path / "decay.pt", Decay(), default_field(Decay(), torch.float64))
    assert again.title == solution.title
    assert titles(again.plot()) == ["u", "v", "|residual|", "convergence"]
    with pytest.raises(ValueError, match="points: cannot be drawn: they are not kept in files"):
        again.plot("points")


class Square(dh.Problem):
    """Four conditions, of which one has points far from the other ones."""

    domain = Box(x=(0, 1), y=(0, 1), z=(0, 1))

    def conditions(self) -> list[dh.Condition]:
        walls = {name: self.domain.boundary(name) for name in ("x-", "x+", "z-")}
        names = ("inflow", "outflow_of_all", "bottom")
        return [
            dh.Condition("equation", self.domain, lambda x, d: d.u_xx + d.u_yy + d.u_zz - 1),
            *(
                dh.Condition(name, wall, lambda x, d: d.u)
                for name, wall in zip(names, walls.values(), strict=True)
            ),
            dh.Condition("walls_in_y", self.domain.boundary("y"), lambda x, d: d.u),
        ]


@pytest.mark.parametrize("parts", [("points",), ("solution",), ("convergence",), ()])
def test_nothing_is_cut_or_covered(parts: tuple[Any, ...]) -> None:
    solution = solved(Square())
    figure = solution.plot(*parts, **({} if not parts else {"z": 0.9}))
    FigureCanvasAgg(figure).draw()
    [title] = [text for text in figure.texts if text.get_text() == figure.get_suptitle()]
    assert title.get_text().split() == solution.title.split()
    box, whole = title.get_window_extent(), figure.bbox
    assert box.x0 >= whole.x0 and box.x1 <= whole.x1 and box.y1 <= whole.y1
    for panel in figure.axes:
        if panel.get_title().startswith("points"):
            legend = panel.get_legend()
            assert [text.get_text() for text in legend.get_texts()] == [
                *("equation", "inflow", "outflow_of_all", "walls_in_y"),
            ]
            around = legend.get_window_extent()
            assert around.y1 <= panel.xaxis.label.get_window_extent().y0
            assert whole.x0 <= around.x0 and around.x1 <= whole.x1 and around.y0 >= whole.y0


def test_only_conditions_with_points_to_draw_are_named_beside_an_axis() -> None:
    solution = solved(Square())
    (panel,) = solution.plot("points", y=0.5, z=0.9).axes
    names = [label.get_text() for label in panel.get_yticklabels()]
    assert "equation" in names and "bottom" not in names
