"""MLP and SIREN: shapes, initialisation, settings."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from diffhash import MLP, SIREN, Jet, Linear, Sum
from diffhash.jets import Rows, axis_rows, jet_rows
from diffhash.networks import Network

NETWORKS = pytest.mark.parametrize("network", [MLP, SIREN])


@NETWORKS
def test_sizes_are_as_asked(network: type[Network]) -> None:
    net = network(5, n_outputs=2, width=7, depth=3)
    assert sum(p.numel() for p in net.parameters()) == 6 * 7 + 8 * 7 + 8 * 7 + 8 * 2
    assert net(torch.rand(4, 5)).shape == (4, 2)
    assert next(network(1, dtype=torch.float64).parameters()).dtype == torch.float64


def test_the_default_is_the_papers_backbone() -> None:
    assert sum(p.numel() for p in MLP(1).parameters()) == 2 * 64 + 2 * 65 * 64 + 65


def test_an_mlp_alternates_linear_maps_and_tanh() -> None:
    torch.manual_seed(0)
    net = MLP(2, width=3, depth=2, dtype=torch.float64)
    (w1, b1), (w2, b2), (w3, b3) = net.layers
    x = torch.rand(4, 2, dtype=torch.float64)
    expected = ((x @ w1.T + b1).tanh() @ w2.T + b2).tanh() @ w3.T + b3
    torch.testing.assert_close(net(x), expected, rtol=1e-14, atol=1e-14)


def test_a_siren_alternates_linear_maps_and_sines() -> None:
    torch.manual_seed(0)
    net = SIREN(2, width=3, depth=2, omega_0=7.0, dtype=torch.float64)
    (w1, b1), (w2, b2), (w3, b3) = net.layers
    x = torch.rand(4, 2, dtype=torch.float64)
    hidden = (7 * (x @ w1.T + b1)).sin()
    expected = (7 * (hidden @ w2.T + b2)).sin() @ w3.T + b3
    torch.testing.assert_close(net(x), expected, rtol=1e-13, atol=1e-13)


def test_sirens_weights_have_the_papers_bounds() -> None:
    torch.manual_seed(0)
    first, hidden, last = (
        weight for weight, _ in SIREN(16, width=256, depth=2, omega_0=30.0).layers
    )
    for weight, bound in ((first, 1 / 16), (hidden, (6 / 256) ** 0.5 / 30)):
        assert 0.99 * bound < weight.abs().max() <= bound
    assert last.abs().max() <= (6 / 256) ** 0.5 / 30


def test_xavier_weights_are_glorot_uniform_and_biases_zero() -> None:
    torch.manual_seed(0)
    (weight, bias), *_ = MLP(50, width=100, depth=1, init="xavier").layers
    bound = (6 / 150) ** 0.5
    assert 0.99 * bound < weight.abs().max() <= bound
    assert (bias == 0).all()
    assert (MLP(50, depth=1).layers[0][1] != 0).any()


@NETWORKS
@pytest.mark.parametrize(("name", "value"), [("width", 0), ("depth", 0), ("depth", -1)])
def test_sizes_out_of_range_are_named(network: Any, name: str, value: int) -> None:
    with pytest.raises(ValueError, match=rf"^{name}={value}"):
        network(1, **{name: value})


def test_with_a_skip_an_mlp_begins_as_a_weighted_sum_of_the_features() -> None:
    torch.manual_seed(0)
    net = MLP(5, 2, width=7, depth=1, skip=True, dtype=torch.float64)
    assert net.skip is not None
    weight, bias = net.skip
    x = torch.rand(4, 5, dtype=torch.float64)
    torch.testing.assert_close(weight @ weight.T, torch.eye(2, dtype=torch.float64))
    torch.testing.assert_close(net(x), x @ weight.T + bias)
    with torch.no_grad():
        net.params.add_(0.1)
    (w1, b1), (w2, b2) = net.layers
    layers = (x @ w1.T + b1).tanh() @ w2.T + b2
    torch.testing.assert_close(net(x), layers + x @ weight.T + bias)
    assert net.params.numel() == 6 * 7 + 8 * 2 + 6 * 2 and "skip=True" in repr(net)


def test_an_unknown_initialisation_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"^skip='yes': give True or False$"):
        MLP(3, skip="yes")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"init='kaiming'.*torch, xavier"):
        MLP(1, init="kaiming")
    with pytest.raises(ValueError, match="skip='yes': give True or False"):
        MLP(1, skip="yes")  # type: ignore[arg-type]


@pytest.mark.parametrize("omega_0", [0.0, -1.0, float("nan"), float("inf")])
def test_a_siren_needs_a_positive_frequency(omega_0: float) -> None:
    with pytest.raises(ValueError, match=rf"^omega_0={omega_0}"):
        SIREN(1, omega_0=omega_0)


@NETWORKS
@pytest.mark.parametrize("depth", [1, 3])
def test_the_jets_value_is_the_networks(network: Any, depth: int) -> None:
    torch.manual_seed(0)
    net = network(3, n_outputs=2, width=4, depth=depth, dtype=torch.float64)
    data, rows = torch.randn(4, 6, 3, dtype=torch.float64), axis_rows((2, 1))
    jet = net.jet(Jet(data, rows))
    assert jet.data.shape == (4, 6, 2)
    assert jet.rows == rows
    torch.testing.assert_close(jet.value, net(data[0]), rtol=1e-12, atol=1e-12)
    # Features that do not depend on x make a solution that does not.
    data[1:] = 0
    assert (net.jet(Jet(data, rows)).data[1:] == 0).all()


@NETWORKS
@pytest.mark.parametrize("rows", [(5,), 6, Sum(((1.0, (1,)), (1e-9, (5,))))])
def test_hidden_layers_carry_total_orders_up_to_four(network: Any, rows: Rows) -> None:
    found = jet_rows(rows, 1)
    features = Jet(torch.zeros(len(found), 3, 2), found)
    net = network(2, depth=1)
    for call in (net.jet, lambda jet: net.jet_and_vjp(jet, None)):
        with pytest.raises(ValueError, match=r"order [56]: .* hidden layers carry orders up to 4"):
            call(features)
    assert Linear(2).jet(features).data.shape == (len(found), 3, 1)


def test_a_linear_network_is_a_weighted_sum_and_a_constant() -> None:
    torch.manual_seed(0)
    net = Linear(3, 2, dtype=torch.float64)
    ((weight, bias),) = net.layers
    assert weight.abs().max() <= 3**-0.5 and not bias.any()
    x = torch.rand(4, 3, dtype=torch.float64)
    torch.testing.assert_close(net(x), x @ weight.T + bias, rtol=1e-15, atol=1e-15)
    assert "widths=[3, 2]" in repr(net)
