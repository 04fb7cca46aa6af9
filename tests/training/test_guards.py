"""What training would leave out or get wrong is refused before a step is taken."""

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

from diffhash import MLP, Field, FourierFeatures, Jet
from diffhash.encodings import Identity
from diffhash.encodings.encoding import Plan
from diffhash.jets import Row
from diffhash.networks import stack_fields
from diffhash.problems import Poisson1D
from diffhash.tasks import Task, Term, data_task, pinn_task
from diffhash.training import Evaluation, FieldTraining, UntrainedError

MakeTraining = Callable[..., FieldTraining]
BOX = [(0.0, 1.0)]


def make_field(n_outputs: int = 1) -> Field:
    return Field(Identity(1), MLP(1, n_outputs=n_outputs, width=4, depth=1), BOX)


def train(task: Task, field: Field | None = None, **settings: Any) -> FieldTraining:
    field = field or make_field()
    return FieldTraining(
        *(field, task, Evaluation(Poisson1D(), 10)), epochs=4, learning_rate=1e-3, **settings
    )


def term(error: Any, **settings: Any) -> Term:
    x = torch.linspace(0, 1, 6, dtype=torch.float64)[:, None]
    return Term("own", x, settings.pop("target", x.sin()), (0,), error, 1.0, **settings)


# ------------------------------------------------------------------- shapes of errors


@pytest.mark.parametrize("batch_size", [None, 3])
@pytest.mark.parametrize("derivatives", ["taylor", "autograd"])
def test_errors_are_tried_before_training(derivatives: Any, batch_size: int | None) -> None:
    task = Task([term(lambda x, u, y: u.value[..., 0] - y[..., 0])])
    with pytest.raises(ValueError, match=r"task\.own: its error is .* of shape \[6\]"):
        train(task, derivatives=derivatives, batch_size=batch_size)


def test_errors_of_replicas_are_tried_with_replicas() -> None:
    task = Task([term(lambda x, u, y: (u.value - y).flatten(end_dim=-2))])
    train(task)
    with pytest.raises(ValueError, match=r"of shape \[12, 1\].*of shape \[2, 6, 1\]"):
        train(task, stack_fields([make_field(), make_field()]))


def test_a_target_beyond_float32() -> None:
    target = torch.full((6, 1), 1e300, dtype=torch.float64)
    task = Task([term(lambda x, u, y: u.value - y, target=target)])
    with pytest.raises(ValueError, match=r"task\.own: its target is not finite in torch\.float32"):
        train(task)


def test_two_components_of_a_scalar_problem() -> None:
    task = Task([term(lambda x, u, y: u.value[..., :1] - y)])
    with pytest.raises(ValueError, match=r"n_outputs=2: a problem.* give 1"):
        train(task, make_field(n_outputs=2))
    with pytest.raises(ValueError, match="n_outputs=2"):
        Evaluation(Poisson1D(), 10).prepare(make_field(2), torch.device("cpu"))


# ----------------------------------------------------------- what nothing would train


class Inverse(Poisson1D):
    """k″u = f with something to find."""

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
        (lambda: {"closure": nn.Linear(1, 1)}, r"problem\.closure\.weight, problem\.closure\.bias"),
        (lambda: {"own": nn.ParameterDict({"kappa": trainable()})}, r"problem\.own\.kappa"),
        (lambda: {"call": functools.partial(max, trainable())}, r"problem\.call\[0\]"),
    ],
)
@pytest.mark.parametrize("make", [data_task, pinn_task], ids=["data", "pinn"])
def test_a_parameter_of_the_problem(
    make_training: MakeTraining, found: Any, name: str, make: Any
) -> None:
    problem = Inverse(**found())
    with pytest.raises(ValueError, match=rf"^{name}: requires a gradient, but only the field's"):
        FieldTraining(
            *(make_field(), make(problem), Evaluation(problem, 10)), epochs=1, learning_rate=1e-3
        )


