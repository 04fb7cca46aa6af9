"""Jets through a network: C kernels and torch against the readable reference."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from diffhash.jets import Activation, Row, Sum, axis_rows, jet_rows, named_activation, sine
from diffhash.networks import native_jet, taylor
from diffhash.networks.taylor import network_jet, network_jet_reference, split_layers

NAMED = ("tanh", "silu", "gelu", "softplus")
ACTIVATIONS = pytest.mark.parametrize(
    "activation",
    [*map(named_activation, NAMED), sine(1.0), sine(30.0)],
    ids=[*NAMED, "sine 1", "sine 30"],
)
VALUE, SECOND, MIXED = axis_rows([0]), axis_rows([2]), axis_rows((2, 1))
SUMS = jet_rows([(1, 1), Sum(((1.0, (2, 0)), (-0.3, (0, 2)), (2.0, (0, 3))))], 2)
ROWS = pytest.mark.parametrize("rows", [VALUE, axis_rows([1]), SECOND, MIXED, SUMS])
REPLICAS = pytest.mark.parametrize("replicas", [(), (1,), (3,)], ids=["solo", "R=1", "R=3"])


@pytest.fixture(params=["native", "torch"], autouse=True)
def implementation(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run every test with the C kernels, and without them."""
    if request.param == "torch":
        monkeypatch.setattr(taylor, "library", lambda activation, dtype: None)
    return request.param


def _normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=dtype, generator=generator)


