"""R seeds that train as one program: each gives the same as alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from diffhash import MLP
from diffhash.encodings import Encoding, Identity
from diffhash.networks import Field, stack_fields, unstack_field
from diffhash.problems import Poisson1D
from diffhash.training import FieldTraining
from tests.thinned import pairwise

MakeTraining = Callable[..., FieldTraining]
SEEDS = (3, 0, 5)
ENCODERS = ("mlp", "skip", "ff", "siren", "linear", "s1", "s2", "cubic")


@pytest.fixture
def make_replicas(make_training: MakeTraining) -> MakeTraining:
    """``make_replicas(encoder, task, …)``: like `make_training`, for the seeds `SEEDS`."""

    def make(*arguments: str, **settings: object) -> FieldTraining:
        fields = [make_training(*arguments, field_seed=s, **settings).field for s in SEEDS]
        training = make_training(*arguments, field_seed=SEEDS[0], **settings)
        return FieldTraining(
            stack_fields(fields),
            training.objective,
            training.evaluation,
            epochs=training.epochs,
            learning_rate=training.learning_rate,
            chunk=training.chunk,
            derivatives=training.derivatives,
            execution=training.execution,
        )

    return make


def state(training: FieldTraining) -> dict[str, Tensor]:
    return training.field.state_dict()


@pytest.mark.parametrize("encoder", ENCODERS)
def test_initial_parameters_are_bit_for_bit_those_of_each_seed(
    make_training: MakeTraining, make_replicas: MakeTraining, encoder: str
) -> None:
    training = make_replicas(encoder)
    together = state(training)
    for index, seed in enumerate(SEEDS):
        one = unstack_field(training.field, index)
        assert one.n_replicas is None
        for name, tensor in state(make_training(encoder, field_seed=seed)).items():
            assert torch.equal(together[name][index], tensor)
            assert torch.equal(one.state_dict()[name], tensor)


@pytest.mark.parametrize(
    ("encoder", "task", "derivatives"),
    pairwise(ENCODERS, ["data", "pinn"], ["taylor", "autograd"], values=1),
)
def test_each_replica_trains_as_it_does_alone(
    make_training: MakeTraining,
    make_replicas: MakeTraining,
    fit: Callable,
    encoder: str,
    task: str,
    derivatives: str,
) -> None:
    settings = {"dtype": torch.float64, "epochs": 20, "chunk": 10, "derivatives": derivatives}
    together = make_replicas(encoder, task, **settings)
    fit(together)
    assert len(together.replicas) == len(SEEDS)
    for index, seed in enumerate(SEEDS):
        alone = make_training(encoder, task, field_seed=seed, **settings)
        fit(alone)
        for name, tensor in state(alone).items():
            torch.testing.assert_close(state(together)[name][index], tensor, rtol=1e-9, atol=1e-12)
        one, [other] = together.replicas[index], alone.replicas
        assert one.epochs_done == other.epochs_done == 20
        assert one.outcome is not None and other.outcome is not None
        assert one.outcome.loss == pytest.approx(other.outcome.loss, rel=1e-8)
        assert one.outcome.metrics["mse_u"] == pytest.approx(
            other.outcome.metrics["mse_u"], rel=1e-8
        )
        torch.testing.assert_close(
            one.outcome.predictions, other.outcome.predictions, rtol=1e-8, atol=1e-9
        )
        assert [row["epoch"] for row in one.history] == [10, 20]
        for row, expected in zip(one.history, other.history, strict=True):
            assert row["loss"] == pytest.approx(expected["loss"], rel=1e-8)
            assert row["mse_uxx"] == pytest.approx(expected["mse_uxx"], rel=1e-8)


def spoil(training: FieldTraining, replica: int, epoch: int) -> None:
    """Make a parameter of one replica NaN at the beginning of an epoch."""
    rate = training.rate

    def failing(epochs_done: int) -> float:
        if epochs_done + 1 == epoch:
            training.field.network.params.data[replica, 0] = float("nan")
        return rate(epochs_done)

    training.rate = failing  # type: ignore[method-assign]


def test_one_that_diverges_does_not_disturb_the_others(
    make_replicas: MakeTraining, fit: Callable
) -> None:
    settings = {"epochs": 20, "chunk": 4}
    sound, spoilt = make_replicas("cubic", **settings), make_replicas("cubic", **settings)
    fit(sound)
    spoil(spoilt, replica=1, epoch=7)
    fit(spoilt)
    assert [r.diverged_epoch for r in spoilt.replicas] == [None, 7, None]
    assert [r.epochs_done for r in spoilt.replicas] == [20, 7, 20]
    assert [row["epoch"] for row in spoilt.replicas[1].history] == [4, 7]
    for index in (0, 2):
        one, other = spoilt.replicas[index], sound.replicas[index]
        assert one.outcome is not None and other.outcome is not None
        assert one.outcome.metrics == other.outcome.metrics
        assert [r["loss"] for r in one.history] == [r["loss"] for r in other.history]


def test_training_ends_when_all_have_diverged(make_replicas: MakeTraining, fit: Callable) -> None:
    training = make_replicas("mlp", epochs=100, chunk=5)
    for index in range(len(SEEDS)):
        spoil(training, replica=index, epoch=3 + 4 * index)
    fit(training)
    assert [r.diverged_epoch for r in training.replicas] == [3, 7, 11]
    assert training.epochs_done == 15


def test_an_encoding_that_does_not_take_replicas_is_refused() -> None:
    class Own(Identity):
        takes_replicas = Encoding.takes_replicas

    fields = [Field(Own(1), MLP(1), Poisson1D.domain.bounds) for _ in SEEDS]
    with pytest.raises(ValueError, match=r"Own does not take replicas.*one by one"):
        stack_fields(fields)
