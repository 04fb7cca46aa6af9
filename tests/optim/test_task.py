"""The conditions of a loss, their numbers of points and their weights, worked out by hand."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from diffhash import Jet
from diffhash.geometry import Box, Interval
from diffhash.optim import Objective, Task
from diffhash.problems import EXACT, Condition, Derivatives, Poisson1D, Problem, measured

EPS = torch.finfo(torch.float64).eps


class Unsolved(Problem):
    """u_x = 1, without a known solution."""

    domain = Interval(x=(0, 2))

    def conditions(self) -> list[Condition]:
        return [Condition("residual", self.domain, self._equation, 1.0)]

    def _equation(self, x: Tensor, d: Derivatives) -> Tensor:
        return d.u_x


class Line(Unsolved):
    """u = 3x on [0, 2], with labels and the equation u_x = 3."""

    def conditions(self) -> list[Condition]:
        return [self.labels(), Condition("residual", self.domain, self._equation, EXACT)]

    def solution(self, x: Tensor) -> Tensor:
        return 3 * x[:, 0]


class Everything(Unsolved):
    """A problem with conditions of every kind."""

    domain = Box(x=(0, 1), t=(0, 1))

    def conditions(self) -> list[Condition]:
        return [
            Condition("first", self.domain, lambda x, d: d.u_t),
            Condition("second", self.domain, lambda x, d: d.u_x, weight=10.0),
            Condition("wall", self.domain.boundary("x"), lambda x, d: d.u),
            Condition("start", self.domain.initial(), lambda x, d: d.u),
            Condition("ends", self.domain.periodic("x"), lambda x, d: d.u),
            measured("told", {"x": [0.1, 0.2], "t": [0, 1], "u": [1, 2]}, ("x", "t"), ("u",)),
        ]


def jets(objective: Objective, u: Any, u_x: Any) -> list[Jet]:
    """Jets of a given function at the terms' points."""
    found = []
    for term in objective.terms:
        data = [u(term.x)] + [u_x(term.x) for _ in term.rows[1:]]
        found.append(Jet(torch.stack(data), term.rows, term.names))
    return found


def test_the_data_loss_is_the_mean_squared_error_of_u() -> None:
    objective = Task("data", n_labels=5).objective(Line())
    (term,) = objective.terms
    assert term.name == "data"
    assert len(term) == 5
    assert term.rows == ((0,),)
    assert term.x[:, 0].tolist() == [0, 0.5, 1, 1.5, 2]
    assert term.target[:, 0].tolist() == [0, 1.5, 3, 4.5, 6]
    # u = 2x errs by x: the mean of 0, 1/4, 1, 9/4, 4 is 3/2.
    loss = objective.loss(jets(objective, lambda x: 2 * x, None))
    assert loss.shape == ()
    assert loss.item() == pytest.approx(1.5, rel=4 * EPS)


def test_the_papers_data_task_has_1000_even_labels() -> None:
    (term,) = Task("data").objective(Poisson1D()).terms
    assert len(term) == 1000
    assert term.x[:, 0].tolist() == pytest.approx([i / 999 for i in range(1000)], abs=1e-15)
    i = 123
    x = i / 999
    u = (2 * x**3 - 20 * x) * math.sin(2 * math.pi * x) / (2 * math.pi) + math.sin(8 * math.pi * x)
    assert term.target[i].item() == pytest.approx(u, rel=1e-13)


@pytest.mark.parametrize(("data_weight", "residual_weight"), [(1.0, 1.0), (0.1, 7.0), (0.0, 2.0)])
def test_the_pinn_loss_is_the_weighted_sum(data_weight: float, residual_weight: float) -> None:
    objective = Task(
        n_labels=3, n_residual=4, data_weight=data_weight, residual_weight=residual_weight,
        wave_number=None,
    ).objective(Line())  # fmt: skip
    assert [term.name for term in objective.terms] == ["data", "residual"]
    assert [len(term) for term in objective.terms] == [3, 4]
    assert [term.rows for term in objective.terms] == [((0,),), ((0,), (1,))]
    # u = x²: labels at 0, 1, 2 err by 0, -2, -2; u_x - 3 = 2x - 3 at 0, 2/3, 4/3, 2.
    data, residual = 8 / 3, (9 + 25 / 9 + 1 / 9 + 1) / 4
    loss = objective.loss(jets(objective, lambda x: x**2, lambda x: 2 * x))
    expected = data_weight * data + residual_weight * residual
    assert loss.item() == pytest.approx(expected, rel=20 * EPS)
    assert [part.item() for part in objective.parts] == pytest.approx(
        [data_weight * data, residual_weight * residual], rel=20 * EPS
    )


