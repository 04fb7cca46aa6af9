"""Search for the hyper-parameters of a preset, with Optuna over composed configs.

hydra-optuna-sweeper would be the obvious engine. Its releases for Hydra 1.3 need Optuna 2, and
cannot stop a trial early. So Optuna is asked and told directly.
Everything that is known lies in one SQLite file: whatever ends a search, the same command goes on
with it, and begins trials again that were under way.

A set of values is scored row by row. Its objective is the mean over the values of all rows; the
mean over some of them, ``so_far``, compares only with that of other sets over the same rows.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
import optuna
from hydra import compose
from hydra.errors import HydraException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, Trial, TrialState

from diffhash.experiment.build import seed_configs
from diffhash.experiment.checks import ConfigError
from diffhash.experiment.composing import one_line
from diffhash.experiment.run import run
from diffhash.paper.printed import ERRORS, METRICS, load_paper_table
from diffhash.paper.timing import chunk_seconds
from diffhash.results.record import RunRecord

# What is kept of a run's record.
_RUN = ("seed", "status", "epochs", "diverged_epoch", *METRICS, "train_seconds", "wall_seconds")
# Timings differ by that much: a run that costs what the limit was made of is not to be cut short.
_TOLERANCE = 1.1
_EPOCHS, _CHUNK = 120, 20  # of the short run that says what an epoch costs


@dataclass(frozen=True)
class Study:
    """A file of ``configs/calibration``, composed.

    Attributes:
        name: of the preset.
        config: ``objective``: ``distance`` (decades from the paper, either way) or ``error`` (log10
            MSE u), which is to be small; ``rows``: experiments, run in this order, each with one
            whose seconds it may train at most, or null for all of its epochs; ``params``: settings,
            each with the distribution of Optuna's that its values come from; ``seeds`` of the
            search and ``confirm_seeds``; how many ``trials`` (the first ``startup`` random) and
            ``finalists``; ``diverged``: the score of a run without an error, and the most.
        space: the distributions.
        preset: the present values.
        bases: config of each row named, with the preset.
        paper: folder of the printed tables.
    """

    name: str
    config: DictConfig
    space: dict[str, BaseDistribution]
    preset: dict[str, Any]
    bases: dict[str, DictConfig]
    paper: Path

    def run_config(
        self, row: str, params: Mapping[str, Any], seeds: Sequence[int], folder: Path
    ) -> DictConfig:
        """The config of a row's runs, all seeds as one program."""
        cfg = self.bases[row].copy()
        for name, value in rounded(params).items():
            OmegaConf.update(cfg, name, value)
        cfg.seeds, cfg.run_dir = list(seeds), str(folder / row.replace("/", "_"))
        return cfg

    def scores(self, row: str, records: Sequence[RunRecord]) -> dict[str, float]:
        """Of one row, by metric: log10 of an error, or of its ratio to each that the paper prints.

        Of ratios the median over the records, of errors the mean. A record without a value
        (diverged) counts as ``diverged``, which none is beyond (no distance either way).
        """
        targets, over_seeds = {"mse_u": 1.0}, fmean
        least, most = -math.inf, self.config.diverged
        if self.config.objective == "distance":
            table, _, name = row.partition("/")
            printed = load_paper_table(table, self.paper).loc[name, list(ERRORS.values())]
            targets, over_seeds, least = printed.dropna().to_dict(), median, -most
        scores = {}
        for name, target in targets.items():
            values = np.array([record.metrics.get(name) for record in records], dtype=float)
            with np.errstate(divide="ignore"):
                decades = np.log10(np.nan_to_num(values, nan=math.inf, posinf=math.inf) / target)
            scores[name] = over_seeds(np.clip(decades, least, most).tolist())
        return scores

    def objective(self, scores: Mapping[str, Mapping[str, float]]) -> float:
        """The mean over all values of the rows that have been run; of decades, either way."""
        values = [value for row in scores.values() for value in row.values()]
        return fmean(map(abs, values) if self.config.objective == "distance" else values)


