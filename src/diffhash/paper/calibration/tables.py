"""What a calibration leaves behind: tables of its trials and runs, a figure, a report."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
from optuna.trial import FrozenTrial, TrialState

from diffhash._files import write_text_atomically
from diffhash.experiment.checks import choose_accelerator
from diffhash.experiment.environment import describe_environment
from diffhash.paper.calibration.figure import calibration_figure
from diffhash.paper.calibration.scores import read_trials, write_report, write_trials
from diffhash.paper.calibration.search import error, importances, runs, scores
from diffhash.paper.calibration.study import Objective, Study, rounded
from diffhash.results.figures.style import write_figure

_STATUS = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "unfinished",
}
_MACHINE = ("processor", "cpu_count", "device", "platform", "python", "torch", "git_commit")
_OBJECTIVES = {
    "distance": "mean of |log10(ours / paper)| over the printed MSEs of its rows, in decades",
    "error": "mean of log10 MSE u over its rows and seeds, at equal seconds",
}


def report_trial(study: Study, opened: optuna.Study, trial: FrozenTrial, output: Path) -> None:
    """Say how a trial ended, and write the tables anew.

    Raises:
        OSError: the folder cannot be written.
    """
    line = _line(study, trial)
    score = "" if line["so_far"] is None else f" {line['so_far']:.3f}"
    values = "  ".join(f"{k.rpartition('.')[2]} {v}" for k, v in rounded(trial.params).items())
    where = f"{line['rows_run']}/{len(study.rows)} rows, {line['seconds']:.0f} s"
    print(
        f"{opened.study_name} {trial.number}: {line['status']}{score} ({where})  {values}",
        flush=True,
    )
    write_trial_tables(study, opened, output)


def write_trial_tables(study: Study, opened: optuna.Study, output: Path) -> None:
    """Write ``<study>.csv`` and ``<study>-runs.csv``; ``<study>-confirmed…`` of a confirmation.

    Raises:
        OSError: the folder cannot be written.
    """
    is_search = opened.study_name == "search"
    stem = study.name if is_search else f"{study.name}-confirmed"
    begun = [t for t in opened.get_trials(deepcopy=False) if t.state in _STATUS]
    lines = [_line(study, trial) for trial in begun]
    if not is_search:
        searched = _objectives(study, output)
        for line, trial in zip(lines, begun, strict=True):
            key = _key(rounded(trial.params).values())
            number, objective = searched.get(key, (None, None))
            of_search = "preset" if trial.params == study.preset else f"trial {number}"
            line |= {"candidate": of_search, "searched": objective}
    write_trials(output / f"{stem}.csv", lines)
    each = [
        {"trial": trial.number, "row": row, **run}
        for trial in begun
        for row, of_row in runs(trial).items()
        for run in of_row
    ]
    text = pd.DataFrame(each).to_csv(index=False, float_format="%.6g")
    write_text_atomically(output / f"{stem}-runs.csv", text)


def write_outcome(
    study: Study, search: optuna.Study, confirmation: optuna.Study, output: Path
) -> tuple[list[Path], str]:
    """Write all tables, the figure and the report; paths of the latter, and the report's summary.

    Raises:
        OSError: the folder cannot be written.
    """
    write_trial_tables(study, search, output)
    write_trial_tables(study, confirmation, output)
    weights = pd.DataFrame(importances(study, search).items(), columns=["parameter", "importance"])
    path = output / f"{study.name}-importances.csv"
    write_text_atomically(path, weights.to_csv(index=False, float_format="%.4g"))
    figure = calibration_figure(read_trials(output / f"{study.name}.csv"), weights)
    figures = write_figure(figure, output / study.name)
    environment = describe_environment(choose_accelerator("auto"))
    machine = {key: environment[key] for key in _MACHINE}
    title = _OBJECTIVES[study.config.objective.value]
    behind = study.config.objective is Objective.distance
    report, summary = write_report(output, study.name, title, machine, behind=behind)
    return [path, *figures, report], summary


def _line(study: Study, trial: FrozenTrial) -> dict[str, Any]:
    by_row, known = runs(trial), scores(trial)
    n_diverged = sum(run["status"] == "diverged" for of_row in by_row.values() for run in of_row)
    line: dict[str, Any] = {
        "trial": trial.number,
        "status": "diverged" if n_diverged else _STATUS[trial.state],
        "objective": trial.value if trial.state == TrialState.COMPLETE else None,
        "so_far": study.objective(known) if known else None,
        "rows_run": len(by_row),
        "n_diverged": n_diverged,
        # Seeds train as one program: its seconds are those of each of its records.
        "seconds": sum(of_row[0]["wall_seconds"] for of_row in by_row.values()),
    }
    params = rounded(trial.params)
    line |= {name: params.get(name) for name in study.space}
    line |= {f"{row} {name}": v for row, values in known.items() for name, v in values.items()}
    return line | {"error": error(trial)}


def _objectives(study: Study, output: Path) -> dict[tuple[str, ...], tuple[int, float]]:
    """Number and objective of the search's trials by their parameters."""
    trials = read_trials(output / f"{study.name}.csv")
    return {
        _key(line[name] for name in study.space): (line["trial"], line["objective"])
        for line in trials.to_dict("records")
    }


def _key(values: Iterable[Any]) -> tuple[str, ...]:
    return tuple(f"{v:.6g}" if isinstance(v, (int, float)) else str(v) for v in values)
