"""The tiny-cuda-nn backend against torch's: exact, or an error.

The comparisons run on every machine with a double of tinycudann (`fake_tinycudann.py`); where there
is a GPU and the package, they also run with the package itself.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from diffhash import GridEncoding
from diffhash.jets import Row, axis_rows, expanded, jet_rows
from diffhash.ops import backends
from diffhash.ops.backends import load_backend, tcnn_backend, torch_backend
from diffhash.ops.grid import gather, grid_plan, scatter
from diffhash.ops.layout import GridLayout, grid_layout

EPS = torch.finfo(torch.float32).eps
Make = Callable[..., Tensor]
SECOND = axis_rows([2, 2])  # there is no ∂²/∂x∂y


def _import_fake() -> ModuleType:
    path = Path(__file__).with_name("fake_tinycudann.py")
    spec = spec_from_file_location("tinycudann", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    # Dataclasses look their module up while they are defined.
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "tinycudann", module)
        spec.loader.exec_module(module)
    return module


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """Put the double in place of the package, and let the backend run on the CPU."""
    module = _import_fake()
    monkeypatch.setitem(sys.modules, "tinycudann", module)
    monkeypatch.setattr(backends, "LOADED", {"torch": torch_backend})
    monkeypatch.setattr(tcnn_backend, "DEVICE_TYPE", "cpu")
    tcnn_backend.native_grid.cache_clear()
    yield module
    tcnn_backend.native_grid.cache_clear()


@pytest.fixture(
    params=["double", pytest.param("package", marks=pytest.mark.gpu)], ids=["double", "package"]
)
def device(request: pytest.FixtureRequest) -> str:
    """The device of both backends: the CPU with the double, or a GPU with the package."""
    if request.param == "double":
        request.getfixturevalue("fake")
        return "cpu"
    if find_spec("tinycudann") is None:
        pytest.skip("needs the package tinycudann")
    return "cuda"


def _layout(
    name: str, d: int, hashed: bool = False, n_levels: int = 2, per_level_scale: float = 2.0
) -> GridLayout:
    return grid_layout(d, name, n_levels, 4 if hashed else 19, 4, per_level_scale)


# Small grids, F = 2: three levels, of which the last two hash.
SETTINGS: dict[str, Any] = {
    "n_levels": 3,
    "n_features_per_level": 2,
    "log2_hashmap_size": 6,
    "base_resolution": 4,
    "per_level_scale": 1.5,
    "init_scale": 1.0,
}


def _pair(d: int, device: str, **settings: Any) -> tuple[GridEncoding, GridEncoding]:
    """The same grid in torch and in tiny-cuda-nn, from the same seed."""
    settings = {"seed": 0} | SETTINGS | settings
    one, other = (GridEncoding(d, **settings, backend=b).to(device) for b in ("torch", "tcnn"))
    assert torch.equal(one.params, other.params)
    return one, other


class _Plane(nn.Module):
    """x ↦ f(x, 0) with a 2-D grid f of torch's, to which tiny-cuda-nn's 1-D grid is equal."""

    def __init__(self, encoding: GridEncoding) -> None:
        super().__init__()
        self.encoding, self.params = encoding, encoding.params

    def forward(self, x: Tensor) -> Tensor:
        return self.encoding(torch.cat([x, torch.zeros_like(x)], dim=1))

    def jet(self, x: Tensor, rows: tuple[Row, ...]) -> Any:
        rows = jet_rows([(*alpha, 0) for alpha in expanded(rows)[0]], 2)
        return self.encoding.jet(torch.cat([x, torch.zeros_like(x)], dim=1), rows)


def _any_dimension(d: int, device: str, **settings: Any) -> tuple[Any, GridEncoding]:
    if d > 1:
        return _pair(d, device, **settings)
    settings = {"seed": 0} | SETTINGS | settings
    plane = GridEncoding(2, **settings, backend="torch").to(device)
    line = GridEncoding(1, **settings, backend="tcnn").to(device)
    assert torch.equal(plane.params, line.params)
    return _Plane(plane), line


def _head(n_outputs: int, device: str) -> nn.Linear:
    """A linear layer on the six features, the same in every run."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Linear(6, n_outputs).to(device)


