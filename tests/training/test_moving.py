"""Points and weights that move while training."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from diffhash import MLP, GridEncoding
from diffhash.encodings import Identity
from diffhash.geometry import Box, Interval
from diffhash.networks import Field
from diffhash.optim import Objective, Task, Term
from diffhash.problems import Condition, Derivatives, Problem, stack
from diffhash.training import Evaluation, FieldTraining, Sampler, Weighting
from diffhash.training.fit import fit
from diffhash.training.samplers import Resample, ResidualAdaptive
from diffhash.training.weightings import (
    Causal,
    GradientNorm,
    PointWeighting,
    Present,
    ResidualAttention,
    TimeWindows,
)
from diffhash.training.weightings.inverse_dirichlet import InverseDirichlet

Solver = Callable[..., FieldTraining]


class Heat(Problem):
    """u_t = a(x) u_xx + c u, with u(x, 0) and walls; c = 0 makes it linear."""

    domain = Box(x=(0, 2)) * Interval(t=(0, 1))

    def __init__(self, cubic: float = 0.0) -> None:
        super().__init__()
        self.cubic = cubic

    def conditions(self) -> list[Condition]:
        return [
            Condition("equation", self.domain, self._equation, target=lambda x: x[:, 0].sin()),
            Condition("start", self.domain.initial(), lambda x, d: d.u, lambda x: x[:, 0] ** 2),
            Condition("wall", self.domain.boundary("x"), lambda x, d: stack(d.u, d.u_n)),
            Condition("period", self.domain.periodic("x"), lambda x, d: d.u),
        ]

    def _equation(self, x: Tensor, d: Derivatives) -> Tensor:
        linear = d.u_t - (1 + x[:, 0]) * d.u_xx
        return linear + self.cubic * d.u**3 if self.cubic else linear

    def solution(self, x: Tensor) -> Tensor:
        return x[:, 0] * (-x[:, 1]).exp()


def make(
    problem: Problem | None = None,
    encoder: str = "cubic",
    seed: int = 0,
    n: int = 23,
    ansatz: Any = None,
    **settings: Any,
) -> FieldTraining:
    """Training in float64, with 23 points of the equation and 7 of each other condition."""
    torch.manual_seed(seed)
    problem = problem or Heat()
    d, f64 = problem.n_dims, torch.float64
    encoding: Any = Identity(d, dtype=f64)
    if encoder == "cubic":
        encoding = GridEncoding(
            d, n_levels=2, log2_hashmap_size=6, base_resolution=3, interpolation="cubic",
            init_scale=0.1, dtype=f64,
        )  # fmt: skip
    network = MLP(encoding.n_output_dims, 1, width=6, depth=2, dtype=f64)
    field = Field(encoding, network, problem.domain.bounds, problem.names, ansatz)
    task = Task(n_residual=n, n_boundary=7, n_labels=9, wave_number=None)
    objective = task.objective(problem)
    settings = {"epochs": 6, "learning_rate": 1e-2, "chunk": 2} | settings
    return FieldTraining(field, objective, Evaluation(problem, 20), **settings)


def trained(training: FieldTraining, *callbacks: Callback, **settings: Any) -> FieldTraining:
    fit(training, "cpu", callbacks, **settings)
    return training


def parameters(training: FieldTraining) -> Tensor:
    return torch.cat([p.detach().flatten() for p in training.field.parameters()])


def close(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10 * other.abs().max().item())


def straightforward(
    training: FieldTraining,
    before_epoch: Callable[[int, Objective], None] = lambda epoch, objective: None,
    update: Callable[[list[Tensor]], None] | None = None,
) -> Tensor:
    """Parameters after full-batch Adam by torch's autograd: ``field.jet`` at every step. Before the
    first step, and after each, ``update`` gets the errors of all terms."""
    field, objective = training.field, training.objective
    optimizer = torch.optim.Adam(field.parameters(), lr=training.learning_rate)

    def errors() -> list[Tensor]:
        return [term.errors(field.jet(term.x, term.rows)) for term in objective.terms]

    if update is not None:
        update([e.detach() for e in errors()])
    for epoch in range(training.epochs):
        before_epoch(epoch, objective)
        found = errors()
        terms = zip(objective.terms, found, strict=True)
        loss = torch.stack([term.weight * term.mean_square(e) for term, e in terms]).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if update is not None:
            update([e.detach() for e in found])
    return parameters(training)


def test_a_term_moves_in_place() -> None:
    _, start, wall, period = Task(n_residual=23, n_boundary=7).objective(Heat()).terms
    (term,) = (t for t in Task(n_residual=23).objective(Heat()).terms if t.name == "equation")
    names = ("x", "target", "coefficients", "offset")
    places = [getattr(term, name).data_ptr() for name in names]
    converted = [t.data_ptr() for t in term.in_dtype(torch.float32)]
    x = term.draw(23, "uniform", 3)
    term.move(x)
    assert places == [getattr(term, name).data_ptr() for name in names]
    assert converted == [t.data_ptr() for t in term.in_dtype(torch.float32)]
    assert term.coefficients is not None
    close(term.in_dtype(torch.float32)[1].double(), x[:, :1].sin().float().double())
    close(term.target, x[:, :1].sin())
    close(term.coefficients[term.rows.index((2, 0)), 0, :, 0], -(1 + x[:, 0]))
    close(term.coefficients[term.rows.index((0, 1)), 0, :, 0], torch.ones(23).double())
    start.move(x := start.draw(7, "uniform", 1))
    close(start.target[:, 0], x[:, 0] ** 2)
    wall.move(x := torch.tensor([[0.0, 0.5]] * 3 + [[2.0, 0.1]] * 4).double())
    assert wall.normal is not None
    assert wall.normal[:, 0].tolist() == [-1] * 3 + [1] * 4
    period.move(x := period.draw(7, "uniform", 1))
    assert x.shape == (14, 2) and period.x.equal(x)
    with pytest.raises(ValueError, match=r"equation: new points have the shape \[5, 2\]"):
        term.move(term.x[:5])


# -------------------------------------------------------------------------------- moving points
@pytest.mark.parametrize("cubic", [0.0, 1.0], ids=["linear", "not linear"])
@pytest.mark.parametrize("encoder", ["cubic", "mlp"])
def test_resampled_points_are_those_of_a_loop(encoder: str, cubic: float) -> None:
    names = ["equation", "start", "wall", "period"]

    def sampler() -> Resample:
        return Resample(every=2, seed=5, conditions=names)

    planned = trained(make(Heat(cubic), encoder, sampler=sampler()))
    loop, own, seen = make(Heat(cubic), encoder), sampler(), []

    def move(epoch: int, objective: Objective) -> None:
        if epoch in (2, 4):
            for term in objective.terms:
                term.move(term.draw(len(term), "uniform", own.next_seed()))
            seen.append(objective.terms[0].x.clone())

    close(parameters(planned), straightforward(loop, move))
    assert not torch.equal(*seen)
    assert planned.objective.terms[0].x.equal(seen[-1])


def test_points_of_an_ansatz_move() -> None:
    def ansatz(x: Tensor) -> tuple[Tensor, Tensor]:
        return x[:, 0].sin(), x[:, 0] * (2 - x[:, 0])

    planned = trained(make(ansatz=ansatz, sampler=Resample(every=1, rule="lhs", seed=5)))
    loop, own = make(ansatz=ansatz), Resample(seed=5)

    def move(epoch: int, objective: Objective) -> None:
        if epoch:
            term = objective.terms[0]
            term.move(term.draw(len(term), "lhs", own.next_seed()))

    close(parameters(planned), straightforward(loop, move))


def test_one_name_of_a_condition_is_a_name() -> None:
    one, several = (
        make(sampler=Resample(conditions=names), weighting=ResidualAttention(conditions=names))
        for names in ("wall", ["wall"])
    )
    close(parameters(trained(one)), parameters(trained(several)))


class Everywhere(Sampler):
    """A user's sampler, which keeps errors that it has asked for at other points."""

    def __init__(self) -> None:
        super().__init__(every=1)
        self.errors: list[tuple[Tensor, Tensor]] = []

    def points(self, term: Term, errors: Callable[[Tensor], Tensor]) -> Tensor:
        x = term.draw(4, "uniform", 0)
        self.errors.append((x, errors(x)))
        return term.x.flip(0)


