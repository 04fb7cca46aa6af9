"""Activations' derivatives."""

from __future__ import annotations

import pytest
import torch

from diffhash.networks.activations import Activation, named_activation, sine

NAMES = ("tanh", "silu", "gelu", "softplus")


@pytest.mark.parametrize(
    "activation",
    [*map(named_activation, NAMES), sine(1.0), sine(30.0)],
    ids=[*NAMES, "sine 1", "sine 30"],
)
def test_slopes_are_the_derivatives(activation: Activation) -> None:
    z = torch.linspace(-6, 6, 101, dtype=torch.float64).requires_grad_(True)
    value = activation.value(z)
    current, size = value, 1.0
    for slope in activation.slopes(z, value):
        (current,) = torch.autograd.grad(current.sum(), z, create_graph=True)
        size = max(size, current.abs().max().item())
        atol = 50 * torch.finfo(z.dtype).eps * size
        torch.testing.assert_close(slope, current, rtol=0, atol=atol)


def test_an_unknown_activation_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"activation='relu'.*tanh, silu, gelu, softplus"):
        named_activation("relu")
