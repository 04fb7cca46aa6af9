"""Search for the hyper-parameters of a preset, with Optuna over composed configs.

hydra-optuna-sweeper would be the obvious engine. Its releases for Hydra 1.3 need Optuna 2, and
cannot stop a trial early. So Optuna is asked and told directly. Everything that is known lies in
one SQLite file: whatever ends a search, the same command goes on with it.

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
import pandas as pd
from hydra import compose
from hydra.errors import HydraException
from hydra.utils import instantiate
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, Trial, TrialState
from tabulate import tabulate

from diffhash._files import write_text_atomically
from diffhash.experiment.build import seed_configs
from diffhash.experiment.checks import ConfigError, choose_accelerator
from diffhash.experiment.composing import one_line
from diffhash.experiment.environment import describe_environment
from diffhash.experiment.run import run
from diffhash.paper.printed import ERRORS, METRICS, load_paper_table
from diffhash.paper.timing import chunk_seconds
from diffhash.results.figures import style
from diffhash.results.record import RunRecord

# What is kept of a run's record.
_RUN = ("seed", "status", "epochs", "diverged_epoch", *METRICS, "train_seconds", "wall_seconds")
# Timings differ by that much: a run that costs what the limit was made of is not to be cut short.
_TOLERANCE = 1.1
_EPOCHS, _CHUNK = 120, 20  # of the short run that says what an epoch costs
_COLUMNS, _ROW_HEIGHT = 4, 1.6  # of the figure; inches
_LOG_FROM = 50.0  # of the largest value to the smallest
_MACHINE = ("processor", "cpu_count", "device", "platform", "python", "torch", "git_commit")
_OBJECTIVES = {
    "distance": "mean of |log10(ours / paper)| over the printed MSEs of its rows, in decades",
    "error": "mean of log10 MSE u over its rows and seeds, at equal seconds",
}
_BEHIND = (
    "Values of rows are log10(ours / paper). Negative is ahead of the paper, which the objective "
    "counts as distance, too; behind: what is left of it if being ahead counts as 0."
)


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


# --------------------------------------------------------------------------------- what is written


def write_outcome(
    study: Study, search: optuna.Study, confirmation: optuna.Study, output: Path
) -> tuple[list[Path], str]:
    """Write the tables of trials and runs, the figure and the report.

    Returns:
        Paths of what is not a table of each trial or run, and the report's summary.

    Raises:
        OSError: the folder cannot be written.
    """
    trials = pd.DataFrame([_line(study, trial) for trial in ended_trials(search)])
    confirmed = pd.DataFrame([_line(study, trial) for trial in ended_trials(confirmation)])
    same = confirmed[list(study.space)].merge(trials, "left", list(study.space))
    names = same["trial"].map("trial {:.0f}".format).mask(confirmed["trial"] == 0, "preset")
    confirmed = confirmed.assign(candidate=names, searched=same["objective"])
    try:
        weights = optuna.importance.get_param_importances(
            search, evaluator=optuna.importance.PedAnovaImportanceEvaluator()
        )
    except ValueError:  # too few trials
        weights = {}
    importances = pd.DataFrame(weights.items(), columns=["parameter", "importance"])
    parts = ((search, "", trials), (confirmation, "-confirmed", confirmed))
    tables = {f"{study.name}{part}": table for _, part, table in parts}
    tables |= {f"{study.name}{part}-runs": _runs(opened) for opened, part, _ in parts}
    for name, table in (tables | {f"{study.name}-importances": importances}).items():
        text = table.to_csv(index=False, float_format="%.6g")
        write_text_atomically(output / f"{name}.csv", text)
    environment = describe_environment(choose_accelerator("auto"))
    machine = {key: environment[key] for key in _MACHINE}
    objective = study.config.objective
    report, summary = write_report(
        output, study.name, _OBJECTIVES[objective], machine, behind=objective == "distance"
    )
    figure = calibration_figure(trials, importances)
    return [*style.write_figure(figure, output / study.name), report], summary


def _line(study: Study, trial: FrozenTrial) -> dict[str, Any]:
    scores, runs = trial.user_attrs["scores"], trial.user_attrs["runs"]
    n_diverged = sum(run["status"] == "diverged" for run in runs)
    params = rounded(trial.params)
    return {
        "trial": trial.number,
        "status": "diverged" if n_diverged else trial.state.name.lower(),
        "objective": trial.value if trial.state == TrialState.COMPLETE else None,
        "so_far": study.objective(scores) if scores else None,
        "rows_run": len(scores),
        "n_diverged": n_diverged,
        # Seeds train as one program: its seconds are those of each of its records.
        "seconds": sum({run["row"]: run["wall_seconds"] for run in runs}.values()),
        **{name: params.get(name) for name in study.space},
        **{f"{row} {name}": v for row, values in scores.items() for name, v in values.items()},
        "error": trial.user_attrs.get("error"),
    }


def _runs(opened: optuna.Study) -> pd.DataFrame:
    trials = ended_trials(opened)
    return pd.DataFrame([{"trial": t.number} | r for t in trials for r in t.user_attrs["runs"]])


# ---------------------------------------------------------------------------------------- report


def write_report(
    directory: Path, study: str, title: str, machine: Mapping[str, Any], *, behind: bool = False
) -> tuple[Path, str]:
    """Write ``<study>.md`` from the study's tables: how the search went, and what was confirmed.

    Args:
        directory: of the tables.
        study: its name.
        title: what its objective is.
        machine: on which it ran.
        behind: its scores are decades from the paper: say how far a candidate is behind it.

    Returns:
        Its path, and its first paragraph.
    """
    trials = pd.read_csv(directory / f"{study}.csv")
    counts = ", ".join(f"{n} {status}" for status, n in trials["status"].value_counts().items())
    hours = trials["seconds"].sum() / 3600
    summary = f"{len(trials)} trials ({counts}) in {hours:.2f} hours of processes."
    confirmed = _confirmed_table(pd.read_csv(directory / f"{study}-confirmed.csv"), behind)
    measured = ", ".join(f"{key} {value}" for key, value in machine.items())
    parts = [
        f"**Calibration of the preset {study}**: {title}",
        summary,
        "Confirmed on other seeds than those of the search, the present preset beside the best "
        "trials:",
        confirmed,
        *([_BEHIND] if behind else []),
        f"![What matters]({study}.png)",
        f"- Measured with {measured}.",
    ]
    path = write_text_atomically(directory / f"{study}.md", "\n\n".join(parts) + "\n")
    return path, summary


def _confirmed_table(confirmed: pd.DataFrame, behind: bool) -> str:
    values = [name for name in confirmed.columns if "/" in name]
    lines = ["status", "searched", "objective", *values, *_parameters(confirmed)]
    if behind:
        excess = confirmed[values].clip(lower=0)
        means = {"behind, mean": excess.mean(axis=1), "behind, most": excess.max(axis=1)}
        confirmed = confirmed.assign(**means)
        lines[3:3] = list(means)
    table = confirmed.set_index("candidate")[lines].astype(object).T
    cells = table.where(table.notna(), "–").map(lambda v: f"{v:.3g}" if isinstance(v, float) else v)
    return tabulate(cells, "keys", "github", disable_numparse=True)


def _parameters(trials: pd.DataFrame) -> list[str]:
    """The columns that are settings, such as ``trainer.learning_rate``."""
    return [name for name in trials.columns if "." in name]


# ---------------------------------------------------------------------------------------- figure


def calibration_figure(trials: pd.DataFrame, importances: pd.DataFrame) -> Figure:
    """Draw the importance of each parameter, and the objective over each.

    Of a grid also over its finest resolution, N_max = N_min b^(L - 1) (Section II). Trials that
    were stopped early have no objective: they are drawn at the upper edge. So are those of the
    worse half that would crowd the better one out.

    Args:
        trials: a line per trial, as in ``<study>.csv``.
        importances: columns ``parameter`` and ``importance``.
    """
    grid = "encoder.encoding."
    finest = trials[f"{grid}base_resolution"] * trials[f"{grid}per_level_scale"] ** (
        trials[f"{grid}n_levels"] - 1
    )
    trials = trials.assign(**{f"{grid}finest_resolution": finest})
    names = _parameters(trials)
    n_rows = -(-(len(names) + 1) // _COLUMNS)
    figure = style.new_figure(height=0.5 + _ROW_HEIGHT * n_rows)
    first, *others = figure.subplots(n_rows, _COLUMNS, squeeze=False).ravel()
    ordered, places = importances.sort_values("importance"), np.arange(len(importances))
    style.style_axes(first).set_title("importance", fontsize=style.TEXT)
    first.barh(places, ordered["importance"], color=style.BLUE, height=0.6)
    first.set_yticks(places, ordered["parameter"].map(_short), fontsize=style.SMALL)
    others[0].set_ylabel("objective", fontsize=style.TEXT)
    for ax, name in zip(others, names, strict=False):
        _draw_parameter(style.style_axes(ax), trials.dropna(subset=["so_far", name]), name)
    for ax in others[len(names) :]:
        ax.set_axis_off()
    style.add_legend(figure, others[: len(names)], loc="outside lower center")
    return figure


def _draw_parameter(ax: Axes, trials: pd.DataFrame, name: str) -> None:
    ax.set_title(_short(name), fontsize=style.TEXT)
    x: Any = trials[name]
    objective: Any = trials["objective"]
    if x.dtype.kind not in "iuf":  # names side by side, in alphabetical order
        choices = sorted(set(x))
        ax.set_xticks(np.arange(len(choices)), choices, fontsize=style.SMALL)
        ax.set_xlim(-0.5, len(choices) - 0.5)
        x = x.map(choices.index)
    elif x.min() > 0 and x.max() / x.min() >= _LOG_FROM:
        ax.set_xscale("log")
    middle = objective.median()
    top = middle + ((middle - objective.min()) or 1.0)  # as much above the median as below it
    y, finished = objective.clip(upper=top).fillna(top), objective.notna()
    hollow = {"facecolor": "none", "edgecolor": style.GREY, "linewidth": 0.6}
    ax.scatter(x[~finished], y[~finished], s=8, label="stopped early", **hollow)
    ax.scatter(x[finished], y[finished], s=8, color=style.BLUE, label="ran all rows")
    if finished.any():
        best, mark = objective.idxmin(), {"s": 40, "marker": "*", "color": style.VERMILION}
        ax.scatter(x[best], y[best], zorder=3, label="best", **mark)


def _short(name: str) -> str:
    return name.rpartition(".")[2].replace("_", " ")
