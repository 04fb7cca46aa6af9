"""Small grid encodings in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from diffhash import GridEncoding


@pytest.fixture
def make_grid() -> Callable[..., GridEncoding]:
    """``make_grid(name, d, hashed=False, …)``: θ ~ U(-1, 1), F = 2, two levels, float64."""

    def make(name: str, d: int, hashed: bool = False, **changes: Any) -> GridEncoding:
        settings: dict[str, Any] = {
            "n_levels": 2,
            "n_features_per_level": 2,
            "log2_hashmap_size": 3 if hashed else 19,
            "base_resolution": 5 if hashed else 3,
            "init_scale": 1.0,
            "dtype": torch.float64,
            "seed": 0,
        }
        return GridEncoding(d, interpolation=name, **(settings | changes))

    return make


@pytest.fixture
def uniform() -> Callable[..., Tensor]:
    """``uniform(*shape, seed=0)``: float64 U(0, 1)."""

    def make(*shape: int, seed: int = 0) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.rand(*shape, dtype=torch.float64, generator=generator)

    return make
