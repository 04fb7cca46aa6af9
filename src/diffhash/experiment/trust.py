"""The objects that the config of a record from an untrusted source may build."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from diffhash import optim
from diffhash.experiment.checks import ConfigError
from diffhash.experiment.schema import (
    DataTaskConfig,
    FourierFeaturesConfig,
    GridEncodingConfig,
    IdentityConfig,
    LinearConfig,
    MLPConfig,
    PinnTaskConfig,
    Poisson1DConfig,
    SIRENConfig,
)
from diffhash.problems import zoo
from diffhash.training import samplers, weightings

_NODES = (
    GridEncodingConfig,
    FourierFeaturesConfig,
    IdentityConfig,
    LinearConfig,
    MLPConfig,
    SIRENConfig,
    DataTaskConfig,
    PinnTaskConfig,
    Poisson1DConfig,
)
_ZOO = (f"{problem.__module__}.{problem.__qualname__}" for problem in zoo().values())
_PARTS = (getattr(home, name) for home in (optim, samplers, weightings) for name in home.__all__)
_OWN = (
    f"{home}.{part.__name__}"
    for part in _PARTS
    if isinstance(part, type)
    for home in (part.__module__, part.__module__.rpartition(".")[0])
)
TARGETS = frozenset((*(node._target_ for node in _NODES), *_ZOO, *_OWN))
"""All that an untrusted config may build: the classes in diffhash's schema, and diffhash's own
problems, optimizers, samplers and weightings."""

# Loggers, callbacks and optimizers, which are built only from a trusted record.
_OF_TRAINING = {
    "logger.": ("lightning.pytorch.loggers.",),
    "callbacks.": ("lightning.pytorch.callbacks.",),
    "optimizer.": ("torch.optim.", "pytorch_optimizer."),
}

TRUST_FLAG = "--trust-code"


def check_untrusted(path: Path, settings: Mapping[str, Any], way_out: str = "") -> None:
    """Refuse a config that names code outside diffhash; nothing is imported or resolved.

    Args:
        path: the path of the config, for the message.
        settings: the settings as in the file, with interpolations as text.
        way_out: the advice for users who trust the record.

    Raises:
        ConfigError: the config has a ``_target_`` that is not in `TARGETS`, another of Hydra's keys
            (``_partial_``, ``_args_``, …) or an interpolation (``${…}``) at any place.
    """
    for key, name, value in _nodes(settings):
        if name == "_target_" and isinstance(value, str):
            theirs = next((t for group, t in _OF_TRAINING.items() if key.startswith(group)), None)
            if value in TARGETS or (theirs is not None and value.startswith(theirs)):
                continue
        if key.startswith("optimizer.") and name == "_partial_" and value is True:
            continue
        if name.startswith("_") and name.endswith("_"):
            what = f"{key}={value}: no class or function of diffhash, and would be run"
        elif isinstance(value, str) and "${" in value:
            what = f"{key}={value}: an interpolation; a run's config has its values"
        elif "${" in name:
            what = f"{key}: an interpolation; a run's config has its values"
        else:
            continue
        raise ConfigError(f"{path}: {what[:500]}{way_out}")


def _nodes(value: Any, prefix: str = "", name: str = "") -> Iterator[tuple[str, str, Any]]:
    """Every entry of nested settings: its full key, the last part of the key, the value."""
    if prefix:
        yield prefix, name, value
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _nodes(item, f"{prefix}.{key}" if prefix else str(key), str(key))
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _nodes(item, f"{prefix}[{index}]", "")
