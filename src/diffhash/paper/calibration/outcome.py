"""What a calibration leaves behind: tables of its trials and runs, a figure, a report.

A set of values is scored row by row. Its objective is the mean over the values of all rows; the
mean over some of them, ``so_far``, compares only with that of other sets over the same rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
from optuna.trial import FrozenTrial, TrialState
from tabulate import tabulate

from diffhash._files import write_text_atomically
from diffhash.experiment.checks import choose_accelerator
from diffhash.experiment.environment import describe_environment
from diffhash.paper.calibration.figure import calibration_figure, parameters
from diffhash.paper.calibration.search import error, importances, runs, scores
from diffhash.paper.calibration.study import Objective, Study, rounded
from diffhash.results.figures.style import write_figure
from diffhash.results.reading import read_table

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
_OF_A_TRIAL = ["trial", "status", "objective", "so_far", "rows_run", "n_diverged", "seconds"]
_BEHIND = (
    "Values of rows are log10(ours / paper). Negative is ahead of the paper, which the objective "
    "counts as distance, too; behind: what is left of it if being ahead counts as 0."
)


def report_trial(study: Study, opened: optuna.Study, trial: FrozenTrial, output: Path) -> None:
    """Say how a trial ended, and write the tables anew.

    Raises:
        OSError: the folder cannot be written.
    """
    line = _line(study, trial)
    score = "" if line["so_far"] is None else f" {line['so_far']:.3f}"
    values = "  ".join(f"{k.rpartition('.')[2]} {v}" for k, v in rounded(trial.params).items())
    where = f"{line['rows_run']}/{len(study.rows)} rows, {line['seconds']:.0f} s"
    told = f"{opened.study_name} {trial.number}: {line['status']}{score} ({where})  {values}"
    print(told, flush=True)
    _write_tables(study, opened, output)


def write_outcome(
    study: Study, search: optuna.Study, confirmation: optuna.Study, output: Path
) -> tuple[list[Path], str]:
    """Write all tables, the figure and the report; paths of the latter, and the report's summary.

    Raises:
        OSError: the folder cannot be written.
    """
    _write_tables(study, search, output)
    _write_tables(study, confirmation, output)
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


def _write_tables(study: Study, opened: optuna.Study, output: Path) -> None:
    """``<study>.csv`` and ``<study>-runs.csv``; ``<study>-confirmed…`` of a confirmation."""
    is_search = opened.study_name == "search"
    stem = study.name if is_search else f"{study.name}-confirmed"
    begun = [t for t in opened.get_trials(deepcopy=False) if t.state in _STATUS]
    lines = [_line(study, trial) for trial in begun]
    if not is_search:
        searched = {
            _key(line[name] for name in study.space): (line["trial"], line["objective"])
            for line in read_trials(output / f"{study.name}.csv").to_dict("records")
        }
        for line, trial in zip(lines, begun, strict=True):
            number, objective = searched.get(_key(rounded(trial.params).values()), (None, None))
            candidate = "preset" if trial.params == study.preset else f"trial {number}"
            line |= {"candidate": candidate, "searched": objective}
    write_trials(output / f"{stem}.csv", lines)
    each = [
        {"trial": trial.number, "row": row, **run}
        for trial in begun
        for row, of_row in runs(trial).items()
        for run in of_row
    ]
    text = pd.DataFrame(each).to_csv(index=False, float_format="%.6g")
    write_text_atomically(output / f"{stem}-runs.csv", text)


def _line(study: Study, trial: FrozenTrial) -> dict[str, Any]:
    by_row, known = runs(trial), scores(trial)
    n_diverged = sum(run["status"] == "diverged" for of_row in by_row.values() for run in of_row)
    params = rounded(trial.params)
    return {
        "trial": trial.number,
        "status": "diverged" if n_diverged else _STATUS[trial.state],
        "objective": trial.value if trial.state == TrialState.COMPLETE else None,
        "so_far": study.objective(known) if known else None,
        "rows_run": len(by_row),
        "n_diverged": n_diverged,
        # Seeds train as one program: its seconds are those of each of its records.
        "seconds": sum(of_row[0]["wall_seconds"] for of_row in by_row.values()),
        **{name: params.get(name) for name in study.space},
        **{f"{row} {name}": v for row, values in known.items() for name, v in values.items()},
        "error": error(trial),
    }


def _key(values: Iterable[Any]) -> tuple[str, ...]:
    return tuple(f"{v:.6g}" if isinstance(v, (int, float)) else str(v) for v in values)


def write_trials(path: Path, lines: Sequence[Mapping[str, Any]]) -> Path:
    """Write one line per trial as CSV, the columns that all have first.

    Raises:
        OSError: the folder cannot be written.
    """
    frame = pd.DataFrame(lines)
    first = [name for name in _OF_A_TRIAL if name in frame]
    frame = frame[[*first, *(name for name in frame if name not in first)]]
    return write_text_atomically(path, frame.to_csv(index=False, float_format="%.6g"))


def read_trials(path: Path) -> pd.DataFrame:
    """What `write_trials` wrote.

    Raises:
        FileNotFoundError: no such file.
        RecordError: the file is not such a table; the message names its path.
    """
    return read_table(path, _OF_A_TRIAL)


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

    Raises:
        FileNotFoundError: no table of trials.
        RecordError: a corrupt table.
    """
    trials = read_trials(directory / f"{study}.csv")
    counts = ", ".join(f"{n} {status}" for status, n in trials["status"].value_counts().items())
    hours = trials["seconds"].sum() / 3600
    summary = f"{len(trials)} trials ({counts}) in {hours:.2f} hours of processes."
    parts = [f"**Calibration of the preset {study}**: {title}", summary]
    if (directory / f"{study}-confirmed.csv").exists():
        confirmed = read_trials(directory / f"{study}-confirmed.csv")
        parts += [
            "Confirmed on other seeds than those of the search, the present preset beside the best "
            "trials:",
            _confirmed_table(confirmed, behind),
            *([_BEHIND] if behind else []),
        ]
    measured = ", ".join(f"{key} {value}" for key, value in machine.items())
    parts += [f"![What matters]({study}.png)", f"- Measured with {measured}."]
    path = write_text_atomically(directory / f"{study}.md", "\n\n".join(parts) + "\n")
    return path, summary


def _confirmed_table(confirmed: pd.DataFrame, behind: bool) -> str:
    values = [name for name in confirmed.columns if "/" in name]
    lines = ["status", "searched", "objective", *values, *parameters(confirmed)]
    if behind:
        excess = confirmed[values].clip(lower=0)
        means = {"behind, mean": excess.mean(axis=1), "behind, most": excess.max(axis=1)}
        confirmed = confirmed.assign(**means)
        lines[3:3] = list(means)
    table = confirmed.set_index("candidate")[lines].astype(object).T
    cells = table.where(table.notna(), "–").map(lambda v: f"{v:.3g}" if isinstance(v, float) else v)
    return tabulate(cells, "keys", "github", disable_numparse=True)
