"""Fourier features (Tancik et al., NeurIPS 2020; the paper's FF)."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable
from functools import reduce
from typing import Any, SupportsIndex

import torch
from torch import Tensor

from diffhash.encodings.encoding import ConstantPlan, Encoding, check_points
from diffhash.jets import Jet, Row, combined, expanded
from diffhash.ops.layout import periodic_axes, wrapped
from diffhash.ops.modes import own_precision
from diffhash.ops.settings import ConfiguredModule, integer
from diffhash.ops.sizes import check_sizes

_MAX_FREQUENCIES = 2**19


class FourierFeatures(ConfiguredModule, Encoding):
    """y(x) = [cos 2πBx, sin 2πBx] with fixed frequencies B ~ N(0, σ²).

    Args:
        n_input_dims: the number of axes of x.
        n_frequencies: the number of rows of B; ``n_output_dims = 2 n_frequencies``.
        sigma: the standard deviation σ of the frequencies, in cycles over [0, 1].
        periodic: the numbers of the axes along which the features have period 1, such as (0,). The
            frequencies along these axes are rounded to integers (a row of zeros becomes 1 along
            the first of them).
        dtype: the type of the output.
        seed: the seed of B; None for torch's global generator.

    Raises:
        ValueError: a size or σ is not positive, or x does not have an axis of ``periodic``.
    """

    frequencies: Tensor
    takes_replicas = True

    def __init__(
        self,
        n_input_dims: int,
        n_frequencies: int = 32,
        sigma: float = 1.0,
        dtype: torch.dtype = torch.float32,
        seed: SupportsIndex | None = None,
        periodic: Iterable[int] = (),
    ) -> None:
        super().__init__()
        n_input_dims = integer("n_input_dims", n_input_dims, 1)
        check_sizes(1, _MAX_FREQUENCIES, n_frequencies=n_frequencies)
        n_frequencies = int(n_frequencies)
        sigma = float(sigma)
        if not (sigma > 0 and math.isfinite(sigma)):
            raise ValueError(f"sigma={sigma}: give a positive number")
        self.n_input_dims = n_input_dims
        self.n_output_dims = 2 * n_frequencies
        self.sigma = sigma
        generator = None
        if seed is not None:
            generator = torch.Generator().manual_seed(operator.index(seed))
        b = torch.randn(n_frequencies, n_input_dims, dtype=torch.float64, generator=generator)
        self.periodic = periodic_axes(periodic, n_input_dims)
        scaled = 2 * math.pi * sigma * b
        if self.periodic:
            axes = list(self.periodic)
            cycles = sigma * b
            cycles[:, axes] = cycles[:, axes].round()
            cycles[(cycles == 0).all(dim=1), axes[0]] = 1
            scaled[:, axes] = 2 * math.pi * cycles[:, axes]
        self.register_buffer("frequencies", scaled.to(dtype))

    @property
    def n_replicas(self) -> int | None:
        return None if self.frequencies.ndim == 2 else len(self.frequencies)

    def _settings(self) -> dict[str, Any]:
        n_frequencies = self.n_output_dims // 2
        return {
            "n_input_dims": self.n_input_dims,
            "n_frequencies": n_frequencies,
            "sigma": self.sigma,
            "periodic": self.periodic,
        }

    def forward(self, x: Tensor) -> Tensor:
        check_points(x, self.n_input_dims)
        with own_precision(x):
            x = wrapped(x, self.periodic)
            phase = x.to(self.frequencies.dtype) @ self.frequencies.mT
        return torch.cat([phase.cos(), phase.sin()], dim=-1)

    def _jet(self, x: Tensor, rows: tuple[Row, ...]) -> Jet:
        value = self(x)
        cos, sin = value.chunk(2, dim=-1)
        data = []
        for alpha in expanded(rows)[0]:
            # The derivative of (cos, sin) is (-sin, cos).
            turns = ((cos, sin), (-sin, cos), (-cos, -sin), (sin, -cos))[sum(alpha) % 4]
            row = torch.cat(turns, dim=-1)
            axes = [
                self.frequencies[..., None, :, j] for j, m in enumerate(alpha) for _ in range(m)
            ]
            if axes:
                k = reduce(torch.mul, axes)
                row = torch.cat([k, k], dim=-1) * row
            data.append(row)
        return Jet(combined(torch.stack(data, dim=-3), rows), rows)

    def _plan(self, x: Tensor, rows: tuple[Row, ...]) -> ConstantPlan:
        return ConstantPlan(self, x, rows)
