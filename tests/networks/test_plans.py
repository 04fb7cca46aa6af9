"""Plans equal new plans, whatever happened to the points or the field."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from diffhash import MLP, Field, FourierFeatures, GridEncoding, Identity
from diffhash.encodings import Encoding
from diffhash.ops.backends import native_backend
from diffhash.training.adam import LeanAdam

ENCODERS = pytest.mark.parametrize("encoder", ["identity", "fourier", "native", "torch", "large"])


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Encoding]:
    def encoding(encoder: str, dtype: torch.dtype = torch.float32, seed: int = 0) -> Encoding:
        if encoder == "identity":
            return Identity(1, dtype=dtype)
        if encoder == "fourier":
            return FourierFeatures(1, 3, dtype=dtype, seed=seed)
        if encoder == "large":  # keeps the points instead of weights
            monkeypatch.setattr(native_backend, "PLANNED_TAPS", 0)
            monkeypatch.setattr(native_backend, "PLANNED_WEIGHTS", 0)
        return GridEncoding(
            1,
            n_levels=3,
            base_resolution=3,
            log2_hashmap_size=5,
            interpolation="cubic",
            init_scale=1.0,
            dtype=dtype,
            seed=seed,
            backend="torch" if encoder == "torch" else "native",
        )

    return encoding


def points(n: int = 7) -> Tensor:
    return torch.linspace(0, 1, n, dtype=torch.float64)[:, None]


@ENCODERS
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_points_that_change_later_change_nothing(
    make: Callable[..., Encoding], encoder: str, dtype: torch.dtype
) -> None:
    x = points().to(dtype)
    encoding = make(encoder, dtype)
    plan = encoding.plan(x, 2)
    before = plan.jet().data.clone()
    x.fill_(0.3)
    assert torch.equal(plan.jet().data, before)


@ENCODERS
def test_a_plan_follows_its_encoding(make: Callable[..., Encoding], encoder: str) -> None:
    encoding = make(encoder)
    plan = encoding.plan(points(), 2)
    for change in (
        lambda: encoding.double(),
        lambda: encoding.load_state_dict(make(encoder, torch.float64, seed=1).state_dict()),
        lambda: encoding.to(torch.float32),
    ):
        change()
        now, fresh = plan.jet().data, encoding.plan(points(), 2).jet().data
        assert now.dtype == fresh.dtype
        assert torch.equal(now, fresh)


def test_a_plan_follows_a_table_that_is_replaced(make: Callable[..., Encoding]) -> None:
    encoding = make("native")
    assert isinstance(encoding, GridEncoding)
    field = Field(encoding, MLP(6, width=8, depth=1), [(0, 1)])
    plan = field.plan(points(), 2)
    one = plan.least_squares(torch.ones(3, 1, 7, 1), torch.zeros(7, 1))
    assert one is not None
    one(1.0)
    encoding.params = nn.Parameter(2 * encoding.params.detach())
    loss = field.plan(points(), 2).jet().data.sum(0).square().mean()
    torch.testing.assert_close(plan.jet().data.sum(0).square().mean(), loss)
    torch.testing.assert_close(one(1.0), loss.detach())
    (expected,) = torch.autograd.grad(loss, encoding.params)
    torch.testing.assert_close(encoding.params.grad, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("encoder", ["native", "torch"])
@pytest.mark.parametrize("size", ["fewer rows", "more features", "another axis"])
def test_a_table_of_another_size_is_named(
    make: Callable[..., Encoding], encoder: str, size: str
) -> None:
    encoding = make(encoder)
    plan, table = encoding.plan(points(), 2), encoding.get_parameter("params")
    table.data = {
        "fewer rows": table.data[:-3],
        "more features": table.data.repeat(2),
        "another axis": table.data[None, None],
    }[size].clone()
    x = points().float()
    for call in (lambda: encoding(x), lambda: encoding.jet(x, 2), plan.jet, plan.jet_and_vjp):
        with pytest.raises(ValueError, match=r"params have the shape .*this grid's are \["):
            call()


@ENCODERS
def test_a_plan_made_in_inference_mode_trains_outside_of_it(
    make: Callable[..., Encoding], encoder: str
) -> None:
    encoding = make(encoder)
    field = Field(encoding, MLP(encoding.n_output_dims, width=8, depth=1), [(0, 1)])
    with torch.inference_mode():
        plan = field.plan(points(), 2)
    gradients = []
    for each in (plan, field.plan(points(), 2)):
        loss = each.jet().data.square().sum()
        gradients += torch.autograd.grad(loss, field.network.params)
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("points", [[[0.5]], np.zeros((3, 1)), None])
def test_points_that_are_no_tensor_are_named(make: Callable[..., Encoding], points: Any) -> None:
    encoding = make("native")
    field = Field(encoding, MLP(6, width=8, depth=1), [(0, 1)])
    for module in (encoding, FourierFeatures(1, 3), Identity(1), field):
        for call in (module, partial(module.jet, rows=2), partial(module.plan, rows=2)):
            with pytest.raises(ValueError, match="points must be a tensor, got "):
                call(points)


def test_a_field_of_another_encoding_needs_another_plan(make: Callable[..., Encoding]) -> None:
    field = Field(make("native"), MLP(6, width=8, depth=1), [(0, 1)])
    plan = field.plan(points(), 2)
    field.encoding = make("native", seed=1)
    for call in (plan.jet, plan.jet_and_vjp):
        with pytest.raises(ValueError, match="make a new plan"):
            call()


def test_squares_of_a_field_that_changed_its_precision_are_refused(
    make: Callable[..., Encoding],
) -> None:
    for encoder in ("identity", "fourier", "native"):
        encoding = make(encoder)
        field = Field(encoding, MLP(encoding.n_output_dims, width=8, depth=1), [(0, 1)])
        one = field.plan(points(), 2).least_squares(torch.ones(3, 1, 7, 1), torch.zeros(7, 1))
        assert one is not None
        field.double()
        with pytest.raises(ValueError, match="same dtype"):
            one(1.0)


@pytest.mark.parametrize("encoder", ["fourier", "native", "torch"])
def test_a_gradient_of_another_shape_or_dtype_is_refused(
    make: Callable[..., Encoding], encoder: str
) -> None:
    encoding = make(encoder)
    field = Field(encoding, MLP(6, width=8, depth=1), [(0, 2)])
    jet, vjp = field.plan(2 * points(), 2).jet_and_vjp()
    for g in (torch.ones(1), torch.ones(3, 1, 1), torch.ones(1, 7, 1), jet.data.double()):
        with pytest.raises(ValueError, match=r"its dtype .* and shape"):
            vjp(g)
    assert all(p.grad is None for p in field.parameters())
    vjp(torch.ones_like(jet.data))


@pytest.mark.parametrize("change", ["in place", "by the optimizer", "its data"])
def test_parameters_that_change_between_a_jet_and_its_gradient(
    make: Callable[..., Encoding], change: str
) -> None:
    field = Field(make("native"), MLP(6, width=8, depth=1), [(0, 1)])
    params = field.network.params
    jet, vjp = field.plan(points(), 2).jet_and_vjp()
    (expected,) = torch.autograd.grad(field.plan(points(), 2).jet().data.sum(), params)
    if change == "its data":
        params.data = torch.zeros_like(params)
        vjp(torch.ones_like(jet.data))
        torch.testing.assert_close(params.grad, expected)
        return
    if change == "in place":
        with torch.no_grad():
            params.mul_(2)
    else:
        optimizer = LeanAdam([params], captured=False)
        optimizer.set_rate(0.1)
        params.grad = torch.ones_like(params)
        optimizer.lean_step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        vjp(torch.ones_like(jet.data))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_points_of_low_precision_are_taken_as_they_are(
    make: Callable[..., Encoding], dtype: torch.dtype
) -> None:
    x = points().to(dtype)
    encoding = make("native")
    torch.testing.assert_close(encoding.plan(x, 2).jet().data, encoding.jet(x.float(), 2).data)
