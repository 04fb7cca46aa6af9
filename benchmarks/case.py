"""A training step as all contenders must compute it.

It is built from the configs, as a run is, and taken apart into the data that other implementations
need. The loss is a sum of mean squares of residuals that are linear in the jet of u:

    loss = Σ_terms weight · mean_i (Σ_k coefficients_k · row_k(x_i) - target_i)².

The row of α = 0 is u, and the others are ∂_j u and ∂_jj u.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from benchmarks import helmholtz
from diffhash.encodings import Encoding, GridEncoding
from diffhash.experiment.build import Setup, build
from diffhash.experiment.schema import register
from diffhash.jets import expanded
from diffhash.ops.backends import MultiIndex
from diffhash.optim import Objective, Task, Term

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
ENCODERS = ("mlp", "ff", "siren", "linear", "s2", "cubic")
TASKS = ("data", "pinn")


@dataclass(frozen=True)
class LossTerm:
    """The term weight · mean_i (Σ_k coefficients_k · row_k(x_i) - target_i)² of the loss.

    Attributes:
        x: the points ``[N, d]``, float64.
        target: the targets ``[N, 1]``, float64.
        rows: the multi-indices of the rows; that of u alone where the term reads no derivatives.
        coefficients: one coefficient for each row.
    """

    x: Tensor
    target: Tensor
    weight: float
    rows: tuple[MultiIndex, ...]
    coefficients: tuple[float, ...]

    @property
    def n_rows(self) -> int:
        """The number of rows per point: 1 for a label, 1 + 2d for a residual of second order."""
        return len(self.coefficients)

    @property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """The positions of ∂_j and ∂_jj among the rows, for every axis that has both."""
        at = {alpha: k for k, alpha in enumerate(self.rows)}
        doubled = ((tuple(2 * m for m in alpha), k) for alpha, k in at.items() if sum(alpha) == 1)
        return tuple((k, at[alpha]) for alpha, k in doubled if alpha in at)


@dataclass(frozen=True)
class Case:
    """The loss, the initial parameters and the optimizer settings of a step.

    Attributes:
        terms: the terms of the loss.
        encoding: the encoding before the network.
        layers: weights ``[n_outputs, n_inputs]`` and biases ``[n_outputs]`` of the network.
        omega: ω₀ of a sine network; None for tanh.
        learning_rate: Adam's learning rate in the first step.
        cosine_epochs: the steps over which the rate falls to zero; None where it is constant.
        device: the device on which the library trains.
    """

    cfg: DictConfig
    terms: tuple[LossTerm, ...]
    encoding: Encoding
    layers: tuple[tuple[Tensor, Tensor], ...]
    omega: float | None
    learning_rate: float
    cosine_epochs: int | None
    device: torch.device

    @property
    def table(self) -> Tensor | None:
        """The trained table of a grid, ``[rows, F]``."""
        if not isinstance(self.encoding, GridEncoding):
            return None
        return self.encoding.params.detach().view(-1, self.encoding.n_features_per_level)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the parameters."""
        return self.layers[0][0].dtype

    @property
    def parameters(self) -> list[Tensor]:
        """The table if there is one, then each layer's weight and bias."""
        table = [] if self.table is None else [self.table]
        return [*table, *(p for layer in self.layers for p in layer)]

    @property
    def n_rows(self) -> int:
        """The number of rows of all jets together, over all points."""
        return sum(term.n_rows * len(term.x) for term in self.terms)

    @property
    def n_values(self) -> int:
        """The number of points of all terms together."""
        return sum(len(term.x) for term in self.terms)


def compose_config(overrides: Sequence[str]) -> DictConfig:
    """The config that ``train.py`` composes from the same overrides.

    Raises:
        HydraException: the overrides do not fit the config.
    """
    register()
    helmholtz.register()
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return compose("train", list(overrides))


def build_case(cfg: DictConfig) -> Case:
    """Build the case of a config; of several seeds, only the first is used."""
    if cfg.seeds is not None:
        cfg = OmegaConf.merge(cfg, {"seed": cfg.seeds[0], "seeds": None})  # type: ignore[assignment]
    setup = build(cfg)
    device = torch.device("cuda" if setup.accelerator == "gpu" else "cpu")
    return Case(
        cfg,
        tuple(_loss_term(term) for term in build_objective(cfg, setup).terms),
        setup.field.encoding,
        _layers(setup),
        cfg.encoder.network.get("omega_0"),
        cfg.trainer.learning_rate,
        cfg.trainer.epochs if cfg.trainer.schedule.value == "cosine" else None,
        device,
    )


def build_objective(cfg: DictConfig, setup: Setup) -> Objective:
    """The objective of the task in ``cfg``."""
    settings: Any = OmegaConf.to_container(cfg.task, resolve=True)
    settings.pop("name")
    task: Task = instantiate(settings, _convert_="all")
    return task.objective(setup.problem)


def _layers(setup: Setup) -> tuple[tuple[Tensor, Tensor], ...]:
    """The weight and bias of each layer, in the order of the network's parameters."""
    sizes = [s for a, b in pairwise(setup.field.network.widths) for s in (a * b, b)]
    flat = torch.cat([p.detach().flatten() for p in setup.field.network.parameters()])
    parts = flat.split(sizes)
    shapes = zip(parts[::2], parts[1::2], strict=True)
    return tuple((weight.view(len(bias), -1), bias) for weight, bias in shapes)


def _loss_term(term: Term) -> LossTerm:
    rows, matrix = expanded(term.rows)
    form = term.kernel_form()
    assert form is not None, f"{term.name} is not linear in u"
    coefficients, target = form
    by_row = coefficients[:, 0, 0, 0]  # constants, for one equation and one unknown
    assert (coefficients == by_row[:, None, None, None]).all()
    if matrix is not None:
        by_row = torch.tensor(matrix, dtype=by_row.dtype).T @ by_row
    return LossTerm(term.x, target, term.weight.item(), rows, tuple(by_row.tolist()))
