"""Lightning's trainer around a training, which every entry point uses."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path

import lightning as L
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.callbacks import Callback

from diffhash.optim import OptimizerSettings
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


def choose_accelerator(name: str, optimizer: OptimizerSettings | None = None) -> str:
    """Return ``"cpu"`` or ``"gpu"``; for ``"auto"`` a GPU where torch finds one.

    Optimizers that need more than the gradient compute on a CPU, which ``"auto"`` is for them.

    Args:
        name: ``"auto"``, ``"cpu"`` or ``"gpu"``.
        optimizer: settings of the optimizer; None for Adam.

    Raises:
        ValueError: another name, or a GPU that is not there or that the optimizer cannot use.
    """
    is_on_cpu = optimizer is not None and optimizer.needs != "gradient"
    if name not in ("auto", "cpu", "gpu"):
        raise ValueError(f"accelerator={name!r}: give 'auto', 'cpu' or 'gpu'")
    if name == "gpu" and is_on_cpu:
        own = type(optimizer).__name__
        raise ValueError(f"accelerator=gpu: optimizer={own} computes on a CPU; give cpu or auto")
    if name == "gpu" and not torch.cuda.is_available():
        raise ValueError("accelerator=gpu: torch finds no CUDA device here; give cpu or auto")
    if name == "auto":
        return "gpu" if torch.cuda.is_available() and not is_on_cpu else "cpu"
    return name


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