def test_a_sampler_sees_the_present_errors_anywhere() -> None:
    sampler = Everywhere()
    training = trained(make(sampler=sampler, epochs=2))
    ((x, errors),) = sampler.errors
    other = trained(make(epochs=1))
    jet = other.field.jet(x, ("u_t", "u_xx"))
    expected = jet["u_t"] - (1 + x[:, 0]) * jet["u_xx"] - x[:, 0].sin()
    close(errors, expected[:, None].detach())
    first, fresh = training.objective.terms[0], make().objective.terms[0]
    assert first.x.equal(fresh.x.flip(0)) and first.target.equal(fresh.target.flip(0))


@pytest.mark.parametrize(
    ("given", "got"),
    [
        (lambda x: None, "NoneType"),
        (lambda x: x.numpy(), "ndarray"),
        (lambda x: x.float(), r"torch\.float32 of shape \[23, 2\]"),
        (lambda x: x[:5], r"torch\.float64 of shape \[5, 2\]"),
    ],
)
def test_what_a_sampler_returns_is_checked(given: Callable[[Tensor], Any], got: str) -> None:
    class Own(Sampler):
        def points(self, term: Term, errors: Callable[[Tensor], Tensor]) -> Any:
            return given(term.x)

    message = rf"^sampler=Own: its new points of equation are {got}; give .* \[23, 2\]$"
    with pytest.raises(ValueError, match=message):
        trained(make(sampler=Own(every=1), epochs=2))


