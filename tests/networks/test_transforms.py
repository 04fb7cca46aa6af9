"""Fields and their jets under torch's transforms and modes: equal to plain calls, or refused."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.functional import jacobian
from torch.func import functional_call, jacfwd, jacrev, jvp, linearize, vmap
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.checkpoint import checkpoint

from diffhash import MLP, SIREN, Field, FourierFeatures, GridEncoding, autograd_jet
from diffhash.jets import Sum, jet_rows

DOMAIN = [(0.0, 1.0), (-1.0, 2.0)]
D = torch.float64
ROWS = jet_rows([(1, 1), Sum(((1.0, (2, 0)), (-0.5, (0, 2))))], 2)


class Jets(nn.Module):
    """A field's values and jets as one module."""

    def __init__(self, field: Field) -> None:
        super().__init__()
        self.field = field

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.field(x)[None], self.field.jet(x, ROWS).data])


def _grid(backend: str) -> GridEncoding:
    settings = {"n_levels": 2, "base_resolution": 3, "log2_hashmap_size": 6, "init_scale": 1.0}
    return GridEncoding(2, interpolation="cubic", dtype=D, seed=0, backend=backend, **settings)


@pytest.fixture(params=["native", "torch", "fourier"])
def field(request: pytest.FixtureRequest) -> Field:
    torch.manual_seed(0)
    if request.param == "fourier":
        return Field(
            FourierFeatures(2, 3, dtype=D, seed=0), SIREN(6, 1, 4, 2, 2.0, dtype=D), DOMAIN
        )
    return Field(_grid(request.param), MLP(4, 1, 4, 2, dtype=D, init="xavier"), DOMAIN)


@pytest.fixture
def x() -> Tensor:
    return torch.rand(4, 2, dtype=D, generator=torch.Generator().manual_seed(1))


def _assert_same(one: Any, other: Any) -> None:
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10 * max(1.0, b.abs().max().item()))


def _jacobians(f: Callable[..., Tensor], *inputs: Tensor) -> tuple[Tensor, ...]:
    """The Jacobians in all inputs, row by row, by plain reverse mode."""
    inputs = tuple(i.detach().requires_grad_(True) for i in inputs)
    out = f(*inputs)
    rows = [torch.autograd.grad(o, inputs, retain_graph=True) for o in out.flatten()]
    return tuple(torch.stack(r).reshape(*out.shape, *r[0].shape) for r in zip(*rows, strict=True))


def _of_parameters(jets: Jets, x: Tensor) -> tuple[Callable[..., Tensor], tuple[Tensor, ...]]:
    names, values = zip(*jets.named_parameters(), strict=True)

    def f(x: Tensor, *parameters: Tensor) -> Tensor:
        return functional_call(jets, dict(zip(names, parameters, strict=True)), (x,))

    return f, (x, *(v.detach() for v in values))


def test_jacobians_in_points_and_parameters_by_every_means(field: Field, x: Tensor) -> None:
    f, inputs = _of_parameters(Jets(field), x)
    truth = _jacobians(f, *inputs)
    numbers = tuple(range(len(inputs)))
    _assert_same(jacrev(f, numbers)(*inputs), truth)
    _assert_same(jacfwd(f, numbers)(*inputs), truth)
    _assert_same(jacobian(f, inputs, vectorize=True), truth)
    _assert_same(jacobian(f, inputs, vectorize=True, strategy="forward-mode"), truth)
    leaves = [i.clone().requires_grad_(True) for i in inputs]
    out = f(*leaves)
    eye = torch.eye(out.numel(), dtype=D).reshape(-1, *out.shape)
    batched = torch.autograd.grad(out, leaves, eye, is_grads_batched=True, retain_graph=True)
    _assert_same([b.reshape(t.shape) for b, t in zip(batched, truth, strict=True)], truth)
    mapped = vmap(lambda g: torch.autograd.grad(out, leaves, g, retain_graph=True))(eye)
    _assert_same([b.reshape(t.shape) for b, t in zip(mapped, truth, strict=True)], truth)


def test_planned_jets_have_the_jacobian_of_jets(field: Field, x: Tensor) -> None:
    parameters = list(field.parameters())
    results = []
    for out in (field.jet(x, ROWS).data, field.plan(x, ROWS).jet().data):
        eye = torch.eye(out.numel(), dtype=D).reshape(-1, *out.shape)
        results.append(torch.autograd.grad(out, parameters, eye, is_grads_batched=True))
    _assert_same(results[1], results[0])


def test_third_derivatives_of_jets_are_nested_autograds(field: Field, x: Tensor) -> None:
    x = x.requires_grad_(True)
    inputs = [x, *field.parameters()]

    def values(x: Tensor) -> Tensor:
        """The jet by nested reverse mode, differentiable in x."""
        u = field(x)
        (first,) = torch.autograd.grad(u.sum(), x, create_graph=True)
        second = [torch.autograd.grad(f.sum(), x, create_graph=True)[0] for f in first.unbind(1)]
        rows = [u[:, 0], *first.unbind(1), *second[0].unbind(1), second[1][:, 1]]
        return torch.stack(rows)[..., None]

    results = []
    for data in (field.jet(x, 2).data, values(x)):
        loss = data.square().sum()
        for _ in range(2):
            grads = torch.autograd.grad(loss, inputs, create_graph=True)
            loss = sum(g.square().sum() for g in grads)
        results.append([g.detach() for g in grads])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-9 * other.abs().max().item())


