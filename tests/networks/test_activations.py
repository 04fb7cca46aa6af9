"""Activations' derivatives, and how a jet passes through one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from diffhash.networks import activations
from diffhash.networks.activations import (
    Activation,
    activate_jet,
    activate_jet_reference,
    sine,
    tanh,
)

EPS = torch.finfo(torch.float64).eps
ACTIVATIONS = pytest.mark.parametrize(
    "activation", [tanh(), sine(1.0), sine(30.0)], ids=["tanh", "sine 1", "sine 30"]
)
WITH_DERIVATIVES = [(1,), (2,), (1, 1), (2, 1), (1, 2), (0, 2), (2, 0, 1), (2, 2, 2)]
ORDERS = pytest.mark.parametrize("orders", [(0,), *WITH_DERIVATIVES])


@pytest.fixture(params=["native", "torch"], autouse=True)
def _implementation(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test with the C kernels, and without."""
    if request.param == "torch":
        monkeypatch.setattr(activations, "_library", lambda formulas, dtype: None)


def _normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


@ACTIVATIONS
def test_slopes_are_the_derivatives(activation: Activation) -> None:
    z = _normal(50).requires_grad_(True)
    value = activation.value(z)
    slopes = activation.slopes(z, value)
    current, size = value, 1.0
    for slope in slopes:
        (current,) = torch.autograd.grad(current.sum(), z, create_graph=True)
        size = max(size, current.abs().max().item())
        torch.testing.assert_close(slope, current, rtol=0, atol=50 * EPS * size)


@ACTIVATIONS
@ORDERS
def test_the_jet_and_its_gradients_equal_the_reference(
    activation: Activation, orders: tuple[int, ...]
) -> None:
    z = _normal(1 + sum(orders), 6, 3).requires_grad_(True)
    bias = _normal(3, seed=1).requires_grad_(True)
    weights = _normal(*z.shape, seed=2)
    results = []
    for f in (activate_jet, activate_jet_reference):
        out = f(z, bias, orders, activation)
        results.append((out, *torch.autograd.grad((weights * out).sum(), (z, bias))))
    for one, other in zip(*results, strict=True):
        size = other.abs().max().item()
        torch.testing.assert_close(one, other, rtol=0, atol=100 * EPS * size)


@ACTIVATIONS
@ORDERS
def test_gradcheck(activation: Activation, orders: tuple[int, ...]) -> None:
    z = _normal(1 + sum(orders), 2, 2).requires_grad_(True)
    bias = _normal(2, seed=1).requires_grad_(True)
    assert torch.autograd.gradcheck(
        lambda z, bias: activate_jet(z, bias, orders, activation), (z, bias)
    )


@ACTIVATIONS
def test_the_jet_is_that_of_the_activated_function(activation: Activation) -> None:
    """σ(z(x) + b) with z = (x², sin x): derivatives by nested autograd."""
    x = _normal(7, 1).requires_grad_(True)
    bias = _normal(2, seed=1)
    inner = torch.cat([x**2, x.sin()], dim=1)
    z = torch.stack(
        [inner, torch.cat([2 * x, x.cos()], dim=1), torch.cat([0 * x + 2, -x.sin()], dim=1)]
    )
    jet = activate_jet(z.detach(), bias, (2,), activation)
    columns = []
    for c in range(2):
        rows = [activation.value(inner + bias)[:, c]]
        for _ in range(2):
            rows.append(torch.autograd.grad(rows[-1].sum(), x, create_graph=True)[0][:, 0])
        columns.append(torch.stack(rows))
    expected = torch.stack(columns, dim=2)
    for one, other in zip(jet, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=100 * EPS * other.abs().max().item())


@ACTIVATIONS
@pytest.mark.parametrize("orders", WITH_DERIVATIVES)
def test_a_second_differentiation_is_an_error_and_not_a_wrong_number(
    activation: Activation, orders: tuple[int, ...]
) -> None:
    z = _normal(1 + sum(orders), 4, 2).requires_grad_(True)
    bias = _normal(2, seed=1).requires_grad_(True)
    loss = activate_jet(z, bias, orders, activation).square().sum()
    with pytest.raises(RuntimeError, match=r"differentiable once.*autograd_jet"):
        torch.autograd.grad(loss, (z, bias), create_graph=True)
    torch.autograd.grad(loss, (z, bias))  # the graph itself is sound


@ACTIVATIONS
def test_a_jet_of_values_alone_may_be_differentiated_again(activation: Activation) -> None:
    z = _normal(1, 4, 2).requires_grad_(True)
    bias = _normal(2, seed=1).requires_grad_(True)

    def f(z: Tensor, bias: Tensor) -> Tensor:
        return activate_jet(z, bias, (0,), activation)

    assert torch.autograd.gradgradcheck(f, (z, bias))


def test_inputs_are_left_alone() -> None:
    z, bias = _normal(3, 4, 2), _normal(2, seed=1)
    before = z.clone(), bias.clone()
    activate_jet(z, bias, (2,), tanh())
    assert (z == before[0]).all()
    assert (bias == before[1]).all()


def test_no_points() -> None:
    z, bias = _normal(3, 0, 2).requires_grad_(True), _normal(2).requires_grad_(True)
    out = activate_jet(z, bias, (2,), tanh())
    out.sum().backward()
    assert out.shape == (3, 0, 2)
    assert bias.grad is not None
    assert (bias.grad == 0).all()


def test_the_number_of_threads_does_not_change_a_bit() -> None:
    z = _normal(3, 1001, 33).requires_grad_(True)
    bias = _normal(33, seed=1).requires_grad_(True)
    weights = _normal(*z.shape, seed=2)
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        out = activate_jet(z, bias, (2,), tanh())
        results.append((out, *torch.autograd.grad((weights * out).sum(), (z, bias))))
    torch.set_num_threads(1)
    if activations._library(tanh().formulas, z.dtype) is not None:  # torch's sums may differ
        for result in results[1:]:
            assert all(map(torch.equal, results[0], result))


def test_strided_jets_and_gradients() -> None:
    z = _normal(3, 2, 9).transpose(1, 2).requires_grad_(True)
    bias = _normal(2, seed=1)
    weights = _normal(2, 9, 3, seed=2).permute(2, 1, 0)
    grads = []
    for inputs, w in ((z, weights), (z.detach().contiguous().requires_grad_(), weights.clone())):
        out = activate_jet(inputs, bias, (2,), tanh())
        grads.append((out, *torch.autograd.grad(out, inputs, w)))
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-14, atol=1e-14)
