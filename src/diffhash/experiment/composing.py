"""One-line errors for settings that Hydra cannot compose.

Hydra's own report has several lines, or a traceback if a group is null. This module imports no
training code.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

_EXTRAS = {"submitit_slurm": "submitit", "submitit_local": "submitit", "ray": "ray"}  # of launchers
_FULL_ERROR = "HYDRA_FULL_ERROR"  # Hydra then raises its errors instead of printing them
_raises = False


def full_errors() -> bool:
    """Whether errors are raised instead of printed as one line."""
    return os.environ.get(_FULL_ERROR) == "1"


def raises_errors_of_composing(now: bool) -> bool:
    """Let Hydra raise its errors, or report them itself again; a user's own HYDRA_FULL_ERROR stays.

    Returns:
        Whether it has raised them until now.
    """
    global _raises
    before = _raises
    if now and not full_errors():
        _raises = True
        os.environ[_FULL_ERROR] = "1"
    elif before and not now:
        _raises = False
        del os.environ[_FULL_ERROR]
    return before


def config_folder() -> Path:
    """The folder of the configs: ``diffhash/configs`` of an installed package, ``configs`` in a
    clone."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "configs"
    return installed if installed.is_dir() else package.parents[1] / "configs"


def explained(error: BaseException, config_dir: Path | str, overrides: Sequence[str]) -> str:
    """An error of composing as one line, which names the setting and the allowed values."""
    from diffhash.results.formats import printable  # slow to import, and needed only for errors

    return printable(_explained(error, config_dir, overrides))


def _explained(error: BaseException, config_dir: Path | str, overrides: Sequence[str]) -> str:
    read = []
    for text in overrides:
        try:
            read += OverridesParser.create().parse_overrides([text])
        except (HydraException, ValueError) as refusal:  # ValueError: a number with too many digits
            return f"{text}: {_line(refusal)}; give key=value"
    given = (o for o in read if not (o.is_delete() or o.is_sweep_override()))
    values = {o.key_or_group: o.value() for o in given}
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        missing = error.missing_cfg_file
        pairs = (pair for pair in values.items() if f"{pair[0]}/{pair[1]}" == missing)
        group, option = next(pairs, missing.rsplit("/", maxsplit=1))
        if missing.startswith("hydra/launcher/") and (extra := _EXTRAS.get(str(option))):
            return f"launcher={option}: needs pip install 'diffhash[{extra}]'"
        choices = _one_of(config_dir, str(group), error.options)
        return f"{group}={option}: could not find {missing}; {choices}"
    if isinstance(error, (ValueError, TypeError)):  # a group has no config of that name
        for group, value in values.items():
            is_group = bool(group) and (Path(config_dir) / group).is_dir()
            if is_group and not all(isinstance(v, str) for v in _listed(value)):
                value = "null" if value is None else value
                return f"{group}={value}: {_one_of(config_dir, group)}, or leave it out"
    where, cause = _line(error).removeprefix("Error merging override "), error.__cause__
    if not isinstance(error, HydraException):
        return f"{' '.join(overrides)}: {where}"
    if cause is None:
        return where
    reason = (str(cause).strip().splitlines() or [type(cause).__name__])[0]
    if where.startswith("Could not override") and isinstance(cause, OmegaConfBaseException):
        where = str(cause.full_key)
        if isinstance(cause.parent_node, DictConfig):
            keys = sorted(map(str, cause.parent_node))
            parent = where.rpartition(".")[0]
            settings: Any = OmegaConf.to_container(cause.parent_node)
            nested = [k for k in keys if isinstance(settings[k], dict) and where in settings[k]]
            if nested:
                reason += "; give " + " or ".join(f"{k}.{where}=…" for k in nested)
            elif keys:
                reason += f"; allowed are {', '.join(keys)}"
            elif parent and (Path(config_dir) / parent).is_dir():  # null, as with sampler=fixed
                reason += f"; this {parent} has no settings; with {parent}=… "
                reason += _one_of(config_dir, parent)
            else:
                reason += f"; there are none here; to add one put a + before, +{where}=…"
            if where == "encoder.network.skip":
                reason += "; MLP has it: give encoder=mlp, or for a grid encoder/preset=neural"
            elif "_target_" in keys:  # a class may have arguments that are not in the config
                reason += f"; another argument of {cause.parent_node['_target_']} needs a + before"
    return f"{where}: {reason}"


def one_line(error: BaseException) -> str:
    """The message of an error in one line; if the message is empty or only a key, also the error's
    type and place."""
    text = " ".join(str(error).split())
    if text and not isinstance(error, KeyError):
        return text
    frames = traceback.extract_tb(error.__traceback__)
    place = f" in {Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{f' {text}' if text else ''}{place}"


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _one_of(config_dir: Path | str, group: str, options: Sequence[str] | None = None) -> str:
    folder = Path(config_dir) / group
    files = (path.relative_to(folder).with_suffix("") for path in folder.rglob("*.yaml"))
    names = options or sorted(path.as_posix() for path in files if group)
    return f"choose one of {', '.join(names)}" if names else "there is no such group or option"


def _line(error: BaseException) -> str:
    """The first line of an error's message. The other lines are Hydra's search path and hints."""
    text = str(error)
    for rest in ("\nConfig search path", "\nSee https://", "\n    full_key"):
        text = text.partition(rest)[0]
    return " ".join(text.split()) or one_line(error)
