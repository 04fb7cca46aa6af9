"""Small fields to train, and a bare trainer."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from diffhash import MLP, SIREN, FourierFeatures, GridEncoding
from diffhash.encodings import Encoding, Identity
from diffhash.networks import Field, Network
from diffhash.optim import Task
from diffhash.problems import Poisson1D, Problem
from diffhash.training import Evaluation, FieldTraining

INTERPOLATIONS = ("linear", "s1", "s2", "cubic")


def _encoding(name: str, n_dims: int, dtype: torch.dtype) -> Encoding:
    if name in INTERPOLATIONS:
        return GridEncoding(
            n_dims,
            n_levels=3,
            n_features_per_level=2,
            log2_hashmap_size=6,
            base_resolution=2,
            interpolation=name,
            level_offset=name in ("s1", "s2"),
            init_scale=0.1,
            dtype=dtype,
        )
    if name == "ff":
        return FourierFeatures(n_dims, n_frequencies=3, dtype=dtype)
    return Identity(n_dims, dtype=dtype)


def _network(name: str, n_inputs: int, n_outputs: int, dtype: torch.dtype) -> Network:
    if name == "siren":
        return SIREN(n_inputs, n_outputs, width=6, depth=2, omega_0=5.0, dtype=dtype)
    return MLP(n_inputs, n_outputs, width=6, depth=2, skip=name == "skip", dtype=dtype)


@pytest.fixture
def make_training() -> Callable[..., FieldTraining]:
    """``make_training(encoder, task, dtype, …, **settings)``: the training of a field."""

    def make(
        encoder: str = "mlp",
        task: str = "pinn",
        dtype: torch.dtype = torch.float32,
        field_seed: int = 0,
        problem: Problem | None = None,
        n_labels: int = 7,
        n_residual: int = 10,
        n_boundary: int = 6,
        **settings: Any,
    ) -> FieldTraining:
        torch.manual_seed(field_seed)
        problem = problem or Poisson1D()
        encoding = _encoding(encoder, problem.n_dims, dtype)
        n_unknowns = len(problem.unknowns)
        network = _network(encoder, encoding.n_output_dims, n_unknowns, dtype)
        field = Field(encoding, network, problem.domain.bounds, problem.names)
        numbers = {"n_labels": n_labels, "n_residual": n_residual, "n_boundary": n_boundary}
        objective = Task(kind=task, **numbers).objective(problem)  # type: ignore[arg-type]
        settings = {"epochs": 6, "learning_rate": 1e-2} | settings
        return FieldTraining(field, objective, Evaluation(problem, 20), **settings)

    return make


@pytest.fixture
def fit() -> Callable[..., L.Trainer]:
    """``fit(training, callbacks=(), ckpt_path=None)``: train to the end, by default on the CPU."""

    def run(
        training: FieldTraining,
        callbacks: Iterable[Callback] = (),
        ckpt_path: Path | None = None,
        accelerator: str = "cpu",
    ) -> L.Trainer:
        trainer = L.Trainer(
            accelerator=accelerator,
            max_epochs=-1,
            callbacks=list(callbacks),
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            inference_mode=False,
        )
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*LeafSpec.* is deprecated")
            trainer.fit(training, ckpt_path=ckpt_path, weights_only=True)
        return trainer

    return run
