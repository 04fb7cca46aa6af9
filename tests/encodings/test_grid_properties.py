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
    table, scale = INTERPOLATIONS[name], encoding.layout.levels[0].scale
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
    name=st.sampled_from(["linear", "quadratic", "cubic", "quintic", "catmull_rom"]),
    coefficients=st.lists(st.floats(-3, 3), min_size=6, max_size=6),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=40, deadline=None)
def test_polynomials_up_to_its_degree_are_reproduced_with_their_derivatives(
    name: str, coefficients: list[float], seed: int
) -> None:
    """Some table gives the polynomial: the one that fits it is found by least squares."""
    degree = {"linear": 1, "quadratic": 2, "cubic": 3, "quintic": 5, "catmull_rom": 2}[name]
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
