"""The search: trials asked of Optuna, run row by row in processes, told back.

Everything that is known lies in one SQLite file, down to the rows of a trial that is under way:
whatever ends the search, the same command goes on with it.
"""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass, field
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
_RUN = ("seed", "status", "epochs", "diverged_epoch", *METRICS, "train_seconds", "wall_seconds")
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
    search, confirmation = (_open(study, folder, part) for part in ("search", "confirmation"))
    search.enqueue_trial(study.preset, skip_if_exists=True)
    # Where a run is cut to seconds, nothing may run beside what is confirmed.
    alone = any(limit is not None for limit in study.config.rows.values())
    with process_pool(workers) as pool:
        _Part(study, search, study.config.seeds, pool, workers, folder, report).run()
        ended = search.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        ended.sort(key=lambda trial: trial.value if trial.value is not None else float("inf"))
        best = [trial.params for trial in ended if trial.params != study.preset]
        for params in (study.preset, *best[: study.config.finalists]):
            confirmation.enqueue_trial(params, skip_if_exists=True)
        seeds, n = study.config.confirm_seeds, 1 if alone else workers
        _Part(study, confirmation, seeds, pool, n, folder, report).run()
    return search, confirmation


def _open(study: Study, folder: Path, part: str) -> optuna.Study:
    """The ``search`` or the ``confirmation`` in ``folder``, begun if it is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    opened = optuna.create_study(
        study_name=part,
        storage=f"sqlite:///{folder / 'study.db'}",
        # Not a median pruner: it looks at the best that a trial has ever reported, and means over
        # more and more rows may rise.
        pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=_HALVING)
        if part == "search"
        else optuna.pruners.NopPruner(),
        load_if_exists=True,
    )
    identity = study.identity()
    begun = opened.user_attrs.get("identity", identity)
    if changed := [key for key, value in identity.items() if begun.get(key) != value]:
        raise ConfigError(
            f"{changed[0]}: was {begun.get(changed[0])} when the study in {folder} was begun, "
            f"now it is {identity[changed[0]]}; give another folder, or remove this one"
        )
    opened.set_user_attr("identity", identity)
    return opened


def scores(trial: FrozenTrial | Trial) -> dict[str, dict[str, float]]:
    """By row and metric, of the rows that have been run."""
    return trial.user_attrs.get("scores", {})


def runs(trial: FrozenTrial | Trial) -> dict[str, list[dict[str, Any]]]:
    """What is kept of the records, by row."""
    return trial.user_attrs.get("rows", {})


def error(trial: FrozenTrial) -> str | None:
    """Why its values could not be run."""
    return trial.user_attrs.get("error")


@dataclass
class _Part:
    """The search or the confirmation, under way."""

    study: Study
    opened: optuna.Study
    seeds: Sequence[int]
    pool: Executor
    workers: int
    folder: Path
    report: Report
    pending: dict[Future[list[RunRecord]], tuple[Trial, str]] = field(default_factory=dict)
    limits: dict[str, float | None] = field(default_factory=dict)

    def run(self) -> None:
        """Run what is unfinished, then what is waiting, then, in a search, new trials."""
        running = self.opened.get_trials(states=(TrialState.RUNNING,))
        unfinished = deque(Trial(self.opened, trial._trial_id) for trial in running)
        while True:
            while len(self.pending) < self.workers:
                trial = unfinished.popleft() if unfinished else self.ask()
                if trial is None:
                    break
                self.go_on(trial)
            if not self.pending:
                return
            for future in wait(self.pending, return_when=FIRST_COMPLETED).done:
                trial, row = self.pending.pop(future)
                try:
                    self.keep(trial, row, future.result())
                except ConfigError as refused:
                    trial.set_user_attr("error", str(refused))
                self.go_on(trial)

    def ask(self) -> Trial | None:
        """A trial that is waiting, or a new one."""
        n_waiting = len(self.opened.get_trials(deepcopy=False, states=(TrialState.WAITING,)))
        n_begun = len(self.opened.get_trials(deepcopy=False)) - n_waiting
        is_search = self.opened.study_name == "search"
        if not n_waiting and (not is_search or n_begun >= self.study.config.trials):
            return None
        if is_search:
            # Seeded anew for each trial: a search that was interrupted does not draw its first
            # random trials again, and with one worker comes to the same ones.
            startup = self.study.config.startup
            self.opened.sampler = TPESampler(
                seed=n_begun, n_startup_trials=startup, multivariate=True, constant_liar=True
            )
        return self.opened.ask(self.study.space)

    def go_on(self, trial: Trial) -> None:
        """Submit the next row of a trial, or tell Optuna that it has ended."""
        rows, n_done = self.study.rows, len(runs(trial))
        frozen = self.opened.get_trials(deepcopy=False)[trial.number]
        value, state = None, None
        if error(frozen) is not None:
            state = TrialState.FAIL
        elif n_done:
            so_far = self.study.objective({row: scores(trial)[row] for row in rows[:n_done]})
            if n_done not in frozen.intermediate_values:
                trial.report(so_far, n_done)
            if n_done == len(rows):
                value, state = so_far, TrialState.COMPLETE
            elif trial.should_prune() and trial.number > 0:  # the preset is measured on all rows
                state = TrialState.PRUNED
        if state is None:
            self.submit(trial, rows[n_done])
        else:
            self.opened.tell(trial, value, state)
            self.report(self.opened, self.opened.get_trials(deepcopy=False)[trial.number])

    def submit(self, trial: Trial, row: str) -> None:
        # Not trial.params: one that was killed while it was being asked lacks some.
        params = {name: trial._suggest(name, each) for name, each in self.study.space.items()}
        place = self.folder / f"{self.opened.study_name}-trial{trial.number}" / _file_name(row)
        cfg = self.study.run_config(row, params, self.seeds, place)
        if not self.limits:  # with the first run: where all is done, nothing is to be measured
            self.limits = {row: self.limit(row, of) for row, of in self.study.config.rows.items()}
        self.pending[self.pool.submit(run_row, cfg, self.limits[row])] = trial, row

    def limit(self, row: str, of: str | None) -> float | None:
        """The seconds that a row may train, measured with as much beside it as beside a run."""
        if of is None:
            return None
        places = [self.folder / "limits" / f"{_file_name(row)}-{i}" for i in range(self.workers)]
        configs = [self.study.run_config(of, {}, self.seeds, place) for place in places]
        timings = [self.pool.submit(row_seconds, cfg) for cfg in configs]
        limit = _TOLERANCE * median(timing.result() for timing in timings)
        print(f"{row}: at most {limit:.3g} s a run, as {of} takes", flush=True)
        return limit

    def keep(self, trial: Trial, row: str, records: list[RunRecord]) -> None:
        """Add a row's outcome to what is known of a trial."""
        kept = [{name: value for name, value in r.flat().items() if name in _RUN} for r in records]
        trial.set_user_attr("scores", scores(trial) | {row: self.study.scores(row, records)})
        trial.set_user_attr("rows", runs(trial) | {row: kept})


def _file_name(row: str) -> str:
    return row.replace("/", "_")


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
