"""One-dimensional spline grids against scipy's B-splines with the same coefficients."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.interpolate import BSpline, CubicHermiteSpline
from torch import Tensor

from diffhash import GridEncoding

EPS = torch.finfo(torch.float64).eps
MakeGrid = Callable[..., GridEncoding]


def _derivatives(encoding: GridEncoding, x: Tensor, highest: int) -> list[Tensor]:
    """y, y', … of a one-column encoding by nested autograd."""
    x = x.clone().requires_grad_(True)
    rows = [encoding(x)[:, 0]]
    for _ in range(highest):
        rows.append(torch.autograd.grad(rows[-1].sum(), x, create_graph=True)[0][:, 0])
    return rows


def _spline(encoding: GridEncoding, degree: int, n: int) -> BSpline:
    """The spline on uniform knots of spacing 1/n whose coefficients are the table's."""
    knots = np.arange(-degree, n + degree + 1) / n
    coefficients = encoding.params.detach().numpy()[: n + degree]
    return BSpline(knots, coefficients, degree)


@pytest.mark.parametrize(("name", "degree"), [("quadratic", 2), ("cubic", 3), ("quintic", 5)])
@pytest.mark.parametrize("n", [1, 4, 11])
def test_a_level_is_scipys_bspline(
    name: str, degree: int, n: int, make_grid: MakeGrid, uniform: Callable[..., Tensor]
) -> None:
    encoding = make_grid(name, 1, n_levels=1, n_features_per_level=1, base_resolution=n)
    borders = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    x = torch.cat([borders, uniform(50, 1)])
    spline = _spline(encoding, degree, n)
    for order, y in enumerate(_derivatives(encoding, x, degree)):
        expected = spline.derivative(order)(x[:, 0].numpy()) if order else spline(x[:, 0].numpy())
        if order == degree:  # piecewise constant: what a knot belongs to is a convention
            y, expected = y[2:], expected[2:]
        # Coefficients are differenced `order` times, each a factor 2n (degree of them at most).
        tolerance = 20 * EPS * (2 * n) ** order * degree**order
        np.testing.assert_allclose(y.detach().numpy(), expected, rtol=0, atol=tolerance)


def test_the_table_gradient_of_a_fourth_derivative_is_that_of_the_basis(
    make_grid: MakeGrid, uniform: Callable[..., Tensor]
) -> None:
    n = 4
    encoding = make_grid("quintic", 1, n_levels=1, n_features_per_level=1, base_resolution=n)
    x = uniform(3, 1)
    fourth = _derivatives(encoding, x, 4)[4]
    knots = np.arange(-5, n + 6) / n
    for i, value in enumerate(fourth):
        (grad,) = torch.autograd.grad(value, encoding.params, retain_graph=True)
        basis = [
            BSpline(knots, np.eye(n + 5)[j], 5).derivative(4)(x[i, 0].item()) for j in range(n + 5)
        ]
        expected = np.zeros(encoding.params.numel())
        expected[: n + 5] = basis
        np.testing.assert_allclose(grad.numpy(), expected, rtol=0, atol=100 * EPS * (5 * n) ** 4)


def test_catmull_rom_is_the_hermite_cubic_with_central_slopes(
    make_grid: MakeGrid, uniform: Callable[..., Tensor]
) -> None:
    n = 6
    encoding = make_grid("catmull_rom", 1, n_levels=1, n_features_per_level=1, base_resolution=n)
    table = encoding.params.detach().numpy()[: n + 3]  # vertices -1 … n + 1
    slopes = n * (table[2:] - table[:-2]) / 2
    hermite = CubicHermiteSpline(np.arange(n + 1) / n, table[1:-1], slopes)
    x = uniform(40, 1)
    for order, y in enumerate(_derivatives(encoding, x, 2)):
        expected = hermite(x[:, 0].numpy(), nu=order)
        tolerance = 50 * EPS * (3 * n) ** order
        np.testing.assert_allclose(y.detach().numpy(), expected, rtol=0, atol=tolerance)


def test_levels_are_concatenated_coarse_to_fine_features_together(
    make_grid: MakeGrid, uniform: Callable[..., Tensor]
) -> None:
    encoding = make_grid("cubic", 1, n_levels=3, n_features_per_level=2, base_resolution=2)
    x = uniform(10, 1)
    y = encoding(x).detach().numpy()
    table = encoding.params.detach().numpy().reshape(-1, 2)
    first_row = 0
    for level, n in enumerate([2, 4, 8]):
        knots = np.arange(-3, n + 4) / n
        for feature in range(2):
            coefficients = table[first_row : first_row + n + 3, feature]
            expected = BSpline(knots, coefficients, 3)(x[:, 0].numpy())
            np.testing.assert_allclose(y[:, 2 * level + feature], expected, rtol=0, atol=20 * EPS)
        first_row += -(-(n + 3) // 8) * 8
