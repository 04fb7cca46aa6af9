"""The whole field: its jets are the derivatives that nested autograd gives, on any box."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from diffhash import MLP, Field, GridEncoding, Identity, Jet, autograd_jet
from diffhash.geometry import Box
from diffhash.jets import Rows, Sum, axis_rows, jet_rows
from diffhash.networks import taylor
from tests.thinned import pairwise

EPS = torch.finfo(torch.float64).eps
BOXES = {1: [(-3.0, 2.0)], 2: [(0.0, 0.5), (-1.0, 1.0)], 3: [(0.0, 1.0), (2.0, 6.0), (-0.5, 0.5)]}
ENCODERS = ["identity", "fourier", "linear", "s2", "cubic"]
NETWORKS = ["mlp", "siren", "skip"]
ROWS = [(1, 2), (1, 1), (2, 2), (2, axis_rows((2, 1))), (2, (0, 2)), (3, axis_rows((2, 2, 2)))]
MakeField = Callable[..., Field]
Points = Callable[..., Tensor]
# ω₀ = 30 twice: the phase's round-off grows by 30 a layer, and each derivative by as much again.
AMPLIFICATION = {"mlp": 200.0, "siren": 200.0 * 30, "skip": 200.0}


def _assert_rows_close(one: Tensor, other: Tensor, factor: float) -> None:
    for a, b in zip(one.detach(), other.detach(), strict=True):
        tolerance = factor * torch.finfo(b.dtype).eps * b.abs().max().item()
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance)


@pytest.mark.parametrize(("encoder", "network", "case"), pairwise(ENCODERS, NETWORKS, ROWS))
def test_jets_and_plans_equal_nested_autograd(
    encoder: str, network: str, case: tuple[int, Rows], make_field: MakeField, points: Points
) -> None:
    d, rows = case
    field = make_field(encoder, network, BOXES[d])
    x = points(BOXES[d], 6)
    expected = autograd_jet(field, x, jet_rows(rows, d))
    for jet in (field.jet(x, rows), field.plan(x, rows).jet()):
        assert jet.rows == expected.rows
        _assert_rows_close(jet.data, expected.data, AMPLIFICATION[network])


@pytest.mark.parametrize(
    ("encoder", "network", "d", "dtype"),
    pairwise(ENCODERS, NETWORKS, [1, 2], [torch.float64, torch.float32]),
)
def test_parameter_gradients_of_jets_equal_nested_autograds(
    encoder: str,
    network: str,
    d: int,
    dtype: torch.dtype,
    make_field: MakeField,
    points: Points,
) -> None:
    field = make_field(encoder, network, BOXES[d], dtype)
    x = points(BOXES[d], 12).to(dtype)
    rows = axis_rows((2, 1)[:d])
    params = list(field.parameters())
    weights = torch.rand(
        len(rows), 12, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64
    ).to(dtype)

    def gradients(jet: Jet, row: int) -> list[Tensor]:
        # A loss like a residual's: linear and quadratic in the derivative.
        loss = (weights[row] * (jet.data[row] + jet.data[row] ** 2)).mean()
        grads = torch.autograd.grad(loss, params, retain_graph=True, materialize_grads=True)
        return [g.detach() for g in grads]

    expected, jets = autograd_jet(field, x, rows), [field.jet(x, rows)]
    jets.append(field.plan(x, rows).jet())
    for row in range(len(rows)):
        truth = gradients(expected, row)
        # Sums over points cancel, more in some parameters than in others: one size for all.
        size = max(g.abs().max().item() for g in truth)
        for jet in jets:
            for one, other in zip(gradients(jet, row), truth, strict=True):
                tolerance = AMPLIFICATION[network] * torch.finfo(dtype).eps * size
                torch.testing.assert_close(one, other, rtol=0, atol=tolerance)


@pytest.mark.parametrize("network", ["mlp", "siren"])
def test_gradients_of_u_xx_equal_finite_differences(
    network: str, make_field: MakeField, points: Points
) -> None:
    field = make_field("cubic", network, BOXES[1])
    x = points(BOXES[1], 3)
    params = list(field.parameters())
    grads = torch.autograd.grad(field.jet(x, 2)[2,].sum(), params)

    def u_xx(h: float) -> float:
        """Second difference of the field itself, eighth order."""
        weights = [-205 / 72, 8 / 5, -1 / 5, 8 / 315, -1 / 560]
        total = sum(
            w * (field(x + k * h) + (field(x - k * h) if k else 0)).sum()
            for k, w in enumerate(weights)
        )
        return (total / h**2).item()

    # Within one cell (1/6 of the box is 5/6 wide), so that the difference sees a smooth function.
    generator = torch.Generator().manual_seed(3)
    h, step = 1e-2, 1e-4
    with torch.no_grad():
        directions = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in params]
        values = []
        for sign in (1, -1):
            for p, v in zip(params, directions, strict=True):
                p.add_(sign * step * v)
            values.append(u_xx(h))
            for p, v in zip(params, directions, strict=True):
                p.sub_(sign * step * v)
    slope = (values[0] - values[1]) / (2 * step)
    along = sum((g * v).sum().item() for g, v in zip(grads, directions, strict=True))
    size = sum((g * v).abs().sum().item() for g, v in zip(grads, directions, strict=True))
    assert along == pytest.approx(slope, rel=0, abs=1e-3 * size)


@pytest.mark.parametrize("network", NETWORKS)
def test_jets_are_differentiable_in_the_points(
    network: str, make_field: MakeField, points: Points
) -> None:
    field = make_field("cubic", network, BOXES[1])
    x = points(BOXES[1], 5).requires_grad_(True)
    for c in range(2):
        slope = field.jet(x, 1)[1,][:, c].sum()
        (second,) = torch.autograd.grad(slope, x)
        expected = field.jet(x.detach(), 2)[2,][:, c]
        tolerance = AMPLIFICATION[network] * EPS * expected.abs().max().item()
        torch.testing.assert_close(second[:, 0], expected, rtol=0, atol=tolerance)


def test_gradients_of_a_jets_gradients_are_those_of_autograds(
    make_field: MakeField, points: Points
) -> None:
    field = make_field("cubic", "mlp", BOXES[1])
    x = points(BOXES[1], 5)
    params = list(field.parameters())

    def curvature(jet: Jet) -> tuple[Tensor, ...]:
        """A Hessian-vector product, as second-order optimizers take it."""
        loss = jet[2,].square().mean()
        first = torch.autograd.grad(loss, params, create_graph=True, materialize_grads=True)
        total = sum(g.sum() for g in first)
        return torch.autograd.grad(total, params, materialize_grads=True)

    expected = curvature(autograd_jet(field, x, axis_rows([2])))
    assert all(g.abs().max() > 0 for g in expected)
    for jet in (field.jet(x, 2), field.plan(x, 2).jet()):
        for one, other in zip(curvature(jet), expected, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-11 * other.abs().max().item())


def test_the_box_is_mapped_to_the_unit_cube(make_field: MakeField) -> None:
    field = make_field("cubic", "mlp", BOXES[2])
    corners = torch.tensor([[0.0, -1.0], [0.5, 1.0], [0.25, 0.0]], dtype=torch.float64)
    unit = torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.5, 0.5]], dtype=torch.float64)
    expected = field.network(field.encoding(unit))
    torch.testing.assert_close(field(corners), expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_float64_points_may_be_planned_for_a_float32_field(
    encoder: str, make_field: MakeField, points: Points
) -> None:
    field = make_field(encoder, "mlp", BOXES[2], torch.float32)
    x = points(BOXES[2], 9)
    planned = field.plan(x, 2).jet()
    assert planned.data.dtype == torch.float32
    exact = make_field(encoder, "mlp", BOXES[2], torch.float64)
    exact.load_state_dict({k: v.double() for k, v in field.state_dict().items()})
    _assert_rows_close(planned.data, exact.jet(x, 2).data.float(), AMPLIFICATION["mlp"])


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("network", ["mlp", "siren"])
def test_points_far_from_zero_are_rounded_once_they_are_normalised(
    encoder: str, network: str, make_field: MakeField, points: Points
) -> None:
    far = [(1e6, 1e6 + 2), (-3e7, -3e7 + 0.5)]
    field = make_field(encoder, network, far, torch.float32)
    x = points(far, 9)
    planned = field.plan(x, 2).jet().data
    assert field(x).dtype == field.jet(x, 2).data.dtype == torch.float32
    torch.testing.assert_close(field(x), planned[0], rtol=1e-4, atol=1e-5)
    _assert_rows_close(field.jet(x, 2).data, planned, AMPLIFICATION[network])
    by_autograd = autograd_jet(field, x, jet_rows(2, 2)).data
    assert by_autograd.dtype == torch.float32
    _assert_rows_close(by_autograd, planned, AMPLIFICATION[network])


def test_float32_points_of_a_float64_field_are_what_they_say(
    make_field: MakeField, points: Points
) -> None:
    field = make_field("cubic", "mlp", [(0.1, 3.7)])
    x = points([(0.1, 3.7)], 9).float()
    torch.testing.assert_close(field(x), field(x.double()), rtol=0, atol=0)
    torch.testing.assert_close(field.jet(x, 2).data, field.jet(x.double(), 2).data, rtol=0, atol=0)
    torch.testing.assert_close(field.plan(x, 2).jet().data, field.plan(x.double(), 2).jet().data)


def test_plans_follow_the_parameters(make_field: MakeField, points: Points) -> None:
    field = make_field("cubic", "mlp", BOXES[1])
    x = points(BOXES[1], 5)
    plan = field.plan(x, 2)
    before = plan.jet().data.detach().clone()
    with torch.no_grad():
        for p in field.parameters():
            p.mul_(0.5)
    assert (plan.jet().data != before).any()
    torch.testing.assert_close(plan.jet().data, field.jet(x, 2).data, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("n", [0, 1])
def test_no_points_and_one_point(n: int, make_field: MakeField, points: Points) -> None:
    field = make_field("cubic", "mlp", BOXES[2])
    x = points(BOXES[2], n)
    assert field(x).shape == (n, 2)
    assert field.jet(x, 2).data.shape == (6, n, 2)
    assert field.plan(x, 2).jet().data.shape == (6, n, 2)


@pytest.mark.parametrize(
    "x",
    [torch.rand(5, 1), torch.rand(5, 3), torch.rand(5), torch.ones(5, 2, dtype=torch.int64)],
    ids=["one axis", "three axes", "1-D", "integers"],
)
@pytest.mark.parametrize("encoding", [Identity(2), GridEncoding(2, n_levels=1)], ids=["id", "grid"])
def test_points_of_a_wrong_shape_or_kind_are_refused(x: Tensor, encoding: Any) -> None:
    field = Field(encoding, MLP(2), [(0.0, 1.0), (0.0, 2.0)])
    for call in (field, partial(field.jet, rows=2), partial(field.plan, rows=2)):
        with pytest.raises(ValueError, match=r"shape \[N, 2\]"):
            call(x)


@pytest.mark.parametrize("rows", [-1, (2,), (1, 1, 1), "u0_z", "u", Sum(((1.0, (2,)),))])
def test_what_is_no_derivative_is_refused(rows: Rows, make_field: MakeField) -> None:
    field = make_field("cubic", "mlp", BOXES[2])
    for call in (field.jet, field.plan):
        with pytest.raises(ValueError, match="is no derivative"):
            call(torch.zeros(3, 2, dtype=torch.float64), rows)


def test_the_domain_must_fit_the_encoding_and_have_a_width() -> None:
    with pytest.raises(ValueError, match=r"domain.*2 axes"):
        Field(Identity(2), MLP(2), [(0.0, 1.0)])
    with pytest.raises(ValueError, match=r"domain=Box\(.*problem\.domain\.bounds"):
        Field(Identity(2), MLP(2), Box(x=(0, 1), y=(0, 1)))  # type: ignore[arg-type]
    for box in ((1.0, 1.0), (1.0, 0.0), (0.0, float("inf")), (float("nan"), 1.0)):
        with pytest.raises(ValueError, match="domain"):
            Field(Identity(1), MLP(1), [box])


@pytest.mark.parametrize("network", ["mlp", "siren"])
def test_a_jet_compiles_whole_and_gives_the_same(
    network: str, make_field: MakeField, points: Points
) -> None:
    domain = [(0.0, 1.0)]
    field, x = make_field("cubic", network, domain), points(domain, 9)

    def jet(x: Tensor) -> Tensor:
        return field.jet(x, 2).data

    results = []
    for f in (jet, torch.compile(jet, fullgraph=True, backend="aot_eager")):
        y = f(x)
        results.append([y, *torch.autograd.grad(y.sin().sum(), list(field.parameters()))])
    for eager, compiled in zip(*results, strict=True):
        atol = 500 * torch.finfo(eager.dtype).eps * eager.abs().max().item()
        torch.testing.assert_close(compiled, eager, rtol=0, atol=atol)


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("d", [1, 2])
@pytest.mark.parametrize("without_kernels", [False, True], ids=["kernels", "torch"])
def test_the_vjp_outside_of_autograd_is_the_backward_pass(
    encoder: str,
    network: str,
    d: int,
    without_kernels: bool,
    make_field: MakeField,
    points: Points,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    field = make_field(encoder, network, BOXES[d])
    plans = [field.plan(points(BOXES[d], n), 2) for n in (5, 12)]
    weights = [torch.randn(len(jet_rows(2, d)), n, 2, dtype=torch.float64) for n in (5, 12)]
    jets = [plan.jet() for plan in plans]
    sum((w * jet.data).sum() for w, jet in zip(weights, jets, strict=True)).backward()
    expected = [p.grad for p in field.parameters()]
    field.zero_grad()
    if without_kernels:
        monkeypatch.setattr(taylor, "library", lambda activation, dtype: None)
    for plan, jet, weight in zip(plans, jets, weights, strict=True):
        again, vjp = plan.jet_and_vjp()
        assert not again.data.requires_grad
        torch.testing.assert_close(again.data, jet.data.detach(), rtol=1e-11, atol=1e-11)
        vjp(weight)
    for parameter, gradient in zip(field.parameters(), expected, strict=True):
        assert parameter.grad is not None and gradient is not None
        _assert_rows_close(parameter.grad[None], gradient[None], 100 * AMPLIFICATION[network])


def test_the_vjp_leaves_out_what_is_frozen(make_field: MakeField, points: Points) -> None:
    field = make_field("cubic", "mlp", BOXES[1])
    field.encoding.requires_grad_(False)
    jet, vjp = field.plan(points(BOXES[1], 5), 2).jet_and_vjp()
    vjp(torch.ones_like(jet.data))
    assert all(p.grad is None for p in field.encoding.parameters())
    assert all(p.grad is not None for p in field.network.parameters())
    field.requires_grad_(True)
    field.network.requires_grad_(False)
    field.zero_grad()
    _, vjp = field.plan(points(BOXES[1], 5), 2).jet_and_vjp()
    vjp(torch.ones_like(jet.data))
    assert all(p.grad is not None for p in field.encoding.parameters())
    assert all(p.grad is None for p in field.network.parameters())
