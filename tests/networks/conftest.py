"""Encoders and networks in their combinations."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from diffhash import MLP, SIREN, Field, FourierFeatures, GridEncoding, Identity

ENCODERS: dict[str, Callable[..., Any]] = {
    "identity": lambda d, dtype: Identity(d, dtype=dtype),
    "fourier": lambda d, dtype: FourierFeatures(d, n_frequencies=4, dtype=dtype, seed=0),
    "linear": lambda d, dtype: _grid(d, dtype, "linear"),
    "s2": lambda d, dtype: _grid(d, dtype, "s2"),
    "cubic": lambda d, dtype: _grid(d, dtype, "cubic"),
}
NETWORKS = {"mlp": MLP, "siren": SIREN, "skip": partial(MLP, skip=True)}


def _grid(d: int, dtype: torch.dtype, name: str) -> GridEncoding:
    return GridEncoding(
        d,
        n_levels=2,
        base_resolution=3,
        log2_hashmap_size=6,
        interpolation=name,
        init_scale=0.5,
        dtype=dtype,
        seed=0,
    )


@pytest.fixture
def make_field() -> Callable[..., Field]:
    """``make_field(encoder, network, domain, dtype=float64)``, with seeded parameters."""

    def make(
        encoder: str,
        network: str,
        domain: list[tuple[float, float]],
        dtype: torch.dtype = torch.float64,
    ) -> Field:
        torch.manual_seed(0)
        encoding = ENCODERS[encoder](len(domain), dtype)
        net = NETWORKS[network](encoding.n_output_dims, n_outputs=2, width=8, depth=2, dtype=dtype)
        if network == "skip":  # whose last layer is 0
            torch.nn.init.uniform_(net.params, -0.5, 0.5)
        return Field(encoding, net, domain)

    return make


@pytest.fixture
def points() -> Callable[..., Tensor]:
    """``points(domain, n)``: float64, uniform over the box."""

    def make(domain: list[tuple[float, float]], n: int) -> Tensor:
        generator = torch.Generator().manual_seed(1)
        unit = torch.rand(n, len(domain), dtype=torch.float64, generator=generator)
        low, high = torch.tensor(domain, dtype=torch.float64).T
        return low + (high - low) * unit

    return make
