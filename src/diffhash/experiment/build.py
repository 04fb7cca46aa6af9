"""Build the objects of a composed config."""

from __future__ import annotations

import hashlib
import json
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from importlib.util import find_spec
from operator import getitem
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback
from omegaconf import DictConfig, OmegaConf

from diffhash.encodings import Encoding, GridEncoding
from diffhash.experiment.checks import (
    ConfigError,
    check_devices,
    check_memory,
    check_seeds,
    checked,
    read_checkpoint,
    set_threads,
)
from diffhash.experiment.composing import one_line
from diffhash.experiment.instantiating import (
    NO_MEMORY,
    instantiate,
    instantiate_optional,
    is_about_settings,
)
from diffhash.experiment.memory import check_points, check_run
from diffhash.experiment.schema import TrainerConfig
from diffhash.networks import Field, Network, stack_fields
from diffhash.ops.backends import load_backend
from diffhash.ops.memory import is_out_of_memory
from diffhash.optim import Objective, OptimizerSettings, Task
from diffhash.problems import Problem
from diffhash.results.record import PARTIAL
from diffhash.training import (
    ERRORS,
    Evaluation,
    Execution,
    FieldTraining,
    Sampler,
    Weighting,
    check_devices_of_moving,
)
from diffhash.training.fields import problem_field, start_scale
from diffhash.training.fit import choose_accelerator
from diffhash.training.windowed import WindowedTraining, first_window
from diffhash.training.windows import WindowedField

# Settings of places and reports, which do not change results.
_NOT_IN_HASH = ("logger", "name", "objective", "runs_dir", "run_dir", "ckpt_path", "resume")
_MOVING = ("sampler", "weighting")  # null is the same as no such setting
# Settings that older configs do not have, with the values that were then used.
_NEW = (
    (("trainer",), "windows", 1),
    (("trainer",), "betas", [0.9, 0.999]),
    (("encoder", "network"), "skip", False),
)
_EPOCHS_FOR_A_GRAPH = 200  # with fewer steps, a capture takes longer than it saves


@dataclass(frozen=True)
class Setup:
    """Everything a run needs besides the trainer."""

    problem: Problem
    field: Field | WindowedField
    training: FieldTraining | WindowedTraining
    accelerator: str
    grid_backend: str | None  # None without a grid
    callbacks: Sequence[Callback] = ()
    resumed: Mapping[str, Any] | None = None  # the run's state in the checkpoint


