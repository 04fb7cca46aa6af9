"""Properties of the whole encoding: locality, linearity in the table, constants, level offsets."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from diffhash import GridEncoding
from diffhash.ops.interpolation import INTERPOLATIONS

EPS = torch.finfo(torch.float64).eps
NAMES = list(INTERPOLATIONS)
MakeGrid = Callable[..., GridEncoding]
Uniform = Callable[..., Tensor]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("d", [1, 2])
def test_a_point_depends_on_the_vertices_of_its_own_cell_alone(
    name: str, d: int, make_grid: MakeGrid, uniform: Uniform
) -> None:
    encoding = make_grid(name, d, n_levels=1, n_features_per_level=1, base_resolution=16)
    before = encoding.jet(uniform(6, d)).data.detach().clone()
    x = uniform(6, d).requires_grad_(True)
    (touched,) = torch.autograd.grad(encoding(x).sum(), encoding.params)
    assert 0 < (touched != 0).sum() <= 6 * encoding.layout.n_taps
    with torch.no_grad():
        encoding.params[touched == 0] = 1e30
    torch.testing.assert_close(encoding.jet(x.detach()).data, before, rtol=0, atol=0)


@given(
    name=st.sampled_from(NAMES),
    d=st.integers(1, 3),
    a=st.floats(-10, 10),
    b=st.floats(-10, 10),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=40, deadline=None)
def test_the_encoding_is_linear_in_the_table(
    name: str, d: int, a: float, b: float, seed: int
) -> None:
    encoding = GridEncoding(
        d,
        n_levels=2,
        base_resolution=2,
        log2_hashmap_size=5,
        interpolation=name,
        init_scale=1.0,
        dtype=torch.float64,
        seed=seed,
    )
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(5, d, dtype=torch.float64, generator=generator)
    p = encoding.params.detach().clone()
    q = torch.rand(p.shape, dtype=torch.float64, generator=generator)

    def jet(params: Tensor) -> Tensor:
        with torch.no_grad():
            encoding.params.copy_(params)
            return encoding.jet(x).data

    one, other, mixed = jet(p), jet(q), jet(a * p + b * q)
    # Round-off relative to the absolute terms of the sums, which a table of |θ| bounds roughly.
    table = INTERPOLATIONS[name]
    steepest = max(
        sum(abs(float(c)) for c in row)
        for order in range(min(table.degree, 2) + 1)
        for row in table.derivative(order)
    )
    size = (abs(a) + abs(b)) * steepest**d * encoding.layout.n_taps * 4**2
    torch.testing.assert_close(mixed, a * one + b * other, rtol=0, atol=50 * EPS * size + 1e-300)


@given(name=st.sampled_from(NAMES), d=st.integers(1, 3), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_a_constant_table_gives_that_constant_without_slopes(name: str, d: int, seed: int) -> None:
    encoding = GridEncoding(
        d,
        n_levels=2,
        base_resolution=3,
        log2_hashmap_size=4,
        interpolation=name,
        seed=seed,
        dtype=torch.float64,
    )
    with torch.no_grad():
        encoding.params.fill_(1.0)
    generator = torch.Generator().manual_seed(seed)
    jet = encoding.jet(torch.rand(5, d, dtype=torch.float64, generator=generator)).data
    table = INTERPOLATIONS[name]
    steepest = max(
        sum(abs(float(c)) for c in row) for row in table.derivative(min(2, table.degree))
    )
    tolerance = 50 * EPS * encoding.layout.n_taps * max(steepest, 12) ** d * 6**2
    expected = torch.zeros_like(jet)
    expected[0] = 1.0
    torch.testing.assert_close(jet, expected, rtol=0, atol=tolerance)


def test_level_offsets_move_the_kinks_of_the_levels_apart(make_grid: MakeGrid) -> None:
    def kinks(offset: bool) -> list[set[int]]:
        encoding = make_grid(
            "linear",
            1,
            n_levels=2,
            n_features_per_level=1,
            per_level_scale=1.0,
            base_resolution=4,
            level_offset=offset,
        )
        x = torch.arange(0.5, 64, dtype=torch.float64)[:, None] / 64
        slopes = encoding.jet(x, 1).derivative(0, 1)
        jumps = (slopes.diff(dim=0).abs() > 1e-9).nonzero()
        return [{int(i) + 1 for i, column in jumps if column == c} for c in (0, 1)]

    assert kinks(False) == [{16, 32, 48}, {16, 32, 48}]
    assert kinks(True) == [{16, 32, 48}, {8, 24, 40, 56}]
