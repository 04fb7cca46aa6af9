"""Config validation, before anything is trained."""

from __future__ import annotations

import errno
import os
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import nn

from diffhash.experiment.schema import Config
from diffhash.ops.memory import physical_memory
from diffhash.results.formats import printable
from diffhash.training import DamagedError, read_checkpoint_file

# A parameter, its gradient and Adam's two moments.
_COPIES_WHILE_TRAINING = 4
_MAX_THREADS = 1024
_MAX_SEED = 2**63 - 1
MAX_SEEDS = 10_000


class ConfigError(ValueError):
    """A config that cannot be run; the message names the setting, its value and the allowed
    values."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


def checked(cfg: DictConfig) -> DictConfig:
    """Check ``cfg`` against the schema, and return it as a typed config.

    Raises:
        ConfigError: a setting is unknown (``+key=…``) or missing; the message names it.
    """
    seeds = cfg.get("seeds")
    if OmegaConf.is_list(seeds) and len(seeds) > MAX_SEEDS:
        raise ConfigError(f"seeds: {len(seeds)} of them; allowed are 1 to {MAX_SEEDS} seeds")
    try:
        plain = OmegaConf.create(OmegaConf.to_container(cfg))  # type: ignore[arg-type]
        cfg = OmegaConf.merge(OmegaConf.structured(Config), plain)  # type: ignore[assignment]
        OmegaConf.to_container(cfg, resolve=True)  # interpolations of missing keys
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key}: {error.msg or error}".splitlines()[0]) from error
    if missing := OmegaConf.missing_keys(cfg):
        raise ConfigError(f"{', '.join(sorted(missing))}: no value given")
    for part in ("problem", "task"):
        if not isinstance(OmegaConf.select(cfg, f"{part}.name"), str):
            raise ConfigError(f"{part}.name: no value given; the record needs one")
    return cfg


def check_seeds(seed: int, seeds: Sequence[int] | None) -> None:
    """Refuse a seed that torch does not accept, and several seeds of which two are equal."""
    for one in (seed, *(seeds or ())):
        if not isinstance(one, int) or not 0 <= one <= _MAX_SEED:
            raise ConfigError(f"seed={one}: give 0 to {_MAX_SEED}")
    if seeds is not None and (not seeds or len(set(seeds)) < len(seeds)):
        few = reprlib.repr(list(seeds))
        raise ConfigError(f"seeds={few}: give different seeds, or null for the one of seed")


def check_devices(devices: int, accelerator: str) -> None:
    """Refuse more devices than there are, and several devices if their processes cannot be
    started."""
    available = max(1, torch.cuda.device_count() if accelerator == "gpu" else os.cpu_count() or 1)
    if not 1 <= devices <= available:
        raise ConfigError(f"trainer.devices={devices}: give 1 to {available}, what there is here")
    in_sweep = HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN
    if devices > 1 and in_sweep:
        raise ConfigError(
            f"trainer.devices={devices}: each process runs the command line again, which a sweep "
            "(-m) cannot have; start the runs one by one"
        )


def set_threads(num_threads: int | None) -> None:
    """Set the number of threads to ``trainer.num_threads``."""
    if num_threads is None:
        return
    if not 1 <= num_threads <= _MAX_THREADS:
        raise ConfigError(f"trainer.num_threads={num_threads}: give 1 to {_MAX_THREADS}, or null")
    torch.set_num_threads(num_threads)


def memory_of(accelerator: str) -> tuple[int, str]:
    """The memory of the run's device in bytes, and the name of the device for errors."""
    if accelerator == "gpu":
        return gpu_memory(), "this GPU"
    return physical_memory(), "this machine"


def check_memory(modules: Iterable[nn.Module], accelerator: str, replicas: int = 1) -> None:
    """Refuse more parameters than fit in memory; ``modules`` may be on the meta device.

    In each replica a parameter takes four times its size, with its gradient and Adam's two moments.
    """
    parameters = [p for module in modules for p in module.parameters()]
    size = sum(p.numel() * p.element_size() for p in parameters)
    needed, (memory, where) = _COPIES_WHILE_TRAINING * replicas * size, memory_of(accelerator)
    if needed > memory:
        raise ConfigError(
            f"encoder: training needs {needed / 2**30:.1f} GiB for its parameters, {where} "
            f"has {memory / 2**30:.1f} GiB: lower log2_hashmap_size, n_levels, "
            "n_features_per_level, width or the number of seeds"
        )


def gpu_memory() -> int:
    """The memory of the GPU in bytes."""
    return torch.cuda.get_device_properties(0).total_memory


def read_checkpoint(
    setting: str,
    path: Path | str,
    state: Mapping[str, Any],
    origin: Mapping[str, Any],
    *,
    diverged_too: bool = False,
) -> dict[str, Any]:
    """Read the checkpoint of a run whose field has the given parameters and settings.

    Args:
        setting: the name of the file in errors.
        path: the file.
        state: the parameters that the checkpoint will replace.
        origin: the settings of their field, task and problem. Older checkpoints do not have the
            seed, the task and the problem.
        diverged_too: whether parameters that are not finite are accepted.

    Raises:
        ConfigError: the checkpoint is missing, corrupt, of another field, seed, task or problem, or
            not finite.
    """
    if not Path(path).is_file():
        raise ConfigError(f"{setting}: there is no such file")
    try:
        checkpoint = read_checkpoint_file(path)
        saved = checkpoint["diffhash"]["origin"]
        int(checkpoint["diffhash"]["epochs_done"])
        tensors = checkpoint["state_dict"]
        shapes = {name: tensor.shape for name, tensor in tensors.items()}
    except DamagedError as error:
        raise ConfigError(f"{setting}: damaged, its bytes are not those of its digest") from error
    except Exception as error:  # torch.load raises any error of unpickling
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # EINVAL: a torn file
            raise ConfigError(f"{setting}: cannot be read ({error.strerror})") from error
        raise ConfigError(
            f"{setting}: not a checkpoint of a diffhash run, or a damaged one"
        ) from error
    keys = saved.keys() | (origin.keys() if "seed" in saved else set())
    keys |= {key for key in origin if key.startswith(("encoder.", "trainer."))}
    for key in sorted(keys):
        if saved.get(key) != origin.get(key):
            raise ConfigError(
                f"{setting}: was trained with {key}={saved.get(key)}, here it is "
                f"{origin.get(key)}; it fits no other encoder, precision, seed, task and problem"
            )
    if shapes != {name: tensor.shape for name, tensor in state.items()}:
        raise ConfigError(
            f"{setting}: its parameters have other shapes than this encoder's; "
            "it fits only the encoder and problem it was trained with"
        )
    if not diverged_too and not all(tensor.isfinite().all() for tensor in tensors.values()):
        raise ConfigError(f"{setting}: its run diverged, its parameters are not finite")
    return checkpoint
