"""The search: trials asked of Optuna, run row by row in processes, told back.

Everything that is known lies in one SQLite file, down to the rows of a trial that is under way:
whatever ends the search, the same command goes on with it.
"""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from pathlib import Path
from statistics import median
from typing import Any

import optuna
from optuna.samplers import TPESampler
from optuna.trial import FrozenTrial, Trial, TrialState

from diffhash.experiment.checks import ConfigError
from diffhash.experiment.workers import process_pool
from diffhash.paper.calibration.rows import row_seconds, run_row
from diffhash.paper.calibration.study import Study
from diffhash.paper.printed import METRICS
from diffhash.results.record import RunRecord

# What is kept of a run's record.
RUN = ("seed", "status", "epochs", "diverged_epoch", *METRICS, "train_seconds", "wall_seconds")
_ROWS, _SCORES, _ERROR, _IDENTITY = "rows", "scores", "error", "identity"
_STORAGE = "study.db"
# After 1, 2, 4 … rows the worse half of the trials that came so far is stopped.
_HALVING = 2
# Timings differ by that much: a run that costs what the limit was made of is not to be cut short.
_TOLERANCE = 1.1

Report = Callable[["optuna.Study", FrozenTrial], None]


def calibrate(
    study: Study, folder: Path, workers: int, report: Report
) -> tuple[optuna.Study, optuna.Study]:
    """Search, then run the best trials and the present preset on seeds of their own.

    Args:
        study: what is searched; its number of trials counts those that are in ``folder`` already.
        folder: of the search's state.
        workers: runs at a time.
        report: called with each trial that has ended.

    Returns:
        The search and the confirmation.

    Raises:
        ConfigError: ``folder`` holds a study with other settings.
        KeyboardInterrupt: interrupted; the same call goes on.
    """
    search = open_study(study, folder, "search")
    confirmation = open_study(study, folder, "confirmation")
    search.enqueue_trial(study.preset, skip_if_exists=True)
    # Where a run is cut to seconds, nothing may run beside what is confirmed.
    alone = any(limit is not None for limit in study.config.rows.values())
    with process_pool(workers) as pool:
        _run(study, search, study.config.seeds, pool, workers, folder, report)
        for params in (study.preset, *(t.params for t in finalists(study, search))):
            confirmation.enqueue_trial(params, skip_if_exists=True)
        n = 1 if alone else workers
        _run(study, confirmation, study.config.confirm_seeds, pool, n, folder, report)
    return search, confirmation


def open_study(study: Study, folder: Path, part: str) -> optuna.Study:
    """The ``search`` or the ``confirmation`` in ``folder``, begun if it is not there.

    Raises:
        ConfigError: it was begun with other settings.
    """
    folder.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    opened = optuna.create_study(
        study_name=part,
        storage=f"sqlite:///{folder / _STORAGE}",
        # Not a median pruner: it looks at the best that a trial has ever reported, and means over
        # more and more rows may rise.
        pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=_HALVING)
        if part == "search"
        else optuna.pruners.NopPruner(),
        load_if_exists=True,
    )
    identity = study.identity()
    begun = opened.user_attrs.get(_IDENTITY)
    if begun is None:
        opened.set_user_attr(_IDENTITY, identity)
    elif changed := [key for key, value in identity.items() if begun.get(key) != value]:
        raise ConfigError(
            f"{changed[0]}: was {begun.get(changed[0])} when the study in {folder} was begun, "
            f"now it is {identity[changed[0]]}; give another folder, or remove this one"
        )
    return opened


def finalists(study: Study, search: optuna.Study) -> list[FrozenTrial]:
    """The trials with the least objective, without the preset itself."""
    ended = search.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    ended.sort(key=lambda trial: trial.value if trial.value is not None else float("inf"))
    return [t for t in ended if t.params != study.preset][: study.config.finalists]


def scores(trial: FrozenTrial | Trial) -> dict[str, dict[str, float]]:
    """By row and metric, of the rows that have been run."""
    return trial.user_attrs.get(_SCORES, {})


def runs(trial: FrozenTrial | Trial) -> dict[str, list[dict[str, Any]]]:
    """What is kept of the records, by row."""
    return trial.user_attrs.get(_ROWS, {})


def error(trial: FrozenTrial) -> str | None:
    """Why its values could not be run."""
    return trial.user_attrs.get(_ERROR)


