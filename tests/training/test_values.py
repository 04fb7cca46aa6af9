"""`Solution.export_values`: files of values for other programs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from torch import Tensor

import diffhash as dh
from diffhash.geometry import Ball, Box, Disc, Interval, Mesh
from diffhash.optim import Task
from diffhash.training.fields import problem_field


class Plate(dh.Problem):
    """A problem on a square with a hole, times an interval of time."""

    domain = (Box(x=(0, 1), y=(0, 1)) - Disc((0.5, 0.5), 0.25)) * Interval(t=(0, 2))

    def conditions(self) -> list[dh.Condition]:
        return [dh.Condition("equation", self.domain, lambda x, d: d.u_t - d.u_xx, "exact")]

    def solution(self, x: Tensor) -> Tensor:
        return x[:, 0] * x[:, 2] ** 2


class Solid(dh.Problem):
    """A problem in a domain with three axes of space."""

    def __init__(self, domain: Any) -> None:
        super().__init__()
        self.domain = domain

    def conditions(self) -> list[dh.Condition]:
        return [dh.Condition("equation", self.domain, lambda x, d: d.u_xx + d.u_yy + d.u_zz)]


def solved(problem: dh.Problem) -> dh.Solution:
    encoding = dh.GridEncoding(
        3, 1, 2, base_resolution=4, interpolation="cubic", dtype=torch.float64, seed=0
    )
    field = problem_field(problem, encoding, dh.Linear(2, dtype=torch.float64))
    task = Task(n_residual=20, n_boundary=5)
    return dh.solve(problem, field, task=task, epochs=1, evaluation_points=20, progress=False)


@pytest.fixture(scope="module")
def plate() -> dh.Solution:
    return solved(Plate())


def test_arrays_are_the_values_on_a_grid(plate: dh.Solution, tmp_path: Path) -> None:
    path = plate.export_values(tmp_path / "plate.npz", ["u_x", "u_tt"], n={"x": 5, "y": 9, "t": 3})
    with np.load(path) as found:
        assert set(found) == {
            *("x", "y", "t", "u", "u_x", "u_tt", "exact_u", "exact_u_x", "exact_u_tt"),
        }
        assert found["t"].tolist() == [0, 1, 2]
        assert found["u"].shape == found["exact_u"].shape == (5, 9, 3)
        x = torch.tensor([[found["x"][1], found["y"][0], found["t"][2]]])
        jet = plate.jet(x, ["u_x", "u_tt"])
        for name in ("u", "u_x", "u_tt"):
            assert found[name][1, 0, 2] == pytest.approx(jet[name].item(), rel=1e-12)
        assert found["exact_u"][1, 0, 2] == 0.25 * 4
        assert found["exact_u_tt"][1, 0, 2] == 0.5
        assert np.isnan(found["u"][2, 4]).all()  # in the hole
        assert np.isnan(found["exact_u_x"][2, 4]).all()


def test_arrays_at_points_of_ones_own(plate: dh.Solution, tmp_path: Path) -> None:
    x = plate.problem.domain.sample(7)
    plate.export_values(tmp_path / "points.npz", at=x)
    with np.load(tmp_path / "points.npz") as found:
        np.testing.assert_array_equal(found["t"], x[:, 2])
        np.testing.assert_allclose(found["u"], plate(x)[:, 0], rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "given", "words"),
    [
        ("plate.vtk", {}, "give a name that ends in .npz, .vtu, .pvd"),
        ("plate.npz", {"derivatives": ["u_z"]}, "u_z"),
        ("plate.npz", {"derivatives": ["w"]}, "w"),
        ("plate.npz", {"n": {"z": 3}}, "n: z: not an axis"),
        ("plate.npz", {"n": 1}, "n.x=1: give at least 2"),
        ("plate.npz", {"n": 10_000}, "1e[+]12 points; allowed are 1e[+]08"),
        ("plate.npz", {"n": 3, "at": [[0.0, 0.0, 0.0]]}, "not both"),
        ("plate.npz", {"at": [[0.0, 0.0]]}, "give .N, 3., a column for each of the axes"),
        ("plate.npz", {"at": [[0.0, 0.0, float("nan")]]}, "of finite numbers"),
        ("plate.pvd", {"at": [[0.0, 0.0, 0.0]]}, "a series in time is of a grid"),
    ],
)
def test_what_does_not_fit_is_refused(
    plate: dh.Solution, tmp_path: Path, name: str, given: Any, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        plate.export_values(tmp_path / name, **given)
    assert not [*tmp_path.iterdir()]


def test_without_pyvista_vtk_is_refused_and_arrays_are_not(
    plate: dh.Solution, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyvista", None)
    with pytest.raises(ImportError, match=r"pip install 'diffhash\[vtk\]'; .npz files do not"):
        plate.export_values(tmp_path / "plate.vtu")
    plate.export_values(tmp_path / "plate.npz", n=2)


def test_a_series_in_time_without_time_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs the axis 't' and one of space"):
        solved(Solid(Ball())).export_values(tmp_path / "ball.pvd")


# ---------------------------------------------------------------------------------------------- VTK
@pytest.fixture
def pyvista() -> Any:
    return pytest.importorskip("pyvista", reason="needs the extra vtk")


def test_a_mesh_has_the_cells_that_lie_in_the_domain(
    plate: dh.Solution, tmp_path: Path, pyvista: Any
) -> None:
    grid = pyvista.read(plate.export_values(tmp_path / "plate.vtu", ["u_x"], n=(9)))
    assert plate.problem.domain.contains(grid.points).all()
    assert 0 < grid.n_cells < 8**3
    assert set(grid.point_data) == {"u", "u_x", "exact_u", "exact_u_x"}
    values = plate(torch.from_numpy(np.array(grid.points)))[:, 0]
    np.testing.assert_allclose(grid.point_data["u"], values, rtol=1e-12)
    assert np.isfinite(grid.point_data["u"]).all()


def test_a_series_has_a_file_for_each_time(
    plate: dh.Solution, tmp_path: Path, pyvista: Any
) -> None:
    path = plate.export_values(tmp_path / "plate.pvd", n={"x": 9, "y": 9, "t": 3})
    sets = ElementTree.parse(path).findall("Collection/DataSet")
    assert [float(s.attrib["timestep"]) for s in sets] == [0, 1, 2]
    reader = pyvista.get_reader(path)
    reader.set_active_time_value(2.0)
    [grid] = reader.read()
    assert grid.n_cells and not grid.points[:, 2].any()
    x = torch.from_numpy(np.array(grid.points))
    x[:, 2] = 2.0
    np.testing.assert_allclose(grid.point_data["u"], plate(x)[:, 0], rtol=1e-12)


def test_a_mesh_of_triangles_is_its_surface(tmp_path: Path, pyvista: Any) -> None:
    trimesh = pytest.importorskip("trimesh", reason="needs the extra geometry")
    solution = solved(Solid(Mesh(trimesh.creation.box(extents=(1, 2, 3)))))
    path = solution.export_values(tmp_path / "box.vtu", at=solution.problem.domain)
    grid = pyvista.read(path)
    assert (grid.n_points, grid.n_cells) == (8, 12)
    assert np.isfinite(grid.point_data["u"]).all()
    points = solution.problem.domain.sample(5)
    assert pyvista.read(solution.export_values(tmp_path / "five.vtu", at=points)).n_points == 5
