"""Gauss–Newton: its Jacobians, its steps, and its solutions of problems."""

from __future__ import annotations

from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse
from torch import Tensor

from diffhash import MLP, Field, FourierFeatures, GridEncoding, solve
from diffhash.encodings import Identity
from diffhash.geometry import Box, Disc, Domain, Interval, Polygon
from diffhash.networks import Linear, stack_fields
from diffhash.optim import GaussNewton, Objective, Task
from diffhash.optim.damped import DampedSystem, SingularError
from diffhash.optim.dissection import find_dissection, gram
from diffhash.optim.iterative import IterativeSystem
from diffhash.optim.jacobian import Jacobian
from diffhash.optim.residuals import Residuals
from diffhash.problems import (
    Coefficient,
    Condition,
    Derivatives,
    Poisson1D,
    Problem,
    measured,
    zoo,
)
from diffhash.training import Evaluation, FieldTraining
from diffhash.training.fields import problem_field
from diffhash.training.fit import fit
from diffhash.training.samplers import Resample
from diffhash.training.weightings import ResidualAttention
from tests.optim.decay import Decay

D = torch.float64
_QUICK = ("burgers1d", "convection", "inverse_poisson", "kovasznay")  # the others are slow tests


def field_for(problem: Problem, kind: str, n_levels: int = 2, **settings: Any) -> Field:
    torch.manual_seed(0)
    n_dims, n_unknowns, axes = problem.n_dims, len(problem.unknowns), problem.domain.axes
    encoding: Any
    rows = 11 if kind == "spline" and n_dims > 2 else 9  # a linear field's levels are nested
    if kind == "mlp":
        encoding = Identity(n_dims, dtype=D)
    elif kind == "ff":
        encoding = FourierFeatures(n_dims, 3, dtype=D)
    else:
        encoding = GridEncoding(
            n_dims, n_levels=n_levels, n_features_per_level=settings.pop("n_features", 3),
            base_resolution=3, interpolation="quintic",
            log2_hashmap_size=settings.pop("log2", rows),
            periodic=[axes.index(axis) for axis in problem.periodic], init_scale=0.3, dtype=D,
        )  # fmt: skip
    network: Any = (
        Linear(encoding.n_output_dims, n_unknowns, dtype=D)
        if kind == "spline"
        else MLP(encoding.n_output_dims, n_unknowns, 5, 2, skip=kind == "skip", dtype=D)
    )
    if kind == "skip":
        torch.nn.init.uniform_(network.params, -0.5, 0.5)  # its last layer is 0
    return Field(encoding, network, problem.domain.bounds, problem.names, problem.ansatz)


def objective_for(problem: Problem, n: int = 11) -> Objective:
    return Task(n_residual=n, n_boundary=6, wave_number=3.0, data_weight=0.7).objective(problem)


def by_autograd(objective: Objective, field: Field) -> tuple[Tensor, list[Tensor]]:
    """r and its derivatives in each parameter, row by row."""
    parts = []
    for term in objective.terms:
        errors = term.errors(field.jet(term.x, term.rows))
        scale = term.weight / errors.numel()
        weights = 1 if term.point_weights is None else term.point_weights[:, None]
        parts.append((errors * (scale * weights) ** 0.5).flatten())
    r = torch.cat(parts)
    parameters = [*field.parameters(), *objective.problem.parameters()]
    rows = [
        torch.autograd.grad(one, parameters, retain_graph=True, materialize_grads=True) for one in r
    ]
    return r.detach(), [
        torch.stack(column).reshape(len(r), -1) for column in zip(*rows, strict=True)
    ]


_NAMES = [
    name if name in _QUICK else pytest.param(name, marks=pytest.mark.slow) for name in sorted(zoo())
]


