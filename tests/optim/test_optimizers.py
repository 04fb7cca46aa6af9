"""Optimizers besides Adam and Gauss–Newton, Adam's epochs before them, and the end of training."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from diffhash import MLP, Field, GridEncoding, solve
from diffhash.encodings import Identity
from diffhash.networks import Linear
from diffhash.optim import LBFGS, FirstOrder, GaussNewton, OptimizerSettings, SSBroyden, Task
from diffhash.problems import Problem
from diffhash.training import Evaluation, FieldTraining
from diffhash.training.fit import fit
from diffhash.training.solution import Solution
from tests.optim.decay import Decay

D = torch.float64


def field_for(problem: Problem, kind: str = "mlp") -> Field:
    torch.manual_seed(0)
    encoding: Any = Identity(1, dtype=D)
    if kind == "grid":
        encoding = GridEncoding(
            1, n_levels=2, n_features_per_level=3, base_resolution=3, interpolation="quintic",
            init_scale=0.3, dtype=D,
        )  # fmt: skip
    network = MLP(encoding.n_output_dims, 1, width=8, depth=2, dtype=D)
    return Field(encoding, network, problem.domain.bounds, problem.names)


def solved(optimizer: Any, epochs: int, **settings: Any) -> Solution:
    problem = Decay()
    return solve(
        problem, settings.pop("field", None) or field_for(problem), optimizer=optimizer or "adam",
        task=Task(n_residual=50, n_boundary=1, wave_number=None), epochs=epochs,
        evaluation_points=50, progress=False, **settings,
    )  # fmt: skip


@pytest.mark.parametrize(
    "optimizer",
    [LBFGS(), LBFGS(history=10), SSBroyden(), SSBroyden(update="bfgs")],
    ids=["lbfgs", "short", "broyden", "bfgs"],
)
def test_quasi_newton_methods_solve(optimizer: OptimizerSettings) -> None:
    solution = solved(optimizer, 300, chunk=20)
    assert solution.relative_l2["u"] < 1e-4
    assert solution.metrics["k"] == pytest.approx(1.0, abs=1e-3)
    history = solution.history
    assert history.loss.is_monotonic_decreasing
    assert (history.evaluations >= history.epoch).all(), "evaluations of line searches count"


def test_a_quadratic_is_minimised_exactly() -> None:
    """Quasi-Newton methods with exact curvature need about as many steps as parameters."""
    parameter = torch.nn.Parameter(torch.zeros(6, dtype=D))
    matrix = torch.diag(torch.tensor([1.0, 2.0, 5.0, 10.0, 30.0, 100.0], dtype=D))
    problem, field = Decay(), field_for(Decay())
    field.network.params = parameter
    problem.k.requires_grad_(False)
    optimizer = SSBroyden().make(field, problem, None)  # type: ignore[arg-type]
    optimizer.param_groups[0]["params"] = [parameter]

    def closure() -> float:
        parameter.grad = None
        loss = 0.5 * parameter @ matrix @ parameter - parameter.sum()
        loss.backward()
        return loss.item()

    for _ in range(25):
        optimizer.step(closure)
    torch.testing.assert_close(parameter.detach(), 1 / matrix.diagonal(), rtol=1e-6, atol=1e-9)


def test_any_optimizer_of_torch_takes_the_place_of_adam() -> None:
    """torch's Adam over the matrices in the parameters is Adam over the parameters."""
    settings: Any = {"chunk": 10, "learning_rate": 1e-2, "betas": (0.9, 0.999)}  # torch's own
    ours = solved(None, 30, field=field_for(Decay(), "grid"), **settings)
    theirs = solved(
        FirstOrder(make_optimizer=torch.optim.Adam),
        30,
        field=field_for(Decay(), "grid"),
        **settings,
    )
    torch.testing.assert_close(
        torch.tensor(theirs.history.loss), torch.tensor(ours.history.loss), rtol=1e-9, atol=0
    )


def test_parts_have_rates_of_their_own() -> None:
    field = field_for(Decay(), "grid")
    table, network = (p.detach().clone() for p in field.parameters())
    optimizer = FirstOrder(make_optimizer=torch.optim.Adam, rates={"encoding": 1e-9})
    trained = solved(optimizer, 5, field=field).field
    moved = [
        (p - q).abs().max().item()
        for p, q in zip(trained.parameters(), (table, network), strict=True)
    ]
    assert moved[0] < 1e-9
    assert moved[1] > 1e-3