class Layer(Problem):
    """A steady Burgers equation u u' = ε u″ + f with the layer u = -tanh(x/w) at 0."""

    domain = Interval(x=(-1, 1))
    width = 0.1

    def conditions(self) -> list[Condition]:
        return [
            Condition("burgers", self.domain, lambda x, d: d.u * d.u_x - 0.01 * d.u_xx, "exact")
        ]

    def solution(self, x: Tensor) -> Tensor:
        return -(x[:, 0] / self.width).tanh()


def near_the_layer(x: Tensor) -> float:
    return (x[:, 0].abs() < 0.2).double().mean().item()


def test_adaptive_points_come_to_the_layer() -> None:
    class Kept(ResidualAdaptive):
        def points(self, term: Term, errors: Callable[[Tensor], Tensor]) -> Tensor:
            self.drawn = (x := super().points(term, errors)), errors(x)
            return x

    shares = {}
    for k, c in ((0.0, 1.0), (1.0, 1.0), (2.0, 0.0)):
        sampler = Kept(every=5, k=k, c=c, seed=1)
        trained(make(Layer(), n=400, epochs=6, sampler=sampler))
        shares[k] = near_the_layer(sampler.drawn[0])
        assert len(sampler.drawn[0].unique(dim=0)) == 400
    assert shares[0.0] == pytest.approx(0.2, abs=0.06)  # uniform
    assert shares[0.0] + 0.1 < shares[1.0] < shares[2.0] - 0.1


def test_adaptive_points_have_the_density_of_the_formula() -> None:
    """p ∝ ε^k / mean(ε^k) + c: of two kinds of candidates, ε = 3 and 1 with k = 2, c = 0.5."""
    (term,) = Task(n_residual=500).objective(Layer()).terms
    sampler = ResidualAdaptive(k=2.0, c=0.5, pool=40, seed=2)

    def errors(x: Tensor) -> Tensor:
        return torch.where(x > 0, 3.0, 1.0).double()

    x = sampler.points(term, errors)
    left, right = (1 / 5 + 0.5), (9 / 5 + 0.5)
    assert (x > 0).double().mean().item() == pytest.approx(right / (left + right), abs=0.05)
    exact = sampler.points(term, lambda x: torch.zeros_like(x))  # nothing to follow: uniform
    assert (exact > 0).double().mean().item() == pytest.approx(0.5, abs=0.1)


