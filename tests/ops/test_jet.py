"""Jets as containers, and the nested-autograd oracle that every jet is held to."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from diffhash.ops.jet import Jet, autograd_jet, jet_indices, jet_orders


def test_orders_are_spelled_out_axis_by_axis() -> None:
    assert jet_orders(2, 3) == (2, 2, 2)
    assert jet_orders((2, 0, 1), 3) == (2, 0, 1)


@pytest.mark.parametrize("order", [3, -1, (2, 3), (1,), (1, 1, 1), ()])
def test_orders_that_jets_do_not_carry_are_refused(order: int | tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"order=.*0 to 2, or one .* ax"):
        jet_orders(order, 2)


def test_rows_are_the_value_then_the_derivatives_axis_by_axis() -> None:
    assert jet_indices((2, 1)) == ((0, 0), (1, 0), (2, 0), (0, 1))
    assert jet_indices((0, 2)) == ((0, 0), (0, 1), (0, 2))


def test_derivatives_are_found_by_axis_and_order() -> None:
    orders = (1, 0, 2)
    jet = Jet(torch.arange(4.0).reshape(4, 1, 1), orders)
    for index, alpha in enumerate(jet_indices(orders)):
        axis, order = max(enumerate(alpha), key=lambda pair: pair[1])
        assert jet.derivative(axis, order).item() == index
    assert jet.value.item() == 0
    assert jet.derivative(1, 0).item() == 0


@pytest.mark.parametrize(("axis", "order"), [(0, 2), (1, 1), (3, 0), (-1, 0), (2, -1)])
def test_derivatives_that_were_not_carried_are_refused(axis: int, order: int) -> None:
    jet = Jet(torch.zeros(4, 5, 1), (1, 0, 2))
    with pytest.raises(ValueError, match=rf"order {order} along axis {axis} was not carried"):
        jet.derivative(axis, order)


def test_nested_autograd_gives_the_derivatives_of_a_known_function() -> None:
    x = torch.rand(6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    a, b = x.T

    def f(x: Tensor) -> Tensor:
        return torch.stack([x[:, 0] ** 3 * x[:, 1].sin(), x[:, 1].exp(), 1 + 0 * x[:, 0]], dim=1)

    jet = autograd_jet(f, x, (2, 1))
    zero = torch.zeros_like(a)
    columns = [
        (a**3 * b.sin(), b.exp(), zero + 1),
        (3 * a**2 * b.sin(), zero, zero),
        (6 * a * b.sin(), zero, zero),
        (a**3 * b.cos(), b.exp(), zero),
    ]
    expected = torch.stack([torch.stack(row, dim=1) for row in columns])
    torch.testing.assert_close(jet.data, expected, rtol=1e-14, atol=1e-14)


def test_nested_autograd_of_linear_and_constant_functions_is_zero_not_an_error() -> None:
    x = torch.rand(3, 1)
    assert (autograd_jet(lambda x: 3 * x, x, (2,)).data[2] == 0).all()
    assert (autograd_jet(lambda x: torch.ones_like(x), x, (2,)).data[1:] == 0).all()


def test_nested_autograd_works_without_grad_mode_and_leaves_its_input_alone() -> None:
    x = torch.rand(3, 1)
    with torch.no_grad():
        jet = autograd_jet(lambda x: x**2, x, (1,))
    torch.testing.assert_close(jet.derivative(0, 1), 2 * x)
    assert not x.requires_grad


def test_nested_autograd_is_differentiable_in_what_the_function_closes_over() -> None:
    w = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    x = torch.full((1, 1), 0.3, dtype=torch.float64)
    jet = autograd_jet(lambda x: (w * x).sin(), x, (2,))
    (grad,) = torch.autograd.grad(jet.derivative(0, 2).sum(), w)
    z = torch.tensor(0.6, dtype=torch.float64)
    # ∂/∂w of -w² sin(w x)
    torch.testing.assert_close(grad, -4 * z.sin() - 4 * 0.3 * z.cos())
