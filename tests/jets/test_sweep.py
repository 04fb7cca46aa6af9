"""Jets of fields with any rows, by every way of computing them, against nested autograd."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from diffhash import Field, Sum
from diffhash.jets import Row, jet_rows
from diffhash.networks import stack_fields, taylor
from diffhash.networks.taylor import network_jet_reference
from tests.jets.sweep import ACTIVATIONS, make_field, normal, points, row_sets, truth

# Few, since C is compiled for each.
LAPLACIAN = Sum(((1.0, (2, 0, 0)), (1.0, (0, 2, 0)), (0.3, (0, 0, 2))))
BIHARMONIC = Sum(((1.0, (4, 0)), (2.0, (2, 2)), (1.0, (0, 4))))
CASES: list[tuple[str, str, int, Any, int]] = [  # encoder, activation, d, rows, outputs
    ("cubic", "tanh", 2, [(2, 1), Sum(((-2.5, (1, 1)), (0.1, (0, 2))))], 2),
    ("fourier", "silu", 4, [(1, 0, 0, 1), (0, 2, 0, 0)], 1),
    ("identity", "gelu", 3, [LAPLACIAN, (1, 1, 1)], 3),
    ("hermite", "softplus", 1, 4, 1),
    ("quintic", "sine", 2, BIHARMONIC, 1),
]


def check(field: Field, rows: Any, n: int, dtype: torch.dtype = torch.float64) -> None:
    """Compare values and gradients of jets, plans, vjps, and squares that have a kernel.

    Bounds are multiples of eps of the precision, relative to the size of the terms of a row.
    """
    d, n_outputs = len(field.domain), field.network.widths[-1]
    rows, x = jet_rows(rows, d), points(n, d)
    exact = copy.deepcopy(field).to(dtype).double()
    field = copy.deepcopy(exact).to(dtype)
    eps = torch.finfo(dtype).eps
    expected, sizes = truth(exact, x, rows)
    scale = 1 / sizes.clamp(min=1e-300)[:, None, None]
    weights = scale * normal(*expected.shape[-3:], seed=2)
    loss = (weights * expected).sum()
    params = list(exact.parameters())
    gradients = torch.autograd.grad(loss, params, retain_graph=True, materialize_grads=True)

    def assert_close(name: str, got: Tensor, right: Tensor, size: Any, factor: float) -> None:
        assert got.dtype == dtype and got.shape == right.shape, name
        excess = ((got.double() - right).detach().abs() - factor * eps * size).max().item()
        assert excess <= 0, f"{name}: beyond the bound by {excess / eps:.1e} eps"

    def compare(name: str, data: Tensor, found: Any) -> None:
        assert_close(name, data, expected, 1 / scale, 2e3)
        for one, right in zip(found, gradients, strict=True):
            assert_close(f"{name}: gradient", one, right, largest(gradients), 2e4)

    def largest(tensors: Any) -> float:
        return max(t.abs().max().item() for t in tensors)

    own = list(field.parameters())
    plan = field.plan(x, rows)
    for name, jet in (("jet", field.jet(x, rows)), ("plan", plan.jet())):
        assert jet.rows == rows
        total = (weights.to(dtype) * jet.data).sum()
        compare(name, jet.data, torch.autograd.grad(total, own, materialize_grads=True))
    jet, vjp = plan.jet_and_vjp()
    field.zero_grad()
    vjp(weights.to(dtype).expand(jet.data.shape).contiguous())
    compare("vjp", jet.data, [p.grad for p in own])

    coefficients = (scale[:, :, None] * normal(len(rows), n_outputs, 1, 2, seed=3)).expand(
        -1, -1, n, -1
    )
    target = normal(n, 2, seed=4)
    squares = plan.least_squares(coefficients, target)
    if squares is None:
        return
    left = torch.einsum("kcne,...knc->...ne", coefficients, expected)
    losses = 0.7 * (left - target).square().mean(dim=(-2, -1))
    right = torch.autograd.grad(losses.sum(), params, materialize_grads=True)
    field.zero_grad()
    assert_close("squares", squares(0.7), losses, losses.max().item(), 1e4)
    for p, one in zip(own, right, strict=True):
        assert p.grad is not None
        assert_close("squares: gradient", p.grad, one, largest(right), 1e5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["f64", "f32"])
@pytest.mark.parametrize(("encoder", "activation", "d", "rows", "n_outputs"), CASES)
def test_fields_are_their_own_derivatives(
    encoder: str, activation: str, d: int, rows: Any, n_outputs: int, dtype: torch.dtype
) -> None:
    if dtype == torch.float32 and encoder not in ("cubic", "fourier"):
        pytest.skip("slow to compile; the others stand for it")
    check(make_field(encoder, activation, d, n_outputs), rows, 7, dtype)


@pytest.mark.parametrize(("encoder", "activation", "d", "rows", "n_outputs"), CASES[:2])
def test_replicas_are_their_own_derivatives(
    encoder: str, activation: str, d: int, rows: Any, n_outputs: int
) -> None:
    fields = [make_field(encoder, activation, d, n_outputs, seed=seed) for seed in (0, 1)]
    check(stack_fields(fields), rows, 5)


def _networks(max_order: int) -> Any:
    return given(
        rows=row_sets(max_order=max_order),
        activation=st.sampled_from(ACTIVATIONS),
        encoder=st.sampled_from(["identity", "fourier"]),
        n_outputs=st.integers(1, 3),
        depth=st.integers(1, 3),
        n=st.sampled_from([1, 4]),
    )


@settings(max_examples=8, deadline=None)
@_networks(max_order=3)
def test_any_rows_without_kernels(**drawn: Any) -> None:
    _check_without_kernels(**drawn)


@pytest.mark.slow  # of the truth, which is nested autograd
@settings(max_examples=15, deadline=None)
@_networks(max_order=4)
def test_any_rows_of_the_fourth_order_without_kernels(**drawn: Any) -> None:
    _check_without_kernels(**drawn)


def _check_without_kernels(
    rows: tuple[int, tuple[Row, ...]],
    activation: str,
    encoder: str,
    n_outputs: int,
    depth: int,
    n: int,
) -> None:
    """The form for devices without kernels, which is also compared with the readable reference."""
    d, rows_ = rows
    field = make_field(encoder, activation, d, n_outputs, depth)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(taylor, "library", lambda activation, dtype: None)
        check(field, rows_, n)
        network = field.network
        features = normal(len(rows_), n, network.widths[0]).requires_grad_()
        setting = (network.widths, rows_, network.activation)
        results = []
        for f in (taylor.network_jet, network_jet_reference):
            out = f(features, network.params, *setting)
            g = normal(*out.shape, seed=1)
            results.append([out, *torch.autograd.grad(out, (features, network.params), g)])
    for one, other in zip(*results, strict=True):
        atol = 1e-13 * other.detach().abs().max().item()
        torch.testing.assert_close(one, other, rtol=0, atol=atol)


def _linear_fields(max_order: int) -> Any:
    return given(
        rows=row_sets(max_order=max_order),
        encoder=st.sampled_from(["identity", "fourier", "linear", "quadratic", "cubic", "hermite"]),
        backend=st.sampled_from(["torch", "native"]),
        n_outputs=st.integers(1, 2),
    )


@settings(max_examples=6, deadline=None)
@_linear_fields(max_order=4)
def test_a_linear_field_carries_every_order(**drawn: Any) -> None:
    _check_linear(**drawn)


@pytest.mark.slow  # of the truth, which is nested autograd
@settings(max_examples=15, deadline=None)
@_linear_fields(max_order=7)
def test_a_linear_field_carries_the_seventh_order(**drawn: Any) -> None:
    _check_linear(**drawn)


def _check_linear(
    rows: tuple[int, tuple[Row, ...]], encoder: str, backend: str, n_outputs: int
) -> None:
    d, rows_ = rows
    if encoder in ("identity", "fourier"):
        check(make_field(encoder, "linear", d, n_outputs), rows_, 4)
    elif d <= 2:  # more is slow to compile
        check(make_field(encoder, "linear", d, n_outputs, backend=backend), rows_, 4)


@pytest.mark.parametrize("backend", ["torch", "native"])
@pytest.mark.parametrize(("encoder", "degree"), [("linear", 1), ("cubic", 3), ("hermite", 3)])
def test_a_grids_derivatives_beyond_its_degree_are_zero(
    encoder: str, degree: int, backend: str
) -> None:
    field = make_field(encoder, "linear", 2, backend=backend)
    jet = field.jet(points(9, 2), [(degree + 2, degree)])
    for row in jet.rows:
        assert not isinstance(row, Sum)
        assert bool(jet[row].any()) == (row[0] <= degree)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(
    rows=row_sets(),
    activation=st.sampled_from(ACTIVATIONS),
    encoder=st.sampled_from(["identity", "fourier", "linear", "s2", "cubic", "quintic"]),
    n_outputs=st.integers(1, 3),
    depth=st.integers(1, 3),
    n_replicas=st.integers(1, 3),
    n=st.sampled_from([1, 4, 33]),
    dtype=st.sampled_from([torch.float64, torch.float32]),
)
def test_any_rows_by_every_kernel(
    rows: tuple[int, tuple[Row, ...]],
    activation: str,
    encoder: str,
    n_outputs: int,
    depth: int,
    n_replicas: int,
    n: int,
    dtype: torch.dtype,
) -> None:
    d, rows_ = rows
    if d > 2 and encoder not in ("identity", "fourier"):  # slow to compile
        encoder = "fourier"
    fields = [make_field(encoder, activation, d, n_outputs, depth, s) for s in range(n_replicas)]
    check(fields[0] if n_replicas == 1 else stack_fields(fields), rows_, n, dtype)
