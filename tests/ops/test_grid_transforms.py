"""`torch.func` on the grid operator: every composition of forward and reverse mode, and vmap.

They are compared with the same transforms of the readable reference, which torch differentiates.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vmap

from diffhash.ops.grid import gather, grid_plan
from diffhash.ops.layout import GridLayout, grid_layout
from diffhash.ops.reference import encode

F = 2
Transform = Callable[[Callable[[Tensor], Tensor]], Callable[[Tensor], Tensor]]
COMPOSITIONS: dict[str, Transform] = {
    "forward": jacfwd,
    "reverse": jacrev,
    "forward over reverse": hessian,
    "reverse over forward": lambda f: jacrev(jacfwd(f)),
    "forward over forward": lambda f: jacfwd(jacfwd(f)),
    "reverse over reverse": lambda f: jacrev(jacrev(f)),
    "third order, forward": lambda f: jacfwd(jacfwd(jacfwd(f))),
    "third order, mixed": lambda f: jacfwd(jacrev(jacfwd(f))),
}


@pytest.fixture(params=[(1, 19), (1, 3), (2, 19), (2, 4)], ids=["1d", "1dhash", "2d", "2dhash"])
def layout(request: pytest.FixtureRequest) -> GridLayout:
    d, log2_hashmap_size = request.param
    return grid_layout(d, "quintic", 2, log2_hashmap_size, 3, 2.0)


@pytest.fixture
def table(layout: GridLayout) -> Tensor:
    return _random(layout.n_rows * F, seed=0)


@pytest.fixture
def x(layout: GridLayout) -> Tensor:
    points = torch.rand(5, layout.n_input_dims, generator=torch.Generator().manual_seed(1))
    return points.double()


def _random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def _ours(x: Tensor, table: Tensor, layout: GridLayout) -> Tensor:
    return gather(x, table, layout, ((0,) * layout.n_input_dims,))[0]


def _truth(x: Tensor, table: Tensor, layout: GridLayout) -> Tensor:
    return encode(x, table, layout, F)


def _assert_close(ours: Tensor, truth: Tensor) -> None:
    """Equal up to the round-off of a few hundred terms, relative to the largest value."""
    scale = truth.abs().max().item()
    assert scale > 0
    torch.testing.assert_close(
        ours, truth, rtol=0, atol=1e3 * torch.finfo(torch.float64).eps * scale
    )


@pytest.mark.parametrize("name", COMPOSITIONS)
def test_derivatives_of_a_point_under_vmap(
    name: str, x: Tensor, table: Tensor, layout: GridLayout
) -> None:
    transform = COMPOSITIONS[name]
    ours = vmap(transform(lambda point: _ours(point[None], table, layout)[0]))(x)
    truth = vmap(transform(lambda point: _truth(point[None], table, layout)[0]))(x)
    _assert_close(ours, truth)


def test_jvp_in_points_and_table(x: Tensor, table: Tensor, layout: GridLayout) -> None:
    tangents = (_random(*x.shape, seed=2), _random(len(table), seed=3))
    ours = jvp(lambda a, b: _ours(a, b, layout), (x, table), tangents)
    truth = jvp(lambda a, b: _truth(a, b, layout), (x, table), tangents)
    _assert_close(ours[1], truth[1])


def test_jvp_of_the_table_gradient(x: Tensor, table: Tensor, layout: GridLayout) -> None:
    """Forward mode through scatter, in its points and in what it scatters."""

    def gradient(f: Callable[..., Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda a, b: grad(lambda t: f(a, t, layout).pow(3).sum())(b)

    tangents = (_random(*x.shape, seed=2), _random(len(table), seed=3))
    ours = jvp(gradient(_ours), (x, table), tangents)
    truth = jvp(gradient(_truth), (x, table), tangents)
    _assert_close(ours[1], truth[1])


def test_table_gradient_of_a_laplacian(x: Tensor, table: Tensor, layout: GridLayout) -> None:
    def loss(f: Callable[..., Tensor]) -> Callable[[Tensor], Tensor]:
        def of_table(t: Tensor) -> Tensor:
            second = vmap(hessian(lambda point: f(point[None], t, layout)[0]))(x)
            return second.diagonal(dim1=-2, dim2=-1).sum(-1).square().sum()

        return of_table

    _assert_close(grad(loss(_ours))(table), grad(loss(_truth))(table))


def test_vmap_over_tables(x: Tensor, table: Tensor, layout: GridLayout) -> None:
    tables = _random(3, len(table), seed=4)
    ours = vmap(lambda t: _ours(x, t, layout))(tables)
    _assert_close(ours, torch.stack([_truth(x, t, layout) for t in tables]))


def test_vmap_over_tables_and_their_gradients(x: Tensor, table: Tensor, layout: GridLayout) -> None:
    tables = _random(3, len(table), seed=4)
    ours = vmap(grad(lambda t: _ours(x, t, layout).pow(3).sum()))(tables)
    truth = [grad(lambda t: _truth(x, t, layout).pow(3).sum())(t) for t in tables]
    _assert_close(ours, torch.stack(truth))


def test_vmap_over_points_and_tables_together(x: Tensor, table: Tensor, layout: GridLayout) -> None:
    tables, points = _random(3, len(table), seed=4), torch.stack([x, x / 2, x / 3], dim=1)
    ours = vmap(lambda p, t: _ours(p, t, layout), in_dims=(1, 0))(points, tables)
    truth = [_truth(p, t, layout) for p, t in zip(points.unbind(1), tables, strict=True)]
    _assert_close(ours, torch.stack(truth))


def test_table_gradient_of_every_point(x: Tensor, table: Tensor, layout: GridLayout) -> None:
    def gradient(f: Callable[..., Tensor]) -> Callable[[Tensor], Tensor]:
        return lambda p: grad(lambda t: f(p[None], t, layout).pow(3).sum())(table)

    truth = [gradient(_truth)(point) for point in x]
    _assert_close(vmap(gradient(_ours))(x), torch.stack(truth))


def test_forward_mode_without_torch_func(x: Tensor, table: Tensor, layout: GridLayout) -> None:
    assert torch.autograd.gradcheck(
        lambda a, b: _ours(a, b, layout),
        (x.clone().requires_grad_(), table.clone().requires_grad_()),
        check_forward_ad=True,
        fast_mode=True,
    )


def _assert_plan_equals(transform: Callable[..., Tensor], x: Tensor, layout: GridLayout) -> None:
    alphas = ((0,) * layout.n_input_dims,)
    plan = grid_plan(x, layout, alphas, torch.float64)
    _assert_close(transform(plan.gather), transform(lambda t: _ours(x, t, layout)[None]))


def test_a_plan_under_vmap_and_reverse_mode(x: Tensor, table: Tensor, layout: GridLayout) -> None:
    tables = _random(3, len(table), seed=4)
    _assert_plan_equals(lambda f: vmap(f)(tables), x, layout)
    _assert_plan_equals(lambda f: vmap(grad(lambda t: f(t).pow(3).sum()))(tables), x, layout)


def test_a_plan_under_forward_mode(x: Tensor, table: Tensor, layout: GridLayout) -> None:
    tangent = _random(len(table), seed=4)
    _assert_plan_equals(lambda f: jvp(f, (table,), (tangent,))[1], x, layout)
    cube = lambda f: lambda t: f(t).pow(3).sum()  # noqa: E731
    for outer, inner in ((jacfwd, jacrev), (jacfwd, jacfwd), (jacrev, jacrev)):
        _assert_plan_equals(lambda f, o=outer, i=inner: o(i(cube(f)))(table), x, layout)
