"""Plans that are moved to other points, or reduced to some of theirs, equal plans made there."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor

from diffhash import MLP, Field, FourierFeatures, GridEncoding, Identity
from diffhash.encodings import Encoding, EncodingPlan
from diffhash.encodings import grid as grid_module
from diffhash.jets import Jet, Row, Sum
from diffhash.networks import FieldPlan
from diffhash.ops.backends import native_backend

BOX = [(0.0, 2.0), (-1.0, 2.0)]
PURE = ("u_xx", "u_xy")
TOTAL = (Sum(((1.0, (2, 0)), (2.0, (0, 2)))),)
ROWS = pytest.mark.parametrize("rows", [PURE, TOTAL], ids=["derivatives", "sum"])
ENCODERS = ("native", "points alone", "torch", "fourier", "identity", "own")


class Own(Identity):
    """A user's encoding, whose plan supports neither other points nor parts."""

    def _plan(self, x: Tensor, rows: tuple[Row, ...]) -> EncodingPlan:
        return OwnPlan(self, x, rows)


class OwnPlan(EncodingPlan):
    def __init__(self, encoding: Encoding, x: Tensor, rows: tuple[Row, ...]) -> None:
        self._made_of = encoding, x.clone(), rows

    def jet(self) -> Jet:
        encoding, x, rows = self._made_of
        return encoding._jet(x, rows)


def make(encoder: str, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, **own: Any) -> Field:
    torch.manual_seed(0)
    if encoder == "too many to keep":
        monkeypatch.setattr(grid_module, "PARTS_BYTES", 0)
    if encoder == "points alone":
        monkeypatch.setattr(native_backend, "PLANNED_TAPS", 0)
        monkeypatch.setattr(native_backend, "PLANNED_WEIGHTS", 0)
    encoding: Encoding
    if encoder == "fourier":
        encoding = FourierFeatures(2, 3, dtype=dtype)
    elif encoder in ("identity", "own"):
        encoding = (Own if encoder == "own" else Identity)(2, dtype=dtype)
    else:
        encoding = GridEncoding(
            2, n_levels=3, base_resolution=3, log2_hashmap_size=6, interpolation="cubic",
            init_scale=0.3, dtype=dtype, backend="torch" if encoder == "torch" else "native",
        )  # fmt: skip
    return Field(encoding, MLP(encoding.n_output_dims, width=6, depth=2, dtype=dtype), BOX, **own)