@pytest.mark.parametrize("kind", ["spline", "grid", "mlp", "ff", "skip"])
@pytest.mark.parametrize("name", _NAMES)
def test_jacobians_are_those_of_autograd(name: str, kind: str) -> None:
    make: Any = zoo()[name]
    problem = make(n_data=13) if "n_data" in signature(make).parameters else make()
    field, objective = field_for(problem, kind), objective_for(problem)
    residuals = Residuals(objective, field)
    r, jacobian = residuals.value_and_jacobian()
    truth, columns = by_autograd(objective, field)
    np.testing.assert_allclose(r, truth, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(residuals.value(), r, rtol=1e-12, atol=1e-13)
    assert sum(residuals.parts(r)) == pytest.approx(r @ r)
    dense = np.concatenate([jacobian.table.toarray(), jacobian.dense], axis=1)
    if kind == "spline":  # through the splines: ∂r/∂θ = ∂r/∂c W
        (weight, _), levels = field.network.layers[0], field.encoding.layout.levels  # type: ignore[union-attr]
        splines = torch.from_numpy(jacobian.table.toarray()).unflatten(1, (-1, weight.shape[0]))
        through = splines @ weight.detach()[:, -3:]  # of the finest level, which has the others'
        dense = np.concatenate([through.flatten(1), jacobian.dense], axis=1)
        columns[0] = columns[0][:, 3 * levels[-1].first_row :]
        columns[1] = columns[1][:, -weight.shape[0] :]  # the constants
    expected = torch.cat(columns, dim=1).numpy()
    np.testing.assert_allclose(dense, expected, rtol=1e-8, atol=1e-10 * np.abs(expected).max())
    generator = np.random.default_rng(0)
    v, w = generator.normal(size=jacobian.shape[1]), generator.normal(size=jacobian.shape[0])
    assert w @ (jacobian @ v) == pytest.approx(v @ jacobian.transposed(w), rel=1e-10)


@pytest.mark.parametrize("kind", ["pinn", "data"])
@pytest.mark.parametrize("name", sorted(zoo()))
def test_products_are_those_of_autograd(name: str, kind: Any) -> None:
    """J, J v and Jᵀ w agree to round-off, for every problem and both tasks, at a few points."""
    make: Any = zoo()[name]
    problem = make(n_data=3) if "n_data" in signature(make).parameters else make()
    field = field_for(problem, "grid", n_levels=1, n_features=1, log2=6)
    task = Task(kind=kind, n_residual=3, n_boundary=2, n_labels=4, wave_number=3.0)
    objective = task.objective(problem)
    r, jacobian = Residuals(objective, field).value_and_jacobian()
    same, products = Residuals(objective, field, of_entries=True).value_and_products()
    truth, columns = by_autograd(objective, field)
    expected = torch.cat(columns, dim=1).numpy()
    dense = np.concatenate([jacobian.table.toarray(), jacobian.dense], axis=1)
    generator = np.random.default_rng(0)
    v, w = generator.normal(size=expected.shape[1]), generator.normal(size=len(expected))
    assert products.shape == jacobian.shape == expected.shape
    for own, other in (
        (r, truth.numpy()), (same, truth.numpy()), (dense, expected),
        (jacobian @ v, expected @ v), (jacobian.transposed(w), w @ expected),
        (products @ v, expected @ v), (products.transposed(w), w @ expected),
    ):  # fmt: skip
        np.testing.assert_allclose(own, other, rtol=1e-10, atol=1e-12 * np.abs(other).max())


@pytest.mark.parametrize("part", ["weights that splines keep", "a network that is fixed"])
def test_products_have_the_columns_of_the_jacobian(part: str) -> None:
    make: Any = zoo()["inverse_poisson"]
    problem = make(n_data=5)
    field = field_for(problem, "spline" if part.startswith("weights") else "grid")
    field.network.params.requires_grad_(part.startswith("weights"))
    residuals = Residuals(objective_for(problem), field, of_entries=True)
    _, jacobian = residuals.value_and_jacobian()
    _, products = residuals.value_and_products()
    assert products.shape == jacobian.shape
    generator = np.random.default_rng(0)
    v, w = generator.normal(size=jacobian.shape[1]), generator.normal(size=jacobian.shape[0])
    np.testing.assert_allclose(products @ v, jacobian @ v, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(
        products.transposed(w), jacobian.transposed(w), rtol=1e-10, atol=1e-10
    )


@pytest.mark.parametrize("kind", ["spline", "grid", "mlp", "skip"])
def test_a_step_is_taken_where_the_jacobian_says(kind: str) -> None:
    problem = zoo()["kovasznay"]()
    field = field_for(problem, kind)
    residuals = Residuals(objective_for(problem), field)
    before = residuals.state()
    _, jacobian = residuals.value_and_jacobian()
    v = np.random.default_rng(1).normal(size=jacobian.shape[1])
    values = []
    for h in (1e-5, -1e-5):
        residuals.move(h * v)
        values.append(residuals.value())
        residuals.restore(before)
    slope = (values[0] - values[1]) / 2e-5
    np.testing.assert_allclose(slope, jacobian @ v, atol=1e-6 * np.abs(slope).max())


_SCALED = [("spline", "all"), ("spline", "none"), ("grid", "table"), ("grid", "none")]


def least_lengths(jacobian: Jacobian, scaled: str) -> np.ndarray:
    n = {"all": jacobian.shape[1], "table": jacobian.n_table, "none": 0, "layers": 0}[scaled]
    rest = 100.0 if scaled in ("table", "layers") else 1.0
    return np.where(np.arange(jacobian.shape[1]) < n, 1e-8, rest)


@pytest.mark.parametrize(
    ("method", "kind", "scaled"),
    [
        *((method, *s) for method in ("primal", "dual", "sparse", "superlu") for s in _SCALED),
        *(
            (method, "mlp", scaled)
            for method in ("primal", "dual")
            for scaled in ("none", "layers")
        ),
    ],
)
def test_steps_solve_the_damped_system(method: Any, kind: str, scaled: str) -> None:
    problem = zoo()["inverse_poisson"]()
    residuals = Residuals(objective_for(problem), field_for(problem, kind))
    r, jacobian = residuals.value_and_jacobian()
    damping = 1e-4
    dense = np.concatenate([jacobian.table.toarray(), jacobian.dense], axis=1)
    least = least_lengths(jacobian, scaled)
    lengths = np.linalg.norm(dense, axis=0)
    lengths = np.maximum(lengths, least * lengths.max())
    augmented = np.concatenate([dense / lengths, damping**0.5 * np.eye(dense.shape[1])])
    right = np.concatenate([-r, np.zeros(dense.shape[1])])
    expected = np.linalg.lstsq(augmented, right, rcond=None)[0] / lengths
    dissection = None
    if method == "sparse":
        n_dense = jacobian.dense.shape[1]
        dissection = find_dissection(jacobian.table, *residuals.places(), n_dense)
        assert dissection is not None
    method = "sparse" if method == "superlu" else method
    step = DampedSystem(jacobian, method, dissection, least).factorised(damping)(r)
    np.testing.assert_allclose(step, expected, atol=1e-7 * np.abs(expected).max())


def test_conjugate_gradients_solve_the_damped_system() -> None:
    problem = zoo()["inverse_poisson"]()
    residuals = Residuals(objective_for(problem), field_for(problem, "grid"), of_entries=True)
    r, products = residuals.value_and_products()
    system = IterativeSystem(products)
    step, _ = system.factorised(1e-3)(r), residuals.move(np.ones(products.shape[1]))
    dense = np.stack([products @ column for column in np.eye(products.shape[1])], axis=1)
    right = np.concatenate([-r, np.zeros(dense.shape[1])])
    augmented = np.concatenate([dense, 1e-3**0.5 * np.diag(system.lengths)])
    expected = np.linalg.lstsq(augmented, right, rcond=None)[0]
    np.testing.assert_allclose(step, expected, atol=1e-6 * np.abs(expected).max())


@pytest.mark.slow
def test_conjugate_gradients_find_what_factors_find() -> None:
    found = []
    methods: Any = ("auto", "iterative")
    for method in methods:
        make: Any = zoo()["helmholtz2d"]
        problem = make(a=2.0)
        encoding = GridEncoding(
            2, n_levels=1, n_features_per_level=2, base_resolution=6, interpolation="quintic",
            dtype=D,
        )  # fmt: skip
        field = Field(encoding, Linear(2, dtype=D), problem.domain.bounds, problem.names)
        settings = GaussNewton(method=method)
        task = Task(n_residual=200, n_boundary=60)
        solution = solve(problem, field, task=task, optimizer=settings, epochs=3)
        found.append(solution.metrics["l2_u"])
    assert found[1] == pytest.approx(found[0], rel=0.02)


@pytest.mark.parametrize(
    ("interpolation", "n_dims", "n_cells", "n_levels", "periodic"),
    [
        ("cubic", 1, 700, 1, ()),
        ("cubic", 1, 700, 1, (0,)),
        ("cubic", 2, 24, 1, ()),
        ("cubic", 2, 16, 2, (0,)),
        ("cubic", 3, 7, 1, (0, 2)),
        ("septic", 3, 4, 1, ()),
        ("septic", 3, 9, 1, (1,)),
    ],
)
def test_dissections_solve_as_dense_matrices_do(
    interpolation: str, n_dims: int, n_cells: int, n_levels: int, periodic: tuple[int, ...]
) -> None:
    encoding = GridEncoding(
        n_dims, n_levels=n_levels, n_features_per_level=1, base_resolution=n_cells,
        interpolation=interpolation, periodic=periodic, dtype=D,
    )  # fmt: skip
    x = torch.rand(3000, n_dims, dtype=D, generator=torch.Generator().manual_seed(1))
    plan = encoding.plan(x, 0)
    entries = plan.kernel_input()
    columns = entries.rows.flatten(1).numpy()
    weights = np.einsum("nlkt->nlt", entries.weights.numpy()).reshape(len(x), -1)
    indptr = np.arange(len(x) + 1) * columns.shape[1]
    shape = (len(x), encoding.layout.n_rows)
    table = sparse.csr_array((weights.ravel(), columns.ravel(), indptr), shape=shape)
    table = sparse.csr_array(sparse.vstack([table, sparse.csr_array((2, shape[1]))]))  # empty rows
    table.sum_duplicates()
    places = torch.cat([encoding.layout.places(level) for level in encoding.layout.levels]).numpy()
    levels = np.repeat(np.arange(n_levels), [level.n_rows for level in encoding.layout.levels])
    dissection = find_dissection(table, places, levels, periodic, 0)
    assert dissection is not None
    if n_dims < 3:  # in 3-D such a grid is no larger than its separators
        assert dissection.n_factor < 0.7 * len(dissection.order) ** 2 / 2
    inner = table[:, dissection.order].toarray()
    matrix = inner.T @ inner + 1e-3 * np.eye(len(dissection.order))
    upper = np.triu(inner.T @ inner)
    np.testing.assert_allclose(np.triu(gram(table[:, dissection.order])), upper, atol=1e-12)
    right = np.random.default_rng(0).normal(size=(len(matrix), 2))
    solved = dissection.factorised(table, 1e-3).solve(right)
    np.testing.assert_allclose(solved, np.linalg.solve(matrix, right), rtol=1e-7, atol=1e-9)


def test_a_column_that_others_add_up_to_is_not_singular() -> None:
    """Splines add up to 1, as a bias does: without damping, JᵀJ is singular."""
    encoding = GridEncoding(
        2, n_levels=1, n_features_per_level=1, base_resolution=20, interpolation="cubic", dtype=D
    )
    x = torch.rand(4000, 2, dtype=D, generator=torch.Generator().manual_seed(1))
    entries = encoding.plan(x, 0).kernel_input()
    values = entries.weights.flatten(1).numpy()
    columns = entries.rows.flatten(1).numpy()
    starts = np.arange(len(x) + 1) * columns.shape[1]
    shape = (len(x), encoding.layout.n_rows)
    table = sparse.csr_array((values.ravel(), columns.ravel(), starts), shape=shape)
    table.sum_duplicates()
    places = encoding.layout.places(encoding.layout.levels[0]).numpy()
    dissection = find_dissection(table, places, np.zeros(len(places), int), (), 1)
    r = (5 * x).sin().prod(dim=1).numpy()
    jacobian = Jacobian(table, (), np.ones((len(x), 1)))
    step = DampedSystem(jacobian, "sparse", dissection).factorised(1e-19)(r)
    best = np.linalg.lstsq(table.toarray(), -r, rcond=None)[0]
    left, least = np.linalg.norm(r + jacobian @ step), np.linalg.norm(r + table @ best)
    assert left <= least * (1 + 1e-6)


def test_what_is_singular_is_told() -> None:
    problem = zoo()["heat1d"]()
    r, jacobian = Residuals(objective_for(problem), field_for(problem, "mlp")).value_and_jacobian()
    broken = Jacobian(jacobian.table, (), np.full_like(jacobian.dense, np.nan))
    with pytest.raises(SingularError):
        DampedSystem(broken, "primal").factorised(1e-3)(r)


class Wave(Problem):
    """u″ = -π² sin πx, u = 0 at the ends."""

    domain = Interval(x=(0, 1))

    def conditions(self) -> list[Condition]:
        return [
            Condition("equation", self.domain, lambda x, d: d.u_xx, self._source),
            Condition("ends", self.domain.boundary(), lambda x, d: d.u),
        ]

    def _source(self, x: Tensor) -> Tensor:
        return -(torch.pi**2) * self.solution(x)

    def solution(self, x: Tensor) -> Tensor:
        return (torch.pi * x[:, 0]).sin()


def test_a_skip_connection_is_solved_like_splines() -> None:
    """The network begins as splines, on a table of zeros, in two dimensions with a fine grid."""
    make: Any = zoo()["helmholtz2d"]
    problem, losses = make(a=2.0), []
    for kind in ("splines", "network"):
        torch.manual_seed(0)
        encoding = GridEncoding(
            2, n_levels=1, n_features_per_level=1, base_resolution=16, interpolation="quintic",
            init_scale=0.0, dtype=D,
        )  # fmt: skip
        network: Any = (
            Linear(1, dtype=D) if kind == "splines" else MLP(1, 1, 4, 1, skip=True, dtype=D)
        )
        field = Field(encoding, network, problem.domain.bounds, problem.names)
        solution = solve(
            problem, field, task=Task(n_residual=900, n_boundary=200), optimizer=GaussNewton(),
            epochs=2 if kind == "splines" else 8, evaluation_points=100, progress=False,
        )  # fmt: skip
        losses.append(solution.history.loss.iloc[-1])
    assert losses[1] < 1.01 * losses[0]


@pytest.mark.parametrize("kind", ["spline", "grid"])
@pytest.mark.parametrize(("log2", "n_features"), [(9, 3), (4, 1)], ids=["dense", "hashed"])
def test_it_solves(kind: str, log2: int, n_features: int) -> None:
    """It also solves with unused rows, levels that contain each other, and collisions."""
    problem = Wave()
    field = field_for(problem, kind, n_levels=4, log2=log2, n_features=n_features)
    task = Task(n_residual=100, n_boundary=2)
    solution = solve(
        problem, field, task=task, epochs=60, optimizer=GaussNewton(), chunk=5,
        evaluation_points=100, progress=False,
    )  # fmt: skip
    losses = solution.history.loss
    assert losses.is_monotonic_decreasing
    assert solution.relative_l2["u"] < (1e-5 if log2 == 9 else 1e-2)


def test_unknown_coefficients_and_equations_that_are_not_linear() -> None:
    problem = Decay()
    solution = solve(
        problem, field_for(problem, "spline", n_levels=3), task=Task(n_residual=100, n_boundary=1),
        epochs=50, optimizer=GaussNewton(), chunk=1, evaluation_points=100, progress=False,
    )  # fmt: skip
    assert solution.relative_l2["u"] < 1e-6
    found = dict(solution.problem.named_parameters())["k"]
    assert found.item() == pytest.approx(1.0, abs=1e-5)
    assert len(solution.history) < 50, "it ends when the loss falls no more"


class Rod(Problem):
    """u_t = k u_xx in a rod of length L from measured temperatures, with k unknown."""

    def __init__(self, length: float, duration: float) -> None:
        super().__init__()
        self.domain = Box(x=(0, length), t=(0, duration))
        true = 0.1 * length**2 / duration
        self.k = Coefficient(2 * true, true=true)
        random = np.random.default_rng(0)
        x, t = random.uniform(size=(2, 200))
        u = np.exp(-0.1 * np.pi**2 * t) * np.sin(np.pi * x) + random.normal(0, 0.005, 200)
        self._data = {"x": x * length, "t": t * duration, "u": u}

    def conditions(self) -> list[Condition]:
        return [
            Condition("equation", self.domain, lambda x, d: d.u_t - self.k * d.u_xx),
            Condition("ends", self.domain.boundary("x"), lambda x, d: d.u),
            measured("data", self._data, axes=["x", "t"], values=["u"]),
        ]


def test_a_coefficient_is_found_in_any_units() -> None:
    ratios, steps = [], []
    for length, duration in ((1.0, 1.0), (2.0**-27, 1.0), (1.0, 2.0**-27)):
        problem = Rod(length, duration)
        solution = solve(
            problem, field_for(problem, "spline", n_levels=1, n_features=1),
            task=Task(n_residual=200, n_boundary=40, wave_number=3.0), epochs=30,
            optimizer=GaussNewton(tolerance=1e-5), evaluation_points=10, progress=False,
        )  # fmt: skip
        ratios.append(solution.metrics["k"] / problem.k.item() * 2)
        steps.append(len(solution.history))
    assert ratios == pytest.approx([ratios[0]] * 3, rel=1e-6)
    assert ratios[0] == pytest.approx(1.0, abs=0.02)
    assert steps == [steps[0]] * 3
    assert steps[0] < 30


@pytest.mark.parametrize("start", [1e-3, 100.0])
def test_a_coefficient_is_found_from_a_start_of_another_size(start: float) -> None:
    problem = Decay()
    problem.k = Coefficient(start, true=1.0)
    solution = solve(
        problem, field_for(problem, "grid"), task=Task(n_residual=50, n_boundary=1), epochs=60,
        optimizer=GaussNewton(), evaluation_points=10, progress=False,
    )  # fmt: skip
    assert solution.metrics["error_k"] < 1e-3


def training(epochs: int, problem: Problem | None = None, **settings: Any) -> FieldTraining:
    problem = problem or Decay()
    field = settings.pop("field", None) or field_for(problem, "grid")
    return FieldTraining(
        field, Task(n_residual=20, n_boundary=1).objective(problem), Evaluation(problem, 10),
        epochs=epochs, learning_rate=1e-3, chunk=1, optimizer=GaussNewton(tolerance=1e-12),
        **settings,
    )  # fmt: skip


def test_a_resumed_training_goes_on_to_the_last_bit(tmp_path: Path) -> None:
    whole = training(6)
    fit(whole, "cpu")
    first = training(3)
    fit(first, "cpu")
    first.trainer.save_checkpoint(tmp_path / "checkpoint.ckpt")
    second = training(6)
    fit(second, "cpu", checkpoint=tmp_path / "checkpoint.ckpt")
    assert len(whole.replicas[0].history) == 6
    for one, other in zip(whole.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_loss_that_is_not_finite_is_an_outcome() -> None:
    field = field_for(Decay(), "grid")
    with torch.no_grad():
        field.network.params.fill_(float("nan"))
    run = training(5, field=field)
    fit(run, "cpu")
    assert run.replicas[0].diverged_epoch is not None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 3}, "batch_size=3: .*=GaussNewton needs the same .*leave batch_size out"),
        ({"derivatives": "autograd"}, "derivatives=autograd: .* needs derivatives=taylor"),
        ({"sampler": Resample(every=2)}, "sampler=Resample: .*leave sampler out"),
        ({"weighting": ResidualAttention()}, "weighting=ResidualAttention: .*leave weighting out"),
        ({"execution": "compile"}, "execution=compile: .* needs execution=eager"),
    ],
)
def test_settings_that_it_cannot_have(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        training(3, **settings)


def test_single_precision_is_warned_of() -> None:
    field = field_for(Decay(), "grid").to(torch.float32)
    with pytest.warns(UserWarning, match=r"in float32 .* dtype=torch.float64"):
        training(3, field=field)


def test_the_default_field_is_in_double_precision() -> None:
    task = Task(n_residual=40, n_boundary=4, wave_number=None)
    solution = solve(Wave(), task=task, epochs=2, optimizer=GaussNewton(), progress=False)
    assert solution(torch.zeros(1, 1)).dtype == torch.float64
    assert len(solution.history) == 1


def test_several_seeds_are_refused() -> None:
    fields = [field_for(Poisson1D(), "grid") for _ in range(2)]
    with pytest.raises(ValueError, match="trains one field"):
        training(3, Poisson1D(), field=stack_fields(fields))


@pytest.mark.parametrize(
    "settings", [{"damping": 0.0}, {"damping": float("nan")}, {"tolerance": -1}, {"method": "qr"}]
)
def test_settings_of_its_own(settings: dict[str, Any]) -> None:
    (name,) = settings
    with pytest.raises(ValueError, match=rf"^optimizer: {name}="):
        GaussNewton(**settings)


class Viscous(Problem):
    """u u_x = ν u_xx, from 1 to -1: -c tanh(c x / 2ν) with c tanh(c / 2ν) = 1."""

    domain = Interval(x=(-1, 1))

    def conditions(self) -> list[Condition]:
        return [
            Condition("equation", self.domain, lambda x, d: d.u * d.u_x - 0.1 * d.u_xx),
            Condition("left", self.domain.boundary("x-"), lambda x, d: d.u, 1.0),
            Condition("right", self.domain.boundary("x+"), lambda x, d: d.u, -1.0),
        ]

    def solution(self, x: Tensor) -> Tensor:
        c = torch.tensor(1.0, dtype=D)
        for _ in range(60):
            c = 1 / (5 * c).tanh()
        return -c * (5 * c * x[:, 0]).tanh()


def test_splines_begin_with_the_coarsest_grid(tmp_path: Path) -> None:
    """Levels of one grid are solved one after the other, each from the solution before it."""

    def made(epochs: int) -> FieldTraining:
        problem = Viscous()
        encoding = GridEncoding(
            1, n_levels=5, n_features_per_level=1, base_resolution=6, interpolation="quintic",
            init_scale=0.0, log2_hashmap_size=12, dtype=D,
        )  # fmt: skip
        torch.manual_seed(0)
        network = Linear(encoding.n_output_dims, 1, dtype=D)
        field = Field(encoding, network, problem.domain.bounds, problem.names)
        return FieldTraining(
            field, Task(n_residual=400, n_boundary=1).objective(problem), Evaluation(problem, 200),
            epochs=epochs, learning_rate=1e-3, chunk=1, optimizer=GaussNewton(),
        )  # fmt: skip

    whole = made(60)
    fit(whole, "cpu")
    assert whole.ended_by == "optimizer"
    history = whole.replicas[0].history
    assert history[-1]["l2_u"] < 1e-6
    middle = len(history) // 2
    first, second = made(middle), made(60)
    fit(first, "cpu")
    first.trainer.save_checkpoint(tmp_path / "checkpoint.ckpt")
    fit(second, "cpu", checkpoint=tmp_path / "checkpoint.ckpt")
    for one, other in zip(whole.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_linear_problem_is_solved_by_its_first_step(tmp_path: Path) -> None:
    """The step is least squares to round-off; more training ends at once, with no larger loss."""

    def made(epochs: int) -> FieldTraining:
        problem = Wave()
        field = field_for(problem, "spline", n_features=1)
        with torch.no_grad():
            field.encoding.params.zero_()
        return training(epochs, problem, field=field)

    whole = made(60)
    r, jacobian = Residuals(whole.objective, whole.field).value_and_jacobian()
    dense = np.hstack([jacobian.table.toarray(), jacobian.dense])
    best = r + dense @ np.linalg.lstsq(dense, -r)[0]
    fit(whole, "cpu")
    [last] = [row["loss"] for row in whole.replicas[0].history]
    assert whole.ended_by == "optimizer"
    assert last == pytest.approx(best @ best, rel=1e-6, abs=1e-25 * (r @ r))
    half, again = made(1), made(60)
    fit(half, "cpu")
    half.trainer.save_checkpoint(tmp_path / "checkpoint.ckpt")
    fit(again, "cpu", checkpoint=tmp_path / "checkpoint.ckpt")
    losses = [row["loss"] for row in again.replicas[0].history]
    assert again.ended_by == "optimizer" and losses[0] == last and losses[1] <= last
    assert len(losses) == 2


def test_it_ends_where_only_round_off_is_left() -> None:
    """It also ends where round-off lets the loss decrease a little with every step."""
    problem = Viscous()
    encoding = GridEncoding(
        1, n_levels=1, n_features_per_level=1, base_resolution=80, interpolation="nonic",
        init_scale=0.0, log2_hashmap_size=12, dtype=D,
    )  # fmt: skip
    network = Linear(1, 1, dtype=D)
    field = Field(encoding, network, problem.domain.bounds, problem.names)
    task = Task(n_residual=400, n_boundary=1)
    solution = solve(problem, field, task=task, optimizer=GaussNewton(), epochs=60, progress=False)
    r = Residuals(task.objective(problem), field).value()  # before training
    losses = solution.history.loss / (r @ r)
    assert losses.iloc[-1] < 1e-18
    assert (losses < 1e-18).sum() <= 2


def test_too_little_memory_is_one_error_with_the_method() -> None:
    is_full = False

    def residual(x: Tensor, d: Derivatives) -> Tensor:
        if is_full:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate")
        return d.u_xx

    class Straight(Problem):
        domain = Interval(x=(0, 1))

        def conditions(self) -> list[Condition]:
            return [Condition("equation", self.domain, residual)]

    problem = Straight()
    field = field_for(problem, "spline")
    training = FieldTraining(
        field, Task(n_residual=20).objective(problem), Evaluation(problem, 20),
        epochs=3, learning_rate=1e-3, chunk=1, optimizer=GaussNewton(),
    )  # fmt: skip
    is_full = True
    with pytest.raises(MemoryError, match=r"Gauss–Newton \(method=auto\) needs more memory"):
        fit(training, "cpu")


_SQUARE = Box(x=(0, 1), y=(0, 1))


@pytest.mark.parametrize(
    ("domain", "periodic"),
    [
        (Polygon([(0, 0), (2, 0), (1, 1)]), False),
        (Polygon([(0, 0), (2, 0), (2, 0.1)]), False),
        (Disc(center=(0, 0), radius=1) | Disc(center=(5, 0), radius=1), False),
        (_SQUARE - Box(x=(0.25, 0.75), y=(0, 0.8)), True),
    ],
    ids=["a triangle", "a thin triangle", "two discs", "a hole in a periodic strip"],
)
def test_a_grid_with_large_parts_without_points(domain: Domain, periodic: bool) -> None:
    """Some of its parts then couple with no separator. The fewer points a spline has, the larger is
    the round-off."""

    class Own(Problem):
        def conditions(self) -> list[Condition]:
            return [
                Condition("equation", self.domain, lambda x, d: d.u_xx + d.u_yy, target=-1.0),
                Condition("boundary", self.domain.boundary(), lambda x, d: d.u),
            ]

    Own.domain, Own.periodic = domain, ("x",) * periodic
    problem, found = Own(), []
    x = domain.sample(200)
    methods: tuple[Any, ...] = ("sparse", "primal")
    for method in methods:
        encoding = GridEncoding(
            2, n_levels=1, n_features_per_level=1, base_resolution=40, log2_hashmap_size=13,
            interpolation="quintic", periodic=[0] * periodic, dtype=D, seed=0,
        )  # fmt: skip
        torch.manual_seed(0)
        field = problem_field(problem, encoding, Linear(1, 1, dtype=D))
        settings = {"optimizer": GaussNewton(method=method), "epochs": 1, "progress": False}
        task = Task(n_residual=3000, n_boundary=500)
        solution = solve(problem, field, task=task, evaluation_points=50, **settings)
        assert solution.history.loss.notna().all()
        found.append(solution(x))
    torch.testing.assert_close(*found, rtol=0, atol=1e-3 * found[1].abs().max().item())
