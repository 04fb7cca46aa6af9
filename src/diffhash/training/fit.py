"""Lightning's trainer around a training, which every entry point uses."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path

import lightning as L
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.callbacks import Callback

from diffhash.training.checkpoint import AtomicCheckpoints
from diffhash.training.processes import SharedPoints


def fit(
    training: L.LightningModule,
    accelerator: str,
    callbacks: Sequence[Callback] = (),
    *,
    devices: int = 1,
    checkpoint: Path | str | None = None,
) -> None:
    """Train until the training has ended, or a stop is requested.

    Args:
        training: the training.
        accelerator: ``"cpu"`` or ``"gpu"``.
        callbacks: callbacks of Lightning, or of this package.
        devices: the number of processes, which divide the points of every term.
        checkpoint: a checkpoint from which training continues.

    Raises:
        UntrainedError: no gradient reaches a parameter; no step has been taken.
    """
    silence_lightning()
    alone = devices == 1
    trainer = L.Trainer(
        accelerator=accelerator,
        devices=devices,
        strategy="auto" if alone else SharedPoints(),
        # A single process does not need Lightning's detection of a cluster and its tasks.
        plugins=[AtomicCheckpoints(), *([LightningEnvironment()] if alone else [])],
        max_epochs=-1,  # `FieldTraining` counts epochs and stops
        logger=False,  # `HistoryLogger` calls the loggers
        callbacks=list(callbacks),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        inference_mode=False,
        use_distributed_sampler=False,
    )
    trainer.fit(training, ckpt_path=checkpoint, weights_only=True)


def silence_lightning() -> None:
    """Silence start-up messages that this package's report replaces, and warnings about settings
    that this package chooses."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for message in (
        ".*callbacks used to create the checkpoint",  # an older version had other callbacks
        ".*isinstance.treespec, LeafSpec.. is deprecated",  # inside Lightning
        ".*does not have many workers",  # the points are in memory
        "GPU available but not used",
    ):
        warnings.filterwarnings("ignore", message=message)
