"""Search the hyper-parameters of a preset with Optuna, and confirm the best ones on other seeds.

A file of ``configs/calibration`` describes the search. Optuna keeps the trials in an SQLite file,
so that the same command continues a search that has ended for any reason. A trial trains one row
after the other, and is stopped when its mean so far is worse than that of other trials over the
same rows.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import optuna
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from matplotlib import pyplot
from omegaconf import DictConfig, OmegaConf
from optuna.trial import Trial, TrialState
from optuna.visualization.matplotlib import plot_slice

from diffhash._files import write_text_atomically
from diffhash.cli.command import run_command
from diffhash.experiment.checks import ConfigError
from diffhash.experiment.environment import describe_environment
from diffhash.experiment.locks import exclusive
from diffhash.experiment.run import run
from diffhash.experiment.schema import register
from diffhash.paper.printed import ERRORS, load_paper_table
from diffhash.results import RecordError, RunRecord
from diffhash.results.figures.style import write_figure
from diffhash.training.fit import choose_accelerator

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results"
STUDIES = sorted(path.stem for path in (ROOT / "configs" / "calibration").glob("*.yaml"))
OBJECTIVES = {
    "distance": "mean of |log10(ours / paper)| over the printed MSEs of its rows (whose values "
    "are below: negative is ahead of the paper, which counts as distance, too)",
    "error": "mean of log10 MSE u over its rows and seeds, at equal seconds",
}
TOLERANCE = 1.1  # timings differ: a run as costly as the one that sets its limit is not cut short


def scores(study: DictConfig, row: str, records: Sequence[RunRecord]) -> dict[str, float]:
    """The scores of one row: log10 of its error, or of the ratio of each error to the printed one.

    Scores are medians over the records for ratios, and means for errors. A record without a value
    (diverged) counts as ``study.diverged``, the largest score; ``-study.diverged`` is the smallest
    for ratios.
    """
    targets, over_seeds, least = {"mse_u": 1.0}, np.mean, -np.inf
    if study.objective == "distance":
        table, _, name = row.partition("/")
        printed = load_paper_table(table).loc[name, list(ERRORS.values())]
        targets, over_seeds, least = printed.dropna().to_dict(), np.median, -study.diverged
    found = {}
    for name, target in targets.items():
        values = np.array([record.metrics.get(name) for record in records], dtype=float)
        with np.errstate(divide="ignore"):
            decades = np.log10(np.nan_to_num(values, nan=np.inf, posinf=np.inf) / target)
        found[f"{row} {name}"] = float(over_seeds(decades.clip(least, study.diverged)))
    return found


def train(cfg: DictConfig, seeds: Sequence[int], folder: Path) -> list[RunRecord]:
    """Train all seeds of a row in one run."""
    records = [r for _, r in run(OmegaConf.merge(cfg, {"seeds": seeds, "run_dir": str(folder)}))]
    if any(record.status == "interrupted" for record in records):
        raise KeyboardInterrupt
    return records


def objective(
    study: DictConfig, rows: Mapping[str, DictConfig], seeds: Sequence[int], folder: Path
) -> Callable[[Trial], float]:
    """The function that Optuna minimises: the mean score, or the mean absolute score of ratios."""
    seconds: dict[str, float] = {}  # training times of the rows that limit others

    def mean_score(trial: Trial) -> float:
        chosen = OmegaConf.create()
        for name, values in study.params.items():
            kind, values = values.suggest, {k: v for k, v in values.items() if k != "suggest"}
            OmegaConf.update(chosen, name, getattr(trial, f"suggest_{kind}")(name, **values))
        found: dict[str, float] = {}
        for step, (row, other) in enumerate(study.rows.items(), 1):
            cfg = OmegaConf.merge(rows[row], chosen)
            if other is not None:
                if other not in seconds:
                    seconds[other] = train(rows[other], seeds, folder / other)[0].train_seconds
                cfg.trainer.max_seconds = TOLERANCE * seconds[other]
            found |= scores(study, row, train(cfg, seeds, folder / row))
            each = np.array(list(found.values()))
            mean = float(np.mean(abs(each) if study.objective == "distance" else each))
            for key, reached in (found | {"so_far": mean}).items():
                trial.set_user_attr(key, reached)
            trial.report(mean, step)
            # The preset, which comes first, is measured on all rows.
            if step < len(study.rows) and trial.number and trial.should_prune():
                raise optuna.TrialPruned
        return mean

    return mean_score


def calibrate(
    study: DictConfig, rows: Mapping[str, DictConfig], folder: Path
) -> tuple[optuna.Study, optuna.Study]:
    """Search, then run the present preset and the best trials on the seeds for confirmation."""
    settings = {"configs": rows} | {
        k: v for k, v in study.items() if k not in ("trials", "finalists")
    }
    plain = OmegaConf.to_container(OmegaConf.create(settings), enum_to_str=True)
    digest = hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:8]
    # After 1, 2, 4 … rows the worse half of the trials that came this far is stopped.
    halving = optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=2)
    search, confirmation = (
        optuna.create_study(
            study_name=f"{part}, settings {digest}", storage=f"sqlite:///{folder / 'study.db'}",
            load_if_exists=True, pruner=pruner,
        )
        for part, pruner in (("search", halving), ("confirmation", optuna.pruners.NopPruner()))
    )  # fmt: skip
    search.sampler = optuna.samplers.TPESampler(
        seed=len(search.trials), n_startup_trials=study.startup, multivariate=True
    )
    ended = (TrialState.COMPLETE, TrialState.PRUNED)
    first = OmegaConf.create(plain["configs"][next(iter(study.rows))])
    preset = {name: OmegaConf.select(first, name) for name in study.params}
    search.enqueue_trial(preset, skip_if_exists=True)
    n_left = study.trials - len(search.get_trials(states=ended))
    measure = objective(study, rows, study.seeds, folder)
    search.optimize(measure, max(0, n_left), catch=ConfigError)
    best = sorted(search.get_trials(states=ended[:1]), key=lambda trial: trial.value)
    others = [trial.params for trial in best if trial.params != preset][: study.finalists]
    done = [trial.params for trial in confirmation.get_trials(states=ended)]
    measure = objective(study, rows, study.confirm_seeds, folder)
    for params in (params for params in (preset, *others) if params not in done):
        confirmation.enqueue_trial(params)
        confirmation.optimize(measure, 1, catch=ConfigError)
    return search, confirmation


def write_outcome(name: str, study: DictConfig, parts: Sequence[optuna.Study], output: Path) -> str:
    """Write tables of the trials, a figure of the objective and a page, and return a summary."""
    frames = []
    for opened, suffix in zip(parts, ("", "-confirmed"), strict=True):
        columns = ("number", "state", "value", "duration", "user_attrs", "params")
        frame = opened.trials_dataframe(columns)
        frame.columns = frame.columns.str.replace("^(user_attrs|params)_", "", regex=True)
        frames.append(frame[frame["state"].isin(["COMPLETE", "PRUNED"])])  # no killed trials
        text = frames[-1].to_csv(index=False, float_format="%.6g")
        write_text_atomically(output / f"{name}{suffix}.csv", text)
    trials, confirmed = frames
    with mpl.rc_context():  # Optuna draws with pyplot and sets a style
        write_figure(np.ravel(plot_slice(parts[0]))[0].figure, output / name)
        pyplot.close("all")
    counts = trials["state"].str.lower().value_counts()
    states = ", ".join(f"{n} {state}" for state, n in counts.items())
    summary = f"{len(trials)} trials ({states}) in {trials['duration'].sum().round('s')}."
    names = list(study.params)
    searched = trials[["value", *names]].rename(columns={"value": "value in search"})
    confirmed = confirmed.drop(columns=["duration", "so_far"]).merge(searched, "left", names)
    confirmed = confirmed.map(lambda v: f"{v:.3g}" if isinstance(v, float) else v)
    environment = describe_environment(choose_accelerator("auto"))
    page = (
        f"**Calibration of the preset {name}**: {OBJECTIVES[study.objective]}.", summary,
        "Confirmed on other seeds than those of the search, the present preset (0) beside the best "
        "trials:", confirmed.T.to_markdown(disable_numparse=True),
        f"![The objective over each setting]({name}.png)",
        f"Measured with {', '.join(f'{key} {value}' for key, value in environment.items())}.",
    )  # fmt: skip
    write_text_atomically(output / f"{name}.md", "\n\n".join(page) + "\n")
    return summary


def main() -> int:
    """Parse the command line, search, report and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    option = parser.add_argument
    option("study", choices=STUDIES, help="a file of configs/calibration")
    option("--trials", type=int, metavar="N", help="in all, those of earlier calls included")
    option("--runs", type=Path, default=RESULTS / "runs" / "calibration", help="for its state")
    option("--output", type=Path, default=RESULTS / "calibration", help="for tables and figure")
    option("overrides", nargs="*", help="settings of every run, such as trainer.epochs=100")
    arguments = parser.parse_intermixed_args()
    register()
    name, folder = arguments.study, arguments.runs / arguments.study
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        study = compose(f"calibration/{name}").calibration
        if arguments.trials is not None:
            study.trials = arguments.trials
        fixed = ("trainer.num_threads=1", *arguments.overrides)
        rows = {
            row: compose("train", [f"experiment={row}", *fixed])
            for row in {*study.rows, *filter(None, study.rows.values())}
        }
    with exclusive(folder):
        parts = calibrate(study, rows, folder)
    print(write_outcome(name, study, parts, arguments.output), arguments.output / f"{name}.md")
    return 0


if __name__ == "__main__":
    run_command("calibrate", main, (ConfigError, RecordError, HydraException))
