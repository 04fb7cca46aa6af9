"""Gather and scatter: values, gradients of every kind, and higher orders."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffhash.ops import reference
from diffhash.ops.grid import gather, scatter
from diffhash.ops.interpolation import INTERPOLATIONS
from diffhash.ops.layout import GridLayout
from tests.thinned import pairwise

EPS = torch.finfo(torch.float64).eps
NAMES = list(INTERPOLATIONS)
DENSE_OR_HASHED = pytest.mark.parametrize("hashed", [False, True], ids=["dense", "hashed"])
MakeLayout = Callable[..., GridLayout]
Make = Callable[..., Tensor]
CASES = [(name, d) for name in NAMES for d in (1, 2)] + [("linear", 3), ("cubic", 3)]
SOME_INDICES = {
    1: ((0,), (1,), (2,), (3,)),
    2: ((0, 0), (1, 0), (0, 2), (1, 1), (2, 1)),
    3: ((0, 0, 0), (0, 0, 1), (1, 1, 1)),
}


def _size(layout: GridLayout, alpha: tuple[int, ...]) -> float:
    """Bound on the sum of the absolute terms of ∂^α y, for parameters of order one."""
    scale = max(scale for level in layout.levels for scale in level.scales)
    size = float(layout.n_taps)
    for m in alpha:
        rows = layout.interpolation.derivative(m)
        size *= scale**m * max(max(sum(abs(float(c)) for c in row) for row in rows), 1)
    return size


def _round_off(layout: GridLayout, alpha: tuple[int, ...]) -> float:
    """The round-off of some tens of operations: Horner's rule, products and sums."""
    return 50 * EPS * _size(layout, alpha)


@pytest.mark.parametrize(("case", "hashed"), pairwise(CASES, [False, True], values=1))
def test_gather_equals_the_reference_and_all_its_gradients(
    case: tuple[str, int],
    hashed: bool,
    make_layout: MakeLayout,
    make_points: Make,
    normal: Make,
    mixed_derivative: Callable[..., Tensor],
) -> None:
    name, d = case
    layout = make_layout(name, d, hashed=hashed, n_levels=2 if d == 1 else 1)
    x = make_points(layout, 4).requires_grad_(True)
    features = 2 if d == 1 else 1
    params = normal(layout.n_rows * features).requires_grad_(True)
    alphas = SOME_INDICES[d][:3] if d < 3 else SOME_INDICES[d][:2]

    def truth(x: Tensor) -> Tensor:
        return reference.encode(x, params, layout, features)

    got = gather(x, params, layout, alphas)
    expected = torch.stack([mixed_derivative(truth, x, alpha) for alpha in alphas])
    for one, other, alpha in zip(got, expected, alphas, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=_round_off(layout, alpha))

    # Every first gradient, and every mixed second one, of a random combination of the outputs.
    weights = normal(*got.shape, seed=1)
    directions = normal(*x.shape, seed=2), normal(*params.shape, seed=3)
    firsts, seconds = [], []
    for y in (got, expected):
        first = torch.autograd.grad((weights * y.sin()).sum(), (x, params), create_graph=True)
        along = sum((g * v).sum() for g, v in zip(first, directions, strict=True))
        firsts.append([g.detach() for g in first])
        seconds.append(torch.autograd.grad(along, (x, params)))
    # Each differentiation in x brings another factor of at most the highest index's own growth.
    top = max(_size(layout, alpha) for alpha in alphas)
    growth = max(_size(layout, tuple(m + 1 for m in alpha)) for alpha in alphas) / layout.n_taps
    for pair, size in ((firsts, top * growth), (seconds, top * growth**2)):
        for one, other in zip(*pair, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=50 * EPS * size)


@pytest.mark.parametrize(("case", "hashed"), pairwise(CASES, [False, True], values=1))
def test_gradcheck_and_gradgradcheck(
    case: tuple[str, int], hashed: bool, make_layout: MakeLayout, make_points: Make, normal: Make
) -> None:
    name, d = case
    layout = make_layout(name, d, hashed=hashed, n_levels=1 if d > 1 else 2)
    x = make_points(layout, 2).requires_grad_(True)
    params = normal(layout.n_rows).requires_grad_(True)
    alphas = SOME_INDICES[d][:3]

    def f(x: Tensor, params: Tensor) -> Tensor:
        return gather(x, params, layout, alphas)

    assert torch.autograd.gradcheck(f, (x, params))
    assert torch.autograd.gradgradcheck(f, (x, params), fast_mode=d > 1)


