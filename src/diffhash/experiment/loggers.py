"""The loggers of a run: any of Lightning's by ``_target_``, each under a name of its own.

A logger logs the config, every new row of the history, and at the end the metrics of the record.
Settings of a logger that depend on the run may be null, and are then set: ``save_dir`` (``logs/``
in the run's folder), ``run_name``, and ``run_id``, with which a resumed run continues its own log.
A logger without a ``run_id`` starts a new log with the history in the checkpoint. W&B's logger is
in `wandb_run`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from lightning.pytorch.loggers import Logger, WandbLogger
from omegaconf import DictConfig, OmegaConf

from diffhash.experiment import wandb_run
from diffhash.experiment.checks import ConfigError
from diffhash.experiment.composing import one_line
from diffhash.experiment.folder import LOGS
from diffhash.experiment.instantiating import instantiate
from diffhash.experiment.wandb_run import earlier, is_wandb, log_earlier_history, wandb_logger
from diffhash.results.record import RunRecord

Loggers = Mapping[str, Logger]
_COSTS = ("train_seconds", "wall_seconds", "peak_memory_mb")


@contextmanager
def run_loggers(
    cfg: DictConfig, title: str, directory: Path, final: Path, replica: int = 0
) -> Iterator[Loggers]:
    """The loggers of ``cfg.logger``, by name; they are closed at the end of the block.

    Args:
        cfg: a composed config.
        title: the title of the run.
        directory: the folder in which the run's files are written.
        final: the name of ``directory`` after the block, if that ends without an exception.
        replica: the index of the checkpoint's replica from which the run is resumed.

    Raises:
        ConfigError: a package is not installed, or a logger refuses its settings or cannot start.
    """
    with ExitStack() as stack:
        loggers: dict[str, Logger] = {}
        for key, node in cfg.logger.items():
            if is_wandb(str(key), node):
                opened = wandb_logger(cfg, str(key), title, directory, final, replica)
            elif node is not None:
                opened = _logger(cfg, str(key), title, directory, replica)
            else:
                continue
            loggers[str(key)] = stack.enter_context(opened)
        yield loggers


def log_final(cfg: DictConfig, loggers: Loggers, record: RunRecord, figure: Path) -> None:
    """Log the metrics and costs of a finished run; for W&B see `wandb_run.log_final`."""
    final = record.metrics | {name: getattr(record, name) for name in _COSTS}
    known = {name: value for name, value in final.items() if value is not None}
    for key, logger in loggers.items():
        if isinstance(logger, WandbLogger):
            wandb_run.log_final(cfg, key, logger, record, figure)
        else:
            logger.log_metrics(known, step=record.epochs)


@contextmanager
def _logger(
    cfg: DictConfig, key: str, title: str, directory: Path, replica: int
) -> Iterator[Logger]:
    setting, node = f"logger.{key}", cfg.logger[key]
    earlier_id, history = earlier(cfg.ckpt_path, replica, key)
    known = {"save_dir": str(directory / LOGS), "run_name": title, "run_id": earlier_id}
    own = dict(node) if OmegaConf.is_dict(node) else {}
    filled = {k: v for k, v in known.items() if k in own and own[k] is None}
    if "name" in own:  # a logger's ``name`` is an argument, and not only for display
        filled["name"] = own["name"]
    logger = instantiate(node, setting, Logger, **filled)
    try:
        if earlier_id is None or "run_id" not in own:
            config = OmegaConf.to_container(cfg, resolve=True, enum_to_str=True)
            logger.log_hyperparams(config)  # type: ignore[arg-type]
            log_earlier_history(logger, history)
        _ = logger.version  # starts or finds the logger's run
    except Exception as error:  # any error of the logger's server or disk, before training
        raise ConfigError(f"{setting}: {one_line(error)}") from error
    status = "failed"
    try:
        yield logger
        status = "success"
    finally:
        try:
            logger.save()
            logger.finalize(status)
        except Exception as error:  # the record must not be lost
            print(f"warning: {setting} did not end well ({one_line(error)})", file=sys.stderr)
