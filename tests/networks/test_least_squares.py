"""Least squares of a field in one kernel, against autograd through its jets."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from diffhash import MLP, SIREN, Field, FourierFeatures, GridEncoding, Identity
from diffhash.jets import axis_rows
from diffhash.networks import FieldPlan, least_squares, stack_fields
from tests.thinned import pairwise

BOXES = {1: [(-3.0, 2.0)], 2: [(0.0, 0.5), (-1.0, 1.0)]}
DTYPES = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["f64", "f32"])


def make_field(
    encoder: str, d: int, dtype: torch.dtype = torch.float64, seed: int = 0, siren: bool = False
) -> Field:
    torch.manual_seed(seed)
    if encoder == "identity":
        encoding = Identity(d, dtype=dtype)
    elif encoder == "fourier":
        encoding = FourierFeatures(d, n_frequencies=5, dtype=dtype)
    else:
        encoding = GridEncoding(
            d,
            n_levels=3,
            n_features_per_level=2,
            base_resolution=3,
            log2_hashmap_size=4,
            interpolation=encoder,
            init_scale=0.5,
            dtype=dtype,
            seed=seed,
        )
    network = SIREN if siren else MLP
    net = network(encoding.n_output_dims, width=20, depth=2, dtype=dtype)
    return Field(encoding, net, BOXES[d])


def problem(
    field: Field, d: int, n_points: int, n_equations: int, order: int
) -> tuple[FieldPlan, Tensor, Tensor]:
    """A plan, and random coefficients and targets of equations."""
    generator = torch.Generator().manual_seed(1)
    low, high = torch.tensor(BOXES[d], dtype=torch.float64).T
    unit = torch.rand(n_points, d, generator=generator, dtype=torch.float64)
    rows = axis_rows([order] * d)
    plan = field.plan(low + (high - low) * unit, rows)
    shape = (len(rows), field.network.widths[-1], n_points, n_equations)
    coefficients = torch.randn(shape, generator=generator, dtype=torch.float64)
    target = torch.randn(shape[2:], generator=generator, dtype=torch.float64)
    return plan, coefficients, target


def by_autograd(
    field: Field, plan: FieldPlan, coefficients: Tensor, target: Tensor, weight: float
) -> list[Tensor]:
    """The losses, and the gradients of all trained parameters."""
    jet = plan.jet().data  # [.., K, N, C]
    left = torch.einsum("kcne,...knc->...ne", coefficients.to(jet.dtype), jet)
    error = left - target.to(jet.dtype)
    losses = weight * error.square().mean(dim=(-2, -1))
    trained = [p for p in field.parameters() if p.requires_grad]
    return [losses.detach(), *torch.autograd.grad(losses.sum(), trained)]


def in_one_kernel(
    field: Field, plan: FieldPlan, coefficients: Tensor, target: Tensor, weight: float
) -> list[Tensor]:
    field.zero_grad()
    one = plan.least_squares(coefficients, target)
    assert one is not None
    losses = one(weight)
    return [losses, *(p.grad for p in field.parameters() if p.grad is not None)]


def assert_close(one: list[Tensor], other: list[Tensor]) -> None:
    """Equal up to the round-off of sums over points, features and layers."""
    for a, b in zip(one, other, strict=True):
        assert a.dtype == b.dtype
        atol = 5000 * torch.finfo(b.dtype).eps * b.abs().max().item()
        torch.testing.assert_close(a, b, rtol=0, atol=atol)


@pytest.mark.parametrize(
    ("encoder", "d", "order", "siren", "dtype"),
    pairwise(
        ["identity", "fourier", "linear", "s2", "cubic"],
        [1, 2],
        [0, 1, 2],
        [False, True],
        [torch.float64, torch.float32],
    ),
)
def test_losses_and_gradients_are_autograds(
    encoder: str, d: int, order: int, siren: bool, dtype: torch.dtype
) -> None:
    field = make_field(encoder, d, dtype, siren=siren)
    given = problem(field, d, 45, 2, order)
    assert_close(in_one_kernel(field, *given, 0.7), by_autograd(field, *given, 0.7))


@pytest.mark.parametrize("encoder", ["identity", "fourier", "cubic"])
@pytest.mark.parametrize("n_points", [1, 31, 257, 9000])
def test_any_number_of_points(encoder: str, n_points: int) -> None:
    field = make_field(encoder, 1)
    given = problem(field, 1, n_points, 1, 2)
    assert_close(in_one_kernel(field, *given, 1.0), by_autograd(field, *given, 1.0))


@DTYPES
@pytest.mark.parametrize("n_features", [1, 2, 3, 4, 6, 8, 12, 16])
def test_any_number_of_features(n_features: int, dtype: torch.dtype) -> None:
    field = make_field("cubic", 2, dtype)
    sizes = {"n_levels": 3, "base_resolution": 3, "log2_hashmap_size": 4}
    field.encoding = GridEncoding(
        2, n_features_per_level=n_features, init_scale=0.5, dtype=dtype, seed=0, **sizes
    )
    field.network = MLP(3 * n_features, width=20, depth=2, dtype=dtype)
    given = problem(field, 2, 45, 1, 2)
    assert_close(in_one_kernel(field, *given, 1.0), by_autograd(field, *given, 1.0))


def test_of_no_points_the_loss_is_not_a_number() -> None:
    field = make_field("cubic", 1)
    losses, *gradients = in_one_kernel(field, *problem(field, 1, 0, 1, 2), 1.0)
    assert losses.isnan()
    assert all((g == 0).all() for g in gradients)


@pytest.mark.parametrize("encoder", ["identity", "fourier", "cubic"])
def test_each_replica_gives_the_bits_it_gives_alone(encoder: str) -> None:
    fields = [make_field(encoder, 1, torch.float32, seed) for seed in (0, 1, 2)]
    alone = [in_one_kernel(f, *problem(f, 1, 300, 1, 2), 0.5) for f in fields]
    stack = stack_fields([make_field(encoder, 1, torch.float32, seed) for seed in (0, 1, 2)])
    given = problem(stack, 1, 300, 1, 2)
    together = in_one_kernel(stack, *given, 0.5)
    assert_close(together, by_autograd(stack, *given, 0.5))
    for index, own in enumerate(alone):
        assert all(torch.equal(a[index], b) for a, b in zip(together, own, strict=True))


def test_bits_do_not_depend_on_the_number_of_threads() -> None:
    field = make_field("cubic", 1, torch.float32)
    given, results, threads = problem(field, 1, 9000, 1, 2), [], torch.get_num_threads()
    try:
        for n in (1, 2, 3):
            torch.set_num_threads(n)
            results.append(in_one_kernel(field, *given, 1.0))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("frozen", ["encoding", "network"])
def test_what_is_frozen_gets_no_gradient(frozen: str) -> None:
    field = make_field("cubic", 1)
    getattr(field, frozen).requires_grad_(False)
    given = problem(field, 1, 45, 1, 2)
    assert_close(in_one_kernel(field, *given, 1.0), by_autograd(field, *given, 1.0))
    assert all(p.grad is None for p in getattr(field, frozen).parameters())


def test_gradients_of_several_terms_add_up() -> None:
    field = make_field("cubic", 1)
    plan, coefficients, target = problem(field, 1, 45, 1, 2)
    one = plan.least_squares(coefficients, target)
    assert one is not None
    one(1.0)
    first = [p.grad.clone() for p in field.parameters() if p.grad is not None]
    one(2.0)
    for parameter, gradient in zip(field.parameters(), first, strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, 3 * gradient, rtol=1e-12, atol=1e-14)


def test_uninitialised_memory_does_not_leak_in(monkeypatch: pytest.MonkeyPatch) -> None:
    field = make_field("cubic", 2)
    given = problem(field, 2, 45, 1, 2)
    expected = in_one_kernel(field, *given, 1.0)
    new_empty, empty_like = Tensor.new_empty, torch.empty_like
    monkeypatch.setattr(
        Tensor, "new_empty", lambda self, *shape: new_empty(self, *shape).fill_(math.nan)
    )
    monkeypatch.setattr(torch, "empty_like", lambda other: empty_like(other).fill_(math.nan))
    again = in_one_kernel(field, *given, 1.0)
    assert all(torch.equal(a, b) for a, b in zip(again, expected, strict=True))


def _no_compiler(field: Field, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(least_squares, "library", lambda activation, dtype: None)


def _own_encoding(field: Field, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        type(field.encoding.plan(torch.rand(2, 1), 2)), "kernel_input", lambda self: None
    )


@pytest.mark.parametrize("reason", [_no_compiler, _own_encoding])
def test_where_the_kernel_cannot_be_had_there_is_none(
    reason: Callable[[Field, pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    field = make_field("cubic", 1, torch.float32)
    plan, coefficients, target = problem(field, 1, 5, 1, 2)
    reason(field, monkeypatch)
    assert plan.least_squares(coefficients, target) is None


@DTYPES
@pytest.mark.parametrize("encoder", ["identity", "fourier", "cubic"])
@pytest.mark.parametrize("n_outputs", [2, 5])
def test_several_components_of_u(encoder: str, n_outputs: int, dtype: torch.dtype) -> None:
    field = make_field(encoder, 2, dtype)
    field.network = MLP(field.encoding.n_output_dims, n_outputs, width=9, depth=1, dtype=dtype)
    given = problem(field, 2, 45, 3, 1)
    assert_close(in_one_kernel(field, *given, 0.7), by_autograd(field, *given, 0.7))
