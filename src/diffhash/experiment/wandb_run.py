"""Weights & Biases: one W&B run per run, offline unless logged in.

W&B's files are in ``wandb/`` inside the run's record, so that both are moved and removed together.
The only environment variables of W&B that are read are ``WANDB_MODE``, those of server and account,
and those of W&B's sweep agent; project, entity, group and tags are settings (``logger.wandb``).

A resumed run continues its W&B run, whose id is in the checkpoint. Offline, each part is a folder
of its own with the same id; `wandb sync` of all folders appends the parts to each other.
"""

from __future__ import annotations

import math
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from hydra.utils import get_method
from lightning.pytorch.loggers import Logger, WandbLogger
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from diffhash.experiment.checks import ConfigError
from diffhash.experiment.composing import one_line
from diffhash.experiment.schema import WandbConfig
from diffhash.results.record import RunRecord
from diffhash.results.wandb_files import unsent_parts
from diffhash.training import LOGGERS

if TYPE_CHECKING:
    from wandb import Run

_FINAL_COLUMNS = ["experiment", "encoder", "task", "seed", "metric", "ours", "reference", "decades"]
_SUMMARY = (
    "status",
    "epochs",
    "diverged_epoch",
    "train_seconds",
    "warmup_seconds",
    "evaluation_seconds",
    "wall_seconds",
    "n_parameters",
    "peak_memory_mb",
    "config_hash",
)
_WITHOUT_ACCOUNT = ("offline", "dryrun", "disabled")  # W&B's modes that need no login


class _EpochLogger(WandbLogger):
    """Lightning's W&B logger, with the step named epoch."""

    @property
    def version(self) -> str | None:  # in the checkpoint, for resuming
        return None if self.experiment.disabled else self.experiment.id

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        super().log_metrics(metrics if step is None else {**metrics, "epoch": step})


def is_wandb(key: str, node: Any) -> bool:
    """Whether a logger of a config is W&B's; earlier versions had no ``_target_``."""
    return OmegaConf.is_dict(node) and (
        node.get("_target_") == WandbConfig._target_ or (key == "wandb" and "_target_" not in node)
    )


@contextmanager
def wandb_logger(
    cfg: DictConfig, key: str, title: str, directory: Path, final: Path, replica: int = 0
) -> Iterator[WandbLogger]:
    """The W&B logger of ``cfg.logger``; its W&B run ends with the block.

    A line on standard error has the place of the W&B run: its address when it starts, or, offline,
    the ``wandb sync`` command when it has ended. If a resumed run had no W&B run, the new W&B run
    starts with the history in the checkpoint.

    Args:
        cfg: a composed config.
        key: the name of the logger in the config.
        title: the title of the run, which is also its name in W&B.
        directory: the folder in which the run's files are written.
        final: the name of ``directory`` after the block, if that ends without an exception.
        replica: the index of the checkpoint's replica from which the run is resumed.

    Raises:
        ConfigError: W&B is not installed, refuses a setting, or cannot be reached.
    """
    earlier_id, earlier_history = earlier(cfg.ckpt_path, replica, key)
    run = _start(cfg, _settings(cfg, key), title, directory, earlier_id)
    if run.url:
        print(f"W&B: {run.url}", file=sys.stderr)
    failed = True
    try:
        run.define_metric("epoch")
        run.define_metric("history/*", step_metric="epoch")
        logger = _EpochLogger(project=run.project, experiment=run)
        if earlier_id is None:
            log_earlier_history(logger, earlier_history)
        yield logger
        failed = False
    finally:
        try:
            run.finish(exit_code=int(failed))
        except Exception as error:  # an error of its server or disk must not cost the record
            print(f"warning: W&B: the run did not end well ({one_line(error)})", file=sys.stderr)
        if run.offline and not run.disabled:
            folder = (directory if failed else final) / "wandb"
            parts = _parts(cfg.ckpt_path, run, directory, folder)
            command = shlex.join(["wandb", "sync", *map(str, parts)])
            print(f"W&B: send it with: {command}", file=sys.stderr)


def check_agent(cfg: DictConfig) -> None:
    """Refuse several seeds at once under W&B's sweep agent, which expects a single W&B run.

    Raises:
        ConfigError: there are several seeds under an agent.
    """
    seeds = list(cfg.seeds or ())
    used = any(is_wandb(str(key), node) for key, node in cfg.logger.items())
    if len(seeds) > 1 and used and "WANDB_RUN_ID" in os.environ:
        raise ConfigError(
            f"seeds={seeds}: WANDB_RUN_ID names one W&B run, and each seed is one; "
            "let the sweep choose seed instead"
        )


