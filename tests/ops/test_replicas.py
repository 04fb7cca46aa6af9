"""A leading replica axis: over the same points, every table gives the same as alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from diffhash import GridEncoding

EPS = torch.finfo(torch.float64).eps
SEEDS = [3, 0, 7]


def _grid(seed: int | list[int], d: int, name: str = "cubic") -> GridEncoding:
    return GridEncoding(
        d,
        n_levels=2,
        n_features_per_level=3,
        log2_hashmap_size=5,
        base_resolution=3,
        interpolation=name,
        init_scale=1.0,
        dtype=torch.float64,
        seed=seed,
    )


@pytest.fixture(params=[1, 2])
def x(request: pytest.FixtureRequest) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(5, request.param, dtype=torch.float64, generator=generator)


def test_tables_are_those_of_the_seeds_bit_for_bit(x: Tensor) -> None:
    together = _grid(SEEDS, x.shape[1])
    for params, seed in zip(together.params, SEEDS, strict=True):
        assert torch.equal(params, _grid(seed, x.shape[1]).params)


def test_outputs_and_all_gradients_are_those_of_each_alone(x: Tensor) -> None:
    together = _grid(SEEDS, x.shape[1])
    points = x.clone().requires_grad_()
    direction = torch.linspace(1, 2, x.numel(), dtype=x.dtype).view_as(x)
    plan = together.plan(x, 2)

    def everything(encoding: GridEncoding, points: Tensor) -> list[Tensor]:
        y = encoding(points)
        cube = (y**3).sum()
        first = torch.autograd.grad(cube, (points, encoding.params), create_graph=True)
        # Along a direction, the slope of a sum over replicas is a sum over replicas.
        slope = (first[0] * direction).sum()
        mixed = torch.autograd.grad(slope, (points, encoding.params))
        return [y, encoding.jet(points, 2).data, *first, *mixed]

    got = everything(together, points)
    alone = [everything(_grid(seed, x.shape[1]), points) for seed in SEEDS]
    for i, name in enumerate(["y", "jet", "dx", "dθ", "mixed dx", "mixed dθ"]):
        parts = [one[i] for one in alone]
        expected = sum(parts[1:], parts[0]) if name.endswith("dx") else torch.stack(parts)
        size = expected.abs().max().item()
        torch.testing.assert_close(got[i], expected, rtol=0, atol=200 * EPS * size, msg=name)
    planned = plan.jet().data
    torch.testing.assert_close(planned, got[1], rtol=0, atol=200 * EPS * got[1].abs().max().item())
    weights = torch.rand_like(planned)
    grads = [
        torch.autograd.grad((weights * jet).sum(), together.params)[0]
        for jet in (planned, together.jet(x, 2).data)
    ]
    torch.testing.assert_close(*grads, rtol=0, atol=200 * EPS * grads[0].abs().max().item())


def test_second_order_through_replicas(x: Tensor) -> None:
    together, points = _grid(SEEDS, x.shape[1]), x.clone().requires_grad_()
    assert torch.autograd.gradgradcheck(lambda p: together(p), points, fast_mode=True)


def test_a_derivative_of_a_jet_keeps_the_replica_axis(x: Tensor) -> None:
    jet = _grid(SEEDS, x.shape[1]).jet(x, 2)
    second = jet[(2, 0)[: x.shape[1]]]
    assert jet.value.shape == second.shape == (3, 5, 6)
    torch.testing.assert_close(second, jet.data[:, jet.rows.index((2, 0)[: x.shape[1]])])


def test_one_replica_keeps_its_axis(x: Tensor) -> None:
    assert _grid([4], x.shape[1])(x).shape == (1, 5, 6)


def test_no_seed_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="seed=\\[\\]"):
        _grid([], 1)