@pytest.mark.parametrize("name", ["SOAP", "Muon"])
def test_optimizers_of_matrices(name: str) -> None:
    module = pytest.importorskip("pytorch_optimizer")
    optimizer = FirstOrder(make_optimizer=getattr(module, name))
    solution = solved(optimizer, 100, field=field_for(Decay(), "grid"), chunk=5)
    assert solution.history.loss.iloc[-1] < 0.3 * solution.history.loss.iloc[0]


def test_adam_comes_before() -> None:
    adam = solved(None, 200, learning_rate=1e-2)
    chain = solved(GaussNewton(adam_epochs=200), 220, learning_rate=1e-2)
    epochs = chain.history.epoch.tolist()
    assert epochs[:3] == [100, 200, 201], "Adam's epochs are evaluated now and then"
    assert chain.history.loss.iloc[1] == adam.history.loss.iloc[1]
    assert chain.history.loss.iloc[-1] < 1e-4 * adam.history.loss.iloc[-1]


_KINDS = {
    "lbfgs": LBFGS(),
    "broyden": SSBroyden(),
    "first_order": FirstOrder(make_optimizer=torch.optim.RAdam),
    "chain": SSBroyden(adam_epochs=4),
}


@pytest.mark.parametrize("kind", _KINDS)
@pytest.mark.parametrize("middle", [4, 5])
def test_a_resumed_training_goes_on_to_the_last_bit(kind: str, middle: int, tmp_path: Path) -> None:
    def training(epochs: int) -> FieldTraining:
        problem = Decay()
        objective = Task(n_residual=20, n_boundary=1).objective(problem)
        return FieldTraining(
            field_for(problem), objective, Evaluation(problem, 10), epochs=epochs,
            learning_rate=1e-2, chunk=2, optimizer=_KINDS[kind],
        )  # fmt: skip

    whole, first, second = training(9), training(middle), training(9)
    fit(whole, "cpu")
    fit(first, "cpu")
    first.trainer.save_checkpoint(tmp_path / "checkpoint.ckpt")
    fit(second, "cpu", checkpoint=tmp_path / "checkpoint.ckpt")
    for one, other in zip(whole.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)
    assert [r["loss"] for r in whole.replicas[0].history] == [
        r["loss"] for r in second.replicas[0].history
    ]


def test_training_ends_when_the_error_is_small_enough() -> None:
    solution = solved(GaussNewton(), 100, tolerance=1e-3)
    assert len(solution.history) < 100
    assert solution.estimate <= 1e-3
    more = solved(GaussNewton(), 100, tolerance=1e-6)
    assert len(more.history) > len(solution.history)
    assert more.relative_l2["u"] < 1e-4


@pytest.mark.parametrize("optimizer", [None, LBFGS()], ids=["adam", "lbfgs"])
def test_training_ends_when_the_time_is_over(optimizer: OptimizerSettings | None) -> None:
    problem = Decay()
    training = FieldTraining(
        field_for(problem), Task(n_residual=20, n_boundary=1).objective(problem),
        Evaluation(problem, 10), epochs=10**7, learning_rate=1e-3, chunk=10**5,
        optimizer=optimizer, max_seconds=0.05,
    )  # fmt: skip
    fit(training, "cpu")
    assert training.ended_by in ("max_seconds", "optimizer")
    assert 0 < training.epochs_done < 10**7


def test_a_cosine_is_at_its_end_when_the_time_is_over() -> None:
    problem = Decay()
    training = FieldTraining(
        field_for(problem), Task(n_residual=20, n_boundary=1).objective(problem),
        Evaluation(problem, 10), epochs=10**7, learning_rate=1e-3, schedule="cosine",
        max_seconds=0.05,
    )  # fmt: skip
    rate, noted = training.rate, []
    training.rate = lambda epoch: noted.append(rate(epoch)) or noted[-1]  # type: ignore[method-assign]
    fit(training, "cpu")
    assert training.epochs_done < 10**6
    assert noted[0] == pytest.approx(1e-3, rel=0.2)
    assert noted == sorted(noted, reverse=True)
    assert noted[-1] < 1e-5


