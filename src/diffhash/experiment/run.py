"""One run, from config to record."""

from __future__ import annotations

import logging
import math
import os
import shutil
import sys
import time
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import lightning as L
import pandas as pd
import torch
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from omegaconf import DictConfig, OmegaConf

from diffhash.experiment.build import Setup, build, config_hash, seed_configs
from diffhash.experiment.checks import ConfigError, checked
from diffhash.experiment.environment import describe_environment, keep_freed_memory, peak_memory_mb
from diffhash.experiment.folder import (
    CHECKPOINT_FILE,
    FIGURE_FILE,
    RunFolder,
    run_folder,
)
from diffhash.experiment.predictions import predictions_frame
from diffhash.experiment.wandb_run import check_agent, log_final, wandb_loggers
from diffhash.results.figures.run import run_figure
from diffhash.results.record import (
    CONFIG_FILE,
    HISTORY_FILE,
    METRICS,
    PREDICTIONS_FILE,
    RunRecord,
    Status,
)
from diffhash.training import (
    GracefulStop,
    HistoryLogger,
    ProgressReport,
    Replica,
    SharedPoints,
    UntrainedError,
    one_replica,
)

_CHUNKS_BETWEEN_CHECKPOINTS = 10


def run(cfg: DictConfig, overrides: Sequence[str] = ()) -> list[tuple[Path, RunRecord]]:
    """Train what ``cfg`` describes and write its record; with ``seeds`` one record each.

    Everything is written to ``<run_dir>.partial`` first; the folder takes its name when training
    has ended, and ``result.json`` makes it a record.

    Args:
        cfg: a composed config (`diffhash.experiment.schema.Config`).
        overrides: the command line's, for the record.

    Returns:
        Each record with its directory; none from a process that helps another one (DDP).

    Raises:
        ConfigError: a setting that cannot be run; nothing was trained or written.
    """
    started = time.perf_counter()
    _silence_lightning()
    keep_freed_memory()
    cfg = checked(cfg)
    check_agent(cfg)
    setup = build(cfg)
    with GracefulStop(setup.training) as stop:
        if rank_zero_only.rank > 0:
            _fit(cfg, setup, Path(os.devnull), [stop])  # the first process writes
            return []
        with ExitStack() as stack:
            runs = [
                _Run(c, overrides, stack.enter_context(run_folder(c))) for c in seed_configs(cfg)
            ]
            try:
                records = _train(cfg, setup, runs, stop, started)
            except ConfigError:  # W&B's, before training
                for one in runs:
                    shutil.rmtree(one.folder.partial)
                raise
            for one, record in zip(runs, records, strict=True):
                one.folder.publish(record)
    return [(one.folder.final, record) for one, record in zip(runs, records, strict=True)]


@dataclass(frozen=True)
class _Run:
    """What is recorded of one seed, under the config that would train it alone."""

    cfg: DictConfig
    overrides: Sequence[str]
    folder: RunFolder

    @property
    def title(self) -> str:
        return f"{_name(self.cfg)} seed {self.cfg.seed}"


def _train(
    cfg: DictConfig, setup: Setup, runs: Sequence[_Run], stop: GracefulStop, started: float
) -> list[RunRecord]:
    """Train, and write everything but the records themselves."""
    for one in runs:
        OmegaConf.save(one.cfg, one.folder.partial / CONFIG_FILE, resolve=True)
    with ExitStack() as stack:
        loggers = [
            stack.enter_context(
                wandb_loggers(one.cfg, one.title, one.folder.partial, one.folder.final, index)
            )
            for index, one in enumerate(runs)
        ]
        seeds = "" if cfg.seeds is None else "s"
        title = f"{_name(cfg)} seed{seeds} {', '.join(str(one.cfg.seed) for one in runs)}"
        checkpoint = runs[0].folder.partial / CHECKPOINT_FILE
        _fit(cfg, setup, checkpoint, [stop, ProgressReport(title), HistoryLogger(loggers)])
        if cfg.seeds is not None:
            whole = torch.load(checkpoint, weights_only=True)
            for index, one in enumerate(runs):
                torch.save(one_replica(whole, index), one.folder.partial / CHECKPOINT_FILE)
        records = []
        for one, replica, own in zip(runs, setup.training.replicas, loggers, strict=True):
            partial = one.folder.partial
            record = _record(one, setup, replica, started)
            assert replica.outcome is not None
            evaluation = setup.training.evaluation
            predictions = predictions_frame(evaluation, replica.outcome.predictions)
            predictions.to_csv(partial / PREDICTIONS_FILE, index=False)
            pd.DataFrame(replica.history).to_csv(partial / HISTORY_FILE, index=False)
            run_figure(predictions, one.title).savefig(partial / FIGURE_FILE, dpi=150)
            log_final(own, record, partial / FIGURE_FILE)
            records.append(record)
    return records


