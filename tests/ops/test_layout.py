"""The nested convention: the vertices of levels, their places, and the growth between levels."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from diffhash.ops.grid import gather
from diffhash.ops.interpolation import INTERPOLATIONS
from diffhash.ops.layout import GridLayout, Level, grid_layout, locate

NAMES = list(INTERPOLATIONS)
# Linear and s1 in two or more dimensions follow tiny-cuda-nn unless they have level offsets:
# tests/encodings/test_tcnn_contract.py.
NESTED = [
    (name, d, offset)
    for name in NAMES
    for d in (1, 2, 3)
    for offset in (False, True)
    if d == 1 or offset or name not in ("linear", "s1")
]


def _stencil_rows(layout: GridLayout, level: Level, x: Tensor) -> Tensor:
    cell, _ = locate(level, x)
    d = layout.n_input_dims
    taps = torch.tensor(list(product(range(layout.interpolation.taps), repeat=d)))
    return layout.rows(level, cell[:, None] + taps + layout.interpolation.first_tap)


@pytest.mark.parametrize(("name", "d", "offset"), NESTED)
def test_dense_levels_give_every_touched_vertex_a_row_of_its_own(
    name: str, d: int, offset: bool, make_layout: Callable[..., GridLayout]
) -> None:
    layout = make_layout(name, d, n_levels=3, level_offset=offset)
    for level in layout.levels:
        assert not level.hashed
        axes = [torch.arange(n) - level.pad for n in level.resolutions]
        vertices = torch.cartesian_prod(*axes).reshape(-1, d)
        rows = layout.rows(level, vertices)
        assert rows.unique().numel() == math.prod(level.resolutions)
        assert rows.min() == level.first_row
        assert rows.max() < level.first_row + level.n_rows
        # Stencils over the whole domain, corners included, touch those vertices, all of them.
        dense = torch.linspace(0, 1, 4 * max(level.resolutions), dtype=torch.float64)
        x = torch.cartesian_prod(*[dense] * d).reshape(-1, d) if d < 3 else _corners(d)
        touched = _stencil_rows(layout, level, x).unique()
        assert torch.isin(touched, rows).all()
        if d < 3:
            assert touched.numel() == rows.numel()


def _corners(d: int) -> Tensor:
    return torch.tensor(list(product([0.0, 1.0], repeat=d)), dtype=torch.float64)


@pytest.mark.parametrize(("name", "d", "offset"), NESTED)
def test_opposite_borders_share_no_row(name: str, d: int, offset: bool) -> None:
    layout = grid_layout(d, name, 2, 20, 12, 2.0, offset)
    for level in layout.levels:
        low = _stencil_rows(layout, level, torch.zeros(1, d, dtype=torch.float64))
        high = _stencil_rows(layout, level, torch.ones(1, d, dtype=torch.float64))
        assert not torch.isin(high, low).any()


@pytest.mark.parametrize("name", NAMES)
def test_the_value_at_one_ignores_the_rows_of_zero(name: str) -> None:
    layout = grid_layout(1, name, 2, 20, 12, 2.0)
    params = torch.zeros(layout.n_rows, dtype=torch.float64, requires_grad=True)
    touched = []
    for x in (0.0, 1.0):
        y = gather(torch.full((1, 1), x, dtype=torch.float64), params, layout, ((0,),))
        touched.append(torch.autograd.grad(y.sum(), params)[0] != 0)
    assert touched[0].any()
    assert touched[1].any()
    assert not (touched[0] & touched[1]).any()


def test_resolutions_grow_as_documented() -> None:
    def scales(base: int, growth: float, n: int, offset: bool = False) -> list[float]:
        layout = grid_layout(1, "cubic", n, 19, base, growth, offset)
        return [level.scales[0] for level in layout.levels]

    assert scales(1, 2.0, 9) == [1, 2, 4, 8, 16, 32, 64, 128, 256]
    assert scales(16, 1.5, 4) == [16, 24, 36, 54]
    assert scales(16, 1.3, 4) == [16, 20, 27, 35]  # floors of 20.8, 27.04, 35.152
    # Rounding takes no cell away: 100 · 1.4² is 195.99… in floating point, and so is the growth
    # that is meant to end at 256.
    assert scales(100, 1.4, 3) == [100, 140, 196]
    assert scales(16, 16 ** (1 / 15), 16)[-1] == 256
    assert scales(7, 1.0, 3, offset=True) == [7, 7, 7]


def test_levels_are_stored_one_after_another_in_multiples_of_eight() -> None:
    layout = grid_layout(2, "cubic", 4, 7, 2, 2.0)
    # Cells + taps - 1 = 5, 7, 11, 19 vertices per axis; 2^7 rows hold 25 and 49 of them.
    assert [level.resolutions[0] for level in layout.levels] == [5, 7, 11, 19]
    assert [level.n_rows for level in layout.levels] == [32, 56, 128, 128]
    assert [level.first_row for level in layout.levels] == [0, 32, 88, 216]
    assert [level.hashed for level in layout.levels] == [False, False, False, True]
    assert layout.n_rows == 344
    assert layout.n_taps == 16


def test_offsets_shift_level_l_by_l_over_L_of_a_cell(normal: Callable[..., Tensor]) -> None:
    layout = grid_layout(1, "linear", 4, 19, 4, 1.0, level_offset=True)
    assert [level.shift for level in layout.levels] == [0, 0.25, 0.5, 0.75]
    params = normal(layout.n_rows)
    for index, level in enumerate(layout.levels):
        kinks = (torch.arange(1, 4, dtype=torch.float64) - level.shift) / 4
        for kink in kinks:
            x = torch.stack([kink - 1e-9, kink + 1e-9])[:, None]
            slope = gather(x, params, layout, ((1,),))[0, :, index]
            assert slope[0] != slope[1]
            away = gather(x + 0.1, params, layout, ((1,),))[0, :, index]
            assert away[0] == away[1]


@pytest.mark.parametrize("name", NAMES)
def test_one_dimensional_hashing_tiles_the_table(name: str, normal: Callable[..., Tensor]) -> None:
    # P_0 = 1: vertex modulo rows, so the field repeats after 8 of the 64 cells.
    layout = grid_layout(1, name, 1, 3, 64, 2.0)
    assert layout.levels[0].hashed
    params = normal(layout.n_rows)
    x = torch.linspace(0, 0.8, 50, dtype=torch.float64)[:, None]
    y, shifted = (gather(x + s, params, layout, ((0,),)) for s in (0, 8 / 64))
    # t changes by the rounding of 64 x: eps · 64 at most, times the slope.
    torch.testing.assert_close(shifted, y, rtol=0, atol=1e3 * 64 * torch.finfo(y.dtype).eps)


@given(
    name=st.sampled_from(NAMES),
    d=st.integers(1, 4),
    base=st.integers(1, 40),
    growth=st.floats(1, 3),
    log2=st.integers(3, 12),
    offset=st.booleans(),
    data=st.data(),
)
@settings(max_examples=60, deadline=None)
def test_every_stencil_of_any_grid_stays_within_its_levels_rows(
    name: str, d: int, base: int, growth: float, log2: int, offset: bool, data: st.DataObject
) -> None:
    layout = grid_layout(d, name, 3, log2, base, growth, offset)
    coordinates = st.one_of(st.sampled_from([0.0, 0.5, 1.0, -3.0, 7.0]), st.floats(0, 1))
    point = data.draw(st.lists(coordinates, min_size=d, max_size=d))
    x = torch.tensor([point], dtype=torch.float64)
    for level in layout.levels:
        rows = _stencil_rows(layout, level, x)
        assert level.n_rows % 8 == 0
        assert level.n_rows <= 2**log2 * layout.n_dofs
        assert rows.min() >= level.first_row
        assert rows.max() < level.first_row + level.n_rows


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("offset", [False, True])
def test_points_are_located_in_the_cell_that_holds_them(name: str, offset: bool) -> None:
    layout = grid_layout(1, name, 3, 19, 5, 2.0, offset)
    x = torch.tensor([0.0, 0.2, 0.37, 0.9999, 1.0, -0.7, 1.3], dtype=torch.float64)[:, None]
    for level in layout.levels:
        cell, t = locate(level, x)
        torch.testing.assert_close(
            cell + t, level.scales[0] * x + level.shift, rtol=1e-15, atol=1e-15
        )
        inside = t[:5]
        assert ((inside >= 0) & (inside <= 1)).all()
        assert cell.min() >= 0
        assert cell.max() <= level.max_cells[0]
        assert t[5] < 0  # beyond a border, the nearest cell
        assert t[6] > 1


def test_nan_is_located_in_cell_zero_and_stays_nan() -> None:
    layout = grid_layout(2, "cubic", 2, 19, 4, 2.0)
    x = torch.tensor([[float("nan"), 0.6]], dtype=torch.float64)
    for level in layout.levels:
        cell, t = locate(level, x)
        assert cell[0, 0] == 0
        assert t[0, 0].isnan()
        assert cell[0, 1] + t[0, 1] == pytest.approx(0.6 * level.scales[0], rel=1e-15)


def test_tables_beyond_32_bit_rows_are_refused() -> None:
    with pytest.raises(ValueError, match=r"log2_hashmap_size \(30\), n_levels \(3\)"):
        grid_layout(3, "cubic", 3, 30, 2048, 2.0)
