"""One run, from config to record."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import time
import warnings
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import lightning as L
import pandas as pd
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import WandbLogger
from omegaconf import DictConfig, OmegaConf

from diffhash.experiment.build import ConfigError, Setup, build, config_hash
from diffhash.experiment.environment import describe_environment, peak_memory_mb
from diffhash.experiment.wandb_run import log_final, wandb_loggers
from diffhash.ops.jet import Jet
from diffhash.results.figures.run import run_figure
from diffhash.results.record import RESULT_FILE, RunRecord, write_record
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
    warnings.filterwarnings("ignore", message=".*Sparse CSR tensor support is in beta.*")
    setup = build(cfg)
    final = _run_directory(cfg)
    partial = _make_partial(final)
    OmegaConf.save(cfg, partial / "config.yaml", resolve=True)
    try:
        with wandb_loggers(cfg, _title(cfg), partial, final) as loggers:
            _fit(cfg, setup, partial, loggers)
            record = _record(cfg, setup, overrides, started)
            predictions = _predictions(setup)
            predictions.to_csv(partial / "predictions.csv", index=False)
            pd.DataFrame(setup.training.history).to_csv(partial / "history.csv", index=False)
            figure = partial / "predictions.png"
            run_figure(predictions, _title(cfg)).savefig(figure, dpi=150)
            log_final(loggers, record, figure)
    except ConfigError:  # W&B's, before training
        shutil.rmtree(partial)
        raise
    _publish(partial, final, record)
    return final, record


def _fit(cfg: DictConfig, setup: Setup, directory: Path, loggers: list[WandbLogger]) -> None:
    trainer = _quiet_trainer(
        accelerator=setup.accelerator,
        devices=1,
        max_epochs=-1,  # FieldTraining stops by its own count
        logger=loggers or False,
        log_every_n_steps=1,
        callbacks=[
            ProgressReport(_title(cfg)),
            HistoryLogger(),
            GracefulStop(),
            ModelCheckpoint(
                dirpath=directory,
                filename="checkpoint",
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
    trainer.fit(setup.training, ckpt_path=cfg.ckpt_path)
    trainer.save_checkpoint(directory / "checkpoint.ckpt")


def _quiet_trainer(**arguments: object) -> L.Trainer:
    """A trainer without Lightning's start-up messages, which our own report replaces."""
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.pytorch.accelerators.cuda"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return L.Trainer(**arguments)  # type: ignore[arg-type]


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
        environment=describe_environment(setup.accelerator),
    )


def _status(training: FieldTraining) -> str:
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


def _run_directory(cfg: DictConfig) -> Path:
    if cfg.run_dir is not None:
        return Path(cfg.run_dir)
    now = datetime.now().strftime("%Y-%m-%d_%H-%M-%S-%f")
    return Path(cfg.runs_dir) / f"{cfg.encoder.name}_{cfg.task.name}" / f"{now}_seed{cfg.seed}"


def _make_partial(final: Path) -> Path:
    partial = final.with_name(final.name + ".partial")
    try:
        if partial.exists():
            shutil.rmtree(partial)  # left by a killed run
        partial.mkdir(parents=True)
    except OSError as error:
        raise ConfigError(f"run_dir={final}: cannot be written ({error.strerror})") from error
    return partial


def _publish(partial: Path, final: Path, record: RunRecord) -> None:
    """Turn the finished folder into the record, in the place of an older one."""
    if final.exists():
        (final / RESULT_FILE).unlink(missing_ok=True)  # from here on the old record is absent
        shutil.rmtree(final)
    os.rename(partial, final)
    write_record(final, record)


def main_task(cfg: DictConfig, overrides: Sequence[str] = ()) -> None:
    """`run` for the command line: one line about the result, exit code 1 for a bad config."""
    try:
        directory, record = run(cfg, overrides)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    if record.status == "diverged":
        outcome = f"diverged at epoch {record.diverged_epoch}"
    else:
        outcome = f"{record.status} after {record.epochs} epochs: " + "  ".join(
            f"{name} {value:.2e}"
            for name in ("mse_u", "mse_ux", "mse_uxx", "loss")
            if (value := getattr(record, name)) is not None
        )
    print(f"{outcome}  train {record.train_seconds:.1f} s  {directory}")
    if record.status == "interrupted":
        print(f"resume with ckpt_path={directory}/checkpoint.ckpt", file=sys.stderr)
        raise SystemExit(130)