def log_final(
    cfg: DictConfig, key: str, logger: WandbLogger, record: RunRecord, figure: Path
) -> None:
    """Log the results of a finished run.

    The W&B run's summary gets status, final metrics and costs. A table named ``final`` gets the
    metrics beside those of ``logger.wandb.reference``, and an image the run's figure if there is
    one.
    """
    summary = {name: getattr(record, name) for name in (*_SUMMARY, *record.metrics)}
    first, value = next(iter(record.metrics.items()))
    if value:
        summary[f"log10_{first}"] = math.log10(value)  # for a sweep to minimise
    if figure.exists():
        logger.log_image("predictions", [str(figure)], step=record.epochs)
    rows = _final_rows(record, _reference(_settings(cfg, key))(record.experiment))
    logger.log_table("final", _FINAL_COLUMNS, rows, step=record.epochs)
    logger.experiment.summary.update({k: v for k, v in summary.items() if v is not None})


def _settings(cfg: DictConfig, key: str) -> DictConfig:
    try:
        merged = OmegaConf.merge(OmegaConf.structured(WandbConfig), cfg.logger[key])
        OmegaConf.to_container(merged, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"logger.{key}: {str(error.msg or error).splitlines()[0]}") from error
    assert isinstance(merged, DictConfig)
    return merged


def _reference(settings: DictConfig) -> Callable[[str | None], Mapping[str, float]]:
    """The function that returns the reference values of a run's experiment, by metric."""
    path = settings.reference
    if path is None:
        return lambda _: {}
    try:
        return get_method(path)
    except Exception as error:  # any error of the import
        raise ConfigError(
            f"logger.wandb.reference={path}: not a function of Python's ({one_line(error)})"
        ) from error


def _final_rows(record: RunRecord, reference: Mapping[str, float]) -> list[list[Any]]:
    """A line for each metric: the run's value, the reference's if there is one, and log10 of their
    ratio."""
    lines: list[list[Any]] = []
    for name, ours in record.metrics.items():
        other = reference.get(name)
        decades = math.log10(ours / other) if ours and other else None
        lines.append([record.experiment, record.encoder, record.task, record.seed, name, ours,
                      other, decades])  # fmt: skip
    return lines


def _start(
    cfg: DictConfig, settings: DictConfig, title: str, directory: Path, earlier_id: str | None
) -> Run:
    try:
        import wandb
        import wandb.errors  # a folder wandb/ of W&B's files would be imported as an empty package
    except ImportError as error:
        raise ConfigError(
            "logger=wandb: the wandb package is not installed; pip install wandb, or logger=none"
        ) from error
    _reference(settings)
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
            id=earlier_id,
            resume=None if earlier_id is None else "allow",
            # Not the W&B run of another job of this process.
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
    """W&B's mode in the environment; by default online if a user is logged in, else offline."""
    import wandb

    mode = wandb.setup(wandb.Settings(silent=True)).settings.mode
    if mode in _WITHOUT_ACCOUNT or wandb.login(prompt=False, verify=False):
        return mode
    if "WANDB_MODE" in os.environ:
        raise ValueError(f"WANDB_MODE={mode}: not logged in to W&B; run `wandb login` first")
    return "offline"


def earlier(
    ckpt_path: str | None, replica: int, key: str
) -> tuple[str | None, list[dict[str, float]]]:
    """The id of a replica's run in a logger, from a checkpoint, or None; and the replica's
    history."""
    if ckpt_path is None:
        return None, []
    checkpoint = torch.load(ckpt_path, map_location="cpu", weights_only=True, mmap=True)
    replicas = checkpoint["diffhash"]["replicas"]
    ids = checkpoint.get(LOGGERS, [{}] * len(replicas))[replica]
    if isinstance(ids, list):  # an earlier version had no other logger than W&B's
        ids = {} if not ids else {"wandb": ids[0]}
    return dict(ids).get(key), replicas[replica]["history"]


def log_earlier_history(logger: Logger, history: list[dict[str, float]]) -> None:
    """Log the rows of the history in a checkpoint with a new logger."""
    for row in history:
        metrics = {f"history/{name}": value for name, value in row.items() if name != "epoch"}
        logger.log_metrics(metrics, step=int(row["epoch"]))


def _parts(ckpt_path: str | None, run: Run, directory: Path, folder: Path) -> list[Path]:
    """The folders of the parts of an offline W&B run, the present part last. Earlier parts are
    those beside the checkpoint that have not been sent; parts in a folder that will be replaced are
    moved to ``folder``."""
    own = Path(run.settings.sync_dir)
    earlier: list[Path] = []
    if ckpt_path is not None:
        there = Path(ckpt_path).parent
        is_replaced = there.absolute() in (directory.absolute(), folder.parent.absolute())
        earlier = [
            folder / part.name if is_replaced else part
            for part in unsent_parts(there, run.id)
            # Not sorted by name, which has the second in which a part began: two may be equal.
            if part.absolute() not in (own.absolute(), (folder / own.name).absolute())
        ]
    return [*earlier, folder / own.name]


def _in_one_line(error: Exception) -> str:
    from pydantic import ValidationError  # W&B checks its settings with it

    if isinstance(error, ValidationError):
        return "; ".join(f"{e['loc'][0]}={e['input']}: {e['msg']}" for e in error.errors())
    return one_line(error)
