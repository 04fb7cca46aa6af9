"""Sweeps for the agents of W&B: each names settings that can be composed. Nothing is sent."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import DictConfig

ROOT = Path(__file__).parents[2]
SWEEPS = sorted((ROOT / "configs" / "wandb_sweeps").glob("*.yaml"))


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_sweep_is_composed(path: Path, config: Callable[..., DictConfig]) -> None:
    sweep = yaml.safe_load(path.read_text())
    assert sweep["method"] in ("grid", "random", "bayes")
    assert sweep["metric"] == {"name": "log10_mse_u", "goal": "minimize"}
    assert sweep["command"] == [f"${{{w}}}" for w in ("env", "interpreter", "program",
                                                      "args_no_hyphens")]  # fmt: skip
    assert (ROOT / sweep["program"]).is_file()
    values = {name: extremes(settings) for name, settings in sweep["parameters"].items()}
    for pick in range(max(map(len, values.values()))):
        chosen = {name: options[pick % len(options)] for name, options in values.items()}
        cfg = config(*(f"{name}={value}" for name, value in chosen.items()))
        assert cfg.logger.wandb is not None


def extremes(settings: dict[str, Any]) -> list[Any]:
    """The values that W&B may choose: the named ones, or both ends of a range."""
    kind = settings.get("distribution")
    if kind is None:
        assert settings.keys() in ({"value"}, {"values"})
        return settings.get("values") or [settings["value"]]
    assert settings.keys() - {"q"} == {"distribution", "min", "max"}
    assert settings["min"] < settings["max"]
    if re.match(r"int_", kind):
        assert isinstance(settings["min"], int) and isinstance(settings["max"], int)
    return [settings["min"], settings["max"]]


def test_there_are_sweeps() -> None:
    assert SWEEPS