def _close(got: Tensor, expected: Tensor, layout: GridLayout) -> None:
    """Equal up to float32: positions err by eps · scale, and so do the 2^d terms of a cell.

    The tolerance is ten such roundings of the largest value. The factor scale of a derivative is
    already in the values.
    """
    got, expected = got.detach(), expected.detach()
    assert got.shape == expected.shape
    assert got.dtype == torch.float32
    scale = max(level.scales[0] for level in layout.levels)
    size = max(float(expected.abs().max()), 1.0) if expected.numel() else 1.0
    atol = 10 * EPS * scale * layout.n_taps * size
    torch.testing.assert_close(got, expected, rtol=0, atol=atol)


def _points(make_points: Make, layout: GridLayout, n: int, device: str = "cpu") -> Tensor:
    """Points away from cell faces, where the two backends may round to different sides."""
    x = make_points(layout, n).float().to(device)
    assert len(x) == n
    return x


FIRST = {
    d: ((0,) * d, *(tuple(int(j == i) for j in range(d)) for i in range(d))) for d in (2, 3, 4)
}


@pytest.mark.parametrize("n", [1, 255, 256, 257])
def test_any_number_of_points(n: int, device: str, make_points: Make, normal: Make) -> None:
    layout = _layout("linear", 2)
    x = _points(make_points, layout, n, device)
    params = normal(layout.n_rows * 2).float().to(device)
    g = normal(3, n, 4, seed=1).float().to(device)
    y, table = (f(x, v, layout, FIRST[2], "tcnn") for f, v in ((gather, params), (scatter, g)))
    _close(y, gather(x, params, layout, FIRST[2]), layout)
    _close(table, scatter(x, g, layout, FIRST[2]), layout)


def test_no_points(device: str, normal: Make) -> None:
    layout = _layout("linear", 2)
    x = torch.zeros(0, 2, device=device)
    params = normal(layout.n_rows * 2).float().to(device)
    assert gather(x, params, layout, FIRST[2], "tcnn").shape == (3, 0, 4)
    g = torch.zeros(3, 0, 4, device=device)
    assert torch.equal(scatter(x, g, layout, FIRST[2], "tcnn"), torch.zeros_like(params))


@pytest.mark.parametrize("features", [1, 2, 4, 8])
@pytest.mark.parametrize("hashed", [False, True], ids=["dense", "hashed"])
@pytest.mark.parametrize("name", ["linear", "s1"])
@pytest.mark.parametrize("d", [2, 3, 4])
def test_values_first_derivatives_and_their_transposes(
    d: int, name: str, hashed: bool, features: int, device: str, make_points: Make, normal: Make
) -> None:
    layout = _layout(name, d, hashed, n_levels=2 if d < 4 else 1)
    x = _points(make_points, layout, 20, device)
    params = normal(layout.n_rows * features).float().to(device)
    alphas = FIRST[d]
    _close(gather(x, params, layout, alphas, "tcnn"), gather(x, params, layout, alphas), layout)
    g = normal(len(alphas), 20, len(layout.levels) * features, seed=1).float().to(device)
    _close(scatter(x, g, layout, alphas, "tcnn"), scatter(x, g, layout, alphas), layout)


@pytest.mark.parametrize("name", ["linear", "s1"])
def test_replicas(name: str, device: str, make_points: Make) -> None:
    one, other = _pair(2, device, interpolation=name, seed=(0, 1, 2))
    x = _points(make_points, one.layout, 20, device)
    jets = [e.jet(x, 1).data for e in (one, other)]
    assert jets[1].shape == (3, 3, 20, 6)
    _close(jets[1], jets[0], one.layout)
    grads = [
        torch.autograd.grad(j.sin().sum(), e.params)[0]
        for j, e in zip(jets, (one, other), strict=True)
    ]
    _close(grads[1], grads[0], one.layout)