def rounded(params: Mapping[str, Any]) -> dict[str, Any]:
    """As the tables print them and the runs have them."""
    return {k: float(f"{v:.6g}") if isinstance(v, float) else v for k, v in params.items()}


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
    known = sorted(path.stem for path in (root / "configs" / "calibration").glob("*.yaml"))
    if name not in known:
        raise ConfigError(f"study {name!r} is unknown; studies are {', '.join(known)}")
    try:
        config = compose(f"calibration/{name}").calibration
        config.trials = config.trials if trials is None else trials
        space = {key: instantiate(each, _convert_="all") for key, each in config.params.items()}
        bases = {
            row: compose("train", [f"experiment={row}", "trainer.num_threads=1", *extra])
            for row in dict.fromkeys((*config.rows, *filter(None, config.rows.values())))
        }
        settings = OmegaConf.to_container(bases[next(iter(config.rows))], enum_to_str=True)
        preset = {key: OmegaConf.select(OmegaConf.create(settings), key) for key in space}
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(f"calibration/{name}: {one_line(error)}") from error
    if config.trials < 1:
        raise ConfigError(f"trials={config.trials}: give at least 1")
    return Study(name, config, space, preset, bases, root / "results" / "paper")


# ---------------------------------------------------------------------------------------- search


def calibrate(study: Study, folder: Path) -> tuple[optuna.Study, optuna.Study]:
    """Search, then run the best trials and the present preset on seeds of their own.

    Args:
        study: what is searched; its number of trials counts those that are in ``folder`` already.
        folder: of the search's state.

    Returns:
        The search and the confirmation.

    Raises:
        ConfigError: ``folder`` holds a study with other settings.
        KeyboardInterrupt: interrupted; the same call goes on.
    """
    search, confirmation = (_open(study, folder, part) for part in ("search", "confirmation"))
    search.enqueue_trial(study.preset, skip_if_exists=True)
    n_left = study.config.trials - len(ended_trials(search))
    _run_trials(study, search, study.config.seeds, n_left, folder)
    complete = search.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    complete.sort(key=lambda trial: math.inf if trial.value is None else trial.value)
    best = [trial.params for trial in complete if trial.params != study.preset]
    for params in (study.preset, *best[: study.config.finalists]):
        confirmation.enqueue_trial(params, skip_if_exists=True)
    n_left = len(confirmation.get_trials(deepcopy=False, states=(TrialState.WAITING,)))
    _run_trials(study, confirmation, study.config.confirm_seeds, n_left, folder)
    return search, confirmation


def ended_trials(opened: optuna.Study) -> list[FrozenTrial]:
    """The trials with an outcome, without those that were under way when a search was killed."""
    return [t for t in opened.get_trials(deepcopy=False) if "scores" in t.user_attrs]