def _run(
    study: Study,
    opened: optuna.Study,
    seeds: Sequence[int],
    pool: Executor,
    workers: int,
    folder: Path,
    report: Report,
) -> None:
    """Run what is unfinished, then what is waiting, then, in a search, new trials."""
    unfinished = deque(
        Trial(opened, t._trial_id) for t in opened.get_trials(states=(TrialState.RUNNING,))
    )
    pending: dict[Future[list[RunRecord]], tuple[Trial, str]] = {}
    seconds: dict[str, float | None] = {}

    def submit(trial: Trial, row: str) -> None:
        # Not trial.params: one that was killed while it was being asked lacks some.
        params = {name: trial._suggest(name, values) for name, values in study.space.items()}
        run_dir = folder / f"{opened.study_name}-trial{trial.number}" / row.replace("/", "_")
        cfg = study.run_config(row, params, seeds, run_dir)
        if not seconds:  # with the first run: where all is done, nothing is to be measured
            seconds.update(_limits(study, seeds, pool, workers, folder))
        pending[pool.submit(run_row, cfg, seconds[row])] = trial, row

    while True:
        while len(pending) < workers:
            trial = unfinished.popleft() if unfinished else _ask(study, opened)
            if trial is None:
                break
            if row := _settle(study, opened, trial, report):
                submit(trial, row)
        if not pending:
            return
        for future in wait(pending, return_when=FIRST_COMPLETED).done:
            trial, row = pending.pop(future)
            try:
                _keep(study, trial, row, future.result())
            except ConfigError as refused:
                trial.set_user_attr(_ERROR, str(refused))
            if next_row := _settle(study, opened, trial, report):
                submit(trial, next_row)


def _limits(
    study: Study, seeds: Sequence[int], pool: Executor, workers: int, folder: Path
) -> dict[str, float | None]:
    """The seconds that each row may train, measured with as much beside it as beside a run."""
    limits: dict[str, float | None] = {}
    for row, of in study.config.rows.items():
        limits[row] = None
        if of is not None:
            places = [folder / "limits" / f"{row.replace('/', '_')}-{i}" for i in range(workers)]
            configs = [study.run_config(of, {}, seeds, place) for place in places]
            timings = [pool.submit(row_seconds, cfg) for cfg in configs]
            limits[row] = limit = _TOLERANCE * median(timing.result() for timing in timings)
            print(f"{row}: at most {limit:.3g} s a run, as {of} takes", flush=True)
    return limits


def _ask(study: Study, opened: optuna.Study) -> Trial | None:
    n_waiting = len(opened.get_trials(deepcopy=False, states=(TrialState.WAITING,)))
    n_begun = len(opened.get_trials(deepcopy=False)) - n_waiting
    is_search = opened.study_name == "search"
    if not n_waiting and (not is_search or n_begun >= study.config.trials):
        return None
    if is_search:
        # Seeded anew for each trial: a search that was interrupted does not draw its first random
        # trials again, and with one worker comes to the same ones.
        opened.sampler = TPESampler(
            seed=n_begun,
            n_startup_trials=study.config.startup,
            multivariate=True,
            constant_liar=True,
        )
    return opened.ask(study.space)


def _keep(study: Study, trial: Trial, row: str, records: list[RunRecord]) -> None:
    """Add a row's outcome to what is known of a trial."""
    kept = [{name: value for name, value in r.flat().items() if name in RUN} for r in records]
    trial.set_user_attr(_SCORES, scores(trial) | {row: study.scores(row, records)})
    trial.set_user_attr(_ROWS, runs(trial) | {row: kept})


def _settle(study: Study, opened: optuna.Study, trial: Trial, report: Report) -> str | None:
    """The next row of a trial; None if it ends here, which Optuna is told."""
    rows = study.rows
    n_done = len(runs(trial))
    frozen = opened.get_trials(deepcopy=False)[trial.number]
    if error(frozen) is not None:
        return _end(opened, trial, report, None, TrialState.FAIL)
    if n_done == 0:
        return rows[0]
    so_far = study.objective({row: scores(trial)[row] for row in rows[:n_done]})
    if n_done not in frozen.intermediate_values:
        trial.report(so_far, n_done)
    if n_done == len(rows):
        return _end(opened, trial, report, so_far, TrialState.COMPLETE)
    if trial.should_prune() and trial.number > 0:  # the preset is measured on all rows
        return _end(opened, trial, report, None, TrialState.PRUNED)
    return rows[n_done]


def _end(
    opened: optuna.Study, trial: Trial, report: Report, value: float | None, state: TrialState
) -> None:
    opened.tell(trial, value, state)
    report(opened, opened.get_trials(deepcopy=False)[trial.number])


def importances(study: Study, search: optuna.Study) -> dict[str, float]:
    """How much each parameter decides on being among the best tenth of the trials (PED-ANOVA).

    Watanabe et al. 2023, arXiv:2304.10255. It looks at ranks alone. Trials that were stopped early
    rank behind those that got further, as means over other rows say nothing about each other.
    Empty for fewer than three trials.
    """
    known = [trial for trial in search.get_trials(deepcopy=False) if scores(trial)]
    known.sort(key=lambda trial: (-len(scores(trial)), study.objective(scores(trial))))
    ranked = optuna.create_study()
    for rank, trial in enumerate(known):
        ranked.add_trial(
            optuna.create_trial(params=trial.params, distributions=study.space, value=rank)
        )
    if len(known) < 3:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # too few trials to tell: then all are equal
        return optuna.importance.get_param_importances(
            ranked, evaluator=optuna.importance.PedAnovaImportanceEvaluator()
        )
