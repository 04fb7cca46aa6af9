"""The config that ``train.py`` composes, from parts that tests share."""

from __future__ import annotations

import re
from copy import deepcopy
from functools import cache
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from diffhash.experiment.schema import register

ROOT = Path(__file__).parents[1]
VALUE = re.compile(r"(?!hydra)(\w+\.[\w.]+|seeds?|name|run_dir|runs_dir|ckpt_path)=")


@cache
def _composed(*choices: str) -> DictConfig:
    register()
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        return compose("train", list(choices))


def config(*overrides: str) -> DictConfig:
    """The config of these overrides; choices that were composed before are not composed again.

    Overrides of values follow the composition, as they do in Hydra.
    """
    values = [o for o in overrides if VALUE.match(o)]
    cfg = deepcopy(_composed(*(o for o in overrides if o not in values)))
    for override in OverridesParser.create().parse_overrides(values):
        OmegaConf.update(cfg, override.key_or_group, override.value(), merge=True)
    return cfg
