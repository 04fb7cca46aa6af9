"""Solutions without a closed form: two methods agree with the stored values, which are read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diffhash.problems import references, zoo
from diffhash.problems.reference import SplineReference, read_reference, stored

pytest.importorskip("scipy")
from scipy.interpolate import NdBSpline

from scripts.references import cavity
from scripts.references.evolution import fourier, fourier_values
from scripts.references.fit import Axis, fit, relative, write
from scripts.references.waves import CONFIRMED, WAVES, by_fourier, by_splines

FOLDER = Path(__file__).parents[2] / "src/diffhash/problems/reference_values"
FILES = sorted(path.stem for path in FOLDER.glob("*.npz"))
D = torch.float64
# Points and steps of the two methods, and bounds of their differences from the file.
COARSE: dict[str, tuple[dict[str, Any], float, float]] = {
    "allen_cahn": ({"n": 1024, "step": 1e-2, "n_second": 1024, "step_second": 5e-2}, 2e-5, 2e-5),
    "gray_scott": ({"n": 192, "step": 4e-4, "n_second": 192, "step_second": 2e-3}, 2e-5, 1e-4),
    "kdv_cosine": ({"n": 256, "step": 1e-3, "n_second": 256, "step_second": 5e-3}, 2e-5, 1e-5),
    "kuramoto_sivashinsky": (
        {"n": 160, "step": 4e-4, "n_second": 256, "step_second": 2e-3}, 2e-4, 2e-3,
    ),
}  # fmt: skip


def lattice(times: np.ndarray, x: np.ndarray) -> torch.Tensor:
    """The points of a lattice ``[T · N, 2]``, x first."""
    t, x = (a.reshape(-1) for a in np.meshgrid(times, x, indexing="ij"))
    return torch.from_numpy(np.stack([x, t], axis=1))


def check_waves(name: str, sizes: dict[str, Any], first: float, second: float) -> None:
    wave, times = replace(WAVES[name], **sizes), np.array([0.3, 0.7, 1.0])
    problem: Any = zoo()[name]()
    nodes = wave.equation.nodes(64)
    known = problem.solution(lattice(times, nodes)).numpy().reshape(3, 64, -1).transpose(0, 2, 1)
    assert relative(by_fourier(wave, times, nodes), known) < first
    found = by_splines(wave, times)["u"][..., :: wave.n_second // 64]
    assert relative(found[..., :64], known) < second


@pytest.mark.parametrize("name", COARSE)
def test_both_methods_give_what_is_stored(name: str) -> None:
    check_waves(name, *COARSE[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", WAVES)
def test_they_give_it_the_closer_the_finer_they_are(name: str) -> None:
    wave = WAVES[name]
    sizes = {"step": 4 * wave.step, "step_second": 4 * wave.step_second}
    check_waves(name, sizes, 1e-6, 1e-6)


def check_cavity(reynolds: float, cells: cavity.Cells, tolerances: tuple[float, float]) -> None:
    x = np.linspace(0.05, 0.95, 19)
    problem: Any = zoo()["cavity"](reynolds=reynolds)  # type: ignore[call-arg]
    at = torch.from_numpy(np.stack(np.meshgrid(x, x, indexing="ij"), -1).reshape(-1, 2))
    known = problem.solution(at).numpy().reshape(19, 19, 3)
    for method, tolerance in zip((cavity.collocated, cavity.galerkin), tolerances, strict=True):
        found = method(cells, reynolds, x, x)
        assert relative(found[..., :2], known[..., :2]) < tolerance
        assert relative(found[..., 2], known[..., 2]) < 20 * tolerance


def test_both_methods_give_the_flow_in_the_cavity() -> None:
    ends = (4e-3, 2.0, 0.12)
    check_cavity(100.0, cavity.Cells(ends, ends, 7, 4), (1e-2, 1e-2))


@pytest.mark.slow
@pytest.mark.parametrize("reynolds", [100.0, 400.0])
def test_they_give_it_with_smaller_cells_too(reynolds: float) -> None:
    check_cavity(reynolds, cavity.Cells(second=(1e-3, 1.6, 0.06), degree_second=6), (1e-4, 1e-4))


@pytest.mark.parametrize(("name", "n", "step"), [("burgers1d", 1024, 2e-3), ("kdv", 256, 2e-3)])
def test_a_fourier_method_gives_what_is_known_in_closed_form(
    name: str, n: int, step: float
) -> None:
    equation, times = CONFIRMED[name], np.array([0.2, 1.0])
    problem: Any = zoo()[name]()
    nodes = equation.nodes(64)
    found = fourier_values(equation, fourier(equation, times, n, step), n, nodes)[:, 0]
    known = problem.solution(lattice(times, nodes)).numpy().reshape(2, 64)
    assert relative(found, known) < 3e-7


def test_every_reference_says_its_error() -> None:
    known = references()
    assert set(zoo()) <= {name.split()[0] for name in known}
    assert "cavity reynolds=400.0" in known
    assert all(0 < reference.error < 5e-3 for reference in known.values())
    assert known["heat1d"].methods == {"closed form": 0.0}
    assert known["burgers1d"].error < 1e-10
    assert zoo()["cavity"](reynolds=1000.0).reference is None  # type: ignore[call-arg]
    assert not zoo()["cavity"](reynolds=1000.0).has_solution  # type: ignore[call-arg]


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_small_and_has_two_methods(name: str) -> None:
    assert (FOLDER / f"{name}.npz").stat().st_size <= 200_000
    reference = stored(name)
    assert len(reference.methods) == 2
    assert all(0 <= error < 1e-3 for error in reference.methods.values())
    values = [error for key, error in reference.errors.items() if "_" not in key]
    assert reference.error == max(values)


def made(degrees: tuple[int, ...] = (3, 5)) -> SplineReference:
    generator = np.random.default_rng(0)
    axes = [Axis(np.array([0, 0.1, 0.4, 0.5, 1.0]) + j, p) for j, p in enumerate(degrees)]
    values = generator.normal(size=(*(len(axis.points) for axis in axes), 2))
    return fit(axes, values, 2.0**-40)


def test_splines_are_evaluated_and_differentiated_exactly(tmp_path: Path) -> None:
    spline = made()
    write(tmp_path / "file.npz", spline, 2.0**-40)
    read = read_reference(tmp_path / "file.npz")
    truth = NdBSpline(
        tuple(t.numpy() for t in spline.knots), spline.coefficients.numpy(), spline.degrees
    )
    x = torch.rand(301, 2, dtype=D, generator=torch.Generator().manual_seed(0)) + torch.tensor(
        [0.0, 1.0]
    )
    x[:4] = torch.tensor([[0.0, 1.0], [1.0, 2.0], [0.4, 1.4], [1.0, 1.0]])  # ends and breaks
    for orders in ((0, 0), (1, 0), (0, 2), (2, 3)):
        expected = torch.from_numpy(truth(x.numpy(), nu=orders))
        torch.testing.assert_close(read.derivative(x, orders), expected, rtol=1e-9, atol=1e-9)
    assert read(x[:0]).shape == (0, 2)
    assert not read.derivative(x, (4, 0)).any()
    y = x.requires_grad_(True)
    (slope,) = torch.autograd.grad(read(y)[:, 1].sum(), y, create_graph=True)
    (second,) = torch.autograd.grad(slope[:, 0].sum(), y)
    expected = read.derivative(x.detach(), (1, 1))[:, 1]
    torch.testing.assert_close(second[:, 1], expected, rtol=1e-12, atol=1e-12)


def test_a_periodic_spline_closes() -> None:
    axis = Axis(np.linspace(0, 1, 9), 5, periodic=True)
    spline = fit([axis], np.sin(2 * np.pi * axis.points)[:, None], 2.0**-45)
    ends = torch.tensor([[0.0], [1.0]], dtype=D)
    for order in range(5):
        low, high = spline.derivative(ends, (order,))
        torch.testing.assert_close(low, high, rtol=0, atol=1e-8)