def test_a_parameter_of_the_task() -> None:
    kappa = trainable()
    with pytest.raises(ValueError, match=r"task\.\S*kappa: requires a gradient"):
        train(Task([term(lambda x, u, y: kappa * u.value - y)]))
    task = Task([term(lambda x, u, y: u.value - y)])
    task.kappa = kappa
    with pytest.raises(ValueError, match=r"^task\.kappa: requires a gradient"):
        train(task)


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
        train(Task([term(lambda x, u, y: u.value - y)]), field)


def test_constants_and_the_fields_own_parameters_are_no_mistake() -> None:
    field, frozen = make_field(), trainable().requires_grad_(False)
    penalty = field.network.params
    task = Task([term(lambda x, u, y: frozen * u.value - y + 0 * penalty.sum())])
    task.loop = task  # type: ignore[assignment]
    train(task, field)


def test_a_field_with_nothing_to_train() -> None:
    field = make_field().requires_grad_(False)
    with pytest.raises(ValueError, match="field: none of its parameters requires a gradient"):
        train(Task([term(lambda x, u, y: u.value - y)]), field)


class Fixed(Plan):
    """A jet without its gradient."""

    def __init__(self, jet: Jet) -> None:
        self._jet = Jet(jet.data.detach(), jet.rows)

    def jet(self) -> Jet:
        return self._jet


class Scaled(Identity):
    """Coordinates times a parameter, which jets and plans may forget."""

    def __init__(self, where: str) -> None:
        super().__init__(1)
        self.where, self.scale = where, nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale

    def _jet(self, x: Tensor, rows: tuple[Row, ...]) -> Jet:
        data = torch.stack([x, torch.ones_like(x), torch.zeros_like(x)][: len(rows)])
        return Jet(data * (self.scale.detach() if self.where == "jet" else self.scale), rows)

    def _plan(self, x: Tensor, rows: tuple[Row, ...]) -> Plan:
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
    training, steps = train(pinn_task(Poisson1D(), 5, 5), field, **settings), Steps()
    with pytest.raises(UntrainedError, match=r"^field\.encoding\.scale: gets no gradient"):
        fit(training, [steps])
    assert all(torch.equal(a, b) for a, b in zip(steps.before, field.parameters(), strict=True))


def test_a_frozen_parameter_is_no_mistake(fit: Callable) -> None:
    field = Field(Scaled("jet"), MLP(1, width=4, depth=1), BOX)
    field.encoding.requires_grad_(False)
    fit(train(pinn_task(Poisson1D(), 5, 5), field))
    field = Field(FourierFeatures(1, 3), MLP(6, width=4, depth=1), BOX)
    fit(train(pinn_task(Poisson1D(), 5, 5), field))


# ------------------------------------------------------------------- terms in the history


class Reaction(Poisson1D):
    """Not linear in u: through jets, its labels through a kernel."""

    linear = False

    def operator(self, x: Tensor, u: Jet) -> Tensor:
        return super().operator(x, u) + u.value**3


@pytest.mark.parametrize("problem", [Poisson1D(), Reaction()], ids=["linear", "not linear"])
@pytest.mark.parametrize("settings", [{}, {"batch_size": 4}, {"derivatives": "autograd"}])
def test_the_history_tells_the_terms_apart(
    make_training: MakeTraining, fit: Callable, problem: Any, settings: dict[str, Any]
) -> None:
    training = make_training(
        "cubic", dtype=torch.float64, problem=problem, epochs=6, chunk=2, **settings
    )
    training.task.terms[0].weight.fill_(0.25)
    fit(training)
    for row in training.replicas[0].history:
        parts = row["loss_data"], row["loss_residual"]
        assert sum(parts) == pytest.approx(row["loss"], rel=1e-12)
        assert all(part > 0 for part in parts)


def test_the_parts_are_those_of_the_parameters_before_the_last_step(
    make_training: MakeTraining, fit: Callable
) -> None:
    training = make_training("cubic", dtype=torch.float64, epochs=1)
    field, task = training.field, training.task
    task.loss([field.jet(t.x, t.rows) for t in task.terms])
    expected = [part.item() for part in task.parts]
    fit(training)
    [row] = training.replicas[0].history
    assert [row["loss_data"], row["loss_residual"]] == pytest.approx(expected, rel=1e-12)
