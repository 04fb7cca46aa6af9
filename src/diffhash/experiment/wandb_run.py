"""Weights & Biases: one W&B run per run, offline unless logged in.

W&B's files lie in ``wandb/`` inside the run's record, so that record and W&B run come and go
together. Only ``WANDB_MODE`` and what names server and account are read from W&B's environment
variables; project, entity, group and tags are settings (``logger.wandb``).
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.loggers import WandbLogger
from omegaconf import DictConfig, OmegaConf

from diffhash.experiment.build import ConfigError
from diffhash.results.record import METRICS, RunRecord

if TYPE_CHECKING:
    from wandb import Run

_SUMMARY = (
    "status",
    "epochs",
    "diverged_epoch",
    *METRICS,
    "train_seconds",
    "warmup_seconds",
    "evaluation_seconds",
    "wall_seconds",
    "n_parameters",
    "peak_memory_mb",
    "config_hash",
)
_WITHOUT_ACCOUNT = ("offline", "dryrun", "disabled")  # W&B's modes that need none


class _EpochLogger(WandbLogger):
    """Lightning's logger with its step under the name that it has here: epoch."""

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        super().log_metrics(metrics if step is None else {**metrics, "epoch": step})


@contextmanager
def wandb_loggers(
    cfg: DictConfig, title: str, directory: Path, final: Path
) -> Iterator[list[WandbLogger]]:
    """The W&B logger that ``cfg.logger`` asks for, if any; its W&B run ends with the block.

    One line on standard error says where the W&B run is: its address when it starts, or, offline,
    the ``wandb sync`` command when it has ended. A resumed run is a W&B run of its own, which
    starts with the history in the checkpoint: its curves are whole, offline too.

    Args:
        cfg: a composed config.
        title: the run's, also its name in W&B.
        directory: where the run's files are written.
        final: the name that ``directory`` gets if the block ends without an exception.

    Raises:
        ConfigError: W&B is not installed, refuses a setting, or cannot be reached.
    """
    if cfg.logger.wandb is None:
        yield []
        return
    run = _start(cfg, title, directory)
    if run.url:
        print(f"W&B: {run.url}", file=sys.stderr)
    failed = True
    try:
        run.define_metric("epoch")
        run.define_metric("history/*", step_metric="epoch")
        logger = _EpochLogger(project=run.project, experiment=run)
        if cfg.ckpt_path is not None:
            _log_earlier_history(logger, cfg.ckpt_path)
        yield [logger]
        failed = False
    finally:
        run.finish(exit_code=int(failed))
        if run.offline and not run.disabled:
            files = (directory if failed else final) / "wandb" / Path(run.settings.sync_dir).name
            print(f"W&B: send it with: wandb sync {shlex.quote(str(files))}", file=sys.stderr)


def log_final(loggers: list[WandbLogger], record: RunRecord, figure: Path) -> None:
    """Status, final metrics and costs as the W&B run's summary, the run's figure as an image."""
    summary = {name: getattr(record, name) for name in _SUMMARY}
    for logger in loggers:
        logger.log_image("predictions", [str(figure)], step=record.epochs)
        logger.experiment.summary.update({k: v for k, v in summary.items() if v is not None})


def _start(cfg: DictConfig, title: str, directory: Path) -> Run:
    try:
        import wandb
        import wandb.errors  # a folder of W&B's files passes for an empty package named wandb
    except ImportError as error:
        raise ConfigError(
            "logger=wandb: the wandb package is not installed; pip install wandb, or logger=none"
        ) from error
    settings = cfg.logger.wandb
    if not settings.project:
        raise ConfigError(f"logger.wandb.project={settings.project!r}: give a name")
    for tag in settings.tags:
        if not 1 <= len(tag) <= 64:
            raise ConfigError(f"logger.wandb.tags: {tag!r}: a tag has 1 to 64 characters")
    tags = [cfg.encoder.name, cfg.task.name, cfg.encoder.preset, *settings.tags]
    config = OmegaConf.to_container(cfg, resolve=True, enum_to_str=True)
    assert isinstance(config, dict)
    try:
        return wandb.init(
            project=settings.project,
            entity=settings.entity,
            group=settings.group or cfg.name or f"{cfg.encoder.name}_{cfg.task.name}",
            tags=[tag for tag in dict.fromkeys(tags) if tag is not None],
            name=title,
            config={str(key): value for key, value in config.items()},
            dir=str(directory),
            mode=_mode(),  # type: ignore[arg-type]
            # Never the W&B run of another job of this process.
            reinit="create_new",
            # The progress bar stays on the terminal.
            settings=wandb.Settings(console="off"),
        )
    except (wandb.errors.Error, ValueError) as error:
        advice = ""
        if isinstance(error, wandb.errors.CommError):
            advice = "; WANDB_MODE=offline needs neither server nor account"
        raise ConfigError(f"logger=wandb: {_in_one_line(error)}{advice}") from error


def _mode() -> str:
    """W&B's mode as the user set it; by default online for who is logged in, else offline."""
    import wandb

    mode = wandb.setup(wandb.Settings(silent=True)).settings.mode
    if mode in _WITHOUT_ACCOUNT or wandb.login(prompt=False, verify=False):
        return mode
    if "WANDB_MODE" in os.environ:
        raise ValueError(f"WANDB_MODE={mode}: not logged in to W&B; run `wandb login` first")
    return "offline"


def _log_earlier_history(logger: WandbLogger, ckpt_path: str) -> None:
    checkpoint = torch.load(ckpt_path, map_location="cpu", weights_only=True, mmap=True)
    for row in checkpoint["diffhash"]["replicas"][0]["history"]:
        metrics = {f"history/{name}": value for name, value in row.items() if name != "epoch"}
        logger.log_metrics(metrics, step=int(row["epoch"]))


def _in_one_line(error: Exception) -> str:
    from pydantic import ValidationError  # W&B checks its settings with it

    if isinstance(error, ValidationError):
        return "; ".join(f"{e['loc'][0]}={e['input']}: {e['msg']}" for e in error.errors())
    return " ".join(str(error).split())
