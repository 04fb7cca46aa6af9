"""From a composed config to the objects it describes."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
import torch
from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from diffhash.networks import Field
from diffhash.problems import Problem
from diffhash.training import Evaluation, FieldTraining

# Settings that say where things go, not what is computed.
_NOT_IN_HASH = ("logger", "name", "runs_dir", "run_dir", "ckpt_path")
# A parameter, its gradient and Adam's two moments.
_COPIES_WHILE_TRAINING = 4


class ConfigError(ValueError):
    """A config that cannot be run; the message names the setting, its value and what is allowed."""


@dataclass(frozen=True)
class Setup:
    """Everything a run needs besides the trainer."""

    problem: Problem
    field: Field
    training: FieldTraining
    accelerator: str


def build(cfg: DictConfig) -> Setup:
    """Build problem, field, task and training from a composed config.

    Raises:
        ConfigError: any setting that cannot be run.
    """
    missing = OmegaConf.missing_keys(cfg)
    if missing:
        raise ConfigError(f"{', '.join(sorted(missing))}: no value given")
    accelerator = _accelerator(cfg.trainer.accelerator.value)
    _set_threads(cfg.trainer.num_threads)
    if cfg.seed < 0:
        raise ConfigError(f"seed={cfg.seed}: give at least 0")
    torch.manual_seed(cfg.seed)
    dtype = getattr(torch, cfg.trainer.precision.value)
    problem = _instantiate(cfg.problem, "problem")
    task = _instantiate(cfg.task, "task", problem=problem)
    encoding = _instantiate(
        cfg.encoder.encoding, "encoder.encoding", n_input_dims=problem.n_dims, dtype=dtype
    )
    network = _instantiate(
        cfg.encoder.network, "encoder.network", n_inputs=encoding.n_output_dims, dtype=dtype
    )
    field = Field(encoding, network, problem.domain)
    _check_memory(field)
    try:
        training = FieldTraining(
            field,
            task,
            Evaluation(problem, cfg.trainer.evaluation_points),
            epochs=cfg.trainer.epochs,
            learning_rate=cfg.trainer.learning_rate,
            chunk=cfg.trainer.chunk,
            batch_size=cfg.trainer.batch_size,
            schedule=cfg.trainer.schedule.value,
            derivatives=cfg.trainer.derivatives.value,
            seed=cfg.seed,
        )
    except ValueError as error:
        raise ConfigError(f"trainer.{error}") from error
    if cfg.ckpt_path is not None:
        _check_checkpoint(cfg.ckpt_path, training)
    return Setup(problem, field, training, accelerator)


def config_hash(cfg: DictConfig) -> str:
    """SHA-256 of every setting that can change a run's result."""
    settings = OmegaConf.to_container(cfg, resolve=True, enum_to_str=True)
    assert isinstance(settings, dict)
    kept = {key: value for key, value in settings.items() if key not in _NOT_IN_HASH}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def _instantiate(node: DictConfig, key: str, **arguments: Any) -> Any:
    """`hydra.utils.instantiate`, for nodes that may carry a ``name`` for people to read."""
    try:
        settings = OmegaConf.to_container(node, resolve=True)
        assert isinstance(settings, dict)
        settings.pop("name", None)
        return hydra.utils.instantiate(settings, **arguments)
    except (InstantiationException, OmegaConfBaseException) as error:
        raise ConfigError(f"{key}: {error.__cause__ or error}") from error


def _accelerator(name: str) -> str:
    available = torch.cuda.is_available()
    if name == "gpu" and not available:
        raise ConfigError(
            "trainer.accelerator=gpu: torch finds no CUDA device here; use cpu or auto"
        )
    return "gpu" if available and name != "cpu" else "cpu"


def _set_threads(num_threads: int | None) -> None:
    if num_threads is None:
        return
    if num_threads < 1:
        raise ConfigError(f"trainer.num_threads={num_threads}: give at least 1, or null")
    torch.set_num_threads(num_threads)


def _check_memory(field: Field) -> None:
    needed = _COPIES_WHILE_TRAINING * sum(p.numel() * p.element_size() for p in field.parameters())
    memory = physical_memory()
    if needed > memory:
        raise ConfigError(
            f"encoder: training needs {needed / 2**30:.1f} GiB for its parameters, this machine "
            f"has {memory / 2**30:.1f} GiB: lower log2_hashmap_size, n_levels or "
            "n_features_per_level"
        )


def physical_memory() -> int:
    """Bytes of memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _check_checkpoint(path: str, training: FieldTraining) -> None:
    """Refuse a checkpoint that cannot be resumed, before anything is trained."""
    if not Path(path).is_file():
        raise ConfigError(f"ckpt_path={path}: there is no such file")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        epochs_done = checkpoint["diffhash"]["epochs_done"]
        shapes = {name: tensor.shape for name, tensor in checkpoint["state_dict"].items()}
    except Exception as error:  # torch.load raises whatever unpickling the file raises
        raise ConfigError(f"ckpt_path={path}: not a checkpoint of a diffhash run") from error
    own = {name: tensor.shape for name, tensor in training.state_dict().items()}
    if shapes != own:
        raise ConfigError(
            f"ckpt_path={path}: its parameters have other shapes than this encoder's; "
            "resume with the encoder it was trained with"
        )
    if epochs_done >= training.epochs:
        raise ConfigError(
            f"ckpt_path={path}: it has {epochs_done} epochs already, trainer.epochs="
            f"{training.epochs} asks for no more; give a larger number"
        )