def test_the_papers_pinn_task_has_its_points_and_source() -> None:
    problem = Poisson1D()
    task = Task(n_residual=2000, wave_number=None)
    data, residual = task.objective(problem).terms
    assert (len(data), len(residual)) == (1000, 2000)
    assert (data.x.min(), data.x.max()) == (0, 0.5)
    assert (residual.x.min(), residual.x.max()) == (0, 1)
    assert residual.rows == ((0,), (1,), (2,))
    source = 0.01 * problem.exact_jet(residual.x, residual.rows)[2,]
    torch.testing.assert_close(residual.target, source, rtol=0, atol=0)


def test_the_exact_solution_has_no_loss() -> None:
    problem = Poisson1D()
    objective = Task(n_labels=20, n_residual=30).objective(problem)
    exact = [problem.exact_jet(term.x, term.rows) for term in objective.terms]
    assert objective.loss(exact).item() == 0


def test_weights_are_live() -> None:
    objective = Task(n_labels=3, n_residual=4, wave_number=None).objective(Line())
    given = jets(objective, lambda x: x**2, lambda x: 2 * x)
    data, residual = objective.terms
    both = objective.loss(given).item()
    residual.weight.fill_(0.0)
    only_data = objective.loss(given).item()
    data.weight.fill_(0.25)  # an integer in the configuration, a fraction later
    assert objective.loss(given).item() == pytest.approx(only_data / 4, rel=4 * EPS)
    data.weight.fill_(0.0)
    residual.weight.fill_(2.5)
    assert objective.loss(given).item() == pytest.approx(2.5 * (both - only_data), rel=20 * EPS)


def test_minibatches_take_the_rows_they_are_given() -> None:
    objective = Task(n_labels=3, n_residual=4, wave_number=None).objective(Line())
    rows = [torch.tensor([2, 0]), torch.tensor([1])]
    x = [term.points(r) for term, r in zip(objective.terms, rows, strict=True)]
    data, residual = objective.terms
    given = [
        Jet((x[0] ** 2)[None], data.rows, data.names),
        Jet(torch.stack([x[1] ** 2, 2 * x[1]]), residual.rows, residual.names),
    ]
    # Labels at 2 and 0 err by -2 and 0; the residual at 2/3 is 4/3 - 3.
    assert objective.loss(given, rows).item() == pytest.approx(2 + 25 / 9, rel=20 * EPS)


def test_float32_jets_give_a_float32_loss_with_gradients() -> None:
    objective = Task(n_labels=3, n_residual=4, data_weight=0.5).objective(Line())
    given = [
        Jet(torch.zeros(len(t.rows), len(t), 1, requires_grad=True), t.rows, t.names)
        for t in objective.terms
    ]
    loss = objective.loss(given)
    assert loss.dtype == torch.float32
    loss.backward()
    grad = given[0].data.grad
    assert grad is not None
    # ∂/∂u_i of w/n Σ (u_i - t_i)² at u = 0
    torch.testing.assert_close(grad[0, :, 0], torch.tensor([0.0, -1.0, -2.0]))


def test_an_objective_moves_its_points_with_it_and_saves_none() -> None:
    objective = Task(n_labels=3, n_residual=4).objective(Line())
    assert objective.state_dict() == {}
    assert list(objective.parameters()) == []
    moved = objective.to("meta")
    assert all(term.x.device.type == term.target.device.type == "meta" for term in moved.terms)


