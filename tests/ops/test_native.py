"""The C kernels against the readable reference, and their absence without a compiler."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import pytest
import torch
from torch import Tensor

from diffhash import GridEncoding
from diffhash.native import CompilerError, compiled
from diffhash.ops.backends import native_backend
from diffhash.ops.grid import gather, grid_plan, scatter
from diffhash.ops.interpolation import INTERPOLATIONS
from diffhash.ops.layout import GridLayout, grid_layout
from tests.thinned import pairwise

NAMES = list(INTERPOLATIONS)
DTYPES = [torch.float32, torch.float64]
Make = Callable[..., Tensor]


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    yield
    torch.set_num_threads(1)


def _alphas(d: int, highest: int) -> tuple[tuple[int, ...], ...]:
    return tuple(a for a in product(range(highest + 1), repeat=d) if sum(a) <= highest)


def _layouts(name: str, d: int) -> list[GridLayout]:
    """Layouts: dense, dense and hashed, with level offsets, and periodic."""
    growth = 2.0 if d < 3 else 1.5
    return [
        grid_layout(d, name, 2, 20, 3, growth),
        grid_layout(d, name, 2, 5, 3, growth),
        grid_layout(d, name, 2, 5, 3, growth, True),
        grid_layout(d, name, 2, 5, 3, growth, periodic=(d - 1,)),
    ]


def _points(n: int, d: int, dtype: torch.dtype) -> Tensor:
    """Points inside, on the border, and outside."""
    generator = torch.Generator().manual_seed(n)
    x = torch.rand(n, d, dtype=torch.float64, generator=generator) * 1.2 - 0.1
    x[::5] = x[::5].clamp(0.2, 0.8).round()
    return x.to(dtype)


def _assert_close(got: Tensor, expected: Tensor, terms: int) -> None:
    """Equal up to the round-off of weights and of sums of ``terms`` terms, with the same NaNs."""
    size = expected.nan_to_num(0).abs().amax(dim=tuple(range(2, expected.ndim)), keepdim=True)
    error = (got - expected).abs() / size.clamp_min(1)
    assert (got.isnan() == expected.isnan()).all()
    assert error.nan_to_num(0).max() <= 50 * terms * torch.finfo(got.dtype).eps


@pytest.mark.parametrize(
    ("name", "d", "dtype"),
    [*pairwise(NAMES, [1, 2], DTYPES, values=1), *(("cubic", 3, dtype) for dtype in DTYPES)],
)
def test_gather_and_scatter_equal_the_torch_backends(
    name: str, d: int, dtype: torch.dtype, normal: Make
) -> None:
    alphas = _alphas(d, 3)
    for layout in _layouts(name, d):
        for n, n_features, n_replicas in ((13, 2, 1), (1, 3, 2), (0, 8, 1)):
            x = _points(n, d, dtype)
            if n > 3:
                x[3, -1] = float("nan")
            table = normal(n_replicas, layout.n_rows * n_features).to(dtype)
            g = normal(n_replicas, len(alphas), n, 2 * n_features).to(dtype)
            for f, operand in ((gather, table), (scatter, g)):
                got = f(x, operand, layout, alphas, "native")
                expected = f(x, operand, layout, alphas, "torch")
                assert got.shape == expected.shape
                if got.numel():
                    if f is scatter:
                        got, expected = got[:, None], expected[:, None]
                    _assert_close(got, expected, layout.n_taps * max(n, 1) * len(alphas))


@pytest.mark.parametrize(
    ("name", "d", "hashed"), pairwise(NAMES, [1, 2, 3, 4], [False, True], values=1)
)
def test_gradcheck_and_gradgradcheck(name: str, d: int, hashed: bool, normal: Make) -> None:
    layout = grid_layout(d, name, 2, 4 if hashed else 20, 2, 1.5)
    # Between the faces of both levels: 2 and 3 cells, shifted or not.
    x = torch.tensor([[0.11, 0.21, 0.43, 0.57], [0.07, 0.13, 0.41, 0.59]], dtype=torch.float64)
    x = x[:, :d].clone().requires_grad_()
    params = normal(layout.n_rows).requires_grad_()

    def f(x: Tensor, params: Tensor) -> Tensor:
        return gather(x, params, layout, ((0,) * d, (1,) + (0,) * (d - 1)), "native")

    assert torch.autograd.gradcheck(f, (x, params), fast_mode=True)
    assert torch.autograd.gradgradcheck(f, (x, params), fast_mode=True)


def test_every_element_of_the_result_is_written(
    normal: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = Tensor.new_empty

    def poisoned(self: Tensor, *size: int, **options: object) -> Tensor:
        return empty(self, *size, **options).fill_(float("nan"))

    monkeypatch.setattr(Tensor, "new_empty", poisoned)
    layout = grid_layout(2, "cubic", 3, 6, 3, 2.0)
    y = gather(
        _points(37, 2, torch.float64), normal(layout.n_rows * 5), layout, ((0, 1),), "native"
    )
    assert y.isfinite().all()


def test_strided_inputs(normal: Make) -> None:
    layout = grid_layout(2, "cubic", 2, 6, 3, 2.0)
    alphas = ((0, 0), (2, 0))
    x = _points(40, 4, torch.float64)[::2, ::2]
    params = normal(2, 2 * layout.n_rows)[:, ::2]
    g = normal(2, 20, 4).transpose(0, 0)[..., ::2]
    for f, operand in ((gather, params), (scatter, g)):
        assert not operand.is_contiguous()
        torch.testing.assert_close(
            f(x, operand, layout, alphas, "native"),
            f(x.contiguous(), operand.contiguous(), layout, alphas, "native"),
            rtol=0,
            atol=0,
        )


def test_the_number_of_threads_does_not_change_a_bit(normal: Make) -> None:
    layout = grid_layout(2, "cubic", 5, 8, 3, 2.0)
    alphas = ((0, 0), (2, 0), (0, 2))
    x = _points(3000, 2, torch.float64)
    params, g = normal(layout.n_rows * 2), normal(3, 3000, 10)
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        results.append(
            [gather(x, params, layout, alphas, "native"), scatter(x, g, layout, alphas, "native")]
        )
    for result in results[1:]:
        for one, other in zip(results[0], result, strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("kept", [True, False], ids=["kept", "computed anew"])
@pytest.mark.parametrize("name", ["cubic", "quintic"])
def test_plans_use_the_points_to_their_own_precision(
    name: str, kept: bool, normal: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not kept:  # as where there are too many weights
        monkeypatch.setattr(native_backend, "PLANNED_TAPS", 0)
        monkeypatch.setattr(native_backend, "PLANNED_WEIGHTS", 0)
    layout = grid_layout(2, name, 2, 20, 2**14, 1.0)  # float32 cannot resolve t
    alphas = ((0, 0), (1, 0))
    x = torch.rand(20, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    params = normal(layout.n_rows).float()
    plan = grid_plan(x, layout, alphas, torch.float32, "native")
    expected = gather(x, params.double(), layout, alphas, "torch")
    sizes = expected.abs().amax(dim=(1, 2), keepdim=True)
    assert ((plan.gather(params) - expected).abs() / sizes).max() < 1e-5
    g = normal(*expected.shape).float()
    (grad,) = torch.autograd.grad((plan.gather(params.requires_grad_()) * g).sum(), params)
    expected = scatter(x, g.double(), layout, alphas, "torch")
    assert ((grad - expected).abs() / expected.abs().max()).max() < 1e-5


def test_what_it_cannot_serve_is_refused_with_an_alternative() -> None:
    with pytest.raises(ValueError, match=r"s1_product.*backend='torch'"):
        GridEncoding(2, interpolation="s1_product", backend="native")
    with pytest.raises(ValueError, match=r"allowed are torch\.float32 and torch\.float64"):
        GridEncoding(2, dtype=torch.float16)
    layout = grid_layout(1, "cubic", 1, 4, 2, 2.0)
    x, params = torch.zeros(1, 1, device="meta"), torch.zeros(layout.n_rows, device="meta")
    with pytest.raises(ValueError, match=r"not on meta.*'triton' or 'torch'"):
        gather(x, params, layout, ((0,),), "native")


def test_auto_is_native_on_a_cpu_and_torch_for_the_product_form() -> None:
    assert GridEncoding(2, n_levels=2).backend == "native"
    assert GridEncoding(2, n_levels=2, interpolation="s1_product").backend == "torch"


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("CC", "no-such-compiler")
    monkeypatch.setenv("DIFFHASH_CACHE", str(tmp_path))
    compiled.cache_clear()  # nothing else here compiles for nonic: its kernels are not kept
    yield
    compiled.cache_clear()


@pytest.mark.usefixtures("no_compiler")
def test_without_a_compiler_auto_is_torch_and_says_so() -> None:
    with pytest.warns(UserWarning, match=r"by torch, several times slower: .*no-such-compiler"):
        encoding = GridEncoding(1, n_levels=2, interpolation="nonic", seed=0)
    assert encoding.backend == "torch"
    assert encoding(torch.rand(3, 1)).isfinite().all()


@pytest.mark.usefixtures("no_compiler")
def test_without_a_compiler_native_is_an_error() -> None:
    with pytest.raises(CompilerError, match="no-such-compiler"):
        GridEncoding(1, n_levels=2, interpolation="nonic", backend="native")


def test_processes_that_compile_at_once_share_one_library(tmp_path: Path) -> None:
    code = (
        "import torch, diffhash\n"
        "encoding = diffhash.GridEncoding(1, interpolation='cubic', seed=0, backend='native')\n"
        "print(encoding(torch.full((1, 1), 0.3)).sum().item())\n"
    )
    environment = {"PATH": "/usr/bin:/bin:/usr/local/bin", "DIFFHASH_CACHE": str(tmp_path)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    outputs = {process.communicate()[0] for process in processes}
    assert all(process.returncode == 0 for process in processes)
    assert len(outputs) == 1
    names = [file.name.rpartition("-")[0] for file in tmp_path.iterdir()]
    assert sorted(names) == ["grid", "threads"]