def build(cfg: DictConfig, checkpoint_from: str | None = None) -> Setup:
    """Build problem, field, task and training from a composed config.

    Args:
        cfg: the config.
        checkpoint_from: the setting that named the checkpoint, for errors; None for ``ckpt_path``.

    Raises:
        ConfigError: a setting does not allow a run.
    """
    cfg = checked(cfg)
    accelerator = accelerator_of(cfg)
    set_threads(cfg.trainer.num_threads)
    check_seeds(cfg.seed, cfg.seeds)
    check_devices(cfg.trainer.devices, accelerator)
    problem = instantiate(cfg.problem, "problem", Problem)
    try:
        _ = problem.names
    except ValueError as error:
        raise ConfigError(f"problem: {error}") from error
    checkpoint_from = checkpoint_from or f"ckpt_path={cfg.ckpt_path}"
    first = _first_window(cfg, problem, checkpoint_from)
    task = instantiate(cfg.task, "task", Task)
    for key, value in task.numbers_of_points.items():
        check_points(f"task: {key}", value, problem.n_dims, accelerator)
    n_points = cfg.trainer.evaluation_points
    check_points("trainer.evaluation_points", n_points, problem.n_dims, accelerator)
    exact = _left_to_problem(cfg.encoder.encoding, problem).get("periodic", ())
    periodic = [problem.domain.axes[axis] for axis in exact]
    objective = _objective(task, first, periodic)
    field = _build_fields(cfg, first, accelerator)
    check_run(cfg, field, objective, accelerator)
    sampler = instantiate_optional(cfg.sampler, "sampler", Sampler)
    weighting = instantiate_optional(cfg.weighting, "weighting", Weighting)
    optimizer = instantiate_optional(cfg.optimizer, "optimizer", OptimizerSettings)
    grid_backend = _grid_backend(field.encoding, accelerator)

    def training_of(problem: Problem, field: Field) -> FieldTraining:
        return FieldTraining(
            field,
            objective if problem is first else _objective(task, problem, periodic),
            Evaluation(problem, n_points),
            epochs=cfg.trainer.epochs,
            learning_rate=cfg.trainer.learning_rate,
            betas=tuple(cfg.trainer.betas),
            chunk=cfg.trainer.chunk,
            batch_size=cfg.trainer.batch_size,
            schedule=cfg.trainer.schedule.value,
            derivatives=cfg.trainer.derivatives.value,
            execution=_execution(cfg, accelerator, grid_backend),
            seed=cfg.seed,
            origin=_origin(cfg),
            sampler=sampler,
            weighting=weighting,
            optimizer=optimizer,
            max_seconds=cfg.trainer.max_seconds,
            tolerance=cfg.trainer.tolerance,
        )

    try:
        check_devices_of_moving(sampler, weighting, cfg.trainer.devices)
        training = training_of(first, field)
        if optimizer is not None:
            training.configure_optimizers()  # refuses what makes no optimizer of these parameters
        if first is not problem:
            windows = cfg.trainer.windows
            evaluation = Evaluation(problem, n_points)
            training = WindowedTraining(problem, windows, training, training_of, evaluation)
        _check_objective(cfg.objective, training.evaluation)
    except (ValueError, RuntimeError) as error:
        if not is_about_settings(error):
            raise
        if is_out_of_memory(error):
            raise ConfigError(f"trainer.evaluation_points={n_points}: {NO_MEMORY}") from error
        raise ConfigError(f"{_group(str(error))}{one_line(error)}") from error
    resumed = None
    if cfg.ckpt_path is not None and isinstance(training, FieldTraining):
        resumed = _resumed(checkpoint_from, cfg.ckpt_path, training)
    callbacks = [
        instantiate(node, f"callbacks.{key}", Callback) for key, node in cfg.callbacks.items()
    ]
    return Setup(problem, training.field, training, accelerator, grid_backend, callbacks, resumed)


def _first_window(cfg: DictConfig, problem: Problem, checkpoint_from: str) -> Problem:
    """The first window of time, or the problem itself if there is one window."""
    windows = cfg.trainer.windows
    try:
        first = first_window(problem, windows)
    except ValueError as error:
        raise ConfigError(f"trainer.{one_line(error)}") from error
    for setting, is_given in (
        (f"seeds={cfg.seeds}", cfg.seeds is not None),
        (f"trainer.devices={cfg.trainer.devices}", cfg.trainer.devices != 1),
        (checkpoint_from, cfg.ckpt_path is not None),
    ):
        if first is not problem and is_given:
            raise ConfigError(
                f"trainer.windows={windows}: windows are trained one after the other, from the "
                f"first one on, by one process: {setting} is not possible with them; leave it out"
            )
    return first


def _check_objective(name: str | None, evaluation: Evaluation) -> None:
    problem = evaluation.problem
    if name in (None, "loss", "estimate"):
        return
    names = evaluation.names
    if name not in names:
        raise ConfigError(
            f"objective={name}: no metric of a run; give {', '.join(names)}, loss or estimate"
        )
    if name.partition("_")[0] in ERRORS and not problem.has_solution:
        raise ConfigError(
            f"objective={name}: problem={type(problem).__name__} has no exact solution to measure "
            "an error against; give estimate, or loss"
        )


def _objective(task: Task, problem: Problem, periodic: Sequence[str]) -> Objective:
    try:
        return task.objective(problem, periodic)
    except (ValueError, NotImplementedError, RuntimeError) as error:
        if not is_about_settings(error):
            raise
        raise ConfigError(f"task: {one_line(error)}") from error


def _group(message: str) -> str:
    """The config group of a setting that an error of training or evaluation names."""
    setting = message.partition("=")[0]
    if setting == "n_outputs":
        return "encoder.network."
    return "trainer." if setting in TrainerConfig.__dataclass_fields__ else ""