# ------------------------------------------------------------------------------------ weightings
def test_attention_is_that_of_a_loop() -> None:
    loop = make(Heat(), n=23)
    term = loop.objective.terms[0]
    term.own_point_weights()
    attention = torch.zeros(23).double()

    def update(errors: list[Tensor]) -> None:
        nonlocal attention
        size = errors[0][:, 0].abs()
        attention = 0.9 * attention + 0.2 * size / size.max()
        assert term.point_weights is not None
        term.point_weights.copy_(attention**2)

    expected = straightforward(loop, update=update)
    for settings in ({}, {"derivatives": "autograd"}):
        training = make(weighting=ResidualAttention(gamma=0.9, eta=0.2), **settings)
        close(parameters(trained(training)), expected)
    rows = training.replicas[0].history
    assert all(row["weight_equation"] > 0 and "weight_start" not in row for row in rows)


def test_attention_is_larger_where_the_residual_is() -> None:
    training = trained(make(Layer(), n=200, weighting=ResidualAttention()))
    (term,) = training.objective.terms
    assert term.kept_errors is not None and term.point_weights is not None
    size = term.errors(training.field.jet(term.x, term.rows)).abs()[:, 0]
    weights = term.point_weights[size.argsort()]
    assert weights[-50:].mean() > 10 * weights[:50].mean()


