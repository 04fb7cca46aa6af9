"""`torch.compile` takes gather, jets and plans whole, forward and backward."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.func import jacrev, jvp, vmap

from diffhash import GridEncoding
from tests.thinned import pairwise

EPS = torch.finfo(torch.float64).eps


BACKENDS = pytest.mark.parametrize("backend", ["torch", "native"])


def _grid(name: str, d: int, **changes: object) -> GridEncoding:
    settings = {"n_levels": 2, "log2_hashmap_size": 5, "base_resolution": 3, "init_scale": 1.0}
    options = settings | {"dtype": torch.float64, "seed": 0} | changes
    return GridEncoding(d, interpolation=name, **options)


def _points(d: int, n: int = 7) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(n, d, dtype=torch.float64, generator=generator)


def _assert_same(f: Callable[[Tensor], Tensor], x: Tensor, encoding: GridEncoding) -> None:
    """f, compiled without a graph break, and its gradients in x and the table equal eager ones."""
    torch._dynamo.reset()
    compiled = torch.compile(f, fullgraph=True, backend="aot_eager")
    weights = torch.rand(f(x).shape, dtype=x.dtype, generator=torch.Generator().manual_seed(2))
    results = []
    for function in (f, compiled):
        y = function(x)
        wanted = [t for t in (x, encoding.params) if t.requires_grad]
        grads = torch.autograd.grad((weights * y.sin()).sum(), wanted, allow_unused=True)
        results.append([y, *(g for g in grads if g is not None)])
    assert len(results[0]) == len(results[1]) > 1
    for eager, other in zip(*results, strict=True):
        size = eager.abs().max().item()
        assert size > 0
        torch.testing.assert_close(other, eager, rtol=0, atol=500 * EPS * size)


@pytest.mark.parametrize(
    ("case", "backend"),
    pairwise([("linear", 2), ("cubic", 1), ("cubic", 3), ("s2", 2)], ["torch", "native"], values=1),
)
def test_forward(case: tuple[str, int], backend: str) -> None:
    name, d = case
    encoding = _grid(name, d, backend=backend)
    _assert_same(encoding, _points(d).requires_grad_(), encoding)


@pytest.mark.parametrize(
    ("name", "d", "backend"),
    [
        ("cubic", 1, "native"),
        ("quintic", 2, "torch"),
        # Not in the native backend:
        pytest.param("s1_product", 2, "torch", marks=pytest.mark.slow),
        pytest.param("cubic", 1, "torch", marks=pytest.mark.slow),
        pytest.param("quintic", 2, "native", marks=pytest.mark.slow),
    ],
)
def test_jets(name: str, d: int, backend: str) -> None:
    encoding = _grid(name, d, backend=backend)
    _assert_same(lambda x: encoding.jet(x, 2).data, _points(d).requires_grad_(), encoding)


@pytest.mark.parametrize("seed", [0, [0, 1]], ids=["one table", "replicas"])
def test_plans(seed: int | list[int]) -> None:
    for name in ("cubic", "quintic"):  # a sparse product, and points alone
        encoding = _grid(name, 2, seed=seed)
        plan = encoding.plan(_points(2), 2)
        points = _points(2).requires_grad_()
        _assert_same(lambda x, plan=plan: plan.jet().data * x.sum(), points, encoding)


def test_replicas() -> None:
    encoding = _grid("cubic", 2, seed=[0, 1, 2])
    _assert_same(lambda x: encoding.jet(x, 2).data, _points(2).requires_grad_(), encoding)


@pytest.mark.parametrize("transform", ["jacrev", "jvp"])
def test_transforms_inside(transform: str) -> None:
    """The transforms that torch's compiler can trace; it cannot trace the hessian of x·sin x."""
    encoding = _grid("cubic", 2, backend="torch")

    def u(point: Tensor) -> Tensor:
        return encoding(point[None])[0].sin().sum()

    def along(x: Tensor) -> Tensor:
        return jvp(lambda p: encoding(p).sin(), (x,), (torch.ones_like(x),))[1]

    f = along if transform == "jvp" else vmap(jacrev(u))
    torch._dynamo.reset()
    x = _points(2)
    expected = f(x)
    got = torch.compile(f, fullgraph=True, backend="aot_eager")(x)
    atol = 500 * EPS * expected.abs().max().item()
    torch.testing.assert_close(got, expected, rtol=0, atol=atol)


def test_another_number_of_points_needs_no_new_graph_break() -> None:
    encoding = _grid("cubic", 1)
    torch._dynamo.reset()
    compiled = torch.compile(encoding, fullgraph=True, backend="aot_eager", dynamic=True)
    for n in (5, 9, 16):
        x = _points(1, n)
        torch.testing.assert_close(compiled(x), encoding(x), rtol=1e-13, atol=1e-13)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["linear", "cubic"])
@BACKENDS
def test_the_default_compiler_gives_the_same(name: str, backend: str) -> None:
    encoding = _grid(name, 2, backend=backend)
    x = _points(2)
    torch._dynamo.reset()
    compiled = torch.compile(lambda p: encoding.jet(p, 2).data, fullgraph=True)
    one, other = encoding.jet(x, 2).data, compiled(x)
    size = one.abs().max().item()
    torch.testing.assert_close(other, one, rtol=0, atol=500 * EPS * size)
    grads = [torch.autograd.grad(y.sin().sum(), encoding.params)[0] for y in (one, other)]
    torch.testing.assert_close(*grads, rtol=0, atol=500 * EPS * grads[0].abs().max().item())