def test_vmap_over_points_and_over_parameters(field: Field, x: Tensor) -> None:
    jets = Jets(field)
    mapped = vmap(lambda point: jets(point[None])[:, 0])(x)
    _assert_same([mapped.movedim(0, 1)], [jets(x)])
    several = {n: torch.stack([p, 2 * p]) for n, p in jets.named_parameters()}
    both = vmap(lambda p: functional_call(jets, p, (x,)))(several)
    doubled = functional_call(jets, {n: 2 * p for n, p in jets.named_parameters()}, (x,))
    _assert_same(both, [jets(x), doubled])


def test_traced_functions_follow_their_input(field: Field, x: Tensor) -> None:
    jets, other = Jets(field), x.flip(0) * 0.9
    _assert_same([make_fx(jets)(x)(other)], [jets(other)])
    planned = make_fx(lambda x: field.plan(x, 2).jet().data)(x)  # where points are an input
    _assert_same([planned(other)], [field.jet(other, 2).data])
    plan = field.plan(x, 2)
    traced = make_fx(lambda scale: plan.jet().data * scale)(torch.ones((), dtype=D))
    _assert_same([traced(torch.full((), 2.0, dtype=D))], [2 * field.jet(x, 2).data])

    def gradients(x: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(jets(x).sin().sum(), list(field.parameters()))

    _assert_same(make_fx(gradients)(x)(other), gradients(other))
    v = torch.ones_like(x)
    value, push = linearize(jets, x)
    _assert_same([value, push(v)], jvp(jets, (x,), (v,)))


def test_a_traced_plan_that_is_gone_is_an_error(x: Tensor) -> None:
    encoding = _grid("native")
    plans = [encoding.plan(x, 2)]
    traced = make_fx(lambda table: plans[0].jet().data * table.sum())(encoding.params.detach())
    plans.clear()
    with pytest.raises(RuntimeError, match="plan that exists no more"):
        traced(encoding.params.detach())


def test_fake_tensors_have_the_shapes_and_spoil_nothing(field: Field, x: Tensor) -> None:
    plan, expected = field.plan(x, 2), field.jet(x, 2).data
    with FakeTensorMode(allow_non_fake_inputs=True):
        points = torch.rand(7, 2, dtype=D)
        out = field.jet(points, 2).data
        assert out.shape == field.plan(points, 2).jet().data.shape == (6, 7, 1)
        assert field(points).shape == (7, 1) and plan.jet().data.shape == (6, 4, 1)
        out.sum().backward()
    field.zero_grad()
    _assert_same([field.jet(x, 2).data, plan.jet().data], [expected, expected])


def test_views_with_a_negative_bit(field: Field, x: Tensor) -> None:
    def negative(t: Tensor) -> Tensor:
        view = torch.view_as_complex(torch.stack([t, -t], -1)).conj().imag
        assert view.is_neg()
        return view

    out = field.jet(x, 2).data
    _assert_same(
        [field.jet(negative(x), 2).data, field.plan(negative(x), 2).jet().data], [out, out]
    )
    g, parameters = torch.rand_like(out), list(field.parameters())
    expected = torch.autograd.grad(out, parameters, g)
    _assert_same(torch.autograd.grad(field.jet(x, 2).data, parameters, negative(g)), expected)


def test_autocast_changes_neither_values_nor_jets(field: Field, x: Tensor) -> None:
    field, x = field.float(), x.float()
    expected = [field(x), field.jet(x, 2).data, autograd_jet(field, x, jet_rows(2, 2)).data]
    plan = field.plan(x, 2)
    with torch.autocast("cpu", torch.bfloat16):
        got = [field(x), field.jet(x, 2).data, autograd_jet(field, x, jet_rows(2, 2)).data]
        assert torch.equal(plan.jet().data, expected[1])
    assert all(torch.equal(one, other) for one, other in zip(got, expected, strict=True))


def test_modes_without_gradients_and_checkpoints(field: Field, x: Tensor) -> None:
    parameters = list(field.parameters())
    out = field.jet(x, 2).data
    expected = torch.autograd.grad(out.sin().sum(), parameters)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            _assert_same([field.jet(x, 2).data, field.plan(x, 2).jet().data], [out, out])
    again = checkpoint(lambda x: field.jet(x, 2).data, x, use_reentrant=False)
    assert isinstance(again, Tensor)
    _assert_same(torch.autograd.grad(again.sin().sum(), parameters), expected)


def test_copies_of_fields_and_plans(field: Field, x: Tensor) -> None:
    plan, file = field.plan(x, 2), io.BytesIO()
    torch.save(field, file)
    file.seek(0)
    expected = field.jet(x, 2).data
    loaded: Field = torch.load(file, weights_only=False)
    for again in (copy.deepcopy(plan), pickle.loads(pickle.dumps(plan))):
        assert torch.equal(again.jet().data, plan.jet().data)
    assert torch.equal(loaded.jet(x, 2).data, expected)


@pytest.mark.parametrize("strict", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_export_with_any_number_of_points(field: Field, x: Tensor, strict: bool) -> None:
    jets = Jets(field)
    sizes = {"x": {0: torch.export.Dim("n", min=2, max=999)}}
    program = torch.export.export(jets, (x,), dynamic_shapes=sizes, strict=strict).module()
    for points in (x[:2], torch.cat([x, x])):
        _assert_same([program(points)], [jets(points)])


def test_torchscript_is_refused_by_a_name_to_use_instead(field: Field, x: Tensor) -> None:
    for module in (field, field.encoding, field.network):
        with pytest.raises(NotImplementedError, match=r"TorchScript.*torch\.export"):
            torch.jit.script(module)


@pytest.mark.slow
def test_a_compiled_field_takes_any_number_of_points(field: Field, x: Tensor) -> None:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    jets = Jets(field)
    compiled = torch.compile(jets, backend="aot_eager", fullgraph=True)
    for n in (5, 6, 9, 17):
        points = torch.rand(n, 2, dtype=D)
        _assert_same([compiled(points)], [jets(points)])
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 3