def test_attention_of_minibatches_changes_at_their_points() -> None:
    weighting = ResidualAttention(gamma=0.9, eta=0.2)
    training = make(n=10, batch_size=4, epochs=1, weighting=weighting)
    (term, *_) = training.objective.terms
    trained(training)
    loop = make(n=10)
    own = loop.objective.terms[0]
    own.own_point_weights()
    attention = torch.zeros(10).double()
    optimizer = torch.optim.Adam(loop.field.parameters(), lr=1e-2)
    shuffle = torch.Generator().manual_seed(0)

    def errors(term: Term, rows: Tensor) -> Tensor:
        return term.errors(loop.field.jet(term.points(rows), term.rows), rows)

    def update(rows: Tensor, size: Tensor) -> None:
        attention[rows] = 0.9 * attention[rows] + 0.2 * size / size.max()

    batches = []
    for one in loop.objective.terms:
        shuffled = [torch.randperm(len(one), generator=shuffle)]
        batches.append(torch.cat(shuffled).tensor_split(3))
    everything = torch.arange(10)
    update(everything, errors(own, everything).detach().abs()[:, 0])
    for step in range(3):
        rows = [batch[step] for batch in batches]
        found = [errors(t, r) for t, r in zip(loop.objective.terms, rows, strict=True)]
        weighted = attention[rows[0]].square() * found[0][:, 0].square()
        loss = weighted.mean() + sum(e.square().mean() for e in found[1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        update(rows[0], found[0].detach().abs()[:, 0])
    close(parameters(training), parameters(loop))
    assert term.point_weights is not None
    close(term.point_weights, attention**2)


def test_weights_given_to_points_stay() -> None:
    """Residual attention multiplies them."""
    training, plain = (make(weighting=ResidualAttention(), epochs=1) for _ in range(2))
    given = torch.linspace(1, 2, 23).double()
    training = make(epochs=1)
    training.objective.terms[0].point_weights = given.clone()
    training = FieldTraining(
        training.field, training.objective, training.evaluation, epochs=1, learning_rate=1e-30,
        weighting=ResidualAttention(),
    )  # fmt: skip
    trained(training)
    plain.learning_rate = 1e-30
    trained(plain)
    weights = [t.objective.terms[0].point_weights for t in (training, plain)]
    assert weights[0] is not None and weights[1] is not None
    torch.testing.assert_close(weights[0], given * weights[1])


def test_causal_weights_are_those_of_a_loop() -> None:
    """Chunks of time have weights from the losses before them; ε grows when all are above δ."""
    epsilons, m, stages = [1e-9, 0.2, 0.4], 4, []
    loop = make()
    term = loop.objective.terms[0]
    term.own_point_weights()
    stage = 0

    def update(errors: list[Tensor]) -> None:
        nonlocal stage
        assert term.point_weights is not None
        weights, passed = torch.ones(23).double(), 0.0
        least = 1.0
        for chunk in range(m):
            t = term.x[:, 1]
            own = (t >= chunk / m) & (t < (chunk + 1) / m)
            least = math.exp(-epsilons[stage] * passed)
            weights[own] = least
            passed += errors[0][own].square().mean().item() if own.any() else 0.0
        term.point_weights.copy_(weights)
        stage = min(stage + (least > 0.5), 2)
        stages.append(stage)

    expected = straightforward(loop, update=update)
    training = make(weighting=Causal(chunks=m, epsilons=epsilons, delta=0.5))
    close(parameters(trained(training)), expected)
    assert stages[0] == 1
    point_weights = training.objective.terms[0].point_weights
    assert point_weights is not None and point_weights.min() < 0.9 < point_weights.max()


def test_time_windows_open_one_after_another() -> None:
    class Seen(TimeWindows):
        def update(self, present: Present, rows: Any) -> None:
            super().update(present, rows)
            assert self.terms[0].point_weights is not None
            weights, t = self.terms[0].point_weights, self.terms[0].x[:, 1]
            assert weights.mean().item() == pytest.approx(1)
            ends.append(t[weights > 0].max().item())

    ends: list[float] = []
    trained(make(n=200, weighting=Seen(windows=4, epochs=2), epochs=7))
    assert [math.ceil(4 * end) for end in ends] == [1, 1, 1, 2, 2, 3, 3, 4]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"sampler": Resample(every=6)},
            r"^sampler=Resample: with every=6 and epochs=6 the points",
        ),
        (
            {"weighting": TimeWindows(4, 2)},
            r"^weighting=TimeWindows: .* after 6 epochs, .*epochs=6",
        ),
    ],
)
def test_too_few_epochs_are_warned_of(settings: dict[str, Any], message: str) -> None:
    with pytest.warns(UserWarning, match=message) as found:
        make(**settings)
    assert found[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make(epochs=7, **settings)


def _by_norms(first: Tensor, other: Tensor, all_of_them: list[Tensor]) -> Tensor:
    return first.abs().max() / other.abs().mean()


def _by_spread(first: Tensor, other: Tensor, all_of_them: list[Tensor]) -> Tensor:
    return torch.stack([g.std() for g in all_of_them]).max() / other.std()


@pytest.mark.parametrize(
    ("weighting", "ratio"),
    [(GradientNorm, _by_norms), (InverseDirichlet, _by_spread)],
)
def test_weights_from_gradients_are_those_of_a_loop(
    weighting: Callable[..., Weighting], ratio: Callable[..., Tensor]
) -> None:
    loop = make(Heat(1.0))
    field, steps = loop.field, 0
    _, *others = loop.objective.terms
    history = []

    def gradient(term: Term) -> Tensor:
        error = term.errors(field.jet(term.x, term.rows))
        grads = torch.autograd.grad(error.square().mean(), list(field.parameters()))
        return torch.cat([g.flatten() for g in grads])

    def update(_: list[Tensor]) -> None:
        nonlocal steps
        if steps % 2 == 0:
            all_of_them = [gradient(term) for term in loop.objective.terms]
            for term, own in zip(others, all_of_them[1:], strict=True):
                new = ratio(all_of_them[0], own, all_of_them)
                term.weight.copy_(0.7 * term.weight + 0.3 * new)
        steps += 1
        history.append([term.weight.item() for term in others])

    expected = straightforward(loop, update=update)
    training = trained(make(Heat(1.0), weighting=weighting(every=2, beta=0.7), chunk=3))
    close(parameters(training), expected)
    names = [f"weight_{term.name}" for term in others]
    rows = [row[name] for row in training.replicas[0].history for name in names]
    assert rows == pytest.approx([*history[2], *history[5]], rel=1e-9)  # of steps 3 and 6
    assert max(rows[:2]) > 1.5  # gradients are not alike at the start


# ------------------------------------------------------------------------------------- resuming
class Stop(Callback):
    """A callback that saves a checkpoint at the end."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        trainer.save_checkpoint(self._path)


@pytest.mark.parametrize(
    "settings",
    [
        lambda: {"sampler": Resample(every=3, rule="sobol"), "weighting": ResidualAttention()},
        lambda: {"sampler": ResidualAdaptive(every=2), "weighting": GradientNorm(every=3)},
        lambda: {"weighting": Causal(chunks=3, epsilons=[1e-9, 0.1])},
        lambda: {"weighting": TimeWindows(windows=3, epochs=2)},
        lambda: {"sampler": Resample(every=2), "weighting": ResidualAttention(), "batch_size": 5},
    ],
    ids=["resample attention", "rad gradients", "causal", "windows", "minibatches"],
)
@pytest.mark.parametrize("cubic", [0.0, 1.0], ids=["linear", "not linear"])
def test_resumed_is_uninterrupted(
    tmp_path: Path, settings: Callable[[], dict[str, Any]], cubic: float
) -> None:
    path = tmp_path / "checkpoint.ckpt"
    whole = trained(make(Heat(cubic), epochs=9, **settings()))
    trained(make(Heat(cubic), epochs=4, **settings()), Stop(path))
    resumed = trained(make(Heat(cubic), epochs=9, **settings()), checkpoint=path)
    assert parameters(resumed).equal(parameters(whole))
    rows = [
        repr([{k: v for k, v in row.items() if k != "seconds"} for row in t.replicas[0].history])
        for t in (whole, resumed)
    ]
    assert rows[0] == rows[1]  # also where a metric is not a number


def test_a_checkpoint_of_another_sampler_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.ckpt"
    trained(make(epochs=2, sampler=Resample()), Stop(path))
    other = make(epochs=4, sampler=ResidualAdaptive())
    with pytest.raises(ValueError, match=r"^sampler: .*with Resample, here it is Residual"):
        trained(other, checkpoint=path)


# ---------------------------------------------------------------------------------- combinations
@pytest.mark.parametrize("batch_size", [None, 5])
def test_planned_steps_are_those_of_autograd(batch_size: int | None) -> None:
    """Jets, plans and kernels equal nested reverse mode, with moving points and weights."""
    runs = []
    for derivatives in ("taylor", "autograd"):
        training = make(
            sampler=Resample(every=2, conditions=["equation", "wall", "period"]),
            weighting=ResidualAttention(conditions=["equation", "wall", "period"]),
            batch_size=batch_size,
            derivatives=derivatives,
        )
        runs.append(parameters(trained(training)))
    close(runs[0], runs[1])


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ["cubic", "mlp"])
def test_a_compiled_step_sees_points_and_weights_move(encoder: str) -> None:
    runs = []
    for execution in ("eager", "compile"):
        training = make(
            *(Heat(1.0), encoder),
            sampler=Resample(every=2),
            weighting=ResidualAttention(conditions=["equation", "start"]),
            execution=execution,
            chunk=5,
        )
        runs.append(parameters(trained(training)))
    close(runs[0], runs[1])


class Fourth(PointWeighting):
    """A user's weighting: points with an even index count four times as much."""

    reads_errors = False

    def update(self, present: Present, rows: Any) -> None:
        self.put(0, torch.arange(len(self.terms[0])) % 2 * -3.0 + 4)


def test_a_users_weighting() -> None:
    loop = make()
    weights = torch.arange(23) % 2 * -3.0 + 4
    loop.objective.terms[0].point_weights = weights.double()
    expected = straightforward(loop)
    close(parameters(trained(make(weighting=Fourth()))), expected)


def broken(x: Tensor, d: Derivatives) -> Tensor:
    """A residual that is linear at the first points and cubic beyond."""
    return torch.where(x[:, 0] > 1, d.u**3, d.u)


@pytest.mark.parametrize(
    ("problem", "settings", "message"),
    [
        (
            Heat(),
            {"sampler": Resample(conditions=["x"])},
            "sampler=Resample: conditions=.*'x'",
        ),
        (
            Heat(),
            {"sampler": Resample(conditions="wal")},
            r"sampler=Resample: conditions=\['wal'\]: no condition is named 'wal'; there are",
        ),
        (
            Heat(),
            {"weighting": Causal(conditions=5)},  # type: ignore[arg-type]
            "weighting=Causal: conditions=5: give a list of names; there are ",
        ),
        (
            Layer(),
            {"weighting": Causal()},
            "weighting=Causal: axis='t': the problem has",
        ),
        (
            Layer(),
            {"weighting": GradientNorm()},
            "weighting=GradientNorm: conditions=None",
        ),
        (
            Heat(),
            {"weighting": Causal(), "batch_size": 4},
            "weighting=Causal: needs the errors of all points at every step, batch_size=4",
        ),
    ],
)
def test_what_cannot_move_is_refused(
    problem: Problem, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        make(problem, **settings)


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (Resample, {"every": 0}, "every=0"),
        (Resample, {"rule": "grid"}, "rule='grid': give 'uniform'"),
        (Resample, {"seed": -1}, "seed=-1"),
        (ResidualAdaptive, {"k": -1.0}, "k=-1.0: give a finite"),
        (ResidualAdaptive, {"c": math.inf}, "c=inf: give a finite"),
        (ResidualAdaptive, {"k": "a"}, "k=a: give a finite"),
        (ResidualAdaptive, {"c": None}, "c=None: give a finite"),
        (ResidualAdaptive, {"pool": 0}, "pool=0"),
        (ResidualAdaptive, {"every": "a"}, "every='a': allowed are integers"),
        (Resample, {"rule": ["lhs"]}, r"rule=\['lhs'\]"),
        (ResidualAttention, {"gamma": 1.0}, "gamma=1.0"),
        (ResidualAttention, {"gamma": "a"}, "gamma=a: give a number of at least 0 and less than"),
        (ResidualAttention, {"eta": 0.0}, "eta=0.0"),
        (ResidualAttention, {"eta": "a"}, "eta=a: give a finite number above 0"),
        (GradientNorm, {"beta": 1.0}, "beta=1.0"),
        (GradientNorm, {"beta": "a"}, "beta=a: give a number of at least 0 and less than 1"),
        (InverseDirichlet, {"beta": [0.5]}, r"beta=\[0.5\]: give a number"),
        (GradientNorm, {"every": 0}, "every=0"),
        (Causal, {"chunks": 0}, "chunks=0"),
        (Causal, {"epsilons": []}, "epsilons="),
        (Causal, {"epsilons": -1}, "epsilons=-1: give a list of numbers"),
        (Causal, {"epsilons": "abc"}, "epsilons='abc': give a list of numbers"),
        (Causal, {"epsilons": [0.1, "a"]}, r"epsilons\[1\]=a: give a finite number of at least 0"),
        (Causal, {"epsilons": [-1]}, r"epsilons\[0\]=-1: give a finite number of at least 0"),
        (Causal, {"delta": 1.0}, "delta=1.0"),
        (Causal, {"delta": "a"}, "delta=a: give a number between 0 and 1"),
        (TimeWindows, {"windows": 0}, "windows=0"),
    ],
)
def test_settings_out_of_range(
    kind: type[Sampler] | type[Weighting], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        kind(**settings)


def test_a_residual_that_is_linear_at_the_first_points_alone() -> None:
    """The residual is traced at other points, too, before its points may move."""

    class Piecewise(Heat):
        def conditions(self) -> list[Condition]:
            return [Condition("equation", self.domain, broken)]

    class Corner(Sampler):
        def points(self, term: Term, errors: Callable[[Tensor], Tensor]) -> Tensor:
            return term.draw(len(term), "uniform", self.next_seed()) / 2

    training = make(Piecewise(), n=1, sampler=Corner(every=2))
    (term,) = training.objective.terms
    assert term.coefficients is not None  # of its one point
    trained(training)
    assert term.coefficients is None
    term = Task(n_residual=1).objective(Piecewise()).terms[0]
    with pytest.raises(ValueError, match=r"^equation: its residual is another function"):
        term.move(torch.tensor([[1.5, 0.5]]).double())
