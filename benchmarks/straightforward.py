"""A step as a careful researcher writes it with torch and Lightning alone.

`nn.Linear` and activations, the per-level loop of `benchmarks.baselines` for a grid, u_xx by nested
`torch.autograd.grad`, `torch.optim.Adam` with its default kernel, and one Lightning batch per step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import lightning as L
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader

from benchmarks.baselines import LoopGrid
from benchmarks.case import Case, LossTerm
from benchmarks.ours import Clock, fit
from benchmarks.sample import Sample, synchronised_time
from diffhash.encodings import FourierFeatures, GridEncoding

STRAIGHTFORWARD = "straightforward"

Batch = Sequence[tuple[Tensor, Tensor]]  # points and targets of each term

_WARM_UPS = 3


class Straightforward:
    """`StraightforwardTraining` under `lightning.Trainer`."""

    name = STRAIGHTFORWARD

    def __init__(self, case: Case) -> None:
        self._case = case

    def sample(self, seconds: float) -> Sample:
        """Take steps for at least ``seconds``; the training is new each time."""
        device = self._case.device
        clock = Clock(_WARM_UPS, seconds, lambda: (synchronised_time(device),))
        training = StraightforwardTraining(self._case)
        fit(training, "gpu" if device.type == "cuda" else "cpu", clock)
        return Sample(1e3 * clock.elapsed[0] / clock.n_batches)


class StraightforwardTraining(L.LightningModule):
    """Full-batch training with automatic optimisation."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        self._case = case
        self.encoding = _encoding(case)
        self.network = _network(case)

    def forward(self, x: Tensor) -> Tensor:
        return self.network(self.encoding(x))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self.loss(batch)

    def loss(self, batch: Batch) -> Tensor:
        """The sum of the terms."""
        losses = [
            term.weight * (self._row(term, x) - target).square().mean()
            for term, (x, target) in zip(self._case.terms, batch, strict=True)
        ]
        return torch.stack(losses).sum()

    def batch(self) -> Batch:
        """All points and targets, in the precision of training."""
        dtype = self._case.dtype
        return [(term.x.to(dtype), term.target.to(dtype)) for term in self._case.terms]

    def configure_optimizers(self) -> tuple[list[torch.optim.Adam], list[LambdaLR]]:
        optimizer = torch.optim.Adam(self.parameters(), lr=self._case.learning_rate)
        return [optimizer], [LambdaLR(optimizer, self._relative_rate)]

    def train_dataloader(self) -> DataLoader[Batch]:
        return DataLoader([self.batch()], batch_size=None)  # type: ignore[arg-type]

    def _relative_rate(self, epoch: int) -> float:
        epochs = self._case.cosine_epochs
        return 1.0 if epochs is None else (1 + math.cos(math.pi * epoch / epochs)) / 2

    def _row(self, term: LossTerm, x: Tensor) -> Tensor:
        """The sum Σ_k coefficients_k · row_k of u's jet, by nested reverse mode."""
        value, *derivatives = term.coefficients
        if not any(derivatives):
            return value * self(x)
        x = x.detach().requires_grad_()
        u = self(x)
        row = value * u if value else torch.zeros_like(u)
        (gradient,) = torch.autograd.grad(u.sum(), x, create_graph=True)
        for alpha, coefficient in zip(term.rows[1:], derivatives, strict=True):
            if coefficient == 0:
                continue
            axis = max(range(len(alpha)), key=alpha.__getitem__)
            first = gradient[:, axis : axis + 1]
            row = row + coefficient * (first if alpha[axis] == 1 else _along(first, x, axis))
        return row


def _along(first: Tensor, x: Tensor, axis: int) -> Tensor:
    """The derivative ∂_jj u, computed from ∂_j u; ``[N, 1]`` each."""
    (gradient,) = torch.autograd.grad(first.sum(), x, create_graph=True)
    return gradient[:, axis : axis + 1]


class _Sine(nn.Module):
    def __init__(self, omega: float) -> None:
        super().__init__()
        self._omega = omega

    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(self._omega * x)


class _Fourier(nn.Module):
    frequencies: Tensor

    def __init__(self, frequencies: Tensor) -> None:
        super().__init__()
        self.register_buffer("frequencies", frequencies.clone())

    def forward(self, x: Tensor) -> Tensor:
        phase = x @ self.frequencies.T
        return torch.cat([phase.cos(), phase.sin()], dim=1)


def _encoding(case: Case) -> nn.Module:
    match case.encoding:
        case GridEncoding():
            return LoopGrid(case.encoding)
        case FourierFeatures():
            return _Fourier(case.encoding.frequencies)
        case _:
            return nn.Identity()


def _network(case: Case) -> nn.Sequential:
    sizes = [case.layers[0][0].shape[1], *(len(bias) for _, bias in case.layers)]
    modules: list[nn.Module] = []
    for (weight, bias), (n_inputs, n_outputs) in zip(case.layers, pairwise(sizes), strict=True):
        layer = nn.Linear(n_inputs, n_outputs, dtype=case.dtype)
        layer.weight.data.copy_(weight)
        layer.bias.data.copy_(bias)
        modules += [layer, nn.Tanh() if case.omega is None else _Sine(case.omega)]
    return nn.Sequential(*modules[:-1])
