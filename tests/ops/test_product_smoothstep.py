"""Eq. 10 to the letter: the smoothstep of the product of the linear weights."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from diffhash import GridEncoding
from diffhash.ops import reference
from diffhash.ops.grid import gather
from diffhash.ops.interpolation import PRODUCT_SMOOTHSTEPS
from diffhash.ops.layout import grid_layout
from tests.thinned import pairwise

EPS = torch.finfo(torch.float64).eps
NAMES = list(PRODUCT_SMOOTHSTEPS)


def _grid(name: str, d: int) -> GridEncoding:
    return GridEncoding(
        d,
        n_levels=1,
        n_features_per_level=1,
        base_resolution=2,
        interpolation=name,
        level_offset=d > 1 and "product" not in name,  # the paper's vertices for both
        init_scale=1.0,
        dtype=torch.float64,
        seed=0,
    )


@pytest.mark.parametrize(
    ("name", "d", "total"),
    [
        # S1(1/4) = 3/16 - 2/64 = 5/32, and four corners; S1(1/8) = 11/256, and eight.
        ("s1_product", 2, 4 * 5 / 32),
        ("s1_product", 3, 8 * 11 / 256),
        # S2(1/4) = 10/64 - 15/256 + 6/1024.
        ("s2_product", 2, 4 * (10 / 64 - 15 / 256 + 6 / 1024)),
    ],
)
def test_the_weights_at_a_cells_centre_do_not_add_up_to_one(
    name: str, d: int, total: float
) -> None:
    encoding = _grid(name, d)
    with torch.no_grad():
        encoding.params.fill_(1.0)
    y = encoding(torch.full((1, d), 0.25, dtype=torch.float64))
    assert y.item() == pytest.approx(total, rel=1e-14)
    if (name, d) == ("s1_product", 2):
        assert total == 0.625


@pytest.mark.parametrize("n", [1, 2, 3])
def test_in_one_dimension_it_is_the_smoothstep_per_axis(n: int) -> None:
    x = torch.linspace(0, 1, 23, dtype=torch.float64)[:, None]
    one, other = (_grid(f"s{n}{form}", 1).jet(x, 2).data for form in ("_product", ""))
    # The sum over powers cancels: the absolute terms of S3'' add up to 700 times its maximum.
    torch.testing.assert_close(one, other, rtol=0, atol=5e3 * EPS * other.abs().max().item())


@pytest.mark.parametrize(
    ("name", "d", "log2_hashmap_size"), pairwise(NAMES, [1, 2, 3], [3, 12], values=1)
)
def test_derivatives_are_those_of_the_formula(
    name: str,
    d: int,
    log2_hashmap_size: int,
    mixed_derivative: Callable[..., Tensor],
    normal: Callable[..., Tensor],
) -> None:
    layout = grid_layout(d, name, 2, log2_hashmap_size, 3, 2.0)
    x = torch.rand(3, d, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x.requires_grad_()
    params = normal(layout.n_rows).requires_grad_()
    for alpha in ((0,) * d, (2,) + (0,) * (d - 1), (0,) * (d - 1) + (3,), (1,) * d):
        got = gather(x, params, layout, (alpha,))[0]
        expected = mixed_derivative(lambda p: reference.encode(p, params, layout, 1), x, alpha)
        size = expected.abs().max().item() + 6 ** sum(alpha)
        torch.testing.assert_close(got, expected, rtol=0, atol=1e4 * EPS * size)
        grads = [torch.autograd.grad(y.square().sum(), (x, params)) for y in (got, expected)]
        for one, other in zip(*grads, strict=True):
            size = other.abs().max().item() + 24 * 6 ** (2 * sum(alpha) + 1)
            torch.testing.assert_close(one, other, rtol=0, atol=1e4 * EPS * size)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_in_two_dimensions_it_is_continuous_with_a_kink_at_the_vertices_planes(n: int) -> None:
    """The form per axis is C^n there; Eq. 10 loses this smoothness."""
    step = 1e-10
    sides = torch.tensor([[0.5 - step, 0.3], [0.5 + step, 0.3]], dtype=torch.float64)
    jumps = {}
    for form in ("_product", ""):
        jet = _grid(f"s{n}{form}", 2).jet(sides, 1)
        jumps[form] = [(r[1] - r[0]).abs().item() for r in (jet.value, jet[1, 0])]
    assert jumps[""][0] < 1e-8 and jumps[""][1] < 1e-6
    assert jumps["_product"][0] < 1e-8
    assert jumps["_product"][1] > 0.1