@pytest.mark.parametrize(("name", "d"), CASES)
@DENSE_OR_HASHED
def test_scatter_is_the_transpose_of_gather(
    name: str, d: int, hashed: bool, make_layout: MakeLayout, make_points: Make, normal: Make
) -> None:
    layout = make_layout(name, d, hashed=hashed)
    x, params = make_points(layout, 20), normal(layout.n_rows * 3)
    alphas = SOME_INDICES[d]
    g = normal(len(alphas), len(x), len(layout.levels) * 3, seed=1)
    forward = gather(x, params, layout, alphas)
    backward = scatter(x, g, layout, alphas)
    assert backward.shape == params.shape
    size = forward.abs().mul(g.abs()).sum().item() + params.abs().mul(backward.abs()).sum().item()
    assert (forward * g).sum().item() == pytest.approx(
        (params * backward).sum().item(), rel=0, abs=10 * EPS * layout.n_taps * size
    )


@pytest.mark.parametrize(("name", "d"), [("cubic", 1), ("cubic", 2), ("linear", 2)])
@DENSE_OR_HASHED
def test_gradcheck_of_scatter(
    name: str, d: int, hashed: bool, make_layout: MakeLayout, make_points: Make, normal: Make
) -> None:
    layout = make_layout(name, d, hashed=hashed, n_levels=1)
    alphas = SOME_INDICES[d][:2]
    x = make_points(layout, 2).requires_grad_(True)
    g = normal(2, 2, 1).requires_grad_(True)

    def f(x: Tensor, g: Tensor) -> Tensor:
        return scatter(x, g, layout, alphas)

    assert torch.autograd.gradcheck(f, (x, g))
    assert torch.autograd.gradgradcheck(f, (x, g), fast_mode=True)


@pytest.mark.parametrize(
    ("case", "hashed"),
    pairwise(
        [(name, d, offset) for name in NAMES for d, offset in ((1, False), (1, True), (2, True))]
        + [("cubic", 2, False), ("linear", 2, False), ("cubic", 3, False), ("linear", 3, True)],
        [False, True],
        values=1,
    ),
)
def test_gather_equals_an_independent_evaluation(
    case: tuple[str, int, bool],
    hashed: bool,
    make_points: Make,
    normal: Make,
    independent_encode: Callable[..., NDArray[np.float64]],
    make_grid: Callable[..., tuple[GridLayout, dict[str, Any]]],
) -> None:
    name, d, offset = case
    layout, settings = make_grid(name, d, hashed, offset)
    x, params = make_points(layout, 3 if d < 3 else 1), normal(layout.n_rows * 2)
    table = params.reshape(-1, 2).numpy()
    for alpha in product(range(3), repeat=d) if d < 3 else ((0, 0, 0), (2, 0, 1)):
        expected = independent_encode(name, settings, x.numpy(), table, alpha)
        got = gather(x, params, layout, (alpha,))[0]
        tolerance = {"rtol": 0, "atol": _round_off(layout, alpha)}
        torch.testing.assert_close(got, torch.from_numpy(expected), **tolerance)


@pytest.mark.parametrize(
    ("name", "case", "hashed"),
    pairwise(NAMES, [(1, 0, False), (1, 0, True), (2, 1, False)], [False, True]),
)
def test_periodic_grids_equal_the_reference_and_an_independent_evaluation(
    name: str,
    case: tuple[int, int, bool],
    hashed: bool,
    make_points: Make,
    normal: Make,
    independent_encode: Callable[..., NDArray[np.float64]],
    make_grid: Callable[..., tuple[GridLayout, dict[str, Any]]],
    mixed_derivative: Callable[..., Tensor],
) -> None:
    d, axis, offset = case
    layout, settings = make_grid(name, d, hashed, offset, (axis,))
    x, params = make_points(layout, 4 if d < 2 else 2), normal(layout.n_rows * 2)
    x[::2, axis] -= 2.0
    table = params.reshape(-1, 2).numpy()
    for alpha in SOME_INDICES[d][:3]:
        got = gather(x, params, layout, (alpha,))[0]
        tolerance = {"rtol": 0, "atol": _round_off(layout, alpha)}
        expected = independent_encode(name, settings, x.numpy(), table, alpha)
        torch.testing.assert_close(got, torch.from_numpy(expected), **tolerance)

        def truth(x: Tensor) -> Tensor:
            return reference.encode(x, params, layout, 2)

        expected = mixed_derivative(truth, x.clone().requires_grad_(), alpha).detach()
        torch.testing.assert_close(got, expected, **tolerance)


