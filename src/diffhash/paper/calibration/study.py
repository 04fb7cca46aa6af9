"""A study: what is searched, on which rows, and how a set of values is scored."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from enum import Enum
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
import pandas as pd
from hydra import compose
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep
from hydra.errors import HydraException
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from diffhash.experiment.checks import ConfigError
from diffhash.experiment.composing import one_line
from diffhash.paper.printed import ERRORS, load_paper_table
from diffhash.paper.reproduce import ROWS
from diffhash.results.record import RunRecord

Params = Mapping[str, Any]


class Objective(Enum):
    """What a calibration makes small: `decades_from_paper`, either way, or `log_error`."""

    distance = "distance"
    error = "error"


@dataclass
class CalibrationConfig:
    """A search for the hyper-parameters of a preset; see `diffhash.paper.calibration`.

    ``rows`` are experiments, run in this order, each with one whose seconds it may train at most,
    or null for all of its epochs however long they take. ``params`` are settings with the values
    they may take, in Hydra's syntax for sweeps. The first ``startup`` trials are random.
    """

    objective: Objective = MISSING
    rows: dict[str, str | None] = MISSING
    params: dict[str, str] = MISSING
    seeds: list[int] = MISSING
    confirm_seeds: list[int] = MISSING
    trials: int = MISSING
    startup: int = MISSING
    finalists: int = MISSING
    diverged: float = MISSING


@dataclass(frozen=True)
class Study:
    """A study's config, checked.

    Attributes:
        name: of the preset.
        config: how to search.
        space: the values that each parameter may take.
        preset: the values that it has now.
        extra: Hydra overrides of every run.
        paper: folder of the printed tables.
        bases: configs of the rows, and of those whose seconds are their limits, with the preset.
    """

    name: str
    config: CalibrationConfig
    space: dict[str, BaseDistribution]
    preset: dict[str, Any]
    extra: tuple[str, ...]
    paper: Path
    bases: dict[str, DictConfig]

    @property
    def rows(self) -> list[str]:
        return list(self.config.rows)

    def identity(self) -> dict[str, Any]:
        """What trials must have in common to be of one study."""
        settings = asdict(self.config)
        kept = ("rows", "params", "seeds", "confirm_seeds", "startup", "diverged")
        identity = {"objective": self.config.objective.value} | {k: settings[k] for k in kept}
        return identity | {"extra": list(self.extra)}

    def run_config(
        self, row: str, params: Params, seeds: Sequence[int], folder: Path
    ) -> DictConfig:
        """The config of a row's runs, all seeds as one program on one thread."""
        cfg = self.bases[row].copy()
        for name, value in rounded(params).items():
            OmegaConf.update(cfg, name, value)
        cfg.seeds, cfg.run_dir = list(seeds), str(folder)
        return cfg

    def scores(self, row: str, records: Sequence[RunRecord]) -> dict[str, float]:
        """Of one row, by metric: decades from the paper, or log10 of an error."""
        if self.config.objective is Objective.error:
            return log_error(records, self.config.diverged)
        table, _, name = row.partition("/")
        printed = load_paper_table(table, self.paper).loc[name]
        return decades_from_paper(records, printed.to_dict(), self.config.diverged)

    def objective(self, scores: Mapping[str, Mapping[str, float]]) -> float:
        """The mean over all values of the rows that have been run; of decades, either way."""
        distance = self.config.objective is Objective.distance
        values = (value for row in scores.values() for value in row.values())
        return fmean(abs(value) if distance else value for value in values)


def rounded(params: Params) -> dict[str, Any]:
    """As the tables print them and the runs have them."""
    return {k: float(f"{v:.6g}") if isinstance(v, float) else v for k, v in params.items()}


# ---------------------------------------------------------------------------------------- scores


def decades_from_paper(
    records: Sequence[RunRecord], printed: Mapping[str, Any], diverged: float
) -> dict[str, float]:
    """Decades from the paper's MSEs of one row to ours, log10(ours / paper), of each printed one.

    Ours is the median over the records; one without a value (diverged) is the largest of all. No
    distance is more than ``diverged`` either way, which is also that of a median without a value.

    Args:
        records: of one row, a seed each.
        printed: the row of the paper's table; NaN where nothing is printed.
        diverged: in decades.

    Raises:
        ValueError: no record, or a row of which no MSE is printed.
    """
    targets = {name: printed[name] for name in ERRORS.values() if not pd.isna(printed[name])}
    if not records or not targets:
        raise ValueError(f"decades of {len(records)} records from {len(targets)} printed MSEs")
    distances = {
        name: _log10(median(_values(records, name))) - math.log10(target)
        for name, target in targets.items()
    }
    return {name: max(-diverged, min(diverged, each)) for name, each in distances.items()}


def log_error(records: Sequence[RunRecord], diverged: float) -> dict[str, float]:
    """log10 of the geometric mean of MSE u over the records of one row, under ``mse_u``.

    Args:
        records: of one row, a seed each.
        diverged: what log10 MSE u of a record without a value counts as, and at most.

    Raises:
        ValueError: no record.
    """
    if not records:
        raise ValueError("error of no records")
    return {"mse_u": fmean(min(diverged, _log10(value)) for value in _values(records, "mse_u"))}


