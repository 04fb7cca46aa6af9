"""Problems that training would get wrong in part are refused before a step is taken."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from diffhash import MLP, Field, FourierFeatures, GridEncoding, Jet
from diffhash.encodings import Identity
from diffhash.encodings.encoding import EncodingPlan
from diffhash.geometry import Interval
from diffhash.jets import Names, Row
from diffhash.networks import Linear, stack_fields
from diffhash.optim import Task
from diffhash.problems import Coefficient, Condition, Derivatives, Poisson1D, Problem
from diffhash.training import Evaluation, FieldTraining, UntrainedError

MakeTraining = Callable[..., FieldTraining]
BOX = [(0.0, 1.0)]
DOMAIN = Interval(x=(0, 1))
Residual = Callable[[Tensor, Derivatives], Any]


class Labels(Poisson1D):
    """u = sin x at six points, with a given residual."""

    def __init__(self, residual: Residual, target: Any = lambda x: x[:, 0].sin()) -> None:
        super().__init__()
        self.residual, self.target_of = residual, target

    def conditions(self) -> list[Condition]:
        return [Condition("own", DOMAIN, self.residual, self.target_of)]


def make_field(n_outputs: int = 1) -> Field:
    return Field(Identity(1), MLP(1, n_outputs=n_outputs, width=4, depth=1), BOX)


def train(problem: Problem, field: Field | None = None, **settings: Any) -> FieldTraining:
    field = field or make_field()
    objective = Task(n_labels=5, n_residual=6).objective(problem)
    return FieldTraining(
        *(field, objective, Evaluation(problem, 10)), epochs=4, learning_rate=1e-3, **settings
    )


# ------------------------------------------------------------------- orders that a field has


@pytest.mark.parametrize(
    ("interpolation", "order", "letters"),
    [("linear", 2, "xx"), ("cubic", 4, "xxxx"), ("hermite", 4, "xxxx"), ("quadratic", 3, "xxx")],
)
def test_derivatives_that_are_zero_everywhere(interpolation: str, order: int, letters: str) -> None:
    problem = Labels(lambda x, d: getattr(d, f"u_{letters}"))

    def field(network: type[Linear] | type[MLP]) -> Field:
        encoding = GridEncoding(
            1, n_levels=2, base_resolution=4, interpolation=interpolation, log2_hashmap_size=6
        )
        own = network(encoding.n_output_dims)
        return Field(encoding, own, problem.domain.bounds, problem.names)

    with pytest.raises(ValueError, match=rf"own: it needs u_{letters}, .* higher degree"):
        train(problem, field(Linear))
    train(problem, field(MLP))  # its derivatives of that order are those of the network, too


# ------------------------------------------------------------------- shapes of residuals


@pytest.mark.parametrize("batch_size", [None, 3])
@pytest.mark.parametrize("derivatives", ["taylor", "autograd"])
def test_residuals_are_tried_before_training(derivatives: Any, batch_size: int | None) -> None:
    """They are tried with the field's precision and number of replicas, unlike in a trace."""

    def mixed(x: Tensor, d: Derivatives) -> Tensor:
        return d.u if d.u.dtype == torch.float64 else d.u[..., None] * d.u

    with pytest.raises(ValueError, match=r"own: its residual is .*of shape \[6, 6\].*\[6, 1\]"):
        train(Labels(mixed), derivatives=derivatives, batch_size=batch_size)


def test_residuals_of_replicas_are_tried_with_replicas() -> None:
    problem = Labels(lambda x, d: d.u.flatten())
    train(problem)
    with pytest.raises(ValueError, match=r"own: its residual is .*of shape \[12\].*\[2, 6\]"):
        train(problem, stack_fields([make_field(), make_field()]))


def test_a_target_beyond_float32() -> None:
    with pytest.raises(ValueError, match=r"^own: its target is not finite in torch\.float32"):
        train(Labels(lambda x, d: d.u, 1e300))


def test_two_components_of_a_scalar_problem() -> None:
    problem = Labels(lambda x, d: d.u)
    with pytest.raises(ValueError, match=r"n_outputs=2: the problem has 1 unknown.* give 1"):
        train(problem, make_field(n_outputs=2))
    with pytest.raises(ValueError, match="n_outputs=2"):
        Evaluation(problem, 10).prepare(make_field(2), torch.device("cpu"))