def _open(study: Study, folder: Path, part: str) -> optuna.Study:
    """The ``search`` or the ``confirmation`` in ``folder``, begun if it is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    opened = optuna.create_study(
        study_name=part, storage=f"sqlite:///{folder / 'study.db'}", load_if_exists=True,
        # After 1, 2, 4 … rows the worse half of the trials that came so far is stopped. Not by a
        # median: that looks at the best that a trial has ever reported, and means may rise.
        pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=2)
        if part == "search" else optuna.pruners.NopPruner(),
    )  # fmt: skip
    settings: Any = OmegaConf.to_container(study.config)
    identity = {k: v for k, v in settings.items() if k not in ("trials", "finalists")}
    begun = opened.user_attrs.get("identity", identity)
    if changed := [key for key, value in identity.items() if begun.get(key) != value]:
        raise ConfigError(
            f"{changed[0]}: was {begun.get(changed[0])} when the study in {folder} was begun, "
            f"now it is {identity[changed[0]]}; give another folder, or remove this one"
        )
    opened.set_user_attr("identity", identity)
    for trial in opened.get_trials(states=(TrialState.RUNNING,)):
        opened.tell(trial.number, state=TrialState.FAIL)
        opened.enqueue_trial(trial.params)
    opened.sampler = optuna.samplers.TPESampler(
        seed=len(opened.trials), n_startup_trials=study.config.startup, multivariate=True
    )
    return opened


def _run_trials(
    study: Study, opened: optuna.Study, seeds: Sequence[int], n_trials: int, folder: Path
) -> None:
    """Run so many trials one after the other, those that wait first."""
    limits: dict[str, float | None] = {}
    for _ in range(n_trials):
        for row, of in study.config.rows.items() if not limits else ():
            place = folder / "limit"
            limits[row] = None
            if of is not None:
                cfg = study.run_config(of, {}, seeds, place)
                limits[row] = _TOLERANCE * row_seconds(cfg)
                print(f"{row}: at most {limits[row]:.3g} s a run, as {of} takes", flush=True)
            shutil.rmtree(place, ignore_errors=True)
        trial = opened.ask(study.space)
        place = folder / f"{opened.study_name}-trial{trial.number}"
        state = _run_trial(study, trial, limits, seeds, place)
        shutil.rmtree(place, ignore_errors=True)
        scores = trial.user_attrs["scores"]
        value = study.objective(scores) if state == TrialState.COMPLETE else None
        opened.tell(trial, value, state)
        so_far = f" {study.objective(scores):.3f}" if scores else ""
        values = "  ".join(f"{k.split('.')[-1]} {v}" for k, v in rounded(trial.params).items())
        told = f"{state.name.lower()}{so_far} ({len(scores)}/{len(limits)} rows)  {values}"
        print(f"{opened.study_name} {trial.number}: {told}", flush=True)


def _run_trial(
    study: Study, trial: Trial, limits: Mapping[str, float | None], seeds: Sequence[int],
    place: Path,
) -> TrialState:  # fmt: skip
    """Run the rows of a trial one after the other until it has fallen behind."""
    scores, kept, state = {}, [], TrialState.COMPLETE
    try:
        for row, limit in limits.items():
            records = run_row(study.run_config(row, trial.params, seeds, place), limit)
            scores[row] = study.scores(row, records)
            kept += [{"row": row} | {n: r.flat().get(n) for n in _RUN} for r in records]
            trial.report(study.objective(scores), len(scores))
            # The preset, which comes first, is measured on all rows.
            if len(scores) < len(limits) and trial.number and trial.should_prune():
                state = TrialState.PRUNED
                break
    except ConfigError as refused:
        trial.set_user_attr("error", str(refused))
        state = TrialState.FAIL
    trial.set_user_attr("runs", kept)
    trial.set_user_attr("scores", scores)
    return state


def run_row(cfg: DictConfig, seconds: float | None) -> list[RunRecord]:
    """Train all seeds of ``cfg`` as one program.

    Args:
        cfg: with ``seeds`` and ``run_dir``.
        seconds: what one seed alone may train: that many of ``trainer.epochs`` are run as fit.

    Raises:
        ConfigError: values that cannot be run.
        KeyboardInterrupt: asked to stop.
    """
    if seconds is not None:
        fitting = max(1, int(seconds / row_seconds(cfg) * cfg.trainer.epochs))
        cfg.trainer.epochs = min(cfg.trainer.epochs, fitting)
    return [record for _, record in _run(cfg)]


def row_seconds(cfg: DictConfig) -> float:
    """What the first seed of ``cfg`` alone takes for all epochs, measured in a short run."""
    short = seed_configs(cfg)[0].copy()
    short.run_dir = f"{cfg.run_dir}.timing"
    short.trainer.epochs, short.trainer.chunk = _EPOCHS, _CHUNK
    [(directory, _)] = _run(short)
    return median(chunk_seconds(directory)) * cfg.trainer.epochs


def _run(cfg: DictConfig) -> list[tuple[Path, RunRecord]]:
    """Run anew; what is printed goes to a log beside the run."""
    log = Path(f"{cfg.run_dir}.log")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as file, redirect_stdout(file), redirect_stderr(file):
        found = run(cfg)
    if any(record.status == "interrupted" for _, record in found):
        raise KeyboardInterrupt
    return found
