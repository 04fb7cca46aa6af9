"""The derivatives of activations."""

from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch
from torch import Tensor

from diffhash import MLP
from diffhash.jets import Activation, axis_rows, named_activation, sine
from diffhash.networks.taylor import network_jet, network_jet_reference

NAMES = ("tanh", "silu", "gelu", "softplus")


ACTIVATIONS = pytest.mark.parametrize(
    "activation",
    [*map(named_activation, NAMES), sine(1.0), sine(30.0)],
    ids=[*NAMES, "sine 1", "sine 30"],
)
SIZES = (0.0, 0.5, 5, 19, 39, 41, 50, 87, 89, 200, 709, 1000, 1024, 2000, 1e4, 1e10, 1e30, math.inf)


@ACTIVATIONS
def test_slopes_are_the_derivatives(activation: Activation) -> None:
    z = torch.linspace(-6, 6, 101, dtype=torch.float64).requires_grad_(True)
    value, *slopes = activation.slopes(z, 5)
    assert torch.equal(value, activation.value(z))
    current, size = value, 1.0
    for slope in slopes:
        (current,) = torch.autograd.grad(current.sum(), z, create_graph=True)
        size = max(size, current.abs().max().item())
        atol = 50 * torch.finfo(z.dtype).eps * size
        torch.testing.assert_close(slope, current, rtol=0, atol=atol)


def _columns(jet: Tensor, features: Tensor) -> Tensor:
    """Value, σ' and σ'' from a jet with z' = 1 and z'' = 0, and the gradient of their sum."""
    (gradient,) = torch.autograd.grad(jet.sum(), features)
    return torch.cat([jet.detach(), gradient])[..., 0]


@ACTIVATIONS
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_huge_and_infinite_arguments_give_limits_and_not_nan(
    activation: Activation, dtype: torch.dtype
) -> None:
    """C, torch and autograd agree, in every derivative of jets and of their training."""
    size = torch.tensor(SIZES, dtype=dtype)
    z = torch.cat([-size, size, torch.tensor([math.nan], dtype=dtype)])
    params = torch.tensor([1, 0, 1, 0], dtype=dtype)
    jets = []
    for function in (network_jet, network_jet_reference):
        rows = torch.stack([z, torch.ones_like(z), torch.zeros_like(z)])[..., None]
        features = rows.requires_grad_(True)
        jets.append(
            _columns(function(features, params, (1, 1, 1), axis_rows([2]), activation), features)
        )
    eps = torch.finfo(dtype).eps
    slope = max(1.0, activation.parameter) ** 3
    torch.testing.assert_close(*jets, rtol=40 * eps, atol=40 * eps * slope, equal_nan=True)
    z.requires_grad_(True)
    current = activation.value(z)
    for row in range(3):
        torch.testing.assert_close(
            jets[0][row], current.detach(), rtol=40 * eps, atol=40 * eps * slope, equal_nan=True
        )
        if row < 2:
            (current,) = torch.autograd.grad(current.sum(), z, create_graph=True)
    assert jets[0][:, -1].isnan().sum() >= 4
    if activation.name == "sine":  # has no limit
        assert jets[0][0, z.isinf()].isnan().all()
        return
    left, right = jets[0][:3, len(SIZES) - 1].tolist(), jets[0][:3, 2 * len(SIZES) - 1].tolist()
    tends = activation.name == "tanh"
    assert left == pytest.approx([-1.0 if tends else 0.0, 0, 0], abs=1e-30)
    assert right == pytest.approx([1.0 if tends else math.inf, 0 if tends else 1, 0], abs=1e-30)


def test_softplus_of_large_numbers_is_the_number() -> None:
    network = MLP(1, 1, width=1, depth=1, activation="softplus")
    with torch.no_grad():
        network.params.copy_(torch.tensor([1.0, 0.0, 1.0, 0.0]))
    x = torch.tensor([[100.0]], requires_grad=True)
    u = network(x)
    (slope,) = torch.autograd.grad(u.sum(), x, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), x)
    assert (u.item(), slope.item(), curvature.item()) == (100, 1, 0)


@ACTIVATIONS
def test_copies_are_the_activation_itself(activation: Activation) -> None:
    z = torch.linspace(-2, 2, 9)
    for other in (pickle.loads(pickle.dumps(activation)), copy.deepcopy(activation)):
        assert other == activation
        assert torch.equal(other.value(z), activation.value(z))


def test_an_unknown_activation_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"activation='relu'.*tanh, silu, gelu, softplus"):
        named_activation("relu")