@pytest.mark.parametrize("name", ["linear", "s1"])
@pytest.mark.parametrize("d", [1, 2, 3])
def test_gradients_through_a_network(d: int, name: str, device: str, make_points: Make) -> None:
    one, other = _any_dimension(d, device, interpolation=name)
    layout = other.layout
    x = _points(make_points, layout, 20, device)[:, :d].requires_grad_(True)
    head = _head(3, device)
    results = []
    for encoding in (one, other):
        y = encoding(x)
        loss = head(y).tanh().square().sum()
        results.append([y, *torch.autograd.grad(loss, (x, encoding.params))])
    for got, expected in zip(results[1], results[0], strict=True):
        _close(got, expected, layout)


@pytest.mark.parametrize("d", [1, 2, 3])
def test_jets_of_order_two_and_their_gradient_in_the_table(
    d: int, device: str, make_points: Make
) -> None:
    one, other = _any_dimension(d, device)
    layout = other.layout
    x = _points(make_points, layout, 20, device)[:, :d]
    head = _head(3, device)
    results = []
    for encoding in (one, other):
        jet = encoding.jet(x, axis_rows([2] * d))
        # u = tanh(W y) has u_xx = tanh''·(W y_x)² + tanh'·W y_xx in each axis: not linear in θ.
        a, residual = head(jet.value).tanh(), torch.zeros(20, 3, device=device)
        for axis in range(d):
            # `one` has a constant axis more.
            units = [int(j == axis) for j in range(len(expanded(jet.rows)[0][0]))]
            zx, zxx = (jet[tuple(m * e for e in units)] @ head.weight.T for m in (1, 2))
            residual = residual + (1 - a * a) * (zxx - 2 * a * zx * zx)
        (grad,) = torch.autograd.grad(residual.square().sum(), encoding.params)
        results.append((jet.data, residual, grad))
    assert results[0][2].abs().max() > 1
    for got, expected in zip(results[1], results[0], strict=True):
        _close(got, expected, layout)


def test_double_backward_in_one_dimension_is_exact(device: str, make_points: Make) -> None:
    one, other = _any_dimension(1, device)
    layout = other.layout
    x = _points(make_points, layout, 20, device)[:, :1].requires_grad_(True)
    head = _head(1, device)
    results = []
    for encoding in (one, other):
        u = head(encoding(x)).tanh()
        (ux,) = torch.autograd.grad(u.sum(), x, create_graph=True)
        (uxx,) = torch.autograd.grad(ux.sum(), x, create_graph=True)
        # Third order: the terms that tiny-cuda-nn's own double backward loses.
        (grad,) = torch.autograd.grad(uxx.square().sum(), encoding.params)
        results.append((u, ux, uxx, grad))
    assert results[0][3].abs().max() > 1
    for got, expected in zip(results[1], results[0], strict=True):
        _close(got, expected, layout)


@pytest.mark.parametrize("modes", ["forward over reverse", "reverse over forward"])
def test_torch_func_in_one_dimension(modes: str, device: str, make_points: Make) -> None:
    one, other = _any_dimension(1, device)
    x = _points(make_points, other.layout, 5, device)[:, :1]
    inner, outer = torch.func.jacrev, torch.func.jacfwd
    if modes == "reverse over forward":
        inner, outer = outer, inner

    def second(encoding: Any) -> Tensor:
        return outer(inner(lambda x: encoding(x).square().sum()))(x)

    _close(second(other), second(one), other.layout)


@pytest.mark.parametrize(
    ("name", "alpha", "named"),
    [
        ("linear", (1, 1), "∂^2/∂x0 ∂x1"),
        ("s1", (1, 1), "∂^2/∂x0 ∂x1"),
        ("s1", (0, 2), "∂^2/∂x1^2"),
        ("s1", (2, 1), "∂^3/∂x0^2 ∂x1"),
    ],
)
@pytest.mark.parametrize("n", [0, 3])
def test_what_is_not_exact_is_an_error(
    name: str, alpha: tuple[int, int], named: str, n: int, fake: ModuleType, normal: Make
) -> None:
    layout = _layout(name, 2)
    x, params = torch.full((n, 2), 0.3), normal(layout.n_rows * 2).float()
    alphas = ((0, 0), alpha)
    for call in (
        lambda: gather(x, params, layout, alphas, "tcnn"),
        lambda: scatter(x, torch.zeros(2, n, 4), layout, alphas, "tcnn"),
        lambda: grid_plan(x, layout, alphas, torch.float32, "tcnn"),
    ):
        with pytest.raises(NotImplementedError) as error:
            call()
        for word in (named, repr(name), "backend='triton'", "'torch'"):
            assert word in str(error.value)


