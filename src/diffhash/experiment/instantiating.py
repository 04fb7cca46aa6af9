"""Build the object that a node of a config describes."""

from __future__ import annotations

import traceback
from inspect import signature
from typing import Any, TypeVar

import hydra
from hydra.errors import InstantiationException
from hydra.utils import get_object
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from diffhash.experiment.checks import ConfigError
from diffhash.experiment.composing import one_line
from diffhash.ops.memory import is_out_of_memory

NO_MEMORY = "needs more memory than there is"
_EXTRAS = {"pytorch_optimizer": "optimizers"}  # by the module that is missing
_Kind = TypeVar("_Kind")


def instantiate(node: Any, key: str, kind: type[_Kind], **arguments: Any) -> _Kind:
    """`hydra.utils.instantiate`, for nodes that may have a ``name`` for display.

    Raises:
        ConfigError: there is no ``_target_``, it does not make a ``kind``, or it refuses its
            settings (with a ValueError).
        Exception: any other exception of the target, which is a bug of the target.
    """
    try:
        settings = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_dict(node) else None
    except OmegaConfBaseException as error:
        raise ConfigError(f"{key}: {error}") from error
    if not isinstance(settings, dict) or "_target_" not in settings:
        raise ConfigError(f"{key}: give a _target_, the class or function to build it with")
    settings.pop("name", None)
    try:
        made = hydra.utils.instantiate(settings, _convert_="all", **arguments)
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, ImportError) and not isinstance(cause.__cause__, ImportError):
            cause = cause.__cause__ or cause  # the target's module has a bug
        if cause is not None and not is_about_settings(cause):
            raise cause from None
        if is_out_of_memory(cause):
            sizes = ", ".join(f"{k}={v}" for k, v in settings.items() if isinstance(v, int))
            raise ConfigError(f"{key}: {sizes}: {NO_MEMORY}") from error
        reason = one_line(cause or error).removeprefix(f"{key}: ")
        if isinstance(cause, ModuleNotFoundError) and cause.name in _EXTRAS:
            reason = f"needs {cause.name}: pip install 'diffhash[{_EXTRAS[cause.name]}]'"
        if "unexpected keyword argument" in reason:
            names = signature(get_object(str(settings["_target_"]))).parameters
            reason += f"; its arguments are {', '.join(names)}"
        if "Are you sure that module" in reason:
            reason += " For a module of your own set PYTHONPATH to its folder."
        raise ConfigError(f"{key}: {reason}") from error
    if not isinstance(made, kind):
        raise ConfigError(
            f"{key}._target_={settings['_target_']}: makes a {type(made).__name__}; give what "
            f"makes a {kind.__name__}"
        )
    return made


def instantiate_optional(node: Any, key: str, kind: type[_Kind]) -> _Kind | None:
    """`instantiate`; None for null."""
    return None if node is None else instantiate(node, key, kind)


def is_about_settings(error: BaseException) -> bool:
    """Whether an object has refused its settings; other errors are shown with their traceback."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    match error:
        case TypeError():  # raised by the call itself because of wrong arguments
            return len(frames) == 1 or "abstract class" in str(error)
        case ValueError():  # raised by the object itself, or by diffhash code that it calls
            return len(frames) <= 2 or frames[-1].f_globals["__name__"].startswith("diffhash.")
        case _:
            return isinstance(error, (ImportError, NotImplementedError)) or is_out_of_memory(error)