def test_a_field_of_other_names() -> None:
    field = Field(Identity(1), MLP(1, width=4, depth=1), BOX, Names(("t",)))
    with pytest.raises(ValueError, match=r"field: its axes are \('t',\) .*names=problem\.names"):
        train(Labels(lambda x, d: d.u), field)


# ----------------------------------------------------------- what nothing would train


class Inverse(Poisson1D):
    """k u″ = f with attributes to be found, which a condition reads or not."""

    def __init__(self, **found: Any) -> None:
        super().__init__()
        vars(self).update(found)


def trainable() -> nn.Parameter:
    return nn.Parameter(torch.tensor(1.0))


@pytest.mark.parametrize(
    ("found", "name"),
    [
        (lambda: {"kappa": trainable()}, r"problem\.kappa"),
        (lambda: {"kappa": trainable().exp()}, r"problem\.kappa"),
        (lambda: {"kappa": torch.ones(2, requires_grad=True)}, r"problem\.kappa"),
        (lambda: {"all": [1, trainable()]}, r"problem\.all\[1\]"),
        (lambda: {"all": {"kappa": (trainable(),)}}, r"problem\.all\['kappa'\]\[0\]"),
        (lambda: {"part": SimpleNamespace(kappa=trainable())}, r"problem\.part\.kappa"),
        (lambda: {"all": [nn.Linear(1, 1)]}, r"problem\.all\[0\]\.weight, problem\.all\[0\]\.bias"),
        (lambda: {"all": [Coefficient(1.0)]}, r"problem\.all\[0\]"),
        (lambda: {"call": functools.partial(max, trainable())}, r"problem\.call\[0\]"),
    ],
)
@pytest.mark.parametrize("task", ["data", "pinn"])
def test_a_tensor_of_the_problem_that_is_no_registered_parameter(
    found: Any, name: str, task: Any
) -> None:
    problem = Inverse(**found())
    objective = Task(task, n_labels=5, n_residual=5).objective(problem)
    with pytest.raises(ValueError, match=rf"^{name}: requires a gradient, but only parameters of"):
        FieldTraining(
            *(make_field(), objective, Evaluation(problem, 10)), epochs=1, learning_rate=1e-3
        )


@pytest.mark.parametrize("owner", ["condition", "objective"])
def test_a_tensor_of_the_objective(owner: str) -> None:
    kappa = trainable()
    if owner == "condition":
        problem = Labels(lambda x, d: kappa * d.u)
    else:
        problem = Labels(lambda x, d: d.u)
        problem.target_of = functools.partial(lambda kappa, x: x[:, 0], kappa)
    with pytest.raises(ValueError, match=r"kappa|target_of\S*: requires a gradient"):
        train(problem)
    objective = Task(n_residual=6).objective(Poisson1D())
    objective.kappa = kappa
    with pytest.raises(ValueError, match=r"^objective\.kappa: requires a gradient"):
        FieldTraining(
            *(make_field(), objective, Evaluation(Poisson1D(), 10)), epochs=1, learning_rate=1e-3
        )


def registered(**found: Any) -> Inverse:
    problem = Inverse()
    for name, value in found.items():
        setattr(problem, name, value)
    return problem


@pytest.mark.parametrize("make", [trainable, lambda: Coefficient(1.0)], ids=["parameter", "number"])
def test_a_coefficient_that_no_condition_reads(fit: Callable, make: Any) -> None:
    with pytest.raises(UntrainedError, match=r"^Inverse\.kappa: no condition reads it"):
        train(registered(kappa=make()))
    frozen = make().requires_grad_(False)
    fit(train(registered(kappa=frozen)))
    assert frozen == 1


@pytest.mark.parametrize("how", ["buffer", "attribute", "list"])
def test_a_tensor_of_the_field_that_is_no_registered_parameter(how: str) -> None:
    field = make_field()
    match how:
        case "buffer":
            field.encoding.register_buffer("scale", torch.ones(1, requires_grad=True))
        case "attribute":
            field.encoding.scale = torch.ones(1, requires_grad=True)
        case "list":
            field.encoding.scale = [trainable()]  # type: ignore[assignment]
    with pytest.raises(ValueError, match=r"^field\.encoding\.scale\S*: requires a gradient"):
        train(Labels(lambda x, d: d.u), field)