@pytest.mark.parametrize(("name", "d"), [("linear", 2), ("linear", 3), ("s1", 1), ("s1", 2)])
def test_autograd_meets_the_same_error(
    name: str, d: int, fake: ModuleType, make_points: Make
) -> None:
    encoding = _any_dimension(d, "cpu", interpolation=name)[1]
    x = _points(make_points, encoding.layout, 5)[:, :d].requires_grad_(True)
    (slope,) = torch.autograd.grad(encoding(x).sin().sum(), x, create_graph=True)
    with pytest.raises(NotImplementedError, match="double backward drops terms"):
        torch.autograd.grad(slope.sum(), x)
    # The first derivative's own gradient in the table needs no second derivative in x.
    x.requires_grad_(False)
    torch.autograd.grad(encoding.jet(x, 1).data.sin().sum(), encoding.params)


def test_third_derivatives_of_linear_are_zero(fake: ModuleType, normal: Make) -> None:
    layout = _layout("linear", 2)
    x, params = torch.full((3, 2), 0.3), normal(layout.n_rows * 2).float()
    alphas = ((2, 0), (0, 3), (2, 1))
    assert torch.equal(gather(x, params, layout, alphas, "tcnn"), torch.zeros(3, 3, 4))
    table = scatter(x, torch.ones(3, 3, 4), layout, alphas, "tcnn")
    assert torch.equal(table, torch.zeros_like(params))


def test_nan_points_give_nan(device: str, normal: Make) -> None:
    layout = _layout("linear", 2)
    nan = float("nan")
    x = torch.tensor([[nan, 0.3], [0.3, nan], [0.3, 0.3]], device=device)
    params = normal(layout.n_rows * 2).float().to(device)
    y = gather(x, params, layout, (*FIRST[2], (2, 0)), "tcnn")
    assert y[:, :2].isnan().all()
    assert not y[:, 2].isnan().any()


def test_strided_points_and_gradients(device: str, make_points: Make, normal: Make) -> None:
    layout = _layout("linear", 2)
    x = _points(make_points, layout, 512, device)
    strided = x.T.contiguous().T[::2]
    assert not strided.is_contiguous()
    params = normal(layout.n_rows * 2, 3).float().to(device).T[1]
    _close(
        gather(strided, params, layout, FIRST[2], "tcnn"),
        gather(x[::2], params, layout, FIRST[2]),
        layout,
    )
    g = normal(4, 256, 3, seed=1).float().to(device).permute(2, 1, 0)
    _close(
        scatter(strided, g, layout, FIRST[2], "tcnn"),
        scatter(x[::2], g, layout, FIRST[2]),
        layout,
    )


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_autograd(mode: Any, device: str, make_points: Make) -> None:
    one, other = _pair(2, device)
    with mode():
        x = _points(make_points, other.layout, 20, device)
        _close(other(x), one(x), other.layout)
        _close(other.jet(x, SECOND).data, one.jet(x, SECOND).data, other.layout)


def test_a_plan_serves_training_at_fixed_points(device: str, make_points: Make) -> None:
    one, other = _pair(2, device)
    x = _points(make_points, other.layout, 20, device)
    results = []
    for encoding in (one, other):
        jet = encoding.plan(x.double(), SECOND).jet()
        (grad,) = torch.autograd.grad(jet.data.sin().sum(), encoding.params)
        results.append((jet.data, grad))
    for got, expected in zip(results[1], results[0], strict=True):
        _close(got, expected, other.layout)


@pytest.mark.parametrize("planned", [False, True], ids=["jet", "plan"])
def test_compile(planned: bool, device: str, make_points: Make) -> None:
    encoding = _pair(2, device)[1]
    x = _points(make_points, encoding.layout, 20, device)
    plan = encoding.plan(x.double(), SECOND)

    def loss() -> Tensor:
        return (plan.jet() if planned else encoding.jet(x, SECOND)).data.sin().sum()

    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    got, expected = (torch.autograd.grad(f(), encoding.params)[0] for f in (compiled, loss))
    _close(got, expected, encoding.layout)


