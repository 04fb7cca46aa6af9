"""Properties of the whole encoding: locality, linearity in the table, constants, level offsets."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.polynomial import Polynomial
from torch import Tensor

from diffhash import GridEncoding
from diffhash.ops.grid import gather
from diffhash.ops.interpolation import INTERPOLATIONS
from tests.thinned import pairwise

EPS = torch.finfo(torch.float64).eps
NAMES = list(INTERPOLATIONS)
# The highest degrees of polynomials that some table gives.
DEGREES = {"linear": 1, "quadratic": 2, "cubic": 3, "quintic": 5, "catmull_rom": 2, "hermite": 3}
DEGREES |= {"bspline_4": 4, "bspline_6": 6}
MakeGrid = Callable[..., GridEncoding]
Uniform = Callable[..., Tensor]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("d", [1, 2])
def test_a_point_depends_on_the_vertices_of_its_own_cell_alone(
    name: str, d: int, make_grid: MakeGrid, uniform: Uniform
) -> None:
    encoding = make_grid(name, d, n_levels=1, n_features_per_level=1, base_resolution=16)
    before = encoding.jet(uniform(6, d), 2).data.detach().clone()
    x = uniform(6, d).requires_grad_(True)
    (touched,) = torch.autograd.grad(encoding(x).sum(), encoding.params)
    assert 0 < (touched != 0).sum() <= 6 * encoding.layout.n_taps
    with torch.no_grad():
        encoding.params[touched == 0] = 1e30
    torch.testing.assert_close(encoding.jet(x.detach(), 2).data, before, rtol=0, atol=0)


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
            return encoding.jet(x, 2).data

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
    with torch.no_grad():  # of vertices with slopes, their values
        encoding.params.zero_().view(-1, encoding.layout.n_dofs, 2)[:, 0] = 1.0
    generator = torch.Generator().manual_seed(seed)
    jet = encoding.jet(torch.rand(5, d, dtype=torch.float64, generator=generator), 2).data
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
        slopes = encoding.jet(x, 1)[1,]
        jumps = (slopes.diff(dim=0).abs() > 1e-9).nonzero()
        return [{int(i) + 1 for i, column in jumps if column == c} for c in (0, 1)]

    assert kinks(False) == [{16, 32, 48}, {16, 32, 48}]
    assert kinks(True) == [{16, 32, 48}, {8, 24, 40, 56}]


@given(
    name=st.sampled_from(NAMES),
    d=st.integers(1, 2),
    axis=st.integers(0, 1),
    face=st.integers(1, 7),
    hashed=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=60, deadline=None)
def test_derivatives_jump_at_faces_from_the_order_after_the_continuity_class_on(
    name: str, d: int, axis: int, face: int, hashed: bool, seed: int
) -> None:
    axis %= d
    encoding = GridEncoding(
        d,
        n_levels=1,
        n_features_per_level=1,
        base_resolution=8,
        log2_hashmap_size=3 if hashed else 12,
        interpolation=name,
        level_offset=True,  # the same vertices for all: those of linear and s1 would be shifted
        init_scale=1.0,
        dtype=torch.float64,
        seed=seed,
    )
    table, scale = INTERPOLATIONS[name], encoding.layout.levels[0].scales[0]
    orders = range(table.continuity + 2)
    alphas = tuple(tuple(m * (j == axis) for j in range(d)) for m in orders)
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(1, d, dtype=torch.float64, generator=generator).expand(2, d).clone()
    step = 1e-9
    x[0, axis], x[1, axis] = face / 8 - step, face / 8 + step
    below, above = gather(x, encoding.params.detach(), encoding.layout, alphas)[:, :, 0].T
    jumps = ((above - below) / scale ** torch.tensor(list(orders))).abs().tolist()
    # One cell's polynomial changes by at most 2 step · its next derivative, for |θ| ≤ 1.
    for order in range(table.continuity + 1):
        steepest = sum(abs(float(c)) for row in table.derivative(order + 1) for c in row)
        widest = sum(abs(float(c)) for row in table.coefficients for c in row)
        assert jumps[order] <= 2 * step * scale * steepest * widest ** (d - 1) + 1e-12
    # And the first one after its class does jump, but where hashing lets entries coincide.
    if not hashed:
        assert jumps[table.continuity + 1] > 1e-7


@given(
    name=st.sampled_from([*DEGREES]),
    coefficients=st.lists(st.floats(-3, 3), min_size=7, max_size=7),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=40, deadline=None)
def test_polynomials_up_to_its_degree_are_reproduced_with_their_derivatives(
    name: str, coefficients: list[float], seed: int
) -> None:
    """The table whose interpolant is the polynomial is found by least squares."""
    degree = DEGREES[name]
    encoding = GridEncoding(
        1,
        n_levels=1,
        n_features_per_level=1,
        base_resolution=6,
        interpolation=name,
        dtype=torch.float64,
        seed=0,
    )
    polynomial = Polynomial(coefficients[: degree + 1])
    fit = torch.linspace(0, 1, 60, dtype=torch.float64)[:, None]
    eye = torch.eye(encoding.params.numel(), dtype=torch.float64)
    design = gather(fit, eye, encoding.layout, ((0,),))[:, 0, :, 0].T
    target = torch.from_numpy(polynomial(fit.numpy()))
    table = torch.linalg.lstsq(design, target, driver="gelsd").solution[:, 0]
    x = torch.rand(9, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    for order in range(min(degree, 2) + 1):
        got = gather(x, table, encoding.layout, ((order,),))[0]
        expected = torch.from_numpy(polynomial.deriv(order)(x.numpy()) if order else polynomial(x))
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "periodic", "hashed"),
    pairwise(NAMES, [(1, 0), (2, 1), (2, 0, 1), (3, 0, 2)], [False, True], values=1),
)
def test_periodic_axes_have_period_one_to_the_last_bit(
    name: str, periodic: tuple[int, ...], hashed: bool, make_grid: MakeGrid, uniform: Uniform
) -> None:
    d, *periodic = periodic
    encoding = make_grid(name, d, hashed, periodic=periodic, base_resolution=2, n_levels=1)
    x = (uniform(6, d) * 2**20).round() / 2**20  # x + 1 has no rounding
    x[0], x[1, periodic[0]], x[2, periodic[0]] = 0.0, 0.0, 1.0
    moves = torch.zeros(6, d, dtype=torch.float64)
    moves[:, list(periodic)] = torch.tensor([1.0, -1.0, 2.0, -3.0, 1.0, 5.0])[:, None].double()
    one, other = encoding.jet(x, 2).data, encoding.jet(x + moves, 2).data
    torch.testing.assert_close(other, one, rtol=0, atol=0)
    weights = uniform(*one.shape, seed=1)
    gradients = [torch.autograd.grad((y * weights).sum(), encoding.params) for y in (one, other)]
    torch.testing.assert_close(gradients[1], gradients[0], rtol=0, atol=0)
    planned = encoding.plan(x + moves, 2).jet().data
    torch.testing.assert_close(planned, one, rtol=0, atol=1e3 * EPS * one.abs().max().item())


@pytest.mark.parametrize(
    ("name", "cells", "offset"), pairwise(NAMES, [1, 2, 7], [False, True], values=1)
)
def test_the_seam_of_a_periodic_axis_is_a_face_like_any_other(
    name: str, cells: int, offset: bool, make_grid: MakeGrid
) -> None:
    encoding = make_grid(
        name, 1, periodic=(0,), base_resolution=cells, n_levels=2, per_level_scale=1.0,
        level_offset=offset,
    )  # fmt: skip
    table, layout = INTERPOLATIONS[name], encoding.layout
    orders = range(table.continuity + 1)
    step = 1e-9
    x = torch.tensor([[-step], [step], [1 - step], [1 + step]], dtype=torch.float64)
    rows = gather(x, encoding.params.detach(), layout, tuple((m,) for m in orders))
    for order, (before, after, before_one, after_one) in zip(orders, rows, strict=True):
        steepest = sum(abs(float(c)) for row in table.derivative(order + 1) for c in row)
        tolerance = 2 * step * cells ** (order + 1) * steepest + 1e-9
        for other in (after, before_one, after_one):
            torch.testing.assert_close(other, before, rtol=0, atol=tolerance)
    assert layout.n_rows == 2 * 8 * layout.n_dofs  # a vertex a cell, and no padding


def test_linear_and_cubic_share_a_grid_of_the_nested_layout(uniform: Uniform) -> None:
    """The cells of level l lie within those of level l - 1, and vertices lie at the border."""
    x = torch.tensor([[0.0, 0.0], [0.25, 0.5], [1.0, 0.75], [1.0, 1.0]], dtype=torch.float64)
    grid = GridEncoding(
        2, 1, 1, base_resolution=4, interpolation="linear", layout="nested", dtype=torch.float64
    )
    values = grid.params.detach()[:25].view(5, 5)  # axis 1, axis 0: at the vertices i/4
    i = (4 * x).long()
    torch.testing.assert_close(grid(x)[:, 0].detach(), values[i[:, 1], i[:, 0]])
    cubic = GridEncoding(2, 1, 1, base_resolution=4, interpolation="cubic", layout="nested")
    assert [level.scales[0] for level in cubic.layout.levels] == [4.0]
    assert cubic.layout is GridEncoding(2, 1, 1, base_resolution=4, interpolation="cubic").layout


def test_hermite_stores_values_and_slopes_in_units_of_the_cell() -> None:
    """The interpolant of sin 3x · cos 2y from its own values and mixed first derivatives."""
    n = 8
    grid = GridEncoding(
        2, 1, 1, base_resolution=n, interpolation="hermite", dtype=torch.float64, seed=0
    )
    v = torch.arange(n + 1, dtype=torch.float64) / n
    values = torch.stack([(3 * v).sin(), (3 * v).cos() * 3 / n])  # [slope in x, vertex]
    others = torch.stack([(2 * v).cos(), -(2 * v).sin() * 2 / n])
    table = torch.einsum("bj,ai->jiba", others, values)  # row = vertex, then a + 2 b
    with torch.no_grad():
        grid.params[: table.numel()] = table.flatten()
    x = torch.rand(50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    jet = grid.jet(x, 1)
    u, u_x = (
        (3 * x[:, 0]).sin() * (2 * x[:, 1]).cos(),
        3 * (3 * x[:, 0]).cos() * (2 * x[:, 1]).cos(),
    )
    # h⁴/384 · max u⁗ an axis; and h³ of the slope.
    assert (jet.value[:, 0] - u).abs().max() < (3**4 + 2**4) / 384 / n**4 * 1.5
    assert (jet[1, 0][:, 0] - u_x).abs().max() < 3**4 / n**3 / 50
