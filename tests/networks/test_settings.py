"""Settings of modules: integers of any library, printed forms, and refused state dicts."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from diffhash import MLP, SIREN, Field, FourierFeatures, GridEncoding, Identity
from diffhash.networks import stack_fields

GRID: dict[str, Any] = {"n_levels": 2, "log2_hashmap_size": 4, "base_resolution": 8}


def _grid(**changes: Any) -> GridEncoding:
    return GridEncoding(2, **(GRID | {"interpolation": "cubic", "seed": 0} | changes))


def _field(seed: int = 0, domain: Any = ((0, 1), (0, 2))) -> Field:
    torch.manual_seed(seed)
    return Field(_grid(seed=seed), MLP(4, 1, 4, 1), domain)


def test_numpys_integers_are_integers() -> None:
    numbers = {name: np.int64(value) for name, value in GRID.items()}
    encoding = GridEncoding(np.int32(2), **numbers, interpolation="cubic", seed=np.int64(0))
    plain = _grid()
    assert torch.equal(encoding.params, plain.params) and encoding.layout is plain.layout
    stack = _grid(seed=np.arange(2))
    assert torch.equal(stack.params[0], plain.params) and stack.n_replicas == 2
    assert torch.equal(_grid(seed=torch.arange(2)).params, stack.params)
    x = torch.rand(3, 2)
    assert encoding.jet(x, np.int64(1)).rows == ((0, 0), (1, 0), (0, 1))
    assert encoding.jet(x, (np.int64(0), np.int64(1))).rows == ((0, 0), (0, 1))
    assert encoding.plan(x, [(np.int64(2), 0)]).jet().rows == ((0, 0), (1, 0), (2, 0))
    assert FourierFeatures(np.int64(2), np.int64(3), np.float32(1), seed=np.int64(0))(x).shape
    network = MLP(np.int64(4), np.int64(1), np.int64(8), np.int64(2))
    assert network.widths == (4, 8, 8, 1) and all(type(w) is int for w in network.widths)
    field = Field(encoding, network, np.array([[0, 1], [-1, 2]]))
    assert field.domain == ((0.0, 1.0), (-1.0, 2.0))


@pytest.mark.parametrize(
    "make",
    [
        lambda: _grid(n_levels=True),
        lambda: _grid(n_levels=2.0),
        lambda: _grid(seed=[]),
        lambda: _grid(seed="ab"),
        lambda: _grid(seed=1.5),
        lambda: _grid(per_level_scale=1e300),
        lambda: FourierFeatures(0),
        lambda: Identity(0),
        lambda: MLP(2, width=True),
        lambda: MLP(0),
        lambda: MLP(2, depth=1.5),
        lambda: Field(Identity(1), MLP(1), [("a", "b")]),
        lambda: _grid().jet(torch.rand(3, 2), 1.5),
    ],
)
def test_what_is_no_size_is_refused_by_name(make: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r"[a-z_]+="):
        make()


def test_modules_print_their_settings() -> None:
    text = repr(_field())
    for part in ("n_levels=2", "interpolation='cubic'", "widths=[4, 4, 1]", "activation='tanh'"):
        assert part in text
    assert "domain=[[0.0, 1.0], [0.0, 2.0]]" in text
    assert "omega_0=7.0" in repr(SIREN(1, omega_0=7)) and "sigma=2.0" in repr(
        FourierFeatures(1, sigma=2)
    )


OTHERS: list[tuple[str, Callable[[], Any], Callable[[], Any]]] = [
    ("here interpolation='quintic'", _grid, lambda: _grid(interpolation="quintic")),
    ("per_level_scale", _grid, lambda: _grid(per_level_scale=1.9)),
    ("base_resolution=8, here base_resolution=16", _grid, lambda: _grid(base_resolution=16)),
    ("activation", lambda: MLP(2), lambda: MLP(2, activation="silu")),
    ("activation", lambda: MLP(2), lambda: SIREN(2)),
    ("omega_0=30.0, here omega_0=1.0", lambda: SIREN(2), lambda: SIREN(2, omega_0=1)),
    ("skip=True", lambda: MLP(2, skip=True), lambda: MLP(2)),
    ("widths", lambda: MLP(2, 1, 3, 1), lambda: MLP(1, 2, 3, 1)),
    ("sigma", lambda: FourierFeatures(2), lambda: FourierFeatures(2, sigma=2)),
    ("domain", _field, lambda: _field(domain=((0, 1), (0, 1)))),
]


@pytest.mark.parametrize(("message", "make", "other"), OTHERS)
def test_a_state_of_other_settings_is_refused_and_nothing_copied(
    message: str, make: Callable[[], Any], other: Callable[[], Any]
) -> None:
    module = other()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(RuntimeError, match=message):
        module.load_state_dict(make().state_dict())
    own = {name for name, _ in module.named_parameters(recurse=False)}
    assert all(torch.equal(module.state_dict()[name], before[name]) for name in own)


def test_states_load_where_they_belong() -> None:
    field, other = _field(0), _field(1)
    x = torch.rand(5, 2)
    other.load_state_dict(field.state_dict())
    assert torch.equal(other(x), field(x))
    tensors = OrderedDict((n, t) for n, t in field.state_dict().items() if "extra" not in n)
    other = _field(1)
    other.load_state_dict(tensors)  # of a version without settings
    assert torch.equal(other(x), field(x))
    double = _field(1).double()
    double.load_state_dict({name: value.double() for name, value in field.state_dict().items()})
    assert torch.equal(double.encoding.params.float(), field.encoding.params)


def test_a_part_of_a_stacks_state_is_a_replicas() -> None:
    alone = [_field(0), _field(1)]
    stack = stack_fields([_field(0), _field(1)])
    for index, one in enumerate(alone):
        part = {name: value[index].clone() for name, value in stack.state_dict().items()}
        fresh = _field(2)
        fresh.load_state_dict(part)
        assert torch.equal(fresh.network.params, one.network.params)
        assert torch.equal(fresh.encoding.params, one.encoding.params)
    with pytest.raises(RuntimeError, match="size mismatch"):
        stack.load_state_dict(alone[0].state_dict())


def test_the_box_keeps_float64_through_changes_of_the_parameters() -> None:
    field = _field(domain=((1e6, 1e6 + 3), (0.1, 0.7)))
    x = torch.tensor([[1e6 + 1, 0.4]], dtype=torch.float64)
    expected = field.double()(x)
    again = field.half().float().double()
    assert torch.equal(again._normalise(x), field._normalise(x))
    assert again(x).shape == expected.shape
    unit = torch.tensor([[1 / 3, 0.5]], dtype=torch.float64)
    torch.testing.assert_close(again._normalise(x), unit, rtol=0, atol=1e-9)


def test_names_without_axes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^names=\('u',\): give problem\.names, or Names\(axes"):
        Field(_grid(), MLP(4, 1, 4, 1), [(0, 1), (0, 2)], ("u",))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (lambda: MLP(3, 1, 4, 1), "network: it has 3 inputs, the encoding 4 features"),
        (
            lambda: MLP(4, 1, 4, 1, dtype=torch.float64),
            r"it is torch\.float64, the encoding torch\.f",
        ),
    ],
)
def test_a_network_that_does_not_fit_its_encoding_is_refused(
    network: Callable[[], MLP], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Field(_grid(), network(), [(0, 1), (0, 2)])


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ((_grid, lambda: nn.Sequential(nn.Linear(4, 1))), "^network=Sequential: .*MLP, SIREN or L"),
        ((_grid, lambda: nn.Linear(4, 1)), "^network=Linear: has no jets; give a network of"),
        ((lambda: nn.Linear(2, 4), lambda: MLP(4, 1, 4, 1)), "^encoding=Linear: give an encoding"),
        ((lambda: MLP(4, 1, 4, 1), _grid), "^encoding=MLP: give an encoding of diffhash"),
    ],
)
def test_a_field_is_of_an_encoding_and_a_network(
    parts: tuple[Callable[[], Any], Callable[[], Any]], message: str
) -> None:
    encoding, network = parts
    with pytest.raises(ValueError, match=message):
        Field(encoding(), network(), [(0, 1), (0, 2)])
