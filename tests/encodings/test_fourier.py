"""Fourier features: the formula, its frequencies, bad settings."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from diffhash import FourierFeatures


def test_features_are_cosines_then_sines_of_two_pi_b_x(uniform: Callable[..., Tensor]) -> None:
    encoding = FourierFeatures(2, n_frequencies=5, sigma=3.0, dtype=torch.float64, seed=0)
    b = encoding.frequencies / (2 * torch.pi)
    x = uniform(7, 2)
    phase = 2 * torch.pi * torch.einsum("kd,nd->nk", b, x)
    expected = torch.cat([phase.cos(), phase.sin()], dim=1)
    assert encoding.n_output_dims == 10
    torch.testing.assert_close(encoding(x), expected, rtol=0, atol=1e-13)


def test_frequencies_are_normal_with_the_given_deviation() -> None:
    n = 20_000
    b = FourierFeatures(1, n, sigma=3.0, dtype=torch.float64, seed=0).frequencies / (2 * torch.pi)
    # Five standard errors: σ/√n of the mean, σ/√(2n) of the deviation.
    assert b.mean().abs() < 5 * 3 / n**0.5
    assert (b.std() - 3).abs() < 5 * 3 / (2 * n) ** 0.5


def test_frequencies_are_fixed_by_the_seed_saved_and_not_trained() -> None:
    one, same, other = (FourierFeatures(2, seed=seed) for seed in (0, 0, 1))
    assert (one.frequencies == same.frequencies).all()
    assert (one.frequencies != other.frequencies).any()
    assert list(one.parameters()) == []
    other.load_state_dict(one.state_dict())
    assert (one.frequencies == other.frequencies).all()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_frequencies", 0),
        ("n_frequencies", -1),
        ("sigma", 0.0),
        ("sigma", -1.0),
        ("sigma", float("nan")),
        ("sigma", float("inf")),
    ],
)
def test_settings_out_of_range_are_named(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"^{name}={value}"):
        FourierFeatures(1, **{name: value})


def test_points_of_a_wrong_shape_are_refused() -> None:
    encoding = FourierFeatures(2)
    for call in (encoding, partial(encoding.jet, rows=2), partial(encoding.plan, rows=2)):
        with pytest.raises(ValueError, match=r"shape \[N, 2\]"):
            call(torch.rand(3, 1))


@pytest.mark.parametrize("d", [1, 2])
def test_periodic_axes_have_integer_frequencies(d: int, uniform: Callable[..., Tensor]) -> None:
    encoding = FourierFeatures(d, 50, dtype=torch.float64, seed=0, periodic=(d - 1,))
    free = FourierFeatures(d, 50, dtype=torch.float64, seed=0)
    cycles = encoding.frequencies[:, d - 1] / (2 * torch.pi)
    torch.testing.assert_close(cycles, cycles.round(), rtol=0, atol=1e-14)
    assert (encoding.frequencies != 0).any(dim=1).all()  # no constant feature
    assert (encoding.frequencies[:, : d - 1] == free.frequencies[:, : d - 1]).all()
    x = (uniform(9, d) * 2**20).round() / 2**20
    moved = x.clone()
    moved[:, d - 1] += torch.tensor([1.0, -1, 2, -2, 5, 1, 1, 1, -7]).double()
    torch.testing.assert_close(encoding.jet(moved, 2).data, encoding.jet(x, 2).data, rtol=0, atol=0)
    with pytest.raises(ValueError, match="periodic="):
        FourierFeatures(d, periodic=(d,))