def test_constants_and_the_fields_own_parameters_are_no_mistake() -> None:
    field, frozen = make_field(), trainable().requires_grad_(False)
    penalty = field.network.params
    problem = Labels(lambda x, d: frozen * d.u + 0 * penalty.sum().to(d.u.dtype))
    problem.loop = [problem]  # type: ignore[assignment]
    train(problem, field)


def test_a_field_with_nothing_to_train() -> None:
    field = make_field().requires_grad_(False)
    with pytest.raises(ValueError, match="field: none of its parameters requires a gradient"):
        train(Labels(lambda x, d: d.u), field)


class Fixed(EncodingPlan):
    """A plan whose jet has no gradient."""

    def __init__(self, jet: Jet) -> None:
        self._jet = Jet(jet.data.detach(), jet.rows)

    def jet(self) -> Jet:
        return self._jet


class Scaled(Identity):
    """Coordinates times a parameter, whose gradient jets and plans may leave out."""

    def __init__(self, where: str) -> None:
        super().__init__(1)
        self.where, self.scale = where, nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale

    def _jet(self, x: Tensor, rows: tuple[Row, ...]) -> Jet:
        data = torch.stack([x, torch.ones_like(x), torch.zeros_like(x)][: len(rows)])
        return Jet(data * (self.scale.detach() if self.where == "jet" else self.scale), rows)

    def _plan(self, x: Tensor, rows: tuple[Row, ...]) -> EncodingPlan:
        return Fixed(self._jet(x.to(self.scale.dtype), rows))


class Steps(Callback):
    """Whether a parameter has changed."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.before = [p.detach().clone() for p in pl_module.parameters()]


@pytest.mark.parametrize(
    ("where", "settings"),
    [
        ("jet", {}),
        ("plan", {}),
        ("jet", {"batch_size": 3}),
        ("jet", {"execution": "compile"}),
    ],
)
def test_a_parameter_that_no_gradient_reaches(
    fit: Callable, where: str, settings: dict[str, Any]
) -> None:
    field = Field(Scaled(where), MLP(1, width=4, depth=1), BOX)
    training, steps = train(Poisson1D(), field, **settings), Steps()
    with pytest.raises(UntrainedError, match=r"^field\.encoding\.scale: gets no gradient"):
        fit(training, [steps])
    assert all(torch.equal(a, b) for a, b in zip(steps.before, field.parameters(), strict=True))


def test_a_frozen_parameter_is_no_mistake(fit: Callable) -> None:
    field = Field(Scaled("jet"), MLP(1, width=4, depth=1), BOX)
    field.encoding.requires_grad_(False)
    fit(train(Poisson1D(), field))
    field = Field(FourierFeatures(1, 3), MLP(6, width=4, depth=1), BOX)
    fit(train(Poisson1D(), field))


# ------------------------------------------------------------------- terms in the history


class Reaction(Poisson1D):
    """An equation that is not linear in u and uses jets, with labels that use a kernel."""

    def _equation(self, x: Tensor, d: Derivatives) -> Tensor:
        return super()._equation(x, d) + d.u**3


@pytest.mark.parametrize("problem", [Poisson1D(), Reaction()], ids=["linear", "not linear"])
@pytest.mark.parametrize("settings", [{}, {"batch_size": 4}, {"derivatives": "autograd"}])
def test_the_history_tells_the_terms_apart(
    make_training: MakeTraining, fit: Callable, problem: Any, settings: dict[str, Any]
) -> None:
    training = make_training(
        "cubic", dtype=torch.float64, problem=problem, epochs=6, chunk=2, **settings
    )
    training.objective.terms[0].weight.fill_(0.25)
    fit(training)
    for row in training.replicas[0].history:
        parts = row["loss_data"], row["loss_residual"]
        assert sum(parts) == pytest.approx(row["loss"], rel=1e-12)
        assert all(part > 0 for part in parts)


def test_the_parts_are_those_of_the_parameters_before_the_last_step(
    make_training: MakeTraining, fit: Callable
) -> None:
    training = make_training("cubic", dtype=torch.float64, epochs=1)
    field, objective = training.field, training.objective
    objective.loss([field.jet(t.x, t.rows) for t in objective.terms])
    expected = [part.item() for part in objective.parts]
    fit(training)
    [row] = training.replicas[0].history
    assert [row["loss_data"], row["loss_residual"]] == pytest.approx(expected, rel=1e-12)
