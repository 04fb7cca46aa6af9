"""Training as on a GPU, on a device that replaces one (`tests.rehearsal`): its results equal those
of a CPU."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

pytest.importorskip("triton", reason="Triton is not installed")

from diffhash import MLP, SIREN, Field, FourierFeatures, GridEncoding, Identity
from diffhash.geometry import Box
from diffhash.networks import Linear, stack_fields
from diffhash.optim import Task
from diffhash.problems import Condition, Problem
from diffhash.training import Evaluation, FieldTraining
from diffhash.training.samplers import Resample, ResidualAdaptive, Sampler
from diffhash.training.weightings import (
    Causal,
    GradientNorm,
    ResidualAttention,
    TimeWindows,
    Weighting,
)
from tests.optim.written import EXPECTED
from tests.rehearsal import Rehearsal, RehearsedGPU, rehearsed, strategy

slow = pytest.mark.slow
SIZES = Task(n_residual=9, n_boundary=7, n_labels=5, wave_number=None)


class Ansatz(Problem):
    """u_xx + u_xy + u_yy + u² = 1 with hard values on a box that is not the unit square."""

    domain = Box(x=(0, 2), y=(-1, 1))

    def ansatz(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        return x[:, 0].sin(), x[:, 0] * (1 - x[:, 1] ** 2)

    def conditions(self) -> list[Condition]:
        return [
            Condition("inside", self.domain, lambda x, d: d.u_xx + d.u_xy + d.u_yy + d.u**2, 1.0),
            Condition("mean", self.domain, lambda x, d: d.u_xx - d.u_y, kind="labels"),
        ]


PROBLEMS: dict[str, Callable[[], Problem]] = {
    **{name: expected.make for name, expected in EXPECTED.items()},
    "ansatz": Ansatz,
}


def make_field(
    problem: Problem, encoding: str, network: str, dtype: torch.dtype, seed: int, backend: str
) -> Field:
    torch.manual_seed(seed)
    d, n_unknowns = problem.n_dims, len(problem.unknowns)
    layer: Any
    if encoding == "identity":
        layer = Identity(d, dtype=dtype)
    elif encoding == "ff":
        layer = FourierFeatures(d, n_frequencies=3, dtype=dtype)
    else:
        name, _, periodic = encoding.partition(" ")
        layer = GridEncoding(
            d, n_levels=1, base_resolution=3, log2_hashmap_size=3,
            interpolation=name, periodic=(0,) if periodic else (), init_scale=0.5, dtype=dtype,
            backend=backend,
        )  # fmt: skip
    net: Any
    if network == "linear":
        net = Linear(layer.n_output_dims, n_unknowns, dtype=dtype)
    elif network == "siren":
        net = SIREN(layer.n_output_dims, n_unknowns, 5, 2, omega_0=3.0, dtype=dtype)
    elif network == "skip":
        net = MLP(layer.n_output_dims, n_unknowns, 5, 2, skip=True, dtype=dtype)
        torch.nn.init.uniform_(net.params, -0.5, 0.5)  # its last layer is 0
    else:
        net = MLP(layer.n_output_dims, n_unknowns, 5, 2, network, dtype=dtype)
    return Field(layer, net, problem.domain.bounds, problem.names, problem.ansatz)


def make_training(
    problem: str,
    encoding: str = "identity",
    network: str = "tanh",
    dtype: torch.dtype = torch.float64,
    replicas: int | None = None,
    backend: str = "triton",
    sampler: Callable[[], Sampler] | None = None,
    weighting: Callable[[], Weighting] | None = None,
    **settings: Any,
) -> FieldTraining:
    made = PROBLEMS[problem]()
    if encoding.endswith("periodic"):
        made.periodic = made.domain.axes[:1]
    fields = [make_field(made, encoding, network, dtype, s, backend) for s in range(replicas or 1)]
    field = fields[0] if replicas is None else stack_fields(fields)
    settings |= {
        "sampler": None if sampler is None else sampler(),
        "weighting": None if weighting is None else weighting(),
    }
    settings = {"epochs": 6, "learning_rate": 1e-2, "chunk": 3, "schedule": "cosine"} | settings
    return FieldTraining(field, SIZES.objective(made), Evaluation(made, 6), **settings)


class Meddler(Callback):
    """A callback that sets another rate and another weight of the last term after a chunk."""

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *_: object
    ) -> None:
        assert isinstance(pl_module, FieldTraining)
        pl_module.learning_rate = 3e-3
        pl_module.objective.terms[-1].weight.fill_(0.25)


def fit(training: FieldTraining, **where: Any) -> None:
    trainer = L.Trainer(
        **where,
        max_epochs=-1,
        callbacks=[Meddler()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        inference_mode=False,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(training)


def fit_rehearsed(training: FieldTraining) -> Rehearsal:
    """Train on the device as on the first GPU of a machine."""
    with rehearsed() as rehearsal:
        fit(training, accelerator=RehearsedGPU(), strategy=strategy(), devices=1)
    return rehearsal


def check(*args: Any, rtol: float = 1e-9, **settings: Any) -> None:
    """Training on the device gives the parameters and history of training on a CPU."""
    on_cpu = make_training(*args, **settings | {"backend": "torch", "execution": "eager"})
    fit(on_cpu, accelerator="cpu")
    training = make_training(*args, **settings)
    fit_rehearsed(training)
    for one, other in zip(training.parameters(), on_cpu.parameters(), strict=True):
        assert one.device.type == "cpu"
        torch.testing.assert_close(one, other, rtol=rtol, atol=0.1 * rtol)
    for one, other in zip(training.replicas, on_cpu.replicas, strict=True):
        assert len(one.history) == 2
        for row, expected in zip(one.history, other.history, strict=True):
            found = row | {"seconds": expected["seconds"]}
            assert found == pytest.approx(expected, rel=10 * rtol, nan_ok=True)


# A chunk takes a step, one that is captured and replayed, and the last one, which is planned.
# A graph reads the learning rate in float32, as torch's fused Adam does on a GPU.
EAGER, GRAPH = ("eager", 1e-9), ("cudagraph", 1e-6)
IN_FULL = pytest.param(*EAGER, marks=slow)
EXECUTIONS = pytest.mark.parametrize(("execution", "rtol"), [IN_FULL, GRAPH])


@EXECUTIONS
@pytest.mark.parametrize(
    "problem",
    # The three that take longest are slow.
    [pytest.param(p, marks=[slow] * (p in ("heat", "layers", "plate"))) for p in PROBLEMS],
)
def test_every_kind_of_condition(problem: str, execution: str, rtol: float) -> None:
    check(problem, execution=execution, rtol=rtol)


@EXECUTIONS
@pytest.mark.parametrize(
    ("problem", "encoding", "network"),
    [
        ("inverse", "cubic", "tanh"),
        pytest.param("inverse", "linear periodic", "linear", marks=slow),
        ("inverse", "ff", "silu"),
        pytest.param("periodic", "linear", "tanh", marks=slow),
        pytest.param("inverse", "cubic", "skip", marks=slow),
        pytest.param("inverse", "hermite", "siren", marks=slow),
        pytest.param("inverse", "quintic periodic", "linear", marks=slow),
        pytest.param("solitons", "cubic", "softplus", marks=slow),
        pytest.param("robin", "s1", "gelu", marks=slow),
        pytest.param("robin", "hermite", "tanh", marks=slow),
        pytest.param("ansatz", "cubic", "tanh", marks=slow),
        pytest.param("plate", "quintic", "tanh", marks=slow),
    ],
)
def test_encodings_and_networks(
    problem: str, encoding: str, network: str, execution: str, rtol: float
) -> None:
    check(problem, encoding, network, execution=execution, rtol=rtol)


@EXECUTIONS
@pytest.mark.parametrize("interpolation", ["cubic", pytest.param("s1_product", marks=slow)])
def test_grids_without_triton(interpolation: str, execution: str, rtol: float) -> None:
    check("inverse", interpolation, backend="torch", execution=execution, rtol=rtol)


@pytest.mark.parametrize("encoding", ["ff", pytest.param("linear", marks=slow)])
def test_single_precision(encoding: str) -> None:
    check("inverse", encoding, dtype=torch.float32, execution="cudagraph", rtol=2e-3)


@EXECUTIONS
@pytest.mark.parametrize("encoding", ["identity", pytest.param("cubic", marks=slow)])
def test_replicas(encoding: str, execution: str, rtol: float) -> None:
    check("inverse", encoding, replicas=3, execution=execution, rtol=rtol)


@pytest.mark.parametrize(
    ("problem", "encoding"),
    [
        pytest.param("ansatz", "identity", marks=slow),
        ("periodic", "ff"),
        pytest.param("inverse", "cubic", marks=slow),
    ],
)
def test_minibatches(problem: str, encoding: str) -> None:
    check(problem, encoding, batch_size=4)


@pytest.mark.parametrize("encoding", ["identity", pytest.param("cubic", marks=slow)])
def test_nested_autograd(encoding: str) -> None:
    check("inverse", encoding, derivatives="autograd")


SAMPLERS: dict[str, Callable[[], Sampler]] = {
    "resample": lambda: Resample(every=2, seed=1),
    "rad": lambda: ResidualAdaptive(every=2, seed=1, pool=2),
}
WEIGHTINGS: dict[str, Callable[[], Weighting]] = {
    "causal": lambda: Causal(chunks=3),
    "windows": lambda: TimeWindows(windows=3, epochs=2),
    "gradient": lambda: GradientNorm(every=2),
    "attention": ResidualAttention,
}


@EXECUTIONS
@pytest.mark.parametrize(
    ("problem", "encoding", "sampler", "weighting"),
    [
        ("heat", "identity", "resample", "causal"),
        pytest.param("heat", "identity", None, "windows", marks=slow),
        ("periodic", "identity", "rad", "gradient"),
        pytest.param("solitons", "identity", "resample", None, marks=slow),
        ("ansatz", "ff", "resample", "attention"),
        pytest.param("inverse", "linear", "resample", None, marks=slow),
        pytest.param("inverse", "cubic", "rad", "attention", marks=slow),
        pytest.param("robin", "cubic", "rad", None, marks=slow),
    ],
)
def test_points_and_weights_that_move(
    problem: str,
    encoding: str,
    sampler: str | None,
    weighting: str | None,
    execution: str,
    rtol: float,
) -> None:
    moving = {
        "sampler": None if sampler is None else SAMPLERS[sampler],
        "weighting": None if weighting is None else WEIGHTINGS[weighting],
    }
    check(problem, encoding, execution=execution, rtol=rtol, **moving)


@pytest.mark.parametrize(
    ("settings", "per_epoch"),
    [
        ({}, {}),
        ({"execution": "cudagraph"}, {}),
        pytest.param({"encoding": "linear"}, {}, marks=slow),
        pytest.param({"replicas": 2}, {}, marks=slow),
        ({"batch_size": 4}, {"upload": 3}),  # the order of each term's points
        ({"problem": "heat", "weighting": WEIGHTINGS["causal"]}, {}),
        pytest.param({"problem": "heat", "weighting": WEIGHTINGS["attention"]}, {}, marks=slow),
    ],
)
def test_steps_do_not_wait_for_the_host(
    settings: dict[str, Any], per_epoch: dict[str, int]
) -> None:
    """Each epoch of a chunk adds only ``per_epoch`` to the traffic between host and device."""
    counts = []
    for epochs in (3, 3, 5):  # the first training of a process also fills caches
        training = make_training(**{"problem": "inverse", "epochs": epochs, "chunk": 5} | settings)
        counts.append(Counter(kind for kind, _ in fit_rehearsed(training).traffic))
    counts[2].subtract(counts[1])
    more = {kind: n for kind, n in counts[2].items() if n}
    assert more == {kind: 2 * n for kind, n in per_epoch.items()}