def test_each_kind_of_condition_has_its_points_and_weight() -> None:
    task = Task(
        n_residual=5, n_boundary=4, n_labels=3, residual_weight=2.0, boundary_weight=0.5,
        data_weight=7.0, points={"second": 9, "wall": 2}, weights={"start": 0.25, "second": 3},
        rule="uniform", seed=2, wave_number=None,
    )  # fmt: skip
    terms = {term.name: term for term in task.objective(Everything()).terms}
    found = {name: (len(term), term.weight.item()) for name, term in terms.items()}
    assert found == {
        "first": (5, 2.0),
        "second": (9, 30.0),  # times the condition's own
        "wall": (2, 0.5),
        "start": (4, 0.25),
        "ends": (4, 0.5),
        "told": (2, 7.0),  # all that was measured
    }
    assert torch.equal(terms["first"].x, Everything.domain.sample(5, "uniform", 2))
    assert terms["ends"].x.shape == (8, 2)
    other = replace(task, seed=3).objective(Everything()).terms[0]
    assert not torch.equal(other.x, terms["first"].x)


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"n_labels": 0}, ["first", "second", "wall", "start", "ends", "told"]),
        ({"points": {"first": 0, "wall": 0}}, ["second", "start", "ends", "told"]),
    ],
)
def test_what_has_no_points_is_left_out(settings: Any, names: list[str]) -> None:
    task = Task(n_residual=5, **settings)
    assert [term.name for term in task.objective(Everything()).terms] == names


@pytest.mark.parametrize("task", [Task(), Task(n_residual=5), Task(n_boundary=3, rule="uniform")])
def test_conditions_are_divided_by_their_size_unless_told_otherwise(task: Task) -> None:
    """Each is divided by its residual's size for a wave with ten radians across the domain."""

    class Plate(Problem):
        domain = Box(x=(0, 2), y=(0, 1))

        def conditions(self) -> list[Condition]:
            return [
                Condition("equation", self.domain, lambda x, d: d.u_xx + d.u_yy),
                Condition("edge", self.domain.boundary(), lambda x, d: 3 * d.u),
            ]

    weights = [term.weight.item() for term in task.objective(Plate()).terms]
    assert weights == pytest.approx([1 / (25**2 + 100**2), 1 / 9])
    plain = replace(task, wave_number=None).objective(Plate())
    assert [term.weight.item() for term in plain.terms] == [1, 1]


@pytest.mark.parametrize(
    ("width", "parts", "told"),
    [
        (1e-4, (), r"^edge: of its 2048 points lie 0 on y-, 0 on y\+, because"),
        (1e3, (), r"^edge: of its 2048 points lie 1 on x-, 1 on x\+, because"),
        (1e-2, (), None),
        (1e-4, ("y",), None),
    ],
)
def test_sides_with_hardly_any_points_are_warned_of(
    width: float, parts: tuple[str, ...], told: str | None
) -> None:
    class Thin(Problem):
        domain = Box(x=(0, width), y=(0, 1))

        def conditions(self) -> list[Condition]:
            return [
                Condition("equation", self.domain, lambda x, d: d.u_xx + d.u_yy),
                Condition("edge", self.domain.boundary(*parts), lambda x, d: d.u),
            ]

    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        Task(n_residual=9).objective(Thin())
    assert len(found) == (told is not None)
    assert told is None or re.match(told, str(found[0].message))


def test_known_values_of_u_weigh_what_they_are_told() -> None:
    (term,) = Task("data", n_labels=5, data_weight=0.3).objective(Line()).terms
    assert term.weight.item() == 0.3


def test_sizes_of_residuals_that_are_not_finite_everywhere() -> None:
    class Own(Unsolved):
        def __init__(self, residual: Callable[..., Tensor]) -> None:
            super().__init__()
            self.residual = residual

        def conditions(self) -> list[Condition]:
            return [Condition("own", self.domain, self.residual)]

    (term,) = Task(n_residual=5).objective(Own(lambda x, d: d.u.sqrt() - 1)).terms
    assert 0 < term.weight.item() < INF
    with pytest.raises(ValueError, match=r"^wave_number=10\.0: the residual of own has no finite"):
        Task(n_residual=5).objective(Own(lambda x, d: (d.u.square() + 1).neg().sqrt()))


def test_labels_can_be_left_out() -> None:
    (term,) = Task(n_labels=0, n_residual=4).objective(Line()).terms
    assert term.name == "residual"


def test_a_problem_without_a_solution_trains_on_its_residual_alone() -> None:
    objective = Task(n_residual=4, wave_number=None).objective(Unsolved())
    assert objective.loss(jets(objective, lambda x: x, lambda x: 0 * x)).item() == 1


def test_labels_of_a_problem_without_a_solution_are_refused() -> None:
    class Labelled(Unsolved):
        def conditions(self) -> list[Condition]:
            return [*super().conditions(), self.labels()]

    for problem, kind in ((Unsolved(), "data"), (Labelled(), "pinn")):
        message = rf"^data: target=exact needs .* problem={type(problem).__name__}, which has none"
        with pytest.raises(ValueError, match=message):
            Task(kind).objective(problem)  # type: ignore[arg-type]


