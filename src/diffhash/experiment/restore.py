"""Rebuild a finished run: its field with the parameters of its checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor

from diffhash.experiment.build import build, config_hash
from diffhash.experiment.checks import ConfigError, read_checkpoint
from diffhash.experiment.folder import CHECKPOINT_FILE
from diffhash.experiment.predictions import predicted_columns
from diffhash.experiment.trust import TRUST_FLAG, check_untrusted
from diffhash.networks import Field
from diffhash.problems import Problem
from diffhash.results.reading import RecordError, brief, read_config
from diffhash.results.record import CONFIG_FILE, RunRecord, read_record
from diffhash.training import Evaluation
from diffhash.training.windows import WindowedField

_BATCH = 1 << 16  # the number of a user's points that are evaluated at a time


@dataclass(frozen=True)
class Restored:
    """A run's record, and its field at the points of a new evaluation."""

    record: RunRecord
    problem: Problem
    field: Field | WindowedField
    device: torch.device
    evaluation: Evaluation

    def metrics(self) -> dict[str, float]:
        """The errors at these points, as training computes them."""
        return self.evaluation.metrics()[0]

    def predictions(self, points: Tensor | None = None) -> pd.DataFrame:
        """The field's predictions at the evaluation's points, or at points ``[N, d]``; see
        `predicted_columns`."""
        if points is None:
            return pd.DataFrame(predicted_columns(self.evaluation, self.evaluation.jets()[0]))
        frames = []
        for part in points.split(_BATCH):
            evaluation = Evaluation(self.problem, part)
            evaluation.prepare(self.field, self.device)
            frames.append(pd.DataFrame(predicted_columns(evaluation, evaluation.jets()[0])))
        return pd.concat(frames, ignore_index=True)


def restore(directory: Path | str, n_points: int, *, trust_code: bool = False) -> Restored:
    """Build the field of a run from its config, and load the parameters of its checkpoint.

    Nothing in ``directory`` is changed. A run on a CPU is evaluated on a CPU, a run on a GPU on a
    GPU if there is one. The record may come from an untrusted source: its config may name only
    diffhash's own encodings, networks, tasks and problems, and its checkpoint has only tensors.

    Args:
        directory: the folder of the run's record.
        n_points: the number of points of the evaluation.
        trust_code: whether any code that the config names is imported and called; only for records
            from a known source.

    Raises:
        FileNotFoundError: there is no record.
        RecordError: the record is corrupt.
        ConfigError: the run diverged; its config or checkpoint is missing, corrupt or of another
            record; the config names other code; or ``n_points`` is not positive.
    """
    directory = Path(directory)
    record = read_record(directory)
    if record.status == "diverged":
        raise ConfigError(
            f"{directory}: diverged at epoch {record.diverged_epoch}, there is no field to evaluate"
        )
    cfg = _config(directory / CONFIG_FILE, record, trust_code)
    cfg.trainer.evaluation_points = n_points
    cfg.trainer.accelerator = "cpu" if record.environment.get("device") == "cpu" else "auto"
    cfg.trainer.devices = 1
    cfg.trainer.execution = "eager"
    cfg.ckpt_path = None  # the checkpoint from which the run itself was resumed
    cfg.logger, cfg.callbacks = {}, {}
    setup = build(cfg)
    training, path = setup.training, directory / CHECKPOINT_FILE
    checkpoint = read_checkpoint(str(path), path, training.state_dict(), training.origin)
    training.load_state_dict(checkpoint["state_dict"])
    device = torch.device("cuda" if setup.accelerator == "gpu" else "cpu")
    field = setup.field.to(device)
    training.evaluation.prepare(field, device)
    return Restored(record, setup.problem, field, device, training.evaluation)


def _config(path: Path, record: RunRecord, trust_code: bool) -> DictConfig:
    try:
        settings = read_config(path)
        if not trust_code:
            check_untrusted(
                path,
                settings,
                f"; {TRUST_FLAG} allows it, for a record whose origin you know",
            )
        cfg = OmegaConf.create(settings)
        own = config_hash(cfg) == record.config_hash
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file") from None
    except (RecordError, OmegaConfBaseException, TypeError) as error:
        raise ConfigError(f"{path}: not a config ({brief(error)})") from error
    if not own:
        raise ConfigError(f"{path}: not the config that its record was made with")
    return cfg