def _values(records: Sequence[RunRecord], name: str) -> list[float]:
    values = [record.metrics.get(name) for record in records]
    return [math.inf if value is None else value for value in values]


def _log10(value: float) -> float:
    with np.errstate(divide="ignore"):
        return float(np.log10(value))


# --------------------------------------------------------------------------------------- loading


def load_study(
    root: Path, name: str, extra: Sequence[str] = (), trials: int | None = None
) -> Study:
    """Read ``configs/calibration/<name>.yaml``; Hydra has been initialised.

    Args:
        root: folder of ``configs/`` and ``results/paper/``.
        name: of the study.
        extra: Hydra overrides of every run.
        trials: how many, if not the config's number.

    Raises:
        ConfigError: no such study, or one that cannot be run.
    """
    ConfigStore.instance().store(group="schema", name="calibration", node=CalibrationConfig)
    known = sorted(path.stem for path in (root / "configs" / "calibration").glob("*.yaml"))
    if name not in known:
        raise ConfigError(f"study {name!r} is unknown; studies are {', '.join(known)}")
    try:
        config = OmegaConf.to_object(_compose(config=f"calibration/{name}").calibration)
    except OmegaConfBaseException as error:
        raise ConfigError(f"calibration/{name}: {error.full_key}: {error.msg}") from error
    assert isinstance(config, CalibrationConfig)
    if trials is not None:
        config.trials = trials
    _check(config)
    space = {key: distribution(key, values) for key, values in config.params.items()}
    # Beside each other, so one thread each: the matrices are small.
    bases = {
        row: _compose(f"experiment={row}", "trainer.num_threads=1", *extra)
        for row in _named_rows(config)
    }
    preset = _preset(config, space, bases)
    return Study(name, config, space, preset, tuple(extra), root / "results" / "paper", bases)


def _compose(*overrides: str, config: str = "train") -> DictConfig:
    try:
        return compose(config, list(overrides))
    except HydraException as error:
        raise ConfigError(one_line(error)) from error


def _named_rows(config: CalibrationConfig) -> list[str]:
    """Those that are run, and those whose seconds limit them, each once."""
    limits = (row for row in config.rows.values() if row is not None)
    return list(dict.fromkeys((*config.rows, *limits)))


def _check(config: CalibrationConfig) -> None:
    for row in _named_rows(config):
        if row not in ROWS:
            raise ConfigError(f"rows: {row!r} is unknown; rows are {', '.join(ROWS)}")
    for name in ("trials", "startup", "finalists"):
        if getattr(config, name) < 1:
            raise ConfigError(f"{name}={getattr(config, name)}: give at least 1")
    if not config.rows or not config.params or not config.seeds or not config.confirm_seeds:
        raise ConfigError("rows, params, seeds, confirm_seeds: none may be empty")
    if both := set(config.seeds) & set(config.confirm_seeds):
        raise ConfigError(
            f"confirm_seeds={config.confirm_seeds}: {min(both)} is one of the search's seeds"
        )


def _preset(
    config: CalibrationConfig,
    space: Mapping[str, BaseDistribution],
    bases: Mapping[str, DictConfig],
) -> dict[str, Any]:
    """The parameters' present values, which must be the same in all rows and lie in the space."""
    preset: dict[str, Any] = {}
    for row in config.rows:
        container = OmegaConf.to_container(bases[row], resolve=True, enum_to_str=True)
        for name in space:
            value = OmegaConf.select(OmegaConf.create(container), name)
            if value is None:
                raise ConfigError(f"params: {name} is not a setting of {row}")
            if preset.setdefault(name, value) != value:
                raise ConfigError(f"params: {name} is {preset[name]} in one row, {value} in {row}")
    for name, value in preset.items():
        try:
            inside = space[name]._contains(space[name].to_internal_repr(value))
        except ValueError:
            inside = False
        if not inside:
            values = config.params[name]
            raise ConfigError(f"params: {name}: {values} leaves out {value}, the preset's value")
    return preset


def distribution(name: str, values: str) -> BaseDistribution:
    """One of Hydra's sweeps as a distribution of Optuna's; a range leaves out its end."""
    try:
        override: Override = OverridesParser.create().parse_override(f"{name}={values}")
        match sweep := override.value():
            case ChoiceSweep():
                choices: list[Any] = list(override.sweep_iterator())
                return CategoricalDistribution(choices)
            case RangeSweep():
                start, stop, step = (Decimal(str(v)) for v in (sweep.start, sweep.stop, sweep.step))
                last = start + (math.ceil((stop - start) / step) - 1) * step
                if isinstance(sweep.start, int) and isinstance(sweep.step, int):
                    return IntDistribution(int(start), int(last), step=int(step))
                return FloatDistribution(float(start), float(last), step=float(step))
            case IntervalSweep():
                integers = isinstance(sweep.start, int) and isinstance(sweep.end, int)
                kind = IntDistribution if integers else FloatDistribution
                return kind(sweep.start, sweep.end, log="log" in sweep.tags)  # type: ignore[arg-type]
    except (HydraException, ValueError, TypeError, ArithmeticError) as error:
        raise ConfigError(f"params: {name}: {values}: {one_line(error)}") from error
    raise ConfigError(f"params: {name}: {values}: give choice(…), range(…) or interval(…)")