INF, NAN = float("inf"), float("nan")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "data", "n_labels": 0}, "n_labels=0: give at least 1"),
        ({"kind": "data", "n_labels": -1}, "n_labels=-1: give at least 1"),
        ({"n_labels": -1}, "n_labels=-1: give at least 0"),
        ({"n_labels": 2.5}, "n_labels=2.5"),
        ({"n_labels": 2**40}, f"n_labels={2**40}"),
        ({"n_residual": 0}, "n_residual=0: give at least 1"),
        ({"n_residual": -5}, "n_residual=-5: give at least 1"),
        ({"n_boundary": 0}, "n_boundary=0: give at least 1"),
        ({"points": {"wall": -1}}, "points.wall=-1: give at least 0"),
        ({"points": {"wal": 1}}, "points.wal: no condition has that name; there are first, second"),
        ({"points": {"told": 1}}, "points.told=1: measured points are all taken"),
        ({"weights": {"wal": 1}}, "weights.wal: no condition has that name; there are first"),
        ({"weights": {"wall": NAN}}, "weights.wall=nan: give a finite number of at least 0"),
        ({"data_weight": -1.0}, "data_weight=-1.0: give a finite number of at least 0"),
        ({"data_weight": NAN}, "data_weight=nan: give"),
        ({"residual_weight": INF}, "residual_weight=inf: give"),
        ({"residual_weight": "1"}, "residual_weight=1: give"),
        ({"boundary_weight": -0.5}, "boundary_weight=-0.5: give"),
        ({"kind": "fit"}, "kind='fit': give pinn or data"),
        ({"rule": "sobel"}, "rule='sobel': give one of 'sobol'"),
        ({"seed": -1}, "seed=-1: give"),
    ],
    ids=str,
)
def test_settings_out_of_range_are_named(settings: Any, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        Task(**settings).objective(Everything())
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_numbers_of_numpy() -> None:
    task = Task(n_labels=np.int64(3), n_residual=np.int32(4), data_weight=np.float32(0.5))  # type: ignore[arg-type]
    assert [len(term) for term in task.objective(Line()).terms] == [3, 4]


@pytest.mark.parametrize("terms", [[], [torch.nn.Linear(1, 1)], [None]])
def test_an_objective_is_made_of_terms(terms: list[Any]) -> None:
    with pytest.raises(ValueError, match="give at least one Term"):
        Objective(Line(), terms)


def test_two_terms_have_two_names() -> None:
    (term,) = Task(n_residual=4).objective(Unsolved()).terms
    with pytest.raises(ValueError, match="2 terms are named 'residual'"):
        Objective(Unsolved(), [term, term])


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        (lambda c: None, "Own.conditions: NoneType; give a list of at least one Condition"),
        (list, "Own.conditions: none; give a list"),
        (lambda c=None: [1.0, "u"], "Own.conditions: float, str; give a list"),
        (lambda c: [c, c], "2 conditions are named 'residual': give each its own"),
    ],
)
def test_conditions_are_some_with_names_of_their_own(
    conditions: Callable[..., Any], message: str
) -> None:
    class Own(Unsolved):
        def conditions(self) -> Any:
            return conditions() if conditions is list else conditions(super().conditions()[0])

    with pytest.raises(ValueError, match=message):
        Task(n_residual=4).objective(Own())
    with pytest.raises(ValueError, match=message):
        _ = Own().rows


def test_conditions_may_be_generated_one_by_one() -> None:
    class Own(Unsolved):
        def conditions(self) -> Any:
            yield from super().conditions()

    assert len(Task(n_residual=4).objective(Own()).terms) == 1
    assert Own().derivatives == ["u", "u_x"]


def test_a_device_needs_a_point_of_each_term() -> None:
    objective = Task(n_labels=3, n_residual=2).objective(Line())
    with pytest.raises(ValueError, match=r"^devices=3: the term residual has 2 points"):
        objective.shard(0, 3)


@pytest.mark.parametrize("settings", [{"points": 3}, {"weights": [1.0]}])
def test_points_and_weights_are_given_by_name(settings: Any) -> None:
    with pytest.raises(ValueError, match=r"give a number for each condition by its name"):
        Task(**settings)
