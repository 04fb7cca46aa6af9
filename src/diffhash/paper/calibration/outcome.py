"""What a calibration leaves behind: tables of its trials and runs, a figure, a report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from optuna.trial import FrozenTrial, TrialState
from tabulate import tabulate

from diffhash._files import write_text_atomically
from diffhash.experiment.checks import choose_accelerator
from diffhash.experiment.environment import describe_environment
from diffhash.paper.calibration.search import Study, ended_trials, rounded
from diffhash.results.figures import style

_MACHINE = ("processor", "cpu_count", "device", "platform", "python", "torch", "git_commit")
_OBJECTIVES = {
    "distance": "mean of |log10(ours / paper)| over the printed MSEs of its rows, in decades",
    "error": "mean of log10 MSE u over its rows and seeds, at equal seconds",
}
_BEHIND = (
    "Values of rows are log10(ours / paper). Negative is ahead of the paper, which the objective "
    "counts as distance, too; behind: what is left of it if being ahead counts as 0."
)
_COLUMNS, _ROW_HEIGHT = 4, 1.6  # of the figure; inches
_LOG_FROM = 50.0  # of the largest value to the smallest


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