@pytest.mark.parametrize("epochs", [3, 60])
def test_errors_are_estimated_without_the_exact_solution(epochs: int) -> None:
    solution = solved(GaussNewton(), epochs, field=field_for(Decay(), "grid"))
    ratio = solution.estimate / solution.relative_l2["u"]
    assert 0.1 < ratio < 30


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LBFGS(history=0), "history=0"),
        (lambda: LBFGS(adam_epochs=-1), "adam_epochs=-1"),
        (lambda: SSBroyden(update="newton"), "update='newton': give one of broyden, bfgs"),
        (lambda: FirstOrder(rates={"head": 1.0}), "rates.head: give one of encoding"),
        (lambda: FirstOrder(rates={"network": 0.0}), "rates.network=0.0: give a positive"),
        (lambda: FirstOrder(rates=3), "rates=3: give a factor for each part"),  # type: ignore[arg-type]
        (
            lambda: FirstOrder(make_optimizer=partial(torch.optim.RAdam, lr=1e-9)),
            "make_optimizer: lr=1e-09: training sets the learning rate",
        ),
        (lambda: FirstOrder(make_optimizer="soap"), "make_optimizer='soap': give a class"),  # type: ignore[arg-type]
    ],
)
def test_settings_out_of_range(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_an_optimizer_that_takes_no_groups_of_parameters() -> None:
    message = "^optimizer: LBFGS cannot be made: LBFGS doesn't.*; L-BFGS is optimizer=lb"
    with pytest.raises(ValueError, match=message):
        solved(FirstOrder(make_optimizer=torch.optim.LBFGS), 2)


class _Own(OptimizerSettings):
    """Settings with a plain optimizer of the parameters themselves."""

    needs: Any = "gradient"

    def make(self, field: Field, problem: Problem, residuals: object) -> Any:
        return torch.optim.Adam([*field.parameters(), *problem.parameters()])


def test_an_optimizer_of_ones_own() -> None:
    settings: Any = {"chunk": 10, "learning_rate": 1e-2, "betas": (0.9, 0.999)}
    adam, own = solved(None, 20, **settings), solved(_Own(), 20, **settings)
    for column in ("loss", "k"):
        assert own.history[column].tolist() == pytest.approx(adam.history[column].tolist())


class _WithoutNeeds(OptimizerSettings):
    def make(self, field: Field, problem: Problem, residuals: object) -> Any:
        return None


class _NeedsAnother(_Own):
    needs = "jacobian"


class _NeverEnds(_Own):
    needs = "closure"


class _OnlyEnds(_Own):
    needs = "residuals"


class _MakesNothing(_WithoutNeeds):
    needs = "closure"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            _WithoutNeeds,
            r"^_WithoutNeeds\.needs=None: give the class one of gradient, closure, res",
        ),
        (_NeedsAnother, r"^_NeedsAnother\.needs='jacobian': give the class one of gradient"),
        (_NeverEnds, r"^optimizer=_NeverEnds: .* reads has_ended, which the Adam .* has not"),
        (_OnlyEnds, r"^optimizer=_OnlyEnds: .* reads has_ended, loss, parts, which"),
        (_MakesNothing, r"^optimizer=_MakesNothing: its method make returns NoneType; give a"),
    ],
)
def test_settings_of_ones_own_lack_something(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        solved(make(), 2)


def test_a_field_that_is_too_large_for_a_dense_matrix_is_refused() -> None:
    problem = Decay()
    network = MLP(1, 1, width=128, depth=2, dtype=D)
    field = Field(Identity(1, dtype=D), network, problem.domain.bounds, problem.names)
    with pytest.raises(ValueError, match="SSBroyden: keeps a matrix of the parameters"):
        solved(SSBroyden(), 2, field=field)


@pytest.mark.parametrize("setting", ["max_seconds", "tolerance"])
def test_limits_are_positive(setting: str) -> None:
    with pytest.raises(ValueError, match=f"{setting}=0: give a positive number"):
        solved(None, 2, **{setting: 0})


def test_freedom_that_no_points_determine_is_warned_of() -> None:
    problem = Decay()
    encoding = GridEncoding(
        1, n_levels=1, n_features_per_level=1, base_resolution=400, interpolation="cubic",
        init_scale=0.3, dtype=D,
    )  # fmt: skip
    field = Field(encoding, Linear(1, 1, dtype=D), problem.domain.bounds, problem.names)
    with pytest.warns(UserWarning, match="more freedom than so many points determine"):
        solution = solved(GaussNewton(), 30, field=field)
    assert solution.estimate > 1e-2


def test_optimizers_have_names() -> None:
    assert solved("gauss_newton", 30).history.loss.iloc[-1] < 1e-6
    with pytest.raises(ValueError, match=r"optimizer='bfgs': give one of adam, lbfgs, ssbroyden"):
        solved("bfgs", 1)
