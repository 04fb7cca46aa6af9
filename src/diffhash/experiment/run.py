"""One run, from config to record."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import lightning as L
import pandas as pd
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import WandbLogger
from omegaconf import DictConfig, OmegaConf

from diffhash.experiment.build import Setup, build, config_hash
from diffhash.experiment.checks import ConfigError, checked
from diffhash.experiment.environment import describe_environment, keep_freed_memory, peak_memory_mb
from diffhash.experiment.folder import (
    CHECKPOINT_FILE,
    CONFIG_FILE,
    FIGURE_FILE,
    RunFolder,
    run_folder,
)
from diffhash.experiment.wandb_run import log_final, wandb_loggers
from diffhash.ops.jet import Jet
from diffhash.results.figures.run import run_figure
from diffhash.results.record import (
    HISTORY_FILE,
    METRICS,
    PREDICTIONS_FILE,
    RunRecord,
    Status,
)
from diffhash.training import FieldTraining, GracefulStop, HistoryLogger, ProgressReport

_CHUNKS_BETWEEN_CHECKPOINTS = 10


def run(cfg: DictConfig, overrides: Sequence[str] = ()) -> tuple[Path, RunRecord]:
    """Train what ``cfg`` describes and write its record.

    Everything is written to ``<run_dir>.partial`` first; the folder takes its name when training
    has ended, and ``result.json`` makes it a record.

    Args:
        cfg: a composed config (`diffhash.experiment.schema.Config`).
        overrides: the command line's, for the record.

    Returns:
        The record and its directory.

    Raises:
        ConfigError: a setting that cannot be run; nothing was trained or written.
    """
    started = time.perf_counter()
    _silence_lightning()
    keep_freed_memory()
    cfg = checked(cfg)
    setup = build(cfg)
    with run_folder(cfg) as folder, GracefulStop(setup.training) as stop:
        try:
            record = _train(cfg, setup, folder, stop, overrides, started)
        except ConfigError:  # W&B's, before training
            shutil.rmtree(folder.partial)
            raise
        folder.publish(record)
    return folder.final, record


def _train(
    cfg: DictConfig,
    setup: Setup,
    folder: RunFolder,
    stop: GracefulStop,
    overrides: Sequence[str],
    started: float,
) -> RunRecord:
    """Train, and write everything but the record itself."""
    OmegaConf.save(cfg, folder.partial / CONFIG_FILE, resolve=True)
    with wandb_loggers(cfg, _title(cfg), folder.partial, folder.final) as loggers:
        _fit(cfg, setup, folder.partial, stop, loggers)
        record = _record(cfg, setup, overrides, started)
        predictions = _predictions(setup)
        predictions.to_csv(folder.partial / PREDICTIONS_FILE, index=False)
        pd.DataFrame(setup.training.history).to_csv(folder.partial / HISTORY_FILE, index=False)
        figure = folder.partial / FIGURE_FILE
        run_figure(predictions, _title(cfg)).savefig(figure, dpi=150)
        log_final(loggers, record, figure)
    return record


def _fit(
    cfg: DictConfig,
    setup: Setup,
    directory: Path,
    stop: GracefulStop,
    loggers: list[WandbLogger],
) -> None:
    trainer = L.Trainer(
        accelerator=setup.accelerator,
        devices=1,
        max_epochs=-1,  # FieldTraining stops by its own count
        logger=loggers or False,
        log_every_n_steps=1,
        callbacks=[
            ProgressReport(_title(cfg)),
            HistoryLogger(),
            stop,
            ModelCheckpoint(
                dirpath=directory,
                filename=Path(CHECKPOINT_FILE).stem,
                every_n_epochs=_CHUNKS_BETWEEN_CHECKPOINTS,
                save_on_train_epoch_end=True,
                enable_version_counter=False,
            ),
        ],
        enable_progress_bar=False,
        enable_model_summary=False,
        inference_mode=False,
        use_distributed_sampler=False,
    )
    trainer.fit(setup.training, ckpt_path=cfg.ckpt_path, weights_only=True)
    trainer.save_checkpoint(directory / CHECKPOINT_FILE)


def _silence_lightning() -> None:
    """Start-up messages that our own report replaces, and warnings about what is meant to be so."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for message in (
        ".*Checkpoint directory .* exists and is not empty",  # config.yaml is there already
        ".*The dirpath has changed from",  # resumed, in a folder of its own
        ".*isinstance.treespec, LeafSpec.. is deprecated",  # inside Lightning
    ):
        warnings.filterwarnings("ignore", message=message)


