"""The results of training, against a loop written out by hand and for different settings."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor
from torch.optim import Adam

from diffhash.jets import Jet
from diffhash.optim import Objective
from diffhash.training import FieldTraining
from tests.thinned import pairwise

MakeTraining = Callable[..., FieldTraining]
K = 0.01  # of the problem


def parameters(training: FieldTraining) -> Tensor:
    return torch.cat([p.detach().flatten() for p in training.field.parameters()])


def by_hand(training: FieldTraining, task: str, rates: Sequence[float]) -> list[float]:
    """Train the field with a bare loop, one step for each rate; returns the losses before each step
    and at the end."""
    field, problem = training.field, training.objective.terms
    optimizer = Adam(field.parameters(), fused=True)
    dtype = next(field.parameters()).dtype

    def loss() -> Tensor:
        labels = problem[0]
        u = field.plan(labels.x, 0).jet().value
        total = (u - labels.target.to(dtype)).square().mean()
        if task == "pinn":
            residual = problem[1]
            u_xx = field.plan(residual.x, 2).jet()[2,]
            total = total + (K * u_xx - residual.target.to(dtype)).square().mean()
        return total

    losses = []
    for rate in rates:
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        value = loss()
        value.backward()
        optimizer.step()
        losses.append(value.item())
    return [*losses, loss().item()]


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
@pytest.mark.parametrize("task", ["data", "pinn"])
@pytest.mark.parametrize("encoder", ["mlp", "cubic"])
def test_full_batch_is_a_bare_loop(
    make_training: MakeTraining, fit: Callable, encoder: str, task: str, schedule: str
) -> None:
    epochs, rate = 6, 1e-2
    settings = {"dtype": torch.float64, "learning_rate": rate}
    training = make_training(encoder, task, chunk=2, schedule=schedule, **settings)
    reference = make_training(encoder, task, **settings)
    fit(training)
    rates = [rate] * epochs
    if schedule == "cosine":
        rates = [rate * (1 + math.cos(math.pi * e / epochs)) / 2 for e in range(epochs)]
    losses = by_hand(reference, task, rates)
    # Adam divides by the gradient's size: round-off of 1e-16 becomes 1e-12 where that is small.
    torch.testing.assert_close(parameters(training), parameters(reference), rtol=0, atol=1e-11)
    [replica] = training.replicas
    noted = [row["loss"] for row in replica.history]
    assert noted == pytest.approx([losses[1], losses[3], losses[5]], rel=1e-10)
    assert replica.outcome is not None
    assert replica.outcome.loss == pytest.approx(losses[6], rel=1e-10)
    assert losses[6] < losses[0]


@pytest.mark.parametrize("batch_size", [None, 4])
def test_chunk_changes_nothing(
    make_training: MakeTraining, fit: Callable, batch_size: int | None
) -> None:
    runs = [make_training(chunk=c, batch_size=batch_size, epochs=7) for c in (1, 3, 100)]
    for training in runs:
        fit(training)
    assert [[row["epoch"] for row in t.replicas[0].history] for t in runs] == [
        [1, 2, 3, 4, 5, 6, 7],
        [3, 6, 7],
        [7],
    ]
    for training in runs[1:]:
        assert torch.equal(parameters(training), parameters(runs[0]))
        assert training.replicas[0].outcome is not None and runs[0].replicas[0].outcome is not None
        assert training.replicas[0].outcome.metrics == runs[0].replicas[0].outcome.metrics


def test_seed_decides(make_training: MakeTraining, fit: Callable) -> None:
    runs = []
    for field_seed, seed in ((3, 0), (3, 0), (4, 0), (3, 1)):
        training = make_training("cubic", batch_size=4, field_seed=field_seed, seed=seed)
        fit(training)
        runs.append(parameters(training))
    first, same, other_field, other_batches = runs
    assert torch.equal(first, same)
    assert not torch.equal(first, other_field)
    assert not torch.equal(first, other_batches)


class Rows:
    """The rows at which a loss is computed, step by step."""

    def __init__(self, objective: Objective, monkeypatch: pytest.MonkeyPatch) -> None:
        self.steps: list[list[Tensor]] = []
        loss = objective.loss

        def noting(jets: Sequence[Jet], rows: Sequence[Tensor] | None = None) -> Tensor:
            if rows is not None:
                self.steps.append(list(rows))
            return loss(jets, rows)

        monkeypatch.setattr(objective, "loss", noting)


def test_minibatches_cover_every_point_once(
    make_training: MakeTraining, fit: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = {"batch_size": 4, "n_labels": 7, "n_residual": 10}
    training = make_training(**sizes, epochs=2, derivatives="autograd")
    steps = Rows(training.objective, monkeypatch).steps
    fit(training)
    assert len(steps) == 2 * 3  # the longest term has 10 points
    epochs = steps[:3], steps[3:]
    for epoch in epochs:
        for term, size in enumerate((7, 10)):
            batches = [rows[term] for rows in epoch]
            assert max(len(batch) for batch in batches) <= 4
            assert sorted(torch.cat(batches).tolist()) == list(range(size))
    assert [r[1].tolist() for r in epochs[0]] != [r[1].tolist() for r in epochs[1]]


def test_minibatches_of_a_term_with_few_points(
    make_training: MakeTraining, fit: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = {"batch_size": 1, "n_labels": 3, "n_residual": 10}
    training = make_training(**sizes, epochs=1, derivatives="autograd")
    steps = Rows(training.objective, monkeypatch).steps
    fit(training)
    assert [len(rows[0]) >= 1 for rows in steps] == [True] * 10
    assert set(torch.cat([rows[0] for rows in steps]).tolist()) == {0, 1, 2}
    assert sorted(torch.cat([rows[1] for rows in steps]).tolist()) == list(range(10))
    assert training.replicas[0].diverged_epoch is None


def test_one_batch_of_everything_is_the_full_batch(
    make_training: MakeTraining, fit: Callable
) -> None:
    full = make_training("cubic", dtype=torch.float64)
    batch = make_training("cubic", dtype=torch.float64, batch_size=1000)
    for training in (full, batch):
        fit(training)
    torch.testing.assert_close(parameters(batch), parameters(full), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("encoder", "task", "dtype"),
    pairwise(
        ["mlp", "ff", "siren", "linear", "s1", "s2", "cubic"],
        ["data", "pinn"],
        [torch.float32, torch.float64],
    ),
)
def test_taylor_and_autograd_train_alike(
    make_training: MakeTraining, fit: Callable, encoder: str, task: str, dtype: torch.dtype
) -> None:
    taylor, autograd = (
        make_training(encoder, task, dtype, derivatives=d) for d in ("taylor", "autograd")
    )
    for training in (taylor, autograd):
        fit(training)
    exact = dtype == torch.float64
    tolerance = {"rtol": 1e-11, "atol": 1e-12} if exact else {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(parameters(taylor), parameters(autograd), **tolerance)
    assert taylor.replicas[0].outcome is not None and autograd.replicas[0].outcome is not None
    relative = 1e-10 if exact else 1e-4
    assert taylor.replicas[0].outcome.loss == pytest.approx(
        autograd.replicas[0].outcome.loss, rel=relative
    )
    assert taylor.replicas[0].history[-1]["mse_u"] == pytest.approx(
        autograd.replicas[0].history[-1]["mse_u"], rel=relative
    )


def test_float64_is_float64_throughout(make_training: MakeTraining, fit: Callable) -> None:
    training = make_training("cubic", dtype=torch.float64)
    fit(training)
    assert {p.dtype for p in training.field.parameters()} == {torch.float64}
    # A float32 loss would be a multiple of a float32's last place.
    assert training.replicas[0].outcome is not None
    loss = training.replicas[0].outcome.loss
    assert torch.tensor(loss, dtype=torch.float32).double().item() != loss


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs=0"),
        ({"chunk": -1}, "chunk=-1"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"learning_rate": 0.0}, "learning_rate=0.0"),
        ({"learning_rate": float("nan")}, "learning_rate=nan"),
        ({"learning_rate": float("inf")}, "learning_rate=inf"),
    ],
)
def test_settings_are_checked(
    make_training: MakeTraining, settings: dict[str, float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make_training(**settings)
