"""Jets as containers, and nested autograd, with which all jets are compared."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from diffhash import MLP, Field, Identity, Linear
from diffhash.jets import Jet, Names, Row, Sum, autograd_jet, axis_rows, combined, jet_rows

LAPLACIAN = Sum(((1.0, (2, 0)), (1.0, (0, 2))))


def test_derivatives_are_found_by_multi_index_and_by_name() -> None:
    rows = jet_rows([(1, 1), LAPLACIAN], 2)
    data = torch.arange(2.0 * len(rows)).reshape(-1, 1, 2).expand(-1, 3, -1)
    jet = Jet(data, rows, Names(("x", "t"), ("u", "pressure")))
    for index, row in enumerate(rows):
        assert torch.equal(jet[row], data[index])
    assert torch.equal(jet[1, 1], jet[(1, 1)])
    assert torch.equal(jet.value, data[0])
    assert torch.equal(jet["u"], data[0, :, 0])
    assert torch.equal(jet["pressure_xt"], jet["pressure_tx"])
    assert torch.equal(jet["pressure_xt"], jet[1, 1][:, 1])
    several = Jet(torch.stack([data, 2 * data]), rows, jet.names)
    assert torch.equal(several[1, 1], torch.stack([jet[1, 1], 2 * jet[1, 1]]))
    assert torch.equal(several["u_t"], torch.stack([jet["u_t"], 2 * jet["u_t"]]))


def test_without_names_axes_are_xyzt_and_components_are_numbered() -> None:
    jet = Jet(torch.arange(10.0).reshape(5, 1, 2), jet_rows(1, 4))
    assert jet["u1_t"].item() == 9
    assert Jet(torch.arange(3.0).reshape(3, 1, 1), jet_rows(2, 1))["u_xx"].item() == 2


@pytest.mark.parametrize(
    ("row", "name"),
    [
        ((2, 0), "u_xx"),
        ((1, 2), "u_xyy"),
        ((1,), r"\(1,\)"),
        ("u_xx", "u_xx"),
        (LAPLACIAN, "Sum"),
    ],
)
def test_a_derivative_that_was_not_carried_is_named(row: Row | str, name: str) -> None:
    jet = Jet(torch.zeros(4, 5, 1), jet_rows((1, 1), 2))
    with pytest.raises(
        KeyError, match=f"the jet has no {name}.*: it was made of u, u_x, u_y, u_xy"
    ):
        jet[row]


@pytest.mark.parametrize("name", ["v", "u_z", "u_", "_x", "uxx", "u_xz", ""])
def test_a_name_that_is_none_lists_unknowns_and_axes(name: str) -> None:
    with pytest.raises(ValueError, match=r"is no derivative: give one of u, .* of x, y$"):
        Jet(torch.zeros(4, 5, 1), jet_rows((1, 1), 2))[name]


def test_nested_autograd_gives_the_derivatives_of_a_known_function() -> None:
    x = torch.rand(6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    a, b = x.T

    def f(x: Tensor) -> Tensor:
        return torch.stack([x[:, 0] ** 3 * x[:, 1].sin(), x[:, 1].exp(), 1 + 0 * x[:, 0]], dim=1)

    jet = autograd_jet(f, x, jet_rows([(3, 1), Sum(((2.0, (0, 2)), (-1.0, (4, 0))))], 2))
    zero = torch.zeros_like(a)
    columns = {
        (0, 0): (a**3 * b.sin(), b.exp(), zero + 1),
        (1, 0): (3 * a**2 * b.sin(), zero, zero),
        (2, 0): (6 * a * b.sin(), zero, zero),
        (0, 1): (a**3 * b.cos(), b.exp(), zero),
        (2, 1): (6 * a * b.cos(), zero, zero),
        (3, 1): (6 * b.cos(), zero, zero),
        jet.rows[-1]: (-2 * a**3 * b.sin(), 2 * b.exp(), zero),
    }
    for row, expected in columns.items():
        torch.testing.assert_close(jet[row], torch.stack(expected, dim=1), rtol=1e-14, atol=1e-14)


def test_nested_autograd_has_no_limit_of_the_order() -> None:
    x = torch.linspace(-1, 1, 5, dtype=torch.float64)[:, None]
    jet = autograd_jet(torch.sin, x, axis_rows([9]))
    torch.testing.assert_close(jet[9,], x.cos(), rtol=1e-13, atol=1e-13)


def test_nested_autograd_of_linear_and_constant_functions_is_zero_not_an_error() -> None:
    x = torch.rand(3, 1)
    assert (autograd_jet(lambda x: 3 * x, x, axis_rows([2])).data[2] == 0).all()
    assert (autograd_jet(lambda x: torch.ones_like(x), x, axis_rows([2])).data[1:] == 0).all()


def test_nested_autograd_works_without_grad_mode_and_leaves_its_input_alone() -> None:
    x = torch.rand(3, 1)
    with torch.no_grad():
        jet = autograd_jet(lambda x: x**2, x, axis_rows([1]))
    torch.testing.assert_close(jet[1,], 2 * x)
    assert not x.requires_grad


def test_nested_autograd_is_differentiable_in_what_the_function_closes_over() -> None:
    w = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    x = torch.full((1, 1), 0.3, dtype=torch.float64)
    jet = autograd_jet(lambda x: (w * x).sin(), x, axis_rows([2]))
    (grad,) = torch.autograd.grad(jet[2,].sum(), w)
    z = torch.tensor(0.6, dtype=torch.float64)
    # ∂/∂w of -w² sin(w x)
    torch.testing.assert_close(grad, -4 * z.sin() - 4 * 0.3 * z.cos())


@pytest.mark.parametrize(
    "rows", ["v_xy", ["v_xy"], [(1, 1)], ((1, 1),), [[1, 1]], {(1, 1)}, torch.tensor([[1, 1]]), 2]
)
def test_nested_autograd_takes_rows_as_a_fields_jet_does(rows: Any) -> None:
    names = Names(("x", "y"), ("u", "v"))
    field = Field(Identity(2), MLP(2, 2, 4, 1), [(0, 2), (0, 1)], names)
    x = torch.rand(5, 2)
    jet, expected = autograd_jet(field, x, rows), field.jet(x, rows)
    assert jet.rows == expected.rows and jet.names == names
    torch.testing.assert_close(jet["v_xy"], expected["v_xy"])


@pytest.mark.parametrize("rows", [((1, 1, 0),), ((1, 1.5),), [(1, -1)], "u_z", "w", -1, None, 1.5])
def test_nested_autograd_refuses_what_is_no_derivative(rows: Any) -> None:
    with pytest.raises(ValueError, match="is no derivative: give "):
        autograd_jet(lambda x: x, torch.rand(3, 2), rows)
    with pytest.raises(ValueError, match=r"x has the shape \[3\]; give points \[N, d\]"):
        autograd_jet(lambda x: x, torch.rand(3), 1)


def test_a_sum_that_cancels_is_zero() -> None:
    rows = jet_rows(Sum(((1.0, (2,)), (-1.0, (2,)), (0.0, (1,)))), 1)
    x = torch.rand(3, 1)
    for f in (MLP(1, width=3, depth=1), Linear(1)):
        field = Field(Identity(1), f, [(0, 2)])
        for jet in (field.jet(x, rows), field.plan(x, rows).jet(), autograd_jet(field, x, rows)):
            assert jet.rows == rows and not jet.data[-1].any()


def test_rows_are_combined_of_their_parts() -> None:
    rows = jet_rows(Sum(((2.0, (2, 0)), (-1.0, (0, 1)), (0.5, (2, 0)))), 2)
    assert rows == ((0, 0), (1, 0), rows[-1])
    parts = torch.rand(4, 3, 2)  # u, u_x, u_xx, u_y
    expected = torch.stack([parts[0], parts[1], 2.5 * parts[2] - parts[3]])
    torch.testing.assert_close(combined(parts, rows), expected)
