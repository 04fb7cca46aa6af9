"""linear and s1 in 2 to 4 dimensions: tiny-cuda-nn's layout, written again from its contract."""

from __future__ import annotations

import ctypes
import ctypes.util
import math
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor

from diffhash import GridEncoding

F = 2
# The functions that tiny-cuda-nn calls: not numpy's, which differ between processors.
_LIBM = ctypes.CDLL(ctypes.util.find_library("m"))
_LIBM.log2f.argtypes = _LIBM.exp2f.argtypes = [ctypes.c_float]
_LIBM.log2f.restype = _LIBM.exp2f.restype = ctypes.c_float
# (n_levels, log2_hashmap_size, base_resolution, per_level_scale): all dense, mixed, all hashed,
# growth factors that float32 rounds, and levels of one vertex.
SETTINGS = [(2, 19, 3, 2.0), (3, 6, 3, 2.0), (2, 4, 8, 1.5), (4, 10, 4, 1.3819), (2, 8, 1, 2.0)]


def _contract(
    settings: tuple[int, int, int, float], smooth: bool, x: list[float]
) -> list[dict[int, float]]:
    """For each level, the weight of every row of the table that the point touches."""
    n_levels, log2_hashmap_size, base_resolution, per_level_scale = settings
    d = len(x)
    primes = (1, 2654435761, 805459861, 3674653429)
    offset, levels = 0, []
    for l in range(n_levels):
        growth = np.float32(_LIBM.exp2f(np.float32(l) * np.float32(_LIBM.log2f(per_level_scale))))
        scale = float(growth * np.float32(base_resolution) - np.float32(1.0))
        res = math.ceil(scale) + 1
        n = (res**d + 7) // 8 * 8
        n = min(n, 2**log2_hashmap_size)
        pos = [scale * c + 0.5 for c in x]
        cell = [math.floor(p) for p in pos]
        frac = [p - c for p, c in zip(pos, cell, strict=True)]
        if smooth:
            frac = [t * t * (3 - 2 * t) for t in frac]
        weights: dict[int, float] = {}
        for corner in range(2**d):
            weight, vertex = 1.0, []
            for j in range(d):
                upper = corner >> j & 1
                weight *= frac[j] if upper else 1 - frac[j]
                vertex.append(cell[j] + upper)
            index = 0
            if n < res**d:
                for j in range(d):
                    index ^= vertex[j] * primes[j] % 2**32
            else:
                stride = 1
                for j in range(d):
                    index += vertex[j] * stride
                    stride *= res
            row = offset + index % n
            weights[row] = weights.get(row, 0.0) + weight
        levels.append(weights)
        offset += n
    return levels


def _points(d: int) -> Tensor:
    corners = torch.tensor(list(product([0.0, 1.0], repeat=d)), dtype=torch.float64)
    generator = torch.Generator().manual_seed(d)
    inside = torch.rand(12, d, dtype=torch.float64, generator=generator)
    edges = inside[:4].clone()
    edges[:2, 0], edges[2:, -1] = 0.0, 1.0
    return torch.cat([corners, inside, edges])


def _encoding(
    d: int, settings: tuple[int, int, int, float], name: str, dtype: torch.dtype
) -> GridEncoding:
    n_levels, log2_hashmap_size, base_resolution, per_level_scale = settings
    return GridEncoding(
        d,
        n_levels=n_levels,
        n_features_per_level=F,
        log2_hashmap_size=log2_hashmap_size,
        base_resolution=base_resolution,
        per_level_scale=per_level_scale,
        interpolation=name,
        init_scale=1.0,
        dtype=dtype,
        seed=0,
    )


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("name", ["linear", "s1"])
@pytest.mark.parametrize("d", [2, 3, 4])
def test_every_value_is_the_contracts(
    d: int, name: str, settings: tuple[int, int, int, float]
) -> None:
    encoding = _encoding(d, settings, name, torch.float64)
    table = encoding.params.detach().reshape(-1, F)
    x = _points(d)
    y = encoding(x)
    assert y.shape == (len(x), settings[0] * F)
    expected = []
    for point in x.tolist():
        row: list[Tensor] = []
        for weights in _contract(settings, name == "s1", point):
            row += sum(w * table[r] for r, w in weights.items())
        expected.append(torch.stack(row))
    # 2^d terms of weight at most 1; rounding of pos moves t by eps · scale (slopes below 2).
    scale = settings[2] * settings[3] ** settings[0]
    tolerance = 10 * torch.finfo(torch.float64).eps * 2**d * scale
    torch.testing.assert_close(y, torch.stack(expected), rtol=0, atol=tolerance)


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("name", ["linear", "s1"])
@pytest.mark.parametrize("d", [2, 3, 4])
def test_every_row_is_touched_with_the_contracts_weight(
    d: int, name: str, settings: tuple[int, int, int, float]
) -> None:
    encoding = _encoding(d, settings, name, torch.float64)
    for point in _points(d)[-9:]:
        y = encoding(point[None])
        for level, weights in enumerate(_contract(settings, name == "s1", point.tolist())):
            for feature in range(F):
                output = y[0, level * F + feature]
                (grad,) = torch.autograd.grad(output, encoding.params, retain_graph=True)
                expected = torch.zeros_like(grad)
                for row, weight in weights.items():
                    expected[row * F + feature] = weight
                torch.testing.assert_close(grad, expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("d", [2, 3])
def test_the_number_of_parameters_is_the_contracts(d: int) -> None:
    encoding = GridEncoding(d, n_levels=4, log2_hashmap_size=10, base_resolution=4)
    rows = [min((4 * 2**l) ** d, 2**10) for l in range(4)]
    assert encoding.params.shape == (sum(rows) * 2,)


def test_float32_gives_the_same_numbers_to_its_precision() -> None:
    settings = SETTINGS[1]
    single, double = (_encoding(3, settings, "linear", t) for t in (torch.float32, torch.float64))
    with torch.no_grad():
        double.params.copy_(single.params)
    x = _points(3).float()
    tolerance = 10 * torch.finfo(torch.float32).eps * 2**3 * 3 * 2**2
    torch.testing.assert_close(single(x).double(), double(x.double()), rtol=0, atol=tolerance)


def test_level_offsets_leave_the_contract_for_padded_levels() -> None:
    # Documented: with offsets, or wider stencils, nothing wraps and vertices start at x = 0.
    encoding = GridEncoding(2, n_levels=1, base_resolution=4, level_offset=True, seed=0)
    assert encoding.params.numel() == 32 * 2  # 5² vertices, padded to a multiple of 8