def _fit(cfg: DictConfig, setup: Setup, checkpoint: Path, callbacks: list[Callback]) -> None:
    """Train; leave a checkpoint now and then, and at the end."""
    regular = ModelCheckpoint(
        dirpath=checkpoint.parent,
        filename=checkpoint.stem,
        every_n_epochs=_CHUNKS_BETWEEN_CHECKPOINTS,
        save_on_train_epoch_end=True,
        enable_version_counter=False,
    )
    trainer = L.Trainer(
        accelerator=setup.accelerator,
        devices=cfg.trainer.devices,
        strategy=SharedPoints() if cfg.trainer.devices > 1 else "auto",
        max_epochs=-1,  # FieldTraining stops by its own count
        logger=False,  # HistoryLogger has them
        callbacks=[*callbacks, regular],
        enable_progress_bar=False,
        enable_model_summary=False,
        inference_mode=False,
        use_distributed_sampler=False,
    )
    try:
        trainer.fit(setup.training, ckpt_path=cfg.ckpt_path, weights_only=True)
    except UntrainedError as error:  # before a step was taken
        raise ConfigError(f"encoder: {error}") from error
    trainer.save_checkpoint(checkpoint)


def _silence_lightning() -> None:
    """Start-up messages that our own report replaces, and warnings about what is meant to be so."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for message in (
        ".*Checkpoint directory .* exists and is not empty",  # config.yaml is there already
        ".*The dirpath has changed from",  # resumed, in a folder of its own
        ".*isinstance.treespec, LeafSpec.. is deprecated",  # inside Lightning
    ):
        warnings.filterwarnings("ignore", message=message)


def _record(one: _Run, setup: Setup, replica: Replica, started: float) -> RunRecord:
    cfg, training, outcome = one.cfg, setup.training, replica.outcome
    assert outcome is not None
    n_parameters = sum(p.numel() for p in setup.field.parameters())
    how = {
        "grid_backend": setup.grid_backend,
        "execution": training.execution,
        "devices": cfg.trainer.devices,
        "replicas": len(training.replicas),  # which share the seconds
    }
    return RunRecord(
        status=_status(replica, training.epochs),
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
        mse_u=outcome.metrics.mse_u,
        mse_ux=outcome.metrics.mse_ux,
        mse_uxx=outcome.metrics.mse_uxx,
        loss=outcome.loss,
        train_seconds=training.train_seconds,
        warmup_seconds=training.warmup_seconds,
        evaluation_seconds=training.evaluation_seconds,
        wall_seconds=time.perf_counter() - started,
        n_parameters=n_parameters // len(training.replicas),
        peak_memory_mb=peak_memory_mb(),
        config_hash=config_hash(cfg),
        overrides=list(one.overrides),
        environment=describe_environment(setup.accelerator) | how,
    )


def _status(replica: Replica, epochs: int) -> Status:
    if replica.diverged_epoch is not None:
        return "diverged"
    return "completed" if replica.epochs_done >= epochs else "interrupted"


def _name(cfg: DictConfig) -> str:
    return cfg.name or f"{cfg.encoder.name} {cfg.task.name}"


def main_task(cfg: DictConfig, overrides: Sequence[str] = ()) -> float | None:
    """`run` for the command line: one line about each record, exit code 1 for a bad config.

    Returns:
        What a sweeper that optimises is to make small: the metric that ``cfg.objective`` names,
        mse_u if it names none, or the loss where there is no exact solution; the mean over
        ``seeds``, infinite where one diverged. None from a process that helps another one.
    """
    try:
        results = run(cfg, overrides)
    except ConfigError as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    for directory, record in results:
        print(f"{_outcome(record)}  train {record.train_seconds:.1f} s  {directory}")
    interrupted = [d for d, record in results if record.status == "interrupted"]
    for directory in interrupted:
        print(f"resume with ckpt_path={directory}/{CHECKPOINT_FILE}", file=sys.stderr)
    if interrupted:
        raise SystemExit(130)
    return _objective(cfg, [record for _, record in results]) if results else None


def _objective(cfg: DictConfig, records: Sequence[RunRecord]) -> float:
    name = cfg.objective.value if cfg.get("objective") else "mse_u"
    if name == "mse_u" and all(record.mse_u is None for record in records):
        name = "loss"  # there is no exact solution, or all of them diverged
    values = [getattr(record, name) for record in records]
    return mean(math.inf if value is None else value for value in values)  # optimisers refuse NaN


def _outcome(record: RunRecord) -> str:
    if record.status == "diverged":
        return f"diverged at epoch {record.diverged_epoch}"
    return f"{record.status} after {record.epochs} epochs: " + "  ".join(
        f"{name} {value:.2e}" for name in METRICS if (value := getattr(record, name)) is not None
    )
