"""The Triton backend against torch's: on a GPU natively, elsewhere in Triton's interpreter."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import hessian, jacfwd, jacrev, jvp, vmap

pytest.importorskip("triton", reason="Triton is not installed")

from diffhash import GridEncoding
from diffhash.ops import reference
from diffhash.ops.backends import select_backend, torch_backend, triton_backend
from diffhash.ops.grid import gather, grid_plan, scatter
from diffhash.ops.interpolation import INTERPOLATIONS
from diffhash.ops.layout import GridLayout, grid_layout
from tests.thinned import pairwise

NAMES = list(INTERPOLATIONS)
DTYPES = [torch.float32, torch.float64]
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
BLOCK = triton_backend.BLOCK
Indices = tuple[tuple[int, ...], ...]


def _layout(name: str, d: int, kind: str = "dense", n_levels: int = 2) -> GridLayout:
    """A layout that is dense, hashed, periodic, or dense with levels shifted against each other."""
    small = kind == "hashed"
    periodic = (0,) if kind == "periodic" else ()
    offset = kind == "offset"
    return grid_layout(d, name, n_levels, 4 if small else 20, 3, 1.5, offset, periodic=periodic)


def _random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator).to(DEVICE, dtype)


def _points(n: int, d: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Points from U(-0.1, 1.1), some of which lie outside."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(n, d, dtype=torch.float64, generator=generator) * 1.2 - 0.1
    return x.to(DEVICE, dtype)


def _up_to(d: int, total: int) -> Indices:
    return tuple(a for a in product(range(total + 1), repeat=d) if sum(a) <= total)


def _assert_close(got: Tensor, expected: Tensor, dtype: torch.dtype = torch.float64) -> None:
    """Equal up to hundreds of operations on terms that are at most a few times their sum."""
    assert got.dtype == dtype
    size = expected.abs().max().item() if expected.numel() else 0.0
    tolerance = 2**10 * torch.finfo(dtype).eps * size
    torch.testing.assert_close(got.to(expected), expected, rtol=0, atol=tolerance)


@pytest.fixture
def poison(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fill new memory with NaN, which reveals values that are not written."""
    new_empty = torch.Tensor.new_empty

    def poisoned(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        out = new_empty(self, *args, **kwargs)
        return out.fill_(float("nan") if out.is_floating_point() else -1)

    monkeypatch.setattr(torch.Tensor, "new_empty", poisoned)


@pytest.fixture
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def _check_all(
    x: Tensor, table: Tensor, g: Tensor, layout: GridLayout, alphas: Indices, dtype: torch.dtype
) -> None:
    """Compare gather, scatter and a plan's scatter with torch's in float64."""
    y = triton_backend.gather(x.to(dtype), table.to(dtype), layout, alphas)
    _assert_close(y, torch_backend.gather(x, table, layout, alphas), dtype)
    expected = torch_backend.scatter(x, g, layout, alphas)
    _assert_close(triton_backend.scatter(x.to(dtype), g.to(dtype), layout, alphas), expected, dtype)
    plan = triton_backend.plan(x.to(dtype), layout, alphas, dtype)
    _assert_close(plan.scatter(g.to(dtype)), expected, dtype)


# Linear and s1 in two or more dimensions, without offset, are laid out as tiny-cuda-nn's.
_LINES = [
    ("dense", _up_to(1, 9)),
    ("hashed", _up_to(1, 3)),
    ("offset", _up_to(1, 3)),
    ("periodic", _up_to(1, 3)),
]
_PLANES = [
    ("dense", _up_to(2, 3)),
    ("hashed", ((0, 0), (2, 1), (0, 3))),
    ("offset", ((0, 0), (1, 1))),
    ("periodic", ((0, 0), (2, 1))),
]
_SPACES = [
    ("dense", ((0, 0, 0), (1, 0, 2))),
    ("hashed", ((1, 1, 1),)),
    ("dense", ((0, 0, 0, 0), (0, 2, 0, 1))),
    ("hashed", ((1, 1, 0, 1),)),
]


@pytest.mark.usefixtures("poison")
@pytest.mark.parametrize(
    ("name", "case"),
    [
        *pairwise(NAMES, _LINES, values=1),
        *pairwise([name for name in NAMES if name != "nonic"], _PLANES, values=1),
        *(pytest.param("nonic", case, marks=pytest.mark.slow) for case in _PLANES),
        *(("linear", _SPACES[0]), ("cubic", _SPACES[0])),
        *(
            pytest.param(name, case, marks=pytest.mark.slow)
            for name, case in product(NAMES, _SPACES)
            if case is not _SPACES[0] or name not in ("linear", "cubic")
        ),
    ],
)
def test_values_equal_torchs(name: str, case: tuple[str, Indices]) -> None:
    kind, alphas = case
    d = len(alphas[0])
    layout = _layout(name, d, kind, n_levels=2 if d < 3 else 1)
    x, table = _points(5, d), _random(1, layout.n_rows, 2)
    g = _random(1, len(alphas), len(x), len(layout.levels) * 2, seed=1)
    _check_all(x, table, g, layout, alphas, torch.float64)


@pytest.mark.usefixtures("poison")
@pytest.mark.parametrize(("name", "kind"), [("linear", "hashed"), ("s1", "dense")])
def test_values_equal_torchs_in_four_dimensions(name: str, kind: str) -> None:
    layout, alphas = _layout(name, 4, kind), ((0, 0, 0, 0), (1, 0, 0, 1), (0, 1, 1, 1))
    x, table = _points(5, 4), _random(1, layout.n_rows, 1)
    _check_all(x, table, _random(1, 3, 5, 2), layout, alphas, torch.float64)


@pytest.mark.usefixtures("poison")
@pytest.mark.parametrize(
    ("sizes", "dtype"),
    pairwise([(1, 1), (1, 3), (3, 8), (1, 6), (2, 5), (1, 64)], DTYPES, values=1),
)
def test_any_number_of_replicas_and_features(sizes: tuple[int, int], dtype: torch.dtype) -> None:
    n_replicas, n_features = sizes
    layout, alphas = _layout("cubic", 1), ((0,), (2,))
    x = _points(7, 1, dtype=torch.float32).double()
    table = _random(n_replicas, layout.n_rows, n_features, dtype=torch.float32).double()
    g = _random(n_replicas, 2, 7, 2 * n_features, seed=1, dtype=torch.float32).double()
    _check_all(x, table, g, layout, alphas, dtype)


@pytest.mark.usefixtures("poison")
@pytest.mark.parametrize(
    "n",
    [0, 1, BLOCK - 1, BLOCK, 2 * BLOCK + 1, pytest.param(9 * BLOCK + 3, marks=pytest.mark.slow)],
)
def test_any_number_of_points(n: int) -> None:
    # Rows get from a few values to hundreds, so that sorted values are summed in every way.
    layout, alphas = _layout("linear", 1), ((0,), (1,))
    x, table, g = _points(n, 1), _random(2, layout.n_rows, 2), _random(2, 2, n, 4, seed=1)
    _check_all(x, table, g, layout, alphas, torch.float64)


@pytest.mark.slow
def test_many_indices_of_many_features_fit_by_parts() -> None:
    """If sums need more registers than a thread has, the features go to several programs."""
    layout, alphas = _layout("linear", 1), _up_to(1, 8)
    x, table = _points(3, 1), _random(2, layout.n_rows, 12)
    g = _random(2, len(alphas), 3, 24, seed=1)
    constants = triton_backend.launch_constants(layout, alphas, 12, torch.float64)
    assert constants["VECTOR"] * constants["GROUPS"] < 12
    _check_all(x, table, g, layout, alphas, torch.float64)


@pytest.mark.usefixtures("poison")
def test_tensors_need_not_be_contiguous() -> None:
    layout, alphas = _layout("cubic", 2), ((0, 0), (1, 0))
    x = _points(2, 5).T
    table = _random(3, layout.n_rows, 2).transpose(0, 2)
    g = _random(6, 5, 2, 2).permute(3, 2, 1, 0)
    assert not any(t.is_contiguous() for t in (x, table, g))
    _check_all(x, table, g, layout, alphas, torch.float64)
    expanded = _random(1, 1, 1, 6).expand(2, 2, 5, 6)
    _check_all(x, table, expanded, layout, alphas, torch.float64)


@pytest.mark.parametrize(("name", "d"), pairwise(NAMES, [1, 2], values=1))
def test_faces_of_the_unit_cube(name: str, d: int) -> None:
    """The coordinates are exactly 0 and 1, and the last number before 1."""
    layout = _layout(name, d, "dense")
    ends = torch.tensor([0.0, 1.0, 1 - 2**-53, -0.0], dtype=torch.float64, device=DEVICE)
    x = torch.cartesian_prod(*[ends] * d).reshape(-1, d)
    alphas = _up_to(d, 1)
    g = _random(1, len(alphas), len(x), 2)
    _check_all(x, _random(1, layout.n_rows, 1), g, layout, alphas, torch.float64)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # numpy's, interpreting
@pytest.mark.parametrize(
    ("case", "dtype"), pairwise([("linear", 1), ("cubic", 2), ("linear", 2)], DTYPES, values=1)
)
def test_nan_spoils_its_own_point_and_infinity_stays_inside(
    case: tuple[str, int], dtype: torch.dtype
) -> None:
    name, d = case
    layout = _layout(name, d, "offset")
    beyond = INTERPOLATIONS[name].degree + 1
    alphas = ((0,) * d, (*(0,) * (d - 1), beyond))
    x = _points(5, d, dtype=dtype)
    table = _random(1, layout.n_rows, 1, dtype=dtype)
    clean = triton_backend.gather(x, table, layout, alphas)
    x[1, d - 1] = float("nan")
    x[2, 0], x[3, 0] = float("inf"), -float("inf")
    y = triton_backend.gather(x, table, layout, alphas)
    assert y[:, :, 1].isnan().all()
    assert not y[:, 0, 2:4].isfinite().any()
    torch.testing.assert_close(y[:, :, [0, 4]], clean[:, :, [0, 4]], rtol=0, atol=0)
    # Scatter puts NaN where torch's does: into the rows of cell 0, and of the last cell.
    g = _random(1, 2, 5, 2, dtype=dtype)
    expected = torch_backend.scatter(x, g, layout, alphas)
    assert expected.isnan().any()
    assert expected.isfinite().any()
    got = triton_backend.scatter(x, g, layout, alphas)
    assert torch.equal(got.isfinite(), expected.isfinite())
    planned = triton_backend.plan(x, layout, alphas, dtype).scatter(g)
    assert torch.equal(planned.isfinite(), expected.isfinite())


@pytest.mark.parametrize(
    ("case", "dtype"),
    pairwise(
        [
            ("cubic", 1, "offset"),
            ("cubic", 2, "hashed"),
            ("linear", 2, "dense"),
            ("s2", 2, "hashed"),
        ],
        DTYPES,
        values=1,
    ),
)
def test_gradients_of_both_orders_equal_torchs(
    case: tuple[str, int, str], dtype: torch.dtype
) -> None:
    name, d, kind = case
    layout, alphas = _layout(name, d, kind), ((0,) * d, (1,) + (0,) * (d - 1))
    x = (_points(4, d, dtype=torch.float32) * 0.9).double()
    params = _random(layout.n_rows * 2, dtype=torch.float32).double()
    outer = [_random(len(alphas), 4, 4, seed=1), _random(4, d, seed=2), _random(*params.shape)]

    def results(backend: str, dtype: torch.dtype) -> list[Tensor]:
        x1, params1 = (t.to(dtype).requires_grad_(True) for t in (x, params))
        weights, v, w = (t.to(dtype) for t in outer)
        y = gather(x1, params1, layout, alphas, backend)
        loss = (weights * y.sin()).sum()
        g, h = torch.autograd.grad(loss, (x1, params1), create_graph=True)
        along = (g * v).sum() + (h * w).sum()
        return [y, g, h, *torch.autograd.grad(along, (x1, params1))]

    pairs = zip(results("triton", dtype), results("torch", torch.float64), strict=True)
    for got, expected in pairs:
        _assert_close(got.detach(), expected.detach(), dtype)


@pytest.mark.parametrize("name", ["linear", "quintic"])
def test_the_value_and_its_gradient_equal_the_readable_reference(name: str) -> None:
    layout = _layout(name, 2, "hashed")
    x = _points(4, 2).requires_grad_(True)
    params = _random(layout.n_rows * 2).requires_grad_(True)
    weights = _random(4, 4, seed=1)
    got = gather(x, params, layout, ((0, 0),), "triton")[0]
    expected = reference.encode(x, params, layout, 2)
    _assert_close(got.detach(), expected.detach())
    pairs = zip(
        *(torch.autograd.grad((weights * y).sum(), (x, params)) for y in (got, expected)),
        strict=True,
    )
    for one, other in pairs:
        _assert_close(one, other)


@pytest.mark.parametrize("n", [5, 300])
def test_reproducible_scatter_uses_no_atomics_and_equals_the_atomic_one(
    n: int, deterministic: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout, alphas = _layout("cubic", 1, "hashed"), ((0,), (2,))
    x, g = _points(n, 1, dtype=torch.float32), _random(2, 2, n, 6, dtype=torch.float32)
    torch.use_deterministic_algorithms(False)
    atomic = triton_backend.scatter(x, g, layout, alphas)
    torch.use_deterministic_algorithms(True)
    launches: list[dict[str, Any]] = []
    run = triton_backend.launch

    def spy(*args: Any, **constants: Any) -> None:
        launches.append(constants)
        run(*args, **constants)

    monkeypatch.setattr(triton_backend, "launch", spy)
    first, second = (triton_backend.scatter(x, g, layout, alphas) for _ in range(2))
    assert torch.equal(first, second)
    assert [c["ATOMIC"] for c in launches if "ATOMIC" in c]
    assert not any(c.get("ATOMIC") for c in launches)
    _assert_close(first, atomic.double(), torch.float32)
    plan = triton_backend.plan(x, layout, alphas, torch.float32)
    assert torch.equal(plan.scatter(g), first)


@pytest.mark.usefixtures("poison")
def test_a_bound_on_the_memory_of_sorted_values_changes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    layout = _layout("linear", 1, n_levels=5)
    x, g = _points(20, 1), _random(1, 1, 20, 5)
    whole = triton_backend.plan(x, layout, ((0,),), torch.float64)
    monkeypatch.setattr(triton_backend, "LISTED", 80)  # 2 levels of 20 points and 2 vertices
    parts = triton_backend.plan(x, layout, ((0,),), torch.float64)
    assert len(parts.segments) > len(whole.segments)
    assert torch.equal(parts.scatter(g), whole.scatter(g))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("name", "d"), [("cubic", 1), ("linear", 2)])
def test_plans_take_points_of_another_dtype(name: str, d: int, dtype: torch.dtype) -> None:
    layout, alphas = _layout(name, d), _up_to(d, 2)
    x = _points(6, d)
    params = _random(layout.n_rows * 2, dtype=torch.float32).double()
    plan = grid_plan(x, layout, alphas, dtype, "triton")
    p = params.to(dtype).requires_grad_(True)
    y = plan.gather(p)
    _assert_close(y.detach(), gather(x, params, layout, alphas), dtype)
    g = _random(*y.shape, dtype=torch.float32)
    (grad,) = torch.autograd.grad(y, p, g.to(dtype))
    _assert_close(grad, scatter(x, g.double(), layout, alphas), dtype)


def test_a_plan_too_large_to_sort_is_refused() -> None:
    layout = _layout("quintic", 4, n_levels=1)
    x = torch.empty(1, 4, device=DEVICE).expand(2**21, 4)  # times 6^4 vertices
    with pytest.raises(ValueError, match=r"2097152 points .* fewer points"):
        triton_backend.plan(x, layout, ((0,) * 4,), torch.float32)


@pytest.mark.parametrize(
    ("name", "dtype", "match"),
    [
        ("s2_product", torch.float32, r"interpolation='s2_product'.*backend='torch'"),
        ("cubic", torch.float16, r"torch\.float16: allowed are torch\.float32"),
    ],
)
def test_what_it_cannot_do_is_refused_naming_what_can_be_had(
    name: str, dtype: torch.dtype, match: str
) -> None:
    with pytest.raises(ValueError, match=match):
        GridEncoding(2, interpolation=name, dtype=dtype, backend="triton")


def test_auto_is_torch_where_triton_cannot_serve() -> None:
    for name, on_cuda in (("cubic", "triton"), ("s2_product", "torch")):
        layout = grid_layout(2, name, 2, 4, 3, 2.0)
        assert select_backend("auto", layout, torch.float32, "cuda") == on_cuda
        assert select_backend("auto", layout, torch.float32, "cpu") != "triton"


def _pair(d: int = 2, **settings: Any) -> tuple[GridEncoding, GridEncoding]:
    """The same encoding on both backends."""
    settings = {
        "n_levels": 2,
        "log2_hashmap_size": 5,
        "base_resolution": 3,
        "interpolation": "cubic",
        "init_scale": 1.0,
        "dtype": torch.float64,
        "seed": 0,
    } | settings
    one, other = (GridEncoding(d, backend=b, **settings).to(DEVICE) for b in ("triton", "torch"))
    return one, other


@pytest.mark.parametrize("settings", [{}, {"seed": [0, 1, 2]}, {"interpolation": "linear"}])
def test_jets_and_plans_of_an_encoding_equal_torchs(settings: dict[str, Any]) -> None:
    ours, truth = _pair(**settings)
    x = _points(4, 2)
    for order in (2, (0, 1)):
        expected = truth.jet(x, order).data.detach()
        _assert_close(ours.jet(x, order).data.detach(), expected)
        _assert_close(ours.plan(x, order).jet().data.detach(), expected)
    _assert_close(ours(x).detach(), truth(x).detach())


def test_transforms_of_torch_func_equal_torchs() -> None:
    layout = _layout("cubic", 1)
    x, tables = _points(3, 1), _random(2, layout.n_rows)

    def transformed(backend: str) -> Iterator[Tensor]:
        def f(x: Tensor, params: Tensor = tables[0]) -> Tensor:
            return gather(x, params, layout, ((0,), (1,)), backend)

        yield jacrev(f)(x)
        yield jacfwd(f)(x)
        yield hessian(f)(x)
        yield jvp(f, (x, tables[0]), (x + 1, tables[1]))[1]
        yield vmap(f, (None, 0))(x, tables)
        yield vmap(lambda point: f(point[None]))(x)
        yield jacrev(f, argnums=1)(x, tables[0])

    for got, expected in zip(transformed("triton"), transformed("torch"), strict=True):
        _assert_close(got, expected)


@pytest.mark.parametrize("step", ["forward", "jet", "plan"])
def test_a_compiled_step_equals_the_eager_one(step: str) -> None:
    encoding, _ = _pair(1)
    x = _points(4, 1)
    plan = encoding.plan(x, 2)

    def loss() -> Tensor:
        if step == "forward":
            return encoding(x).sin().sum()
        jet = encoding.jet(x, 2) if step == "jet" else plan.jet()
        return jet.data.sin().sum()

    grads = []
    for f in (loss, torch.compile(loss, fullgraph=True, backend="aot_eager")):
        encoding.zero_grad()
        f().backward()
        assert encoding.params.grad is not None
        grads.append(encoding.params.grad.clone())
    _assert_close(grads[1], grads[0])


@pytest.mark.gpu
def test_a_cuda_graph_captures_gather_scatter_and_a_plan() -> None:
    layout, alphas = _layout("cubic", 2, "hashed"), ((0, 0), (2, 0))
    x, table, g = _points(500, 2), _random(1, layout.n_rows, 2), _random(1, 2, 500, 4)
    plan = triton_backend.plan(x, layout, alphas, torch.float64)

    def step() -> tuple[Tensor, ...]:
        y = triton_backend.gather(x, table, layout, alphas)
        return y, triton_backend.scatter(x, g, layout, alphas), plan.scatter(g)

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    table.copy_(_random(*table.shape, seed=5))
    g.copy_(_random(*g.shape, seed=6))
    graph.replay()
    for got, expected in zip(captured, step(), strict=True):
        _assert_close(got, expected)
