"""Jets and plans of every encoding against nested autograd: values and table gradients."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from diffhash import FourierFeatures, GridEncoding, Identity, Jet, autograd_jet
from diffhash.encodings import Encoding
from diffhash.jets import Rows, axis_rows, jet_rows
from diffhash.ops.interpolation import INTERPOLATIONS
from tests.thinned import pairwise

Uniform = Callable[..., Tensor]
DTYPES = [torch.float64, torch.float32]
# Encodings without a table, also periodic along the last axis; then grids.
OTHERS = ["identity", "fourier", "periodic identity", "periodic fourier"]
KINDS = [*OTHERS, *INTERPOLATIONS, "hashed cubic", "offset cubic", "periodic cubic"]
MIXED = axis_rows((2, 1))
ROWS = [
    (1, 2),
    (1, (1,)),
    (2, 2),
    (2, MIXED),
    (2, "u_yy"),
    (3, axis_rows((2, 2, 2))),
    (3, (2, 0, 1)),
]


def _encoding(kind: str, d: int, dtype: torch.dtype) -> Encoding:
    periodic = (d - 1,) if "periodic" in kind else ()
    if "identity" in kind:
        return Identity(d, dtype=dtype, periodic=periodic)
    if "fourier" in kind:
        return FourierFeatures(d, n_frequencies=3, dtype=dtype, seed=0, periodic=periodic)
    return GridEncoding(
        d,
        n_levels=2,
        n_features_per_level=1,
        log2_hashmap_size=4 if "hashed" in kind else 12,
        base_resolution=3,
        interpolation=kind.split()[-1],
        level_offset="offset" in kind,
        periodic=periodic,
        init_scale=1.0,
        dtype=dtype,
        seed=0,
    )


def _assert_rows_close(one: Tensor, other: Tensor, factor: float) -> None:
    """Each row of two jets is equal to ``factor`` eps of its largest entry."""
    assert one.shape == other.shape
    assert one.dtype == other.dtype
    for a, b in zip(one.detach(), other.detach(), strict=True):
        size = b.abs().max().item()
        tolerance = factor * torch.finfo(b.dtype).eps * size
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance)


# Both routes evaluate the same polynomials and sum at most 6³ products of them; the largest
# entry stands for the absolute terms, up to cancellation.
FACTOR = 200.0


@pytest.mark.parametrize(("kind", "case", "dtype"), pairwise(KINDS, ROWS, DTYPES))
def test_jets_equal_nested_autograd(
    kind: str, case: tuple[int, Rows], dtype: torch.dtype, uniform: Uniform
) -> None:
    d, rows = case
    encoding = _encoding(kind, d, dtype)
    x = uniform(8, d).to(dtype)
    jet, expected = encoding.jet(x, rows), autograd_jet(encoding, x, jet_rows(rows, d))
    assert jet.rows == expected.rows
    _assert_rows_close(jet.data, expected.data, FACTOR)


@pytest.mark.parametrize(
    ("kind", "case", "dtype"),
    pairwise(KINDS[len(OTHERS) :], [(1, 2), (2, MIXED)], DTYPES, values=1),
)
def test_table_gradients_of_jets_equal_nested_autograds(
    kind: str, case: tuple[int, Rows], dtype: torch.dtype, uniform: Uniform
) -> None:
    d, rows = case
    encoding = _encoding(kind, d, dtype)
    x = uniform(8, d).to(dtype)
    routes = (
        encoding.jet(x, rows),
        encoding.plan(x, rows).jet(),
        autograd_jet(encoding, x, jet_rows(rows, d)),
    )
    weights = uniform(*routes[0].data.shape, seed=1).to(dtype)
    params = list(encoding.parameters())
    gradients = []
    for jet in routes:
        # One row at a time, so that large second derivatives do not hide the others.
        gradients.append(
            torch.stack(
                [
                    torch.autograd.grad(
                        (w * row.sin()).sum(), params, retain_graph=True, materialize_grads=True
                    )[0]
                    for w, row in zip(weights, jet.data, strict=True)
                ]
            )
        )
    size = [max(row.abs().max().item(), 1.0) for row in routes[2].data.detach()]
    # The cosine of a row of size s is off by s · eps, on top of the sums' own round-off.
    for jet_gradient in gradients[:2]:
        for a, b, s in zip(jet_gradient, gradients[2], size, strict=True):
            tolerance = FACTOR * torch.finfo(dtype).eps * s * b.abs().max().item()
            torch.testing.assert_close(a, b, rtol=0, atol=tolerance)


@pytest.mark.parametrize(("kind", "case", "dtype"), pairwise(KINDS, ROWS, DTYPES))
def test_plans_equal_jets(
    kind: str, case: tuple[int, Rows], dtype: torch.dtype, uniform: Uniform
) -> None:
    d, rows = case
    encoding = _encoding(kind, d, dtype)
    x = uniform(8, d).to(dtype)
    planned = encoding.plan(x, rows).jet()
    assert planned.rows == jet_rows(rows, d)
    _assert_rows_close(planned.data, encoding.jet(x, rows).data, FACTOR)


@pytest.mark.parametrize(("kind", "d"), pairwise(KINDS, [1, 2], values=1))
def test_plans_of_float64_points_serve_float32_encodings(
    kind: str, d: int, uniform: Uniform
) -> None:
    encoding = _encoding(kind, d, torch.float32)
    x = uniform(50, d)
    jet = encoding.plan(x, 2).jet()
    assert jet.data.dtype == torch.float32
    exact = _encoding(kind, d, torch.float64).to(torch.float64)
    exact.load_state_dict({k: v.double() for k, v in encoding.state_dict().items()})
    expected = exact.jet(x, 2).data.float()
    _assert_rows_close(jet.data, expected, FACTOR)


def test_plans_keep_the_precision_that_float32_coordinates_lose(uniform: Uniform) -> None:
    """At 2^16 cells, float32 coordinates are off by thousandths of a cell; float64 ones are not."""
    n = 2**16
    encoding = GridEncoding(
        1, n_levels=1, base_resolution=n, interpolation="cubic", init_scale=1.0, seed=0
    )
    x = uniform(200, 1)
    exact = GridEncoding(
        1, n_levels=1, base_resolution=n, interpolation="cubic", dtype=torch.float64
    )
    exact.load_state_dict({"params": encoding.params.detach().double()})
    expected = exact.jet(x, 2).data.detach()
    planned, rounded = encoding.plan(x, 2).jet().data, encoding.jet(x.float(), 2).data
    eps = torch.finfo(torch.float32).eps
    for m in range(3):
        size = expected[m].abs().max()
        assert (planned[m] - expected[m]).abs().max() < 20 * eps * size
        assert (rounded[m] - expected[m]).abs().max() > 1000 * eps * size


def test_plans_follow_the_table_as_it_trains(uniform: Uniform) -> None:
    encoding = _encoding("cubic", 1, torch.float64)
    x = uniform(8, 1)
    plan = encoding.plan(x, 2)
    before = plan.jet().data.detach().clone()
    with torch.no_grad():
        encoding.params.mul_(-2)
    torch.testing.assert_close(plan.jet().data, -2 * before, rtol=1e-15, atol=0)


@pytest.mark.parametrize("kind", ["cubic", "hashed cubic"])
def test_plans_are_differentiable_twice_in_the_table(kind: str, uniform: Uniform) -> None:
    encoding = _encoding(kind, 1, torch.float64)
    x = uniform(4, 1)
    directions = uniform(*encoding.params.shape, seed=1)
    results = []
    for jet in (encoding.plan(x, 2).jet(), encoding.jet(x, 2)):
        loss = jet.data.sin().sum()
        (first,) = torch.autograd.grad(loss, encoding.params, create_graph=True)
        results.append(torch.autograd.grad((first * directions).sum(), encoding.params)[0])
    size = results[1].abs().max().item() * 400  # sin'' of second derivatives of size 400
    eps = torch.finfo(torch.float64).eps
    torch.testing.assert_close(*results, rtol=0, atol=FACTOR * eps * size)


@pytest.mark.parametrize("kind", KINDS)
def test_jets_are_differentiable_in_the_points(kind: str, uniform: Uniform) -> None:
    encoding = _encoding(kind, 1, torch.float64)
    x = uniform(5, 1).requires_grad_(True)
    jet: Jet = encoding.jet(x, 1)
    second = encoding.jet(x.detach(), 2)[2,]
    for c in range(encoding.n_output_dims):
        column = jet[1,][:, c]
        if not column.requires_grad:  # the identity's slope is a constant
            assert (second[:, c] == 0).all()
            continue
        (slope,) = torch.autograd.grad(column.sum(), x, retain_graph=True)
        torch.testing.assert_close(slope[:, 0], second[:, c], rtol=1e-11, atol=1e-11)


def test_a_plan_of_points_that_require_a_gradient_is_refused() -> None:
    encoding = GridEncoding(1, n_levels=2, base_resolution=4, interpolation="cubic")
    with pytest.raises(ValueError, match="requires a gradient"):
        encoding.plan(torch.rand(3, 1, requires_grad=True), 2)


def test_a_plan_too_large_to_index_is_refused_before_it_is_built() -> None:
    encoding = GridEncoding(
        4, n_levels=2, base_resolution=4, interpolation="quintic", backend="torch"
    )
    points = torch.empty(1_000_000, 4, device="meta")
    with pytest.raises(ValueError, match=r"weights, more than 2\^31"):
        encoding.to("meta").plan(points, 2)
