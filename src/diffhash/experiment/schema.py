"""Names and types of every setting, registered with Hydra; the values are in configs/.

A misspelt key or a value of the wrong type is refused while the config is composed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING


class Precision(Enum):
    """Floating-point type of parameters and arithmetic."""

    float32 = "float32"
    float64 = "float64"


class DerivativesSetting(Enum):
    """The method for derivatives in x: jets in one pass, or nested reverse mode."""

    taylor = "taylor"
    autograd = "autograd"


class ScheduleSetting(Enum):
    """The schedule of the learning rate."""

    constant = "constant"
    cosine = "cosine"


class ExecutionSetting(Enum):
    """The execution of steps (`diffhash.training.steps`); auto is cudagraph on a GPU for runs with
    enough steps."""

    auto = "auto"
    eager = "eager"
    compile = "compile"
    cudagraph = "cudagraph"


class Accelerator(Enum):
    """The device of training."""

    auto = "auto"
    cpu = "cpu"
    gpu = "gpu"


@dataclass
class GridEncodingConfig:
    """`diffhash.GridEncoding`."""

    _target_: str = "diffhash.encodings.GridEncoding"
    n_levels: int | None = MISSING
    n_features_per_level: int | None = MISSING  # null: one for each unknown
    log2_hashmap_size: int = MISSING
    base_resolution: Any = MISSING  # one number, or one for each axis
    per_level_scale: float = MISSING
    interpolation: str = MISSING
    level_offset: bool = False
    layout: str = "auto"
    periodic: list[int] | None = None  # numbers of axes; null: the problem's
    init_scale: float | None = MISSING  # null: 1e-3, and 0 where coefficients are trained
    backend: str = "auto"  # for interpolation=linear on a GPU: tcnn, where it is installed


@dataclass
class FourierFeaturesConfig:
    """`diffhash.FourierFeatures`."""

    _target_: str = "diffhash.encodings.FourierFeatures"
    n_frequencies: int = MISSING
    sigma: float = MISSING
    periodic: list[int] | None = None  # numbers of axes; null: the problem's


@dataclass
class IdentityConfig:
    """`diffhash.Identity`."""

    _target_: str = "diffhash.encodings.Identity"
    periodic: list[int] | None = None  # numbers of axes; null: the problem's


@dataclass
class MLPConfig:
    """`diffhash.MLP`."""

    _target_: str = "diffhash.networks.MLP"
    width: int = MISSING
    depth: int = MISSING
    activation: str = "tanh"
    init: str = MISSING
    skip: bool = False  # a skip connection from the features to the output


@dataclass
class SIRENConfig:
    """`diffhash.SIREN`."""

    _target_: str = "diffhash.networks.SIREN"
    width: int = MISSING
    depth: int = MISSING
    omega_0: float = MISSING


@dataclass
class LinearConfig:
    """`diffhash.networks.Linear`."""

    _target_: str = "diffhash.networks.Linear"


@dataclass
class DataTaskConfig:
    """`diffhash.optim.Task` of the kind data."""

    _target_: str = "diffhash.optim.Task"
    name: str = "data"
    kind: str = "data"
    n_labels: int = MISSING


@dataclass
class PinnTaskConfig:
    """`diffhash.optim.Task` of the kind pinn."""

    _target_: str = "diffhash.optim.Task"
    name: str = "pinn"
    kind: str = "pinn"
    n_labels: int = MISSING
    n_residual: int = MISSING
    n_boundary: int = MISSING
    data_weight: float = MISSING
    residual_weight: float = MISSING
    boundary_weight: float = MISSING
    points: dict[str, int] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)
    rule: str = MISSING
    seed: int | None = None
    wave_number: float | None = MISSING


@dataclass
class Poisson1DConfig:
    """`diffhash.problems.Poisson1D`."""

    _target_: str = "diffhash.problems.Poisson1D"
    name: str = "poisson1d"
    k: float = MISSING
    label_region: list[float] = MISSING


@dataclass
class EncoderConfig:
    """An encoding and the network on top of it.

    ``encoding`` and ``network`` are anything Hydra can instantiate; the built-in ones are typed.
    """

    name: str = MISSING
    preset: str | None = None
    encoding: Any = MISSING
    network: Any = MISSING


@dataclass
class TrainerConfig:
    """Budget, hardware and numerics of training."""

    epochs: int = MISSING
    learning_rate: float = MISSING
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    schedule: ScheduleSetting = MISSING
    batch_size: int | None = None
    chunk: int = MISSING
    evaluation_points: int = MISSING
    accelerator: Accelerator = MISSING
    devices: int = MISSING
    num_threads: int | None = None
    precision: Precision = MISSING
    derivatives: DerivativesSetting = MISSING
    execution: ExecutionSetting = MISSING
    max_seconds: float | None = None
    tolerance: float | None = None
    windows: Any = 1  # a number, or a list of the times between windows


@dataclass
class WandbConfig:
    """The project, entity, group and tags of a W&B run; see `diffhash.experiment.wandb_run`."""

    _target_: str = "lightning.pytorch.loggers.WandbLogger"
    project: str = MISSING
    entity: str | None = None
    group: str | None = None
    tags: list[str] = field(default_factory=list)
    reference: str | None = None


@dataclass
class Config:
    """One run.

    ``sampler`` and ``weighting`` are anything Hydra can instantiate as a
    `diffhash.training.Sampler` and a `diffhash.training.Weighting`; null leaves points and weights
    as they are. ``optimizer`` is a `diffhash.optim.OptimizerSettings`; null is Adam. ``logger`` and
    ``callbacks`` are Lightning's, by names that the user chooses. ``objective`` names the metric
    that `diffhash.experiment.run.main_task` returns to a sweeper. ``resume`` names a run whose
    settings replace these (`diffhash.experiment.resume`).
    """

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    task: Any = MISSING
    problem: Any = MISSING
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    sampler: Any = None
    weighting: Any = None
    optimizer: Any = None
    logger: dict[str, Any] = field(default_factory=dict)
    callbacks: dict[str, Any] = field(default_factory=dict)
    seed: int = MISSING
    seeds: list[int] | None = None
    name: str | None = None
    objective: str | None = None
    runs_dir: str = MISSING
    run_dir: str | None = None
    ckpt_path: str | None = None
    resume: str | None = None


def register() -> None:
    """Register the schema with Hydra."""
    store = ConfigStore.instance()
    # For each group that --help lists, Hydra copies its sources and with them this store, of which
    # there is one. Nodes are copied when they are read.
    vars(store)["__deepcopy__"] = lambda memo: store
    store.store(name="schema", node=Config)
    for name, node in {
        "encoding/grid": GridEncodingConfig,
        "encoding/fourier": FourierFeaturesConfig,
        "encoding/identity": IdentityConfig,
        "network/mlp": MLPConfig,
        "network/siren": SIRENConfig,
        "network/linear": LinearConfig,
        "task/data": DataTaskConfig,
        "task/pinn": PinnTaskConfig,
        "problem/poisson1d": Poisson1DConfig,
        "logger/wandb": WandbConfig,
    }.items():
        group, _, option = name.rpartition("/")
        store.store(group=f"schema/{group}", name=option, node=node)
