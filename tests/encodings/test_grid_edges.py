"""Grids at and beyond the border, with NaN, with few points and with bad points."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import factorial
from typing import Any

import pytest
import torch
from torch import Tensor

from diffhash import GridEncoding
from diffhash.jets import jet_rows
from diffhash.ops.grid import gather
from diffhash.ops.interpolation import INTERPOLATIONS
from tests.thinned import pairwise

EPS = torch.finfo(torch.float64).eps
NAMES = list(INTERPOLATIONS)
MakeGrid = Callable[..., GridEncoding]
Uniform = Callable[..., Tensor]


def _derivatives_at(encoding: GridEncoding, x: float) -> Tensor:
    """All derivatives of a 1-D encoding at one point, up to its degree: ``[degree + 1, C]``."""
    point = torch.tensor([[x]], dtype=torch.float64)
    alphas = tuple((m,) for m in range(encoding.layout.interpolation.degree + 1))
    return gather(point, encoding.params.detach(), encoding.layout, alphas)[:, 0]


@pytest.mark.parametrize(
    ("name", "hashed", "offset", "outside"),
    pairwise(NAMES, [False, True], [False, True], [-0.03, -1.5, 1.02, 2.5]),
)
def test_the_edge_cells_polynomial_continues_outside(
    name: str, hashed: bool, offset: bool, outside: float, make_grid: MakeGrid
) -> None:
    encoding = make_grid(name, 1, hashed, level_offset=offset)
    border = float(outside > 0)
    delta = outside - border
    terms = [
        row * delta**m / factorial(m) for m, row in enumerate(_derivatives_at(encoding, border))
    ]
    y = encoding(torch.tensor([[outside]], dtype=torch.float64))[0].detach()
    # Relative to the absolute terms, of Taylor's sum and of the polynomial in powers of t.
    t = max(level.scales[0] for level in encoding.layout.levels) * abs(delta) + 1
    rows = encoding.layout.interpolation.coefficients
    size = sum(sum(abs(float(c)) * t**m for m, c in enumerate(row)) for row in rows)
    size += torch.stack(terms).abs().sum(dim=0).max().item()
    torch.testing.assert_close(y, torch.stack(terms).sum(dim=0), rtol=0, atol=200 * EPS * size)


def test_linear_continues_along_the_last_cells_line(make_grid: MakeGrid) -> None:
    encoding = make_grid("linear", 1, n_levels=1, n_features_per_level=1, base_resolution=4)
    table = encoding.params.detach()
    x = torch.tensor([[-0.5], [1.25]], dtype=torch.float64)
    expected = torch.stack([table[0] - 2 * (table[1] - table[0]), 2 * table[4] - table[3]])
    torch.testing.assert_close(encoding(x)[:, 0].detach(), expected, rtol=1e-14, atol=1e-14)


def test_cubic_continues_along_the_last_cells_cubic(make_grid: MakeGrid) -> None:
    encoding = make_grid("cubic", 1, n_levels=1, n_features_per_level=1, base_resolution=4)
    c = encoding.params.detach()[3:7]  # the four vertices of the last cell
    t = 1.5
    weights = torch.tensor(
        [(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3],
        dtype=torch.float64,
    )
    x = torch.tensor([[(3 + t) / 4]], dtype=torch.float64)
    torch.testing.assert_close(encoding(x)[0, 0].detach(), weights @ c / 6, rtol=0, atol=1e-14)


@pytest.mark.parametrize(("name", "d", "border"), pairwise(NAMES, [1, 2, 3], [0.0, 1.0], values=1))
def test_jets_are_continuous_across_the_border(
    name: str, d: int, border: float, make_grid: MakeGrid, uniform: Uniform
) -> None:
    encoding = make_grid(name, d, base_resolution=2)
    step = 1e-9
    x = uniform(5, d)
    x[:, 0] = border
    outside = x.clone()
    outside[:, 0] += step if border else -step
    at, beyond = (encoding.jet(p, 2).data.detach() for p in (x, outside))
    # One polynomial on both sides: the change is at most step · the next derivative.
    table = INTERPOLATIONS[name]
    steepest = max(
        sum(abs(float(c)) for c in row) for order in range(4) for row in table.derivative(order)
    )
    scale = max(level.scales[0] for level in encoding.layout.levels)
    size = steepest * scale**3 * encoding.layout.n_taps
    torch.testing.assert_close(at, beyond, rtol=0, atol=step * size)


@pytest.mark.parametrize(("name", "d"), pairwise(NAMES, [1, 2, 3, 4], values=1))
def test_a_nan_coordinate_spoils_its_own_point_alone(
    name: str, d: int, make_grid: MakeGrid, uniform: Uniform
) -> None:
    encoding = make_grid(name, d, n_levels=1, base_resolution=2)
    x = uniform(3, d)
    clean = encoding.jet(x, 2).data
    poisoned = x.clone()
    poisoned[1, d - 1] = float("nan")
    jet = encoding.jet(poisoned, 2).data
    assert jet[0, 1].isnan().all()
    assert encoding(poisoned)[1].isnan().all()
    assert jet[d * 2, 1].isnan().all()  # the second derivative along the NaN axis too
    torch.testing.assert_close(jet[:, [0, 2]], clean[:, [0, 2]], rtol=0, atol=0)
    planned = encoding.plan(poisoned, 2).jet().data
    assert planned[0, 1].isnan().all()
    assert planned[:, [0, 2]].isfinite().all()


def test_infinite_coordinates_give_nan_and_not_an_error(make_grid: MakeGrid) -> None:
    x = torch.tensor([[float("inf")], [float("-inf")], [0.5]], dtype=torch.float64)
    y = make_grid("cubic", 1)(x)
    assert not y[:2].isfinite().any()
    assert y[2].isfinite().all()


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("n", [0, 1])
def test_no_points_and_one_point(d: int, n: int, make_grid: MakeGrid, uniform: Uniform) -> None:
    encoding = make_grid("cubic", d)
    many, x = uniform(4, d), uniform(4, d)[:n]
    assert encoding(x).shape == (n, 4)
    for jet in (encoding.jet(x, 2), encoding.plan(x, 2).jet()):
        assert jet.data.shape == (len(jet_rows(2, d)), n, 4)
        torch.testing.assert_close(jet.data, encoding.jet(many, 2).data[:, :n])
        (grad,) = torch.autograd.grad(jet.data.sum(), encoding.params)
        assert grad.shape == encoding.params.shape
        assert (grad != 0).any() == bool(n)


@pytest.mark.parametrize("d", [1, 2, 3])
def test_non_contiguous_points_and_gradients(d: int, make_grid: MakeGrid, uniform: Uniform) -> None:
    encoding = make_grid("cubic", d)
    wide = uniform(12, 2 * d)
    for x in (wide[::3, ::2], wide.T[:d].T, wide[:1, :d].expand(5, d)):
        assert not x.is_contiguous() or d == 1
        torch.testing.assert_close(encoding(x), encoding(x.contiguous()), rtol=0, atol=0)
        planned, jet = encoding.plan(x, 2).jet().data, encoding.jet(x.contiguous(), 2).data
        torch.testing.assert_close(planned, jet, rtol=0, atol=1e3 * EPS * jet.abs().max().item())
        x = x.detach().requires_grad_(True)
        y = encoding(x)
        strided = uniform(y.shape[1], y.shape[0]).T
        first = torch.autograd.grad(y, (x, encoding.params), strided)
        again = torch.autograd.grad(
            encoding(x.contiguous()), (x, encoding.params), strided.contiguous()
        )
        for one, other in zip(first, again, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(
    "x",
    [
        torch.zeros(3, dtype=torch.float64),
        torch.zeros(3, 1, dtype=torch.float64),
        torch.zeros(3, 3, dtype=torch.float64),
        torch.zeros(1, 3, 2, dtype=torch.float64),
        torch.zeros((), dtype=torch.float64),
        torch.zeros(3, 2, dtype=torch.int64),
        torch.zeros(3, 2, dtype=torch.bool),
    ],
    ids=["1-D", "one axis", "three axes", "3-D", "scalar", "integers", "booleans"],
)
def test_points_of_a_wrong_shape_or_kind_are_refused(x: Tensor, make_grid: MakeGrid) -> None:
    encoding = make_grid("cubic", 2)
    for call in (encoding, partial(encoding.jet, rows=2), partial(encoding.plan, rows=2)):
        with pytest.raises(ValueError, match=r"shape \[N, 2\], got torch\.\w+ of shape"):
            call(x)


def test_points_of_another_precision_or_device_are_refused(make_grid: MakeGrid) -> None:
    encoding = make_grid("cubic", 2)
    for call in (encoding, partial(encoding.jet, rows=2)):
        with pytest.raises(ValueError, match=r"dtype torch\.float32 .*table has torch\.float64:"):
            call(torch.zeros(3, 2))
    encoding.plan(torch.zeros(3, 2), 2)  # a plan's points may have a precision of their own
    for call in (encoding, partial(encoding.jet, rows=2), partial(encoding.plan, rows=2)):
        with pytest.raises(ValueError, match=r"on meta.*on cpu"):
            call(torch.zeros(3, 2, dtype=torch.float64, device="meta"))


@pytest.mark.parametrize("rows", [-1, 1.5, None, (2,), (2, 2, 2), (1, -1), "u_z", "x", [(1,)]])
def test_what_is_no_derivative_is_refused(rows: Any, make_grid: MakeGrid) -> None:
    encoding = make_grid("cubic", 2)
    for call in (encoding.jet, encoding.plan):
        with pytest.raises(ValueError, match="is no derivative"):
            call(torch.zeros(3, 2, dtype=torch.float64), rows)
