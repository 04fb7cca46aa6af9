"""A finished run once more: its field with the parameters of its checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from diffhash.experiment.build import build, config_hash
from diffhash.experiment.checks import ConfigError, read_checkpoint
from diffhash.experiment.folder import CHECKPOINT_FILE
from diffhash.experiment.predictions import predictions_frame
from diffhash.results.record import CONFIG_FILE, RunRecord, read_record
from diffhash.training import Evaluation, Metrics


@dataclass(frozen=True)
class Restored:
    """A run's record, and its field at the points of a new evaluation."""

    record: RunRecord
    evaluation: Evaluation

    def metrics(self) -> Metrics:
        """The errors at these points, as training computes them."""
        return self.evaluation.metrics()[0]

    def predictions(self) -> pd.DataFrame:
        """What the field predicts there, see `predictions_frame`."""
        return predictions_frame(self.evaluation, self.evaluation.jets()[0])


def restore(directory: Path | str, n_points: int) -> Restored:
    """Build what a run trained, from its config, and give it the parameters of its checkpoint.

    Nothing in ``directory`` is altered. A run of a CPU is evaluated on one, a run of a GPU on one
    if there is one.

    Args:
        directory: the run's record.
        n_points: of the evaluation, anew from `Problem.evaluation_points`.

    Raises:
        FileNotFoundError: no record.
        RecordError: a corrupt one.
        ConfigError: the run diverged; its config or its checkpoint is missing, corrupt or not
            this record's; or ``n_points`` is not positive.
    """
    directory = Path(directory)
    record = read_record(directory)
    if record.status == "diverged":
        raise ConfigError(
            f"{directory}: diverged at epoch {record.diverged_epoch}, there is no field to evaluate"
        )
    cfg = _config(directory / CONFIG_FILE, record)
    cfg.trainer.evaluation_points = n_points
    cfg.trainer.accelerator = "cpu" if record.environment.get("device") == "cpu" else "auto"
    cfg.trainer.devices = 1
    cfg.trainer.execution = "eager"
    cfg.ckpt_path = None  # what the run itself had resumed from
    setup = build(cfg)
    training, path = setup.training, directory / CHECKPOINT_FILE
    checkpoint = read_checkpoint(str(path), path, training.state_dict(), training.origin)
    training.load_state_dict(checkpoint["state_dict"])
    device = torch.device("cuda" if setup.accelerator == "gpu" else "cpu")
    training.evaluation.prepare(setup.field.to(device), device)
    return Restored(record, training.evaluation)


def _config(path: Path, record: RunRecord) -> DictConfig:
    if not path.is_file():
        raise ConfigError(f"{path}: there is no such file")
    try:
        cfg = OmegaConf.load(path)
        own = isinstance(cfg, DictConfig) and config_hash(cfg) == record.config_hash
    except (YAMLError, OmegaConfBaseException, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not a config ({' '.join(str(error).split())})") from error
    if not own:
        raise ConfigError(f"{path}: not the config that its record was made with")
    assert isinstance(cfg, DictConfig)
    return cfg