def test_padded_outputs_are_cut(
    fake: ModuleType, monkeypatch: pytest.MonkeyPatch, make_points: Make
) -> None:
    monkeypatch.setattr(fake, "EXTRA_COLUMNS", 2)
    one, other = _pair(2, "cpu")
    x = _points(make_points, other.layout, 20)
    results = []
    for encoding in (one, other):
        data = encoding.jet(x, 1).data
        results.append((data, *torch.autograd.grad(data.sin().sum(), encoding.params)))
    for got, expected in zip(results[1], results[0], strict=True):
        _close(got, expected, other.layout)


def test_values_alone_run_one_forward_pass(fake: ModuleType, make_points: Make) -> None:
    encoding = _pair(2, "cpu")[1]
    encoding(_points(make_points, encoding.layout, 20))
    native = tcnn_backend.native_grid(encoding.layout, 2).native
    assert native.calls == ["fwd"]


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"interpolation": "cubic"}, ("interpolation='cubic'", "triton")),
        ({"interpolation": "s1_product"}, ("interpolation='s1_product'", "triton")),
        ({"level_offset": True}, ("level_offset=True", "triton")),
        ({"dtype": torch.float64}, ("torch.float64", "backend='torch'")),
    ],
)
def test_check_names_the_setting_and_an_alternative(
    settings: dict[str, Any], named: tuple[str, ...], fake: ModuleType
) -> None:
    with pytest.raises(ValueError) as error:
        GridEncoding(2, **settings, backend="tcnn")
    for word in named:
        assert word in str(error.value)


def test_check_of_one_axis(fake: ModuleType) -> None:
    with pytest.raises(ValueError, match=r"n_input_dims=1: .*backend='triton'"):
        tcnn_backend.check(_layout("linear", 1), torch.float32, None)


def test_tensors_on_a_cpu_are_an_error(fake: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "tinycudann", fake)
    encoding = GridEncoding(2, backend="tcnn")  # where it will live is not known yet
    with pytest.raises(ValueError, match=r"device='cpu': .*backend='torch'"):
        encoding(torch.zeros(1, 2))


def test_other_numbers_of_features_are_an_error(fake: ModuleType) -> None:
    encoding = GridEncoding(2, n_features_per_level=3, backend="tcnn")
    with pytest.raises(ValueError, match=r"n_features_per_level=3: .*1, 2, 4 and 8.*'torch'"):
        encoding(torch.zeros(1, 2))


def test_another_number_of_parameters_is_an_error(
    fake: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fake.Native, "n_params", lambda _: 24)
    encoding = GridEncoding(2, **SETTINGS, backend="tcnn")
    with pytest.raises(RuntimeError, match=r"has 24 parameters .*expected .*'torch'"):
        encoding(torch.zeros(1, 2))


def test_the_packages_own_parameters_are_not_kept(fake: ModuleType) -> None:
    encoding = GridEncoding(2, **SETTINGS, backend="tcnn")
    encoding(torch.zeros(1, 2))
    grid = tcnn_backend.native_grid(encoding.layout, 2)
    assert not isinstance(grid.native, nn.Module)


def test_an_absent_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "LOADED", {"torch": torch_backend})
    monkeypatch.setitem(sys.modules, "tinycudann", None)  # as if it were not installed
    with pytest.raises(ModuleNotFoundError, match=r"tinycudann.*backend='torch'"):
        load_backend("tcnn")


def test_a_package_that_cannot_be_imported_is_named(
    fake: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: str) -> ModuleType:
        raise OSError("Unknown compute capability")  # what it raises where torch sees no GPU

    monkeypatch.setattr(tcnn_backend, "import_module", fail)
    encoding = GridEncoding(2, **SETTINGS, backend="tcnn")
    with pytest.raises(RuntimeError, match=r"Unknown compute capability.*backend='torch'"):
        encoding(torch.zeros(1, 2))
