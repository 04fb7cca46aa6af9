"""A training step as all contenders must compute it.

It is built from the configs, as a run is, and taken apart into what other implementations need.
Every term of its loss is linear in the jet of u,

    loss = Σ_terms weight · mean_i (Σ_k coefficients_k · row_k(x_i) - target_i)²,

where the row of α = 0 is u, and the others are ∂_j u and ∂_jj u.
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
    """weight · mean_i (Σ_k coefficients_k · row_k(x_i) - target_i)².

    Attributes:
        x: points ``[N, d]``, float64.
        target: ``[N, 1]``, float64.
        rows: of the jet; u's alone where the term reads nothing else.
        coefficients: one for each of them.
    """

    x: Tensor
    target: Tensor
    weight: float
    rows: tuple[MultiIndex, ...]
    coefficients: tuple[float, ...]

    @property
    def n_rows(self) -> int:
        """Rows of the jet per point: 1 for a label, 1 + 2d for a residual of second order."""
        return len(self.coefficients)

    @property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """Positions of ∂_j and ∂_jj, for every axis whose ∂_jj is among the rows."""
        at = {alpha: k for k, alpha in enumerate(self.rows)}
        doubled = ((tuple(2 * m for m in alpha), k) for alpha, k in at.items() if sum(alpha) == 1)
        return tuple((k, at[alpha]) for alpha, k in doubled if alpha in at)


@dataclass(frozen=True)
class Case:
    """Loss, initial parameters and optimizer settings of a step.

    Attributes:
        terms: of the loss.
        encoding: before the network.
        layers: weights ``[n_outputs, n_inputs]`` and biases ``[n_outputs]`` of the network.
        omega: ω₀ of a sine network; None for tanh.
        learning_rate: Adam's, in the first step.
        cosine_epochs: steps over which it falls to zero; None where it stays.
        device: where ours trains.
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
        """Of the parameters."""
        return self.layers[0][0].dtype

    @property
    def parameters(self) -> list[Tensor]:
        """The table if there is one, then each layer's weight and bias."""
        table = [] if self.table is None else [self.table]
        return [*table, *(p for layer in self.layers for p in layer)]

    @property
    def n_rows(self) -> int:
        """Rows of all jets together, over all points."""
        return sum(term.n_rows * len(term.x) for term in self.terms)

    @property
    def n_values(self) -> int:
        """Points of all terms together."""
        return sum(len(term.x) for term in self.terms)


def compose_config(overrides: Sequence[str]) -> DictConfig:
    """What ``train.py`` composes from the same overrides.

    Raises:
        HydraException: overrides that do not fit the config.
    """
    register()
    helmholtz.register()
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return compose("train", list(overrides))


def build_case(cfg: DictConfig) -> Case:
    """Build what ``cfg`` describes and take it apart; of several seeds, the first alone."""
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
    """The objective of ``cfg`` by itself."""
    settings: Any = OmegaConf.to_container(cfg.task, resolve=True)
    settings.pop("name")
    task: Task = instantiate(settings, _convert_="all")
    return task.objective(setup.problem)


def _layers(setup: Setup) -> tuple[tuple[Tensor, Tensor], ...]:
    """Weight and bias of each layer of the network, whose parameters come in that order."""
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
    by_row = coefficients[:, 0, 0, 0]  # constants, of one equation for one unknown
    assert (coefficients == by_row[:, None, None, None]).all()
    if matrix is not None:
        by_row = torch.tensor(matrix, dtype=by_row.dtype).T @ by_row
    return LossTerm(term.x, target, term.weight.item(), rows, tuple(by_row.tolist()))
