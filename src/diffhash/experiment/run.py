"""One run, from config to record."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.callbacks import Callback
from omegaconf import DictConfig, OmegaConf

from diffhash._files import write_bytes_atomically
from diffhash.experiment.build import Setup, build, config_hash, seed_configs
from diffhash.experiment.checks import ConfigError, check_seeds, checked
from diffhash.experiment.composing import full_errors
from diffhash.experiment.environment import describe_environment, keep_freed_memory, peak_memory_mb
from diffhash.experiment.folder import (
    CHECKPOINT_FILE,
    FIGURE_FILE,
    FileError,
    Place,
    RunFolder,
    naming,
    places,
    published,
    run_folder,
    save_config,
    unfinished,
)
from diffhash.experiment.loggers import Loggers, log_final, run_loggers
from diffhash.experiment.predictions import predicted_columns
from diffhash.experiment.resume import resume_argument, resumed_config
from diffhash.experiment.wandb_run import check_agent
from diffhash.experiment.workers import end_with_parent
from diffhash.results.figures.style import rendered_png
from diffhash.results.formats import printable
from diffhash.results.record import (
    HISTORY_FILE,
    PREDICTIONS_FILE,
    RunRecord,
    Status,
    write_table,
)
from diffhash.training import (
    FieldTraining,
    GracefulStop,
    HistoryLogger,
    ProgressReport,
    RegularCheckpoints,
    Replica,
    UntrainedError,
    cosine,
    fit,
    one_replica,
    read_checkpoint_file,
    write_checkpoint,
)
from diffhash.training.solution import solution_of
from diffhash.training.windowed import WindowedTraining

CHUNKS_BETWEEN_CHECKPOINTS = 10


def run(cfg: DictConfig, overrides: Sequence[str] = ()) -> list[tuple[Path, RunRecord]]:
    """Train the run of ``cfg`` and write its record; with ``seeds`` a record for each seed.

    Everything is written to ``<run_dir>.partial`` first, the record last; then the folder is
    renamed to ``<run_dir>`` and replaces an earlier record. A killed run that is started again with
    the same settings continues from its last checkpoint; if its training had ended, it is evaluated
    and recorded.

    Args:
        cfg: a composed config (`diffhash.experiment.schema.Config`).
        overrides: the overrides of the command line, for the record and for ``resume``.

    Returns:
        Each record with its directory; empty in all but the first process of DDP.

    Raises:
        ConfigError: a setting does not allow a run; nothing was trained or written.
        FileError: a file of the run cannot be written or read.
    """
    started = time.perf_counter()
    keep_freed_memory()
    cfg = checked(cfg)
    checkpoint_from = None if cfg.resume is None else f"resume={cfg.resume}"
    if cfg.resume is not None:
        cfg = checked(resumed_config(cfg.resume, overrides))
    check_seeds(cfg.seed, cfg.seeds)
    check_agent(cfg)
    if cfg.trainer.devices == 1:
        rank_zero_only.rank = 0  # the only process, whatever rank a scheduler has set
    work, ends = places(cfg, seed_configs(cfg))
    if cfg.seeds is None:
        with _file_errors(work):
            record = published(cfg, work)
        if record is not None:
            return [(work.final, record)]
    left = unfinished(cfg, work) if cfg.trainer.windows == 1 else None
    training = cfg if left is None else _with(cfg, ckpt_path=str(work.partial / CHECKPOINT_FILE))
    setup = build(training, checkpoint_from)
    with GracefulStop(setup.training) as stop, _file_errors(work, *ends):
        if rank_zero_only.rank > 0:
            end_with_parent()
            _fit(training, setup, Path(os.devnull), stop)  # the first process writes
            return []
        if left is not None:
            print(printable(f"going on from {training.ckpt_path}"), file=sys.stderr)
            cfg = _with(cfg, ckpt_path=left.get("ckpt_path"))
        _say_schedule(setup)
        with ExitStack() as stack:
            claim = partial(run_folder, goes_on=left is not None, ckpt_path=training.ckpt_path)
            folder = stack.enter_context(claim(work))
            if cfg.seeds is None:
                folders = [folder]
            else:
                claim = partial(run_folder, goes_on=False, ckpt_path=training.ckpt_path)
                made_anew = left is not None
                folders = [stack.enter_context(claim(end, made_anew=made_anew)) for end in ends]
            runs = [
                _Run(own, to_train, overrides, its)
                for own, to_train, its in zip(
                    seed_configs(cfg), seed_configs(training), folders, strict=True
                )
            ]
            try:
                records = _train(training, cfg, setup, runs, folder, stop, started)
            except ConfigError:  # raised by a logger before training
                if left is None:
                    for one in {id(one): one for one in (folder, *folders)}.values():
                        one.discard()
                raise
            for one, record in zip(runs, records, strict=True):
                one.folder.publish(record)
            if cfg.seeds is not None:
                folder.discard()
    return [(one.folder.final, record) for one, record in zip(runs, records, strict=True)]


@dataclass(frozen=True)
class _Run:
    """One seed of a run, with the config that would train this seed alone.

    ``resumed`` is that config with the checkpoint from which training continues.
    """

    cfg: DictConfig
    resumed: DictConfig
    overrides: Sequence[str]
    folder: RunFolder

    @property
    def title(self) -> str:
        return f"{_name(self.cfg)} seed {self.cfg.seed}"


def _train(
    training: DictConfig,
    cfg: DictConfig,
    setup: Setup,
    runs: Sequence[_Run],
    folder: RunFolder,
    stop: GracefulStop,
    started: float,
) -> list[RunRecord]:
    """Train, and write everything but the records themselves."""
    save_config(cfg, folder.partial)
    for one in runs:
        save_config(one.cfg, one.folder.partial)
    with ExitStack() as stack:
        loggers = [
            stack.enter_context(
                run_loggers(one.resumed, one.title, one.folder.partial, one.folder.final, index)
            )
            for index, one in enumerate(runs)
        ]
        seeds = "" if cfg.seeds is None else "s"
        title = f"{_name(cfg)} seed{seeds} {', '.join(str(one.cfg.seed) for one in runs)}"
        _fit(training, setup, folder.checkpoint, stop, title, loggers)
        if cfg.seeds is not None:
            whole = read_checkpoint_file(folder.checkpoint)
            for index, one in enumerate(runs):
                write_checkpoint(one.folder.checkpoint, one_replica(whole, index))
        return [
            _results(one, setup, index, own, started)
            for index, (one, own) in enumerate(zip(runs, loggers, strict=True))
        ]


def _results(one: _Run, setup: Setup, index: int, loggers: Loggers, started: float) -> RunRecord:
    """Write the results of the replica ``index``; a figure that fails is a warning."""
    replica, directory = setup.training.replicas[index], one.folder.partial
    assert replica.outcome is not None
    record = _record(one, setup, replica, started)
    predicted = predicted_columns(setup.training.evaluation, replica.outcome.predictions)
    names = dict.fromkeys(name for row in replica.history for name in row)
    tables: dict[str, Mapping[str, Sequence[float]]] = {
        PREDICTIONS_FILE: {name: column.tolist() for name, column in predicted.items()},
        HISTORY_FILE: {n: [row.get(n, math.nan) for row in replica.history] for n in names},
    }
    for name, table in tables.items():
        with naming(directory / name):
            write_table(directory / name, table)
    figure = directory / FIGURE_FILE
    with _warned("its figure"):
        drawn = solution_of(setup.training, index).plot()
        write_bytes_atomically(figure, rendered_png(drawn, dpi=150))
    with _warned("its results in the loggers"):
        log_final(one.cfg, loggers, record, figure)
    return record


@contextmanager
def _warned(what: str) -> Iterator[None]:
    """Turn an exception of the block into a warning, so that a record is written even if its figure
    or log fails."""
    try:
        yield
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        warning = f"warning: the run is recorded without {what} ({reason})"
        print(printable(warning), file=sys.stderr)


@contextmanager
def _file_errors(*ours: Place) -> Iterator[None]:
    """Turn an `OSError` about a file of the run into a `FileError` with advice."""
    try:
        yield
    except OSError as error:
        name = os.path.abspath(os.fsdecode(error.filename or ""))
        for place in ours:
            if name.startswith(os.path.abspath(place.final)):
                advice = ""
                if (place.partial / CHECKPOINT_FILE).is_file():
                    advice = (
                        f"; what was trained stays, go on with {resume_argument(place.partial)}"
                    )
                raise FileError(
                    f"{os.fsdecode(error.filename)}: {error.strerror}{advice}"
                ) from error
        raise


def _say_schedule(setup: Setup) -> None:
    """Print the change of the learning rate if a resumed cosine schedule has another end."""
    if setup.resumed is None or "schedule" not in setup.resumed:
        return
    training, done = setup.training, setup.resumed["epochs_done"]
    assert isinstance(training, FieldTraining)  # training in windows cannot be resumed
    schedule, rate, epochs = setup.resumed["schedule"]
    if "cosine" == schedule == training.schedule and epochs != training.epochs:
        before = cosine(rate, done, epochs)
        now = cosine(training.learning_rate, done, training.epochs)
        print(
            f"schedule=cosine: at epoch {done} the learning rate was {before:.3g}, of the cosine "
            f"over {epochs} epochs; it goes on with {now:.3g} and falls to 0 at epoch "
            f"{training.epochs}, as if that had been asked for from here on",
            file=sys.stderr,
        )


def _with(cfg: DictConfig, **settings: Any) -> DictConfig:
    merged = OmegaConf.merge(cfg, settings)
    assert isinstance(merged, DictConfig)
    return merged


def _fit(
    cfg: DictConfig,
    setup: Setup,
    checkpoint: Path,
    stop: GracefulStop,
    title: str | None = None,
    loggers: Sequence[Loggers] | None = None,
) -> None:
    """Train, and write checkpoints at intervals and at the end; for windows of time only at the
    end."""
    training = setup.training
    row_of = training.row if isinstance(training, WindowedTraining) else None
    history = [] if loggers is None else [HistoryLogger(loggers, row_of)]

    def run(one: FieldTraining, where: str = "", *others: Callback) -> None:
        report = [] if title is None else [ProgressReport(f"{title}{where}")]
        fit(
            one,
            setup.accelerator,
            [stop, *report, *history, *others, *setup.callbacks],
            devices=cfg.trainer.devices,
            checkpoint=cfg.ckpt_path,
        )

    try:
        if isinstance(training, FieldTraining):
            run(training, "", RegularCheckpoints(checkpoint, CHUNKS_BETWEEN_CHECKPOINTS))
        else:
            n = len(training.field.fields)
            training.fit(lambda one, k: run(one, f", window {k} of {n}"))
    except UntrainedError as error:  # raised before a step was taken
        raise ConfigError(f"encoder: {error}") from error
    if any(replica.outcome is None for replica in training.replicas):
        names = ", ".join(map(str, cfg.callbacks))
        raise ConfigError(f"callbacks={names}: training was ended before its first step")
    if isinstance(training, WindowedTraining):
        write_checkpoint(checkpoint, training.checkpoint())


def _record(one: _Run, setup: Setup, replica: Replica, started: float) -> RunRecord:
    cfg, training, outcome = one.cfg, setup.training, replica.outcome
    assert outcome is not None
    n_parameters = sum(p.numel() for p in setup.field.parameters())
    how = {
        "grid_backend": setup.grid_backend,
        "execution": training.execution,
        "devices": cfg.trainer.devices,
        "replicas": len(training.replicas),  # the number of seeds that share the seconds
    }
    return RunRecord(
        status=_status(replica, training),
        experiment=cfg.name,
        encoder=cfg.encoder.name,
        preset=cfg.encoder.preset,
        task=cfg.task.name,
        problem=cfg.problem.name,
        seed=cfg.seed,
        epochs=replica.epochs_done,
        epochs_requested=training.epochs,
        diverged_epoch=replica.diverged_epoch,
        learning_rate=training.learning_rate,
        metrics={**outcome.metrics, "loss": outcome.loss},
        estimate=outcome.estimate if math.isfinite(outcome.estimate) else None,
        train_seconds=training.train_seconds,
        warmup_seconds=training.warmup_seconds,
        evaluation_seconds=training.evaluation_seconds,
        wall_seconds=time.perf_counter() - started,
        n_parameters=n_parameters // len(training.replicas),
        peak_memory_mb=peak_memory_mb(),
        config_hash=config_hash(cfg),
        overrides=list(one.overrides),
        warnings=list(outcome.warnings),
        environment=describe_environment(setup.accelerator) | how,
    )


def _status(replica: Replica, training: FieldTraining | WindowedTraining) -> Status:
    if replica.diverged_epoch is not None:
        return "diverged"
    if replica.epochs_done >= training.epochs:
        return "completed"
    match training.ended_by:
        case None:
            return "interrupted"
        case "max_seconds":
            return "out_of_time"
    return "converged"


def _name(cfg: DictConfig) -> str:
    return printable(cfg.name or f"{cfg.encoder.name} {cfg.task.name}")


def main_task(cfg: DictConfig, overrides: Sequence[str] = ()) -> float | None:
    """`run` for the command line: one line about each record, exit code 1 for a bad config
    or a file that cannot be written.

    Returns:
        The value that an optimising sweeper minimises: the metric, or ``estimate``, that
        ``cfg.objective`` names; if it names none, the first metric, or the loss without an exact
        solution. It is the mean over ``seeds``, and infinite if a seed diverged. None in all but
        the first process of DDP.
    """
    try:
        results = run(cfg, overrides)
    except (ConfigError, FileError) as error:
        if full_errors():
            raise
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    for directory, record in results:
        where = printable(str(directory))
        print(f"{record.outcome}  train {record.train_seconds:.1f} s  {where}")
    interrupted = [d for d, record in results if record.status == "interrupted"]
    in_windows = cfg is not None and cfg.trainer.windows != 1  # such a run cannot be resumed
    for directory in () if in_windows else interrupted:
        print(f"resume with {resume_argument(directory)}", file=sys.stderr)
    if interrupted:
        raise SystemExit(130)
    return _objective(cfg, [record for _, record in results]) if results else None


def _objective(cfg: DictConfig, records: Sequence[RunRecord]) -> float:
    name = cfg.get("objective")
    if name is None:  # the loss without an exact solution, or if all seeds diverged
        known = (n for n in records[0].metrics if any(r.metrics[n] is not None for r in records))
        name = next(known, "loss")
    values = [getattr(record, name) for record in records]
    return mean(math.inf if value is None else value for value in values)  # optimisers refuse NaN
