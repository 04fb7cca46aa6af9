"""``resume=RUN``: the settings of an earlier run, and its name on a command line."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from diffhash.experiment.checks import ConfigError
from diffhash.experiment.composing import config_folder
from diffhash.experiment.folder import CHECKPOINT_FILE
from diffhash.results.reading import RecordError, brief, read_config
from diffhash.results.record import CONFIG_FILE, PARTIAL

# Groups from which an override may choose a config, over the settings of the run.
_GROUPS = ("problem", "trainer", "task", "encoder", "logger", "experiment", "launcher")
_OF_A_FIELD = ("encoder", "task", "problem")  # must be the same as in the checkpoint
_PLAIN = re.compile(r"[\w./-]+", re.ASCII)


def resumed_config(resume: str, overrides: Sequence[str]) -> DictConfig:
    """The config of an earlier run with ``overrides`` on top, to continue from its checkpoint.

    Hydra composes it, like the config of ``train.py``. The resumed run is written to the folder of
    the earlier run unless an override changes that.

    Args:
        resume: the folder of a run or of a killed run (``….partial``), or its checkpoint.
        overrides: the overrides of the command line.

    Raises:
        ConfigError: there is no such run, or an override does not fit its config.
    """
    setting = f"resume={resume}"
    folder = Path(resume)
    if folder.name == CHECKPOINT_FILE:
        folder = folder.parent
    if not folder.exists() and (partial := folder.with_name(folder.name + PARTIAL)).is_dir():
        folder = partial
    if not (folder / CONFIG_FILE).is_file():
        raise ConfigError(f"{setting}: {folder / CONFIG_FILE}: there is no such file")
    if not (folder / CHECKPOINT_FILE).is_file():
        raise ConfigError(
            f"{setting}: {folder / CHECKPOINT_FILE}: there is no such file, as where a run was "
            "killed before its first checkpoint; start it anew, with the settings of its "
            f"{CONFIG_FILE}"
        )
    try:
        saved = OmegaConf.create(read_config(folder / CONFIG_FILE))
    except (RecordError, OmegaConfBaseException) as error:
        raise ConfigError(f"{setting}: {brief(error)}") from error
    parser = OverridesParser.create()
    keys = {text: parser.parse_override(text).key_or_group for text in overrides}
    if "ckpt_path" in keys.values():
        raise ConfigError(f"{setting}: goes on from its own checkpoint; give no ckpt_path with it")
    for text in [text for text, key in keys.items() if key in _OF_A_FIELD]:
        choice = parser.parse_override(text)
        before = OmegaConf.select(saved, f"{choice.key_or_group}.name")
        if before is not None and choice.value() != before:
            group = choice.key_or_group
            raise ConfigError(f"{setting}: {text}: its run is of {group}={before}; leave that out")
        if before is not None:  # the same choice again
            del keys[text]
    if saved.get("seeds") is None or saved.get("run_dir") is None:
        own = folder.with_name(folder.name.removesuffix(PARTIAL))
        saved.run_dir = None if "runs_dir" in keys.values() else str(own)
    saved.ckpt_path = str(folder / CHECKPOINT_FILE)
    defaults = ["schema", "_self_", *({group: None} for group in _GROUPS)]
    node = {"defaults": defaults, **OmegaConf.to_container(saved)}  # type: ignore[arg-type]
    ConfigStore.instance().store(name="resumed", node=node)
    for text, key in keys.items():
        if key not in _GROUPS and (config_folder() / key).is_dir():
            raise ConfigError(
                f"{setting}: {text}: its run has its own {key}, which is kept; leave that out, and "
                "give single settings, as trainer.epochs=5000"
            )
    try:
        return hydra.compose("resumed", [t for t, key in keys.items() if key != "resume"])
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(f"{setting}: {' '.join(str(error).split())}") from error


def resume_argument(directory: Path) -> str:
    """The argument of ``train.py`` that resumes the run in ``directory``, quoted for a shell."""
    text = f"resume={hydra_value(str(directory / CHECKPOINT_FILE))}"
    if text.isprintable():
        return shlex.quote(text)
    shown = {"\\": "\\\\", "'": "\\'"}
    return "$'" + "".join(shown.get(c, c) if c.isprintable() else _bytes(c) for c in text) + "'"


def _bytes(character: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in os.fsencode(character))


def hydra_value(text: str) -> str:
    """A string as a value in Hydra's grammar: in quotes unless it is plain."""
    if _PLAIN.fullmatch(text):
        return text
    # Only backslashes before a quote have a meaning.
    return "'" + re.sub(r"(\\*)('|$)", lambda m: 2 * m[1] + ("\\'" if m[2] else ""), text) + "'"