def config_hash(cfg: DictConfig) -> str:
    """SHA-256 of every setting that can change a run's result."""
    settings = OmegaConf.to_container(cfg, resolve=True, enum_to_str=True)
    assert isinstance(settings, dict)
    left_out = {*_NOT_IN_HASH, *(key for key in _MOVING if settings.get(key) is None)}
    if not settings.get("callbacks"):  # as in configs of earlier versions
        left_out.add("callbacks")
    for path, key, value in _NEW:  # likewise
        part: Any = reduce(getitem, path, settings)
        if isinstance(part, dict) and part.get(key) == value:
            del part[key]
    kept = {key: value for key, value in settings.items() if key not in left_out}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def seed_configs(cfg: DictConfig) -> list[DictConfig]:
    """The configs that would train each of the seeds alone."""
    if cfg.seeds is None:
        return [cfg]
    configs = []
    for seed in cfg.seeds:
        own: dict[str, Any] = {"seed": seed, "seeds": None}
        if cfg.run_dir is not None:
            own["run_dir"] = f"{cfg.run_dir}/seed{seed}"
        configs.append(OmegaConf.merge(cfg, own))
    return configs


def _resumed(setting: str, ckpt_path: str, training: FieldTraining) -> Mapping[str, Any]:
    """The state of a checkpoint's run. A run without further epochs is refused if its record has
    been published; otherwise it will be evaluated and recorded.
    """
    unpublished = Path(ckpt_path).absolute().parent.name.endswith(PARTIAL)
    checkpoint = read_checkpoint(
        setting, ckpt_path, training.state_dict(), training.origin, diverged_too=unpublished
    )
    done = checkpoint["diffhash"]["epochs_done"]
    if done > training.epochs or (done == training.epochs and not unpublished):
        raise ConfigError(
            f"{setting}: it has {done} epochs already, trainer.epochs="
            f"{training.epochs} asks for no more; give a larger number"
        )
    return checkpoint["diffhash"]


def _build_fields(cfg: DictConfig, problem: Problem, accelerator: str) -> Field:
    """The field, or a stack of the fields of all seeds."""
    if cfg.seeds is None:
        return _build_field(cfg, problem, accelerator, 1)
    replicas = len(cfg.seeds)
    fields = [_build_field(own, problem, accelerator, replicas) for own in seed_configs(cfg)]
    try:
        stack = stack_fields(fields)
    except ValueError as error:
        raise ConfigError(f"seeds={reprlib.repr(list(cfg.seeds))}: {error}") from error
    return stack


def _build_field(cfg: DictConfig, problem: Problem, accelerator: str, replicas: int) -> Field:
    torch.manual_seed(cfg.seed)
    encoding, network = cfg.encoder.encoding, cfg.encoder.network
    if _is_own(encoding) and _is_own(network):
        # Shapes are made first, because a table that is too large must not be allocated. Modules of
        # other packages may compute with values, which the meta device does not have.
        with torch.device("meta"):
            check_memory(_instantiate_layers(cfg, problem, accelerator), accelerator, replicas)
    layers = _instantiate_layers(cfg, problem, accelerator)
    check_memory(layers, accelerator, replicas)
    try:
        return problem_field(problem, *layers)
    except ValueError as error:
        raise ConfigError(f"problem: {error}") from error


def _is_own(node: Any) -> bool:
    return OmegaConf.is_dict(node) and str(node.get("_target_")).startswith("diffhash.")


def _instantiate_layers(
    cfg: DictConfig, problem: Problem, accelerator: str
) -> tuple[Encoding, Network]:
    dtype = getattr(torch, cfg.trainer.precision.value)
    by_problem = _left_to_problem(cfg.encoder.encoding, problem)
    encoding = instantiate(
        cfg.encoder.encoding,
        "encoder.encoding",
        Encoding,
        n_input_dims=problem.n_dims,
        dtype=dtype,
        **_backend(cfg.encoder.encoding, dtype, accelerator, by_problem),
        **by_problem,
    )
    network = instantiate(
        cfg.encoder.network,
        "encoder.network",
        Network,
        n_inputs=encoding.n_output_dims,
        dtype=dtype,
        **({} if "n_outputs" in cfg.encoder.network else {"n_outputs": len(problem.unknowns)}),
    )
    n_outputs, unknowns = network.widths[-1], problem.unknowns
    if n_outputs != len(unknowns):
        raise ConfigError(
            f"encoder.network.n_outputs={n_outputs}: the problem has {len(unknowns)} unknown(s), "
            f"{', '.join(unknowns)}; give {len(unknowns)}"
        )
    return encoding, network