@pytest.mark.parametrize("name", NAMES)
@DENSE_OR_HASHED
def test_table_gradients_of_u_xx_and_u_xxx_equal_finite_differences(
    name: str,
    hashed: bool,
    make_points: Make,
    normal: Make,
    independent_encode: Callable[..., NDArray[np.float64]],
    make_grid: Callable[..., tuple[GridLayout, dict[str, Any]]],
) -> None:
    """u = Σ_c sin y_c: not linear in the table, so every term of the chain rule takes part."""
    layout, settings = make_grid(name, 1, hashed, False)
    x, params = make_points(layout, 3), normal(layout.n_rows).requires_grad_(True)

    # The encoding is linear in the table: its rows' own fields, once, serve every table.
    fields = [
        independent_encode(name, settings, x.numpy(), np.eye(layout.n_rows), (m,)).reshape(
            len(x), len(layout.levels), layout.n_rows
        )
        for m in range(4)
    ]

    def u_xx_and_u_xxx(table: NDArray[np.float64]) -> NDArray[np.float64]:
        y, y1, y2, y3 = (field @ table for field in fields)
        s, c = np.sin(y), np.cos(y)
        u_xx = c * y2 - s * y1**2
        u_xxx = c * y3 - 3 * s * y1 * y2 - c * y1**3
        return np.array([u_xx.sum(), u_xxx.sum()])

    variable = x.clone().requires_grad_(True)
    u = gather(variable, params, layout, ((0,),))[0].sin().sum()
    derivatives = [u]
    for _ in range(3):
        derivatives += torch.autograd.grad(derivatives[-1].sum(), variable, create_graph=True)
    table = params.detach().numpy()
    exact = u_xx_and_u_xxx(table)
    # Central differences: truncation h² and rounding eps/h balance at eps^(1/3).
    h = EPS ** (1 / 3)
    for index, value in enumerate(derivatives[2:]):
        order = index + 2
        size = (
            10 * max(scale for level in layout.levels for scale in level.scales) ** order * len(x)
        )
        assert value.sum().item() == pytest.approx(exact[index], rel=0, abs=1e3 * EPS * size)
        (grad,) = torch.autograd.grad(value.sum(), params, retain_graph=True)
        for row in range(layout.n_rows):
            step = h * (np.arange(layout.n_rows) == row)
            slope = (u_xx_and_u_xxx(table + step) - u_xx_and_u_xxx(table - step))[index] / (2 * h)
            assert grad[row].item() == pytest.approx(slope, rel=0, abs=100 * h**2 * size)


def test_several_indices_in_one_call_equal_one_by_one(
    make_layout: MakeLayout, make_points: Make, normal: Make
) -> None:
    layout = make_layout("cubic", 2, hashed=True)
    x, params = make_points(layout, 9), normal(layout.n_rows * 2)
    alphas = SOME_INDICES[2]
    together = gather(x, params, layout, alphas)
    alone = [gather(x, params, layout, (alpha,))[0] for alpha in alphas]
    torch.testing.assert_close(together, torch.stack(alone), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("name", NAMES)
def test_orders_beyond_the_degree_are_zero(
    name: str, make_layout: MakeLayout, make_points: Make, normal: Make
) -> None:
    layout = make_layout(name, 1)
    beyond = INTERPOLATIONS[name].degree + 1
    y = gather(make_points(layout, 5), normal(layout.n_rows), layout, ((beyond,),))
    assert (y == 0).all()