def points(n: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    unit = torch.rand(n, 2, dtype=dtype, generator=generator)
    return unit * torch.tensor([2.0, 3.0], dtype=dtype) + torch.tensor([0.0, -1.0], dtype=dtype)


def gradients(field: Field, plan: FieldPlan) -> list[Tensor]:
    for parameter in field.parameters():
        parameter.grad = None
    jet, vjp = plan.jet_and_vjp()
    vjp(torch.ones_like(jet.data))
    return [p.grad for p in field.parameters() if p.grad is not None]


def ansatz(x: Tensor) -> tuple[Tensor, Tensor]:
    return x[:, 0].sin(), x[:, 0] * x[:, 1]


@ROWS
@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("own", [{}, {"ansatz": ansatz}], ids=["plain", "ansatz"])
def test_a_moved_plan(
    monkeypatch: pytest.MonkeyPatch, encoder: str, rows: Any, own: dict[str, Any]
) -> None:
    field = make(encoder, monkeypatch, torch.float64, **own)
    plan, x = field.plan(points(7, 1), rows), points(7, 2)
    shape = plan.jet().data.shape
    coefficients = torch.rand(shape[0], 1, 7, 2, dtype=torch.float64)
    target = torch.rand(7, 2, dtype=torch.float64)
    squares = plan.least_squares(coefficients, target)
    if squares is not None:
        squares(1.0)
    assert plan.move(x) == (encoder != "own")
    x.fill_(0.1)  # the plan has its points
    expected = field.plan(points(7, 2), rows)
    torch.testing.assert_close(plan.jet().data, expected.jet().data, rtol=1e-13, atol=1e-13)
    for one, other in zip(gradients(field, plan), gradients(field, expected), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    anew = expected.least_squares(coefficients, target)
    assert (squares is None) == (anew is None) == (encoder in ("torch", "points alone", "own"))
    if squares is not None and anew is not None:
        squares.put(coefficients, target)  # an ansatz has part in them
        torch.testing.assert_close(squares(1.0), anew(1.0), rtol=1e-13, atol=0)


@ROWS
@pytest.mark.parametrize("encoder", [*ENCODERS, "too many to keep"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("own", [{}, {"ansatz": ansatz}], ids=["plain", "ansatz"])
def test_a_part_of_a_plan(
    monkeypatch: pytest.MonkeyPatch,
    encoder: str,
    rows: Any,
    dtype: torch.dtype,
    own: dict[str, Any],
) -> None:
    field, x = make(encoder, monkeypatch, dtype, **own), points(9, 1)
    tolerance = {"rtol": 1e-4, "atol": 1e-4} if dtype == torch.float32 else {}
    whole = field.plan(x, rows, in_parts=True)
    first, index = torch.tensor([8, 0, 3]), torch.tensor([2, 8, 5])
    part, n_rows = whole.at(first), len(whole.jet().rows)
    coefficients = torch.rand(n_rows, 1, 9, 2, dtype=torch.float64)
    target = torch.rand(9, 2, dtype=torch.float64)

    def check(index: Tensor, x: Tensor) -> None:
        fresh = field.plan(x[index], rows)
        torch.testing.assert_close(part.jet().data, fresh.jet().data, **tolerance)
        for one, other in zip(gradients(field, part), gradients(field, fresh), strict=True):
            torch.testing.assert_close(one, other, **tolerance)
        anew = fresh.least_squares(coefficients[:, :, index], target[index])
        if squares is not None and anew is not None:
            squares.put(coefficients[:, :, index], target[index])
            torch.testing.assert_close(squares(0.7), anew(0.7), **tolerance)

    squares = part.least_squares(coefficients[:, :, first], target[first])
    assert (squares is None) == (encoder in ("torch", "points alone", "own"))
    check(first, x)
    part.take(index)
    check(index, x)
    if encoder != "own":
        whole.move(points(9, 2))
        part.take(index)
        check(index, points(9, 2))


def test_what_a_plan_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make("native", monkeypatch, torch.float64).plan(points(7, 1), PURE)
    with pytest.raises(ValueError, match=r"shape \[6, 2\]: the plan has those of shape \[7, 2\]"):
        plan.move(points(6, 1))
    with pytest.raises(ValueError, match=r"of all its points"):
        plan.take(torch.arange(3))
    with pytest.raises(ValueError, match=r"of some points of another"):
        plan.at(torch.arange(3)).move(points(3, 1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n", [1, 37])
@pytest.mark.parametrize("encoder", ["native", "fourier"])
def test_weights_of_points_and_errors_in_the_kernel(
    monkeypatch: pytest.MonkeyPatch, encoder: str, n: int, dtype: torch.dtype
) -> None:
    """weight · mean(w error²), its gradients, and the errors themselves, against autograd."""
    field, x = make(encoder, monkeypatch, dtype), points(n, 1)
    plan = field.plan(x, PURE)
    k = len(plan.jet().rows)
    coefficients, target = torch.rand(k, 1, n, 2).to(dtype), torch.rand(n, 2).to(dtype)
    weights = torch.rand(n).to(dtype)
    weights[0] = 0
    errors = torch.full((n, 2), torch.nan, dtype=dtype)
    squares = plan.least_squares(coefficients, target)
    assert squares is not None
    loss = squares(0.7, weights, errors)
    found = [p.grad for p in field.parameters()]
    jet = plan.jet().data
    expected = torch.einsum("kcne,knc->ne", coefficients, jet) - target
    mean = 0.7 * (weights[:, None] * expected.square()).mean()
    bound = 1e-4 if dtype == torch.float32 else 1e-12
    torch.testing.assert_close(errors, expected.detach(), rtol=bound, atol=bound)
    torch.testing.assert_close(loss, mean.detach(), rtol=bound, atol=bound)
    for one, other in zip(found, torch.autograd.grad(mean, list(field.parameters())), strict=True):
        scale = max(1.0, other.abs().max().item())
        torch.testing.assert_close(one, other, rtol=bound, atol=bound * scale)
    with pytest.raises(ValueError, match="the points' weights must have"):
        squares(1.0, weights.repeat(2))
    with pytest.raises(ValueError, match="the errors must have"):
        squares(1.0, None, errors[:, :1])


_TRITON = """
import torch
from diffhash.ops.grid import grid_plan
from diffhash.ops.layout import grid_layout
layout = grid_layout(2, "cubic", 2, 5, 3, 2.0, False)
x, y = torch.rand(2, 11, 2, dtype=torch.float64)
alphas = ((0, 0), (1, 1))
table = torch.rand(1, layout.n_rows * 2, dtype=torch.float64)
g = torch.rand(1, 2, 11, 4, dtype=torch.float64)
plan, fresh = (grid_plan(p, layout, alphas, torch.float64, "triton") for p in (x, y))
places = [part.data_ptr() for s in plan.plan.segments for part in (s.order, s.starts)]
plan.move(y, torch.float64)
assert places == [part.data_ptr() for s in plan.plan.segments for part in (s.order, s.starts)]
assert torch.equal(plan.gather(table), fresh.gather(table))
assert torch.equal(plan.scatter(g), fresh.scatter(g))
"""


@pytest.mark.slow
def test_a_plan_of_triton_moves_in_place() -> None:
    pytest.importorskip("triton")
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    subprocess.run([sys.executable, "-c", _TRITON], check=True, env=environment, timeout=120)