def _record(cfg: DictConfig, setup: Setup, overrides: Sequence[str], started: float) -> RunRecord:
    training = setup.training
    outcome = training.outcome
    assert outcome is not None
    return RunRecord(
        status=_status(training),
        experiment=cfg.name,
        encoder=cfg.encoder.name,
        preset=cfg.encoder.preset,
        task=cfg.task.name,
        problem=cfg.problem.name,
        seed=cfg.seed,
        epochs=training.epochs_done,
        epochs_requested=training.epochs,
        diverged_epoch=training.diverged_epoch,
        learning_rate=training.learning_rate,
        mse_u=outcome.metrics.mse_u,
        mse_ux=outcome.metrics.mse_ux,
        mse_uxx=outcome.metrics.mse_uxx,
        loss=outcome.loss,
        train_seconds=training.train_seconds,
        warmup_seconds=training.warmup_seconds,
        evaluation_seconds=training.evaluation_seconds,
        wall_seconds=time.perf_counter() - started,
        n_parameters=sum(p.numel() for p in setup.field.parameters()),
        peak_memory_mb=peak_memory_mb(),
        config_hash=config_hash(cfg),
        overrides=list(overrides),
        environment=describe_environment(setup.accelerator) | {"grid_backend": setup.grid_backend},
    )


def _status(training: FieldTraining) -> Status:
    if training.diverged_epoch is not None:
        return "diverged"
    return "completed" if training.epochs_done >= training.epochs else "interrupted"


def _predictions(setup: Setup) -> pd.DataFrame:
    """u, its derivatives and the exact ones on the evaluation's points, one column each."""
    evaluation = setup.training.evaluation
    assert setup.training.outcome is not None
    n_dims = setup.problem.n_dims
    axes = ["x"] if n_dims == 1 else [f"x{j}" for j in range(n_dims)]
    columns = {axis: evaluation.x[:, j].numpy() for j, axis in enumerate(axes)}
    jets = {"": setup.training.outcome.predictions, "exact_": evaluation.exact}
    for prefix, data in jets.items():
        if data is None:
            data = jets[""] * float("nan")
        jet = Jet(data, evaluation.orders)
        columns[f"{prefix}u"] = jet.value[:, 0].numpy()
        for j, axis in enumerate(axes):
            columns[f"{prefix}u_{axis}"] = jet.derivative(j, 1)[:, 0].numpy()
            columns[f"{prefix}u_{axis}{axis}"] = jet.derivative(j, 2)[:, 0].numpy()
    return pd.DataFrame(columns)


def _title(cfg: DictConfig) -> str:
    return f"{cfg.name or f'{cfg.encoder.name} {cfg.task.name}'} seed {cfg.seed}"


def main_task(cfg: DictConfig, overrides: Sequence[str] = ()) -> None:
    """`run` for the command line: one line about the result, exit code 1 for a bad config."""
    try:
        directory, record = run(cfg, overrides)
    except ConfigError as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    if record.status == "diverged":
        outcome = f"diverged at epoch {record.diverged_epoch}"
    else:
        outcome = f"{record.status} after {record.epochs} epochs: " + "  ".join(
            f"{name} {value:.2e}"
            for name in METRICS
            if (value := getattr(record, name)) is not None
        )
    print(f"{outcome}  train {record.train_seconds:.1f} s  {directory}")
    if record.status == "interrupted":
        print(f"resume with ckpt_path={directory}/{CHECKPOINT_FILE}", file=sys.stderr)
        raise SystemExit(130)