def _params(
    widths: tuple[int, ...],
    activation: Activation,
    replicas: tuple[int, ...] = (),
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """Weights of a size that keeps σ's arguments of order one."""
    parts = []
    for index, (n_inputs, n_outputs) in enumerate(pairwise(widths)):
        scale = math.sqrt(n_inputs) * activation.parameter
        weight = _normal(*replicas, n_outputs * n_inputs, seed=index, dtype=dtype) / scale
        parts += [weight, _normal(*replicas, n_outputs, seed=index + 9, dtype=dtype) / scale]
    return torch.cat(parts, dim=-1)


def _result(f: Callable[..., Tensor], features: Tensor, params: Tensor, *rest: Any) -> list[Tensor]:
    """The jet, and the gradients of a randomly weighted sum of it."""
    features = features.clone().requires_grad_(True)
    params = params.clone().requires_grad_(True)
    out = f(features, params, *rest)
    weights = _normal(*out.shape, seed=5, dtype=out.dtype)
    return [out.detach(), *torch.autograd.grad((weights * out).sum(), (features, params))]


def _check(features: Tensor, params: Tensor, *rest: Any) -> None:
    """Compare with the reference, up to the round-off of sums over features and points."""
    one = _result(network_jet, features, params, *rest)
    other = _result(network_jet_reference, features, params, *rest)
    for a, b in zip(one, other, strict=True):
        atol = 2000 * torch.finfo(a.dtype).eps * (b.abs().max().item() if b.numel() else 0)
        torch.testing.assert_close(a, b, rtol=0, atol=atol)


@ACTIVATIONS
@ROWS
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_jet_and_gradients_equal_the_reference(
    activation: Activation, rows: tuple[Row, ...], dtype: torch.dtype
) -> None:
    widths = (3, 20, 7, 2)
    features = _normal(len(rows), 50, 3, seed=3, dtype=dtype)
    _check(features, _params(widths, activation, dtype=dtype), widths, rows, activation)


@pytest.mark.parametrize("n_points", [0, 1, 31, 32, 33, 255, 257, 9000])
@pytest.mark.parametrize("rows", [VALUE, SECOND, MIXED])
def test_any_number_of_points(n_points: int, rows: tuple[Row, ...]) -> None:
    widths, tanh = (5, 9, 9, 1), named_activation("tanh")
    features = _normal(len(rows), n_points, 5, seed=3)
    _check(features, _params(widths, tanh), widths, rows, tanh)


@pytest.mark.parametrize(
    "widths", [(1, 1, 1), (1, 64, 64, 64, 1), (72, 64, 1), (17, 33, 16, 5), (2, 100, 3)], ids=str
)
@REPLICAS
@pytest.mark.parametrize("shared", [False, True], ids=["own input", "shared input"])
def test_any_widths_and_replicas(
    widths: tuple[int, ...], replicas: tuple[int, ...], shared: bool
) -> None:
    activation = named_activation("softplus")  # σ(0) is not zero: padding must not leak in
    features = _normal(*(() if shared else replicas), 3, 40, widths[0], seed=3)
    _check(features, _params(widths, activation, replicas), widths, SECOND, activation)


@REPLICAS
def test_a_replica_gives_the_bits_that_it_gives_alone(
    replicas: tuple[int, ...], implementation: str
) -> None:
    if implementation == "torch":
        pytest.skip("the order in which batched products add is torch's")
    widths, tanh = (4, 16, 16, 1), named_activation("tanh")
    features = _normal(*replicas, 3, 300, 4, seed=3, dtype=torch.float32)
    params = _params(widths, tanh, replicas, torch.float32)
    together = network_jet(features, params, widths, SECOND, tanh)
    for index in range(*replicas) if replicas else ():
        alone = network_jet(features[index], params[index], widths, SECOND, tanh)
        assert torch.equal(together[index], alone)


def test_bits_do_not_depend_on_the_number_of_threads(implementation: str) -> None:
    if implementation == "torch":
        pytest.skip("how torch's products share out work is torch's")
    widths, tanh = (72, 64, 64, 1), named_activation("tanh")
    arguments = (_normal(3, 2000, 72, dtype=torch.float32), _params(widths, tanh).float())
    results, threads = [], torch.get_num_threads()
    try:
        for n in (1, 2, 3):
            torch.set_num_threads(n)
            results.append(_result(network_jet, *arguments, widths, SECOND, tanh))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@ACTIVATIONS
@ROWS
def test_gradcheck(activation: Activation, rows: tuple[Row, ...]) -> None:
    widths = (2, 3, 1)
    features = _normal(len(rows), 3, 2, seed=3).requires_grad_(True)
    params = _params(widths, activation).requires_grad_(True)
    assert torch.autograd.gradcheck(
        lambda features, params: network_jet(features, params, widths, rows, activation),
        (features, params),
    )


@ACTIVATIONS
def test_the_jet_is_that_of_the_composed_function(activation: Activation) -> None:
    """u(x) = network(x², sin x): derivatives by nested autograd."""
    widths = (2, 5, 4, 1)
    x = torch.linspace(-1, 1, 7, dtype=torch.float64)[:, None].requires_grad_(True)
    params = _params(widths, activation)
    inner = torch.cat([x**2, x.sin()], dim=1)
    features = torch.stack(
        [inner, torch.cat([2 * x, x.cos()], dim=1), torch.cat([0 * x + 2, -x.sin()], dim=1)]
    )
    jet = network_jet(features.detach(), params, widths, SECOND, activation)
    value = inner
    layers = split_layers(params, widths)
    for index, (weight, bias) in enumerate(layers):
        value = value @ weight.T + bias
        value = activation.value(value) if index < len(layers) - 1 else value
    rows = [value]
    for _ in range(2):
        rows.append(torch.autograd.grad(rows[-1].sum(), x, create_graph=True)[0])
    for one, other in zip(jet, rows, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-13 * other.abs().max().item())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@ACTIVATIONS
def test_values_hold_from_tiny_to_huge_arguments(
    activation: Activation, dtype: torch.dtype, implementation: str
) -> None:
    """σ alone: a network of one unit, weight 1 and bias 0, against torch in float64."""
    if implementation == "torch":
        pytest.skip("torch's functions are torch's")
    eps = torch.finfo(dtype).eps
    sizes = torch.logspace(-10, 4 if activation.name == "sine" else 2, 500, dtype=dtype)
    z = torch.cat([-sizes, torch.zeros(1, dtype=dtype), sizes])[:, None]
    params = torch.tensor([1, 0, 1, 0], dtype=dtype)
    value = network_jet(z[None], params, (1, 1, 1), VALUE, activation)[0]
    if activation.name == "sine":  # of the argument as it was rounded
        expected = (activation.parameter * z).double().sin()
    else:
        expected = activation.value(z.double())
    torch.testing.assert_close(value.double(), expected, rtol=8 * eps, atol=4 * eps)


@ACTIVATIONS
def test_nan_and_infinity_stay_with_their_point(activation: Activation) -> None:
    widths = (2, 6, 6, 1)
    params = _params(widths, activation)
    features = _normal(3, 40, 2, seed=3)
    sound = network_jet(features, params, widths, SECOND, activation)
    features[:, 7] = math.nan
    features[:, 8] = math.inf
    spoilt = network_jet(features, params, widths, SECOND, activation)
    assert spoilt[:, 7].isnan().all()
    assert not spoilt[1:, 8].isfinite().any()
    rest = [i for i in range(40) if i not in (7, 8)]
    assert torch.equal(spoilt[:, rest], sound[:, rest])


@ACTIVATIONS
@pytest.mark.parametrize("replicas", [(), (2,)], ids=["solo", "R=2"])
def test_a_second_and_a_third_differentiation_equal_the_references(
    activation: Activation, replicas: tuple[int, ...]
) -> None:
    widths = (2, 3, 3, 1)
    results = []
    for function in (network_jet, network_jet_reference):
        features = _normal(len(SUMS), 4, 2, seed=3).requires_grad_(True)
        params = _params(widths, activation, replicas).requires_grad_(True)
        current = function(features, params, widths, SUMS, activation).square().sum()
        rows = []
        for _ in range(3):
            grads = torch.autograd.grad(current, (features, params), create_graph=True)
            rows += [g.detach() for g in grads]
            current = sum(g.square().sum() for g in grads)
        results.append(rows)
    for one, other in zip(*results, strict=True):
        atol = 1e4 * torch.finfo(one.dtype).eps * other.abs().max().item()
        torch.testing.assert_close(one, other, rtol=0, atol=atol)


def test_gradients_of_gradients_in_one_of_the_inputs_alone() -> None:
    widths, tanh = (2, 3, 1), named_activation("tanh")
    for frozen in (0, 1):
        results = []
        for function in (network_jet, network_jet_reference):
            inputs = [_normal(3, 4, 2, seed=3), _params(widths, tanh)]
            inputs[1 - frozen].requires_grad_(True)
            loss = function(*inputs, widths, SECOND, tanh).square().sum()
            (first,) = torch.autograd.grad(loss, inputs[1 - frozen], create_graph=True)
            results.append(torch.autograd.grad(first.square().sum(), inputs[1 - frozen])[0])
        torch.testing.assert_close(*results, rtol=1e-12, atol=1e-12)


def test_uninitialised_memory_does_not_leak_in(
    monkeypatch: pytest.MonkeyPatch, implementation: str
) -> None:
    if implementation == "torch":
        pytest.skip("buffers of ours are what the kernels fill")
    widths, tanh = (5, 9, 4, 3), named_activation("tanh")
    arguments = (_normal(3, 45, 5), _params(widths, tanh), widths, SECOND, tanh)
    expected = _result(network_jet, *arguments)
    new_empty, empty_like = Tensor.new_empty, torch.empty_like
    monkeypatch.setattr(
        Tensor, "new_empty", lambda self, *shape: new_empty(self, *shape).fill_(math.nan)
    )
    monkeypatch.setattr(torch, "empty_like", lambda other: empty_like(other).fill_(math.nan))
    for one, other in zip(_result(network_jet, *arguments), expected, strict=True):
        assert torch.equal(one, other)


def test_features_of_another_width_are_refused(implementation: str) -> None:
    tanh = named_activation("tanh")
    message = "features have 3 channels" if implementation == "native" else "shape"
    with pytest.raises((ValueError, RuntimeError), match=message):
        network_jet(_normal(1, 4, 3), _params((2, 3, 1), tanh), (2, 3, 1), VALUE, tanh)


def test_without_a_compiler_torch_takes_over(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise native_jet.CompilerError("no compiler")

    monkeypatch.setattr(native_jet, "compiled", refuse)
    monkeypatch.setattr(taylor, "library", native_jet.library.__wrapped__)
    widths, tanh = (2, 3, 1), named_activation("tanh")
    _check(_normal(3, 4, 2), _params(widths, tanh), widths, SECOND, tanh)
