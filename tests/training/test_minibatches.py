"""Minibatches: planned, and shared by seeds that train together."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from diffhash import MLP, FourierFeatures, GridEncoding
from diffhash.encodings import Identity
from diffhash.geometry import Box
from diffhash.networks import Field, stack_fields
from diffhash.optim import Task
from diffhash.problems import Coefficient, Condition, Derivatives, Problem
from diffhash.training import Evaluation, FieldTraining
from diffhash.training.fit import fit
from diffhash.training.samplers import Resample, ResidualAdaptive
from diffhash.training.weightings import ResidualAttention
from tests.thinned import pairwise


class Reaction(Problem):
    """Δu + k u³ = f on a rectangle, with walls and a period; k = 0 makes it linear."""

    domain = Box(x=(0, 2), y=(-1, 1))

    def __init__(self, k: float = 0.0, trained: bool = False) -> None:
        super().__init__()
        self.k: Any = Coefficient(k) if trained else k

    def conditions(self) -> list[Condition]:
        return [
            Condition("equation", self.domain, self._equation, lambda x: x[:, 0] * x[:, 1]),
            Condition("wall", self.domain.boundary("y"), lambda x, d: d.u),
            Condition("period", self.domain.periodic("x"), lambda x, d: d.u),
        ]

    def _equation(self, x: Tensor, d: Derivatives) -> Tensor:
        linear = d.u_xx + d.u_yy
        return linear if isinstance(self.k, float) and self.k == 0 else linear + self.k * d.u**3

    def solution(self, x: Tensor) -> Tensor:
        return x[:, 0]


def field_of(problem: Problem, encoder: str, dtype: torch.dtype, seed: int) -> Field:
    torch.manual_seed(seed)
    encoding: Any
    if encoder == "ff":
        encoding = FourierFeatures(2, 3, dtype=dtype)
    elif encoder == "mlp":
        encoding = Identity(2, dtype=dtype)
    else:
        encoding = GridEncoding(
            2, n_levels=2, base_resolution=3, log2_hashmap_size=6, interpolation="cubic",
            init_scale=0.1, dtype=dtype, backend=encoder,
        )  # fmt: skip
    network = MLP(encoding.n_output_dims, width=6, depth=1, dtype=dtype)
    return Field(encoding, network, problem.domain.bounds, problem.names)


def train(field: Field, problem: Problem, **settings: Any) -> FieldTraining:
    objective = Task(n_residual=13, n_boundary=6).objective(problem)
    settings = {"epochs": 4, "learning_rate": 1e-2, "chunk": 2} | settings
    training = FieldTraining(field, objective, Evaluation(problem, 10), **settings)
    fit(training, "cpu")
    return training


def parameters(training: FieldTraining) -> Tensor:
    both = [*training.field.parameters(), *training.objective.problem.parameters()]
    return torch.cat([p.detach().flatten() for p in both])


@pytest.mark.parametrize(
    ("case", "problem"),
    pairwise(
        [("native", 1), ("native", 5), ("native", 100), ("torch", 8), ("ff", 5), ("mlp", 5)],
        ["linear", "not linear", "coefficient"],
        values=1,
    ),
)
def test_they_are_those_of_autograd(case: tuple[str, int], problem: str) -> None:
    """Plans and kernels of minibatches against nested reverse mode; sizes differ by one."""
    encoder, batch_size = case
    runs = []
    for derivatives in ("taylor", "autograd"):
        own = Reaction(0.0 if problem == "linear" else 1.0, problem == "coefficient")
        field = field_of(own, encoder, torch.float64, 0)
        training = train(field, own, batch_size=batch_size, derivatives=derivatives, epochs=2)
        rows = [[row["loss"], row["loss_wall"]] for row in training.replicas[0].history]
        runs.append(torch.cat([parameters(training), torch.tensor(rows).flatten()]))
    torch.testing.assert_close(runs[0], runs[1], rtol=1e-9, atol=1e-10)


class Far(Problem):
    """u″ + k u³ = f on [low, low + 1]; where low is large, float32 cannot tell points apart."""

    def __init__(self, low: float, k: float) -> None:
        super().__init__()
        self.low, self.k, self.domain = low, k, Box(x=(low, low + 1))

    def conditions(self) -> list[Condition]:
        return [
            Condition("equation", self.domain, self._equation, self._source),
            Condition("ends", self.domain.boundary(), lambda x, d: d.u, self.solution),
        ]

    def _equation(self, x: Tensor, d: Derivatives) -> Tensor:
        return d.u_xx + self.k * d.u**3 if self.k else d.u_xx

    def _source(self, x: Tensor) -> Tensor:
        return (3 * (x[:, 0] - self.low)).cos()

    def solution(self, x: Tensor) -> Tensor:
        return (3 * (x[:, 0] - self.low)).sin()


@pytest.mark.parametrize("derivatives", ["taylor", "autograd"])
@pytest.mark.parametrize("batch_size", [None, 5])
@pytest.mark.parametrize("k", [0.0, 1.0], ids=["linear", "not linear"])
def test_a_domain_far_from_0_trains_as_one_at_0(
    k: float, batch_size: int | None, derivatives: str
) -> None:
    losses = []
    for low in (0.0, 1e6):
        problem = Far(low, k)
        # No point lies on a knot: Adam would take a step whose sign is that of a rounding error.
        encoding = GridEncoding(
            1, n_levels=2, base_resolution=5, log2_hashmap_size=6, interpolation="cubic", seed=0
        )
        torch.manual_seed(0)
        network = MLP(encoding.n_output_dims, width=6, depth=1)
        field = Field(encoding, network, problem.domain.bounds, problem.names)
        training = train(field, problem, batch_size=batch_size, derivatives=derivatives)
        losses.append([row["loss"] for row in training.replicas[0].history])
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


@pytest.mark.parametrize(
    ("encoder", "k"), pairwise(["native", "torch", "ff", "mlp"], [0.0, 1.0], values=1)
)
def test_seeds_that_train_together_draw_the_same_ones(encoder: str, k: float) -> None:
    """Each seed trains as it does alone with the common shuffle, that of ``seed``."""
    problem, settings = Reaction(k), {"batch_size": 5, "seed": 3}
    fields = [field_of(problem, encoder, torch.float64, seed) for seed in (4, 1)]
    together = train(stack_fields(fields), problem, **settings)
    for index, seed in enumerate((4, 1)):
        alone = train(field_of(problem, encoder, torch.float64, seed), problem, **settings)
        for one, other in zip(together.field.parameters(), alone.field.parameters(), strict=True):
            torch.testing.assert_close(one[index], other, rtol=1e-9, atol=1e-10)
        losses = [
            [r["loss"] for r in t.history] for t in (together.replicas[index], *alone.replicas)
        ]
        assert losses[0] == pytest.approx(losses[1], rel=1e-9)


def test_seeds_that_train_together_get_the_same_new_points() -> None:
    problem = Reaction()
    fields = [field_of(problem, "native", torch.float64, seed) for seed in (4, 1)]
    together = train(stack_fields(fields), problem, sampler=Resample(every=1))
    alone = train(field_of(problem, "native", torch.float64, 1), problem, sampler=Resample(every=1))
    for one, other in zip(together.field.parameters(), alone.field.parameters(), strict=True):
        torch.testing.assert_close(one[1], other, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(
    "settings",
    [{"sampler": ResidualAdaptive()}, {"weighting": ResidualAttention()}],
    ids=lambda s: next(iter(s)),
)
def test_what_follows_the_errors_of_one_field(settings: dict[str, Any]) -> None:
    problem = Reaction()
    fields = [field_of(problem, "mlp", torch.float32, seed) for seed in (4, 1)]
    with pytest.raises(ValueError, match=r"follows the errors of one field, 2 seeds have several"):
        train(stack_fields(fields), problem, **settings)