def _left_to_problem(encoding: Any, problem: Problem) -> dict[str, Any]:
    """The encoding's settings that are null, by the problem: its periodic axes, as many features of
    a level as it has unknowns, and `start_scale`."""
    if not OmegaConf.is_dict(encoding):
        return {}
    axes = problem.domain.axes
    found = {
        "periodic": [axes.index(axis) for axis in problem.periodic],
        "n_features_per_level": len(problem.unknowns),
        "init_scale": start_scale(problem),
    }
    return {key: value for key, value in found.items() if encoding.get(key, ()) is None}


def _backend(
    encoding: Any, dtype: torch.dtype, accelerator: str, by_problem: Mapping[str, Any]
) -> dict[str, str]:
    """The backend setting of the paper's linear baseline: tiny-cuda-nn, wherever it can run."""
    linear = OmegaConf.is_dict(encoding) and encoding.get("interpolation") == "linear"
    if not (linear and _is_own(encoding) and encoding.get("backend") == "auto"):
        return {}
    periodic = encoding.get("periodic") or by_problem.get("periodic")
    own = encoding.get("layout") == "nested" or periodic
    runs = accelerator == "gpu" and dtype == torch.float32 and not (own or encoding.level_offset)
    return {"backend": "tcnn"} if runs and find_spec("tinycudann") else {}


def _grid_backend(encoding: Encoding, accelerator: str) -> str | None:
    """The backend of a grid on the run's device; refuse one that does not run there."""
    if not isinstance(encoding, GridEncoding):
        return None
    device = torch.device("cuda" if accelerator == "gpu" else "cpu")
    name = encoding.backend_on(device)
    try:
        load_backend(name).check(encoding.layout, encoding.params.dtype, device)
    except ValueError as error:
        raise ConfigError(f"encoder.encoding: {error}") from error
    return name


def accelerator_of(cfg: DictConfig) -> str:
    """``"cpu"`` or ``"gpu"``, for a run of a config.

    Raises:
        ConfigError: a GPU that is not there or that the optimizer cannot use.
    """
    optimizer = instantiate_optional(cfg.optimizer, "optimizer", OptimizerSettings)
    try:
        return choose_accelerator(cfg.trainer.accelerator.value, optimizer)
    except ValueError as error:
        raise ConfigError(f"trainer.{error}") from error


def _execution(cfg: DictConfig, accelerator: str, grid_backend: str | None) -> Execution:
    """The execution of ``trainer.execution``; for auto the faster one on this device.

    On a CPU the grid and the network are C kernels, and there are few other operations to fuse. On
    a GPU such a small step consists mostly of delays between kernels, which a graph avoids.
    """
    trainer = cfg.trainer
    choice: Execution = trainer.execution.value
    graph_can = accelerator == "gpu" and grid_backend != "tcnn" and trainer.devices == 1
    if choice == "cudagraph" and not graph_can:
        raise ConfigError(
            "trainer.execution=cudagraph: needs one CUDA device (trainer.devices=1) and a grid "
            f"that is not tcnn's; here it is {trainer.devices} of {accelerator}, "
            f"grid {grid_backend}; use eager"
        )
    if choice != "auto":
        return choice
    full_batch = trainer.batch_size is None and trainer.derivatives.value == "taylor"
    long = trainer.epochs >= _EPOCHS_FOR_A_GRAPH
    is_adam = cfg.optimizer is None
    return "cudagraph" if graph_can and full_batch and long and is_adam else "eager"


def _origin(cfg: DictConfig) -> dict[str, Any]:
    """The settings of the field, task and problem, which must be the same in a checkpoint."""
    origin: dict[str, Any] = {
        "trainer.precision": cfg.trainer.precision.value,
        "seed": cfg.seed if cfg.seeds is None else list(cfg.seeds),
    }
    parts = ["encoder.encoding", "encoder.network", "task", "problem"]
    parts += [part for part in _MOVING if cfg.get(part) is not None]
    for part in parts:
        node = OmegaConf.select(cfg, part)
        settings = OmegaConf.to_container(node, resolve=True, enum_to_str=True)
        assert isinstance(settings, dict)
        origin |= {f"{part}.{key}": value for key, value in settings.items()}
    return origin
