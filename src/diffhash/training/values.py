"""Values of a solution in files that other programs read: NPZ for NumPy, VTK for ParaView."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np
import torch
from torch import Tensor

from diffhash._files import write_file_atomically, write_text_atomically
from diffhash.geometry import Mesh
from diffhash.geometry.domain import as_points
from diffhash.jets import jet_rows
from diffhash.ops.sizes import check_sizes
from diffhash.training.windows import TIME

if TYPE_CHECKING:
    from diffhash.training.solution import Solution

SUFFIXES = (".npz", ".vtu", ".pvd")
DEFAULT_N = {1: 1001, 2: 201, 3: 51, 4: 21}  # points along each axis, by the number of axes
_MAX_N = 10**6
_MAX_POINTS = 10**8
_CHUNK = 2**13  # points whose jets are computed at a time


def write_values(
    solution: Solution,
    path: Path | str,
    names: Sequence[str],
    n: int | Mapping[str, int] | None,
    at: Any,
) -> Path:
    """Write the values of a solution to a file; see `Solution.export_values`."""
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise ValueError(f"path={str(path)!r}: give a name that ends in {', '.join(SUFFIXES)}")
    axes = solution.problem.domain.axes
    names = _checked_names(solution, names)
    if path.suffix == ".npz":
        if at is None:
            along = _along(solution, n)
            x, shape = _lattice([*along.values()]), [len(a) for a in along.values()]
        else:
            x = _given(solution, n, at)
            along, shape = dict(zip(axes, x.numpy().T, strict=True)), [len(x)]
        values = _values(solution, x, names)
        arrays: dict[str, Any] = along | {k: value.reshape(shape) for k, value in values.items()}
        return write_file_atomically(path, lambda file: np.savez_compressed(file, **arrays))
    if path.suffix == ".vtu":
        if len(axes) > 3:
            raise ValueError(
                f"{path}: a file of VTK has three axes at most, the domain has "
                f"{', '.join(axes)}: give a name that ends in .pvd, for a file a time"
            )
        return _write_mesh(solution, path, names, n, at, None)
    return _write_series(solution, path, names, n, at)


def _checked_names(solution: Solution, names: Sequence[str]) -> list[str]:
    """The names of the unknowns, and then of the chosen derivatives."""
    given = [names] if isinstance(names, str) else list(names)
    jet_rows(tuple(given), solution.problem.n_dims, solution.problem.names)
    return list(dict.fromkeys([*solution.problem.unknowns, *given]))


def _along(
    solution: Solution, n: int | Mapping[str, int] | None, leave_out: Collection[str] = ()
) -> dict[str, np.ndarray]:
    """Coordinates of a regular grid over the domain's bounding box, by axis."""
    domain = solution.problem.domain
    if isinstance(n, Mapping):
        if unknown := [axis for axis in n if axis not in domain.axes]:
            raise ValueError(f"n: {', '.join(unknown)}: not an axis; those are {domain.axes}")
        numbers = {axis: n.get(axis, DEFAULT_N[domain.n_dims]) for axis in domain.axes}
    else:
        numbers = dict.fromkeys(domain.axes, DEFAULT_N[domain.n_dims] if n is None else n)
    check_sizes(2, _MAX_N, **{f"n.{axis}": number for axis, number in numbers.items()})
    if (total := float(np.prod([float(k) for k in numbers.values()]))) > _MAX_POINTS:
        raise ValueError(f"n={n}: {total:.0e} points; allowed are {_MAX_POINTS:.0e}")
    return {
        axis: np.linspace(low, high, int(numbers[axis]))
        for axis, (low, high) in zip(domain.axes, domain.bounds, strict=True)
        if axis not in leave_out
    }


def _lattice(along: Sequence[np.ndarray]) -> Tensor:
    grids = np.meshgrid(*along, indexing="ij")
    return torch.from_numpy(np.stack([grid.ravel() for grid in grids], axis=1))


def _given(solution: Solution, n: object, at: Any) -> Tensor:
    """The points ``at`` as a tensor ``[N, d]``, checked."""
    if n is not None:
        raise ValueError("n and at: give the size of a grid or points of your own, not both")
    if isinstance(at, Mesh):
        at = np.array(at._mesh.vertices)
    x = as_points(at, solution.problem.domain).cpu()
    if not len(x) or not x.isfinite().all():
        raise ValueError("at: give at least one point, of finite numbers")
    return x


def _values(solution: Solution, x: Tensor, names: Sequence[str]) -> dict[str, np.ndarray]:
    """The values of each name, and of ``exact_…`` if they are known; NaN outside the domain."""
    problem = solution.problem
    rows = jet_rows(tuple(names), problem.n_dims, problem.names)
    found: dict[str, list[Tensor]] = {}
    for part in x.split(_CHUNK):
        outside = ~problem.domain.contains(part)
        device = solution.field.network.params.device
        with torch.no_grad():  # not `Solution.jet`, which refuses points beyond the domain
            jets = {"": solution.field.jet(part.to(device), rows)}
        if problem.has_solution:
            jets["exact_"] = problem.exact_jet(part, rows)
        for prefix, jet in jets.items():
            for name in names:
                values = jet[name].double().cpu().clone()
                home = problem.parts.get(problem.unknowns[problem.names.find(name)[0]])
                values[outside if home is None else ~home.contains(part)] = float("nan")
                found.setdefault(prefix + name, []).append(values)
    return {name: torch.cat(parts).numpy() for name, parts in found.items()}


# ---------------------------------------------------------------------------------------------- VTK
def _pyvista() -> Any:
    try:
        import pyvista  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ImportError(
            "files of VTK need pyvista: pip install 'diffhash[vtk]'; .npz files do not"
        ) from error
    return pyvista


def _write_mesh(
    solution: Solution,
    path: Path,
    names: Sequence[str],
    n: int | Mapping[str, int] | None,
    at: Any,
    time: float | None,
) -> Path:
    """One ``.vtu``: the cells of a grid that lie in the domain, a mesh's triangles, or points."""
    pyvista, domain = _pyvista(), solution.problem.domain
    axes = [axis for axis in domain.axes if time is None or axis != TIME]

    def whole(places: Tensor) -> Tensor:
        """The points of the domain with these coordinates of space, at this time."""
        columns = dict(zip(axes, places.unbind(1), strict=True))
        moment = torch.full((len(places),), 0.0 if time is None else time, dtype=torch.float64)
        return torch.stack([columns.get(axis, moment) for axis in domain.axes], dim=1)

    if at is None:
        along = [*_along(solution, n, leave_out=set(domain.axes) - set(axes)).values()]
        three = [*along, *[np.zeros(1)] * (3 - len(along))]
        grid = pyvista.RectilinearGrid(*three).cast_to_unstructured_grid()
        inside = domain.contains(whole(_points_of(grid, len(axes)))).numpy()
        if not inside.all():  # keep the cells whose corners are all in the domain
            grid = grid.extract_points(inside, adjacent_cells=False)
    else:
        x = _given(solution, n, at)
        three = np.zeros((len(x), 3))
        three[:, : x.shape[1]] = x.numpy()
        if isinstance(at, Mesh):
            triangles = np.insert(np.asarray(at._mesh.faces), 0, 3, axis=1)
            grid = pyvista.PolyData(three, triangles.ravel()).cast_to_unstructured_grid()
        else:
            grid = pyvista.PolyData(three).cast_to_unstructured_grid()
    for name, values in _values(solution, whole(_points_of(grid, len(axes))), names).items():
        grid.point_data[name] = values
    for extra in ("vtkOriginalPointIds", "vtkOriginalCellIds"):
        for data in (grid.point_data, grid.cell_data):
            if extra in data:
                del data[extra]
    return write_file_atomically(path, lambda file: grid.save(file))


def _points_of(grid: Any, n_axes: int) -> Tensor:
    return torch.from_numpy(np.array(grid.points[:, :n_axes], dtype=np.float64))


def _write_series(
    solution: Solution,
    path: Path,
    names: Sequence[str],
    n: int | Mapping[str, int] | None,
    at: Any,
) -> Path:
    """A ``.pvd``, and in the folder beside it a ``.vtu`` for each time."""
    domain = solution.problem.domain
    if TIME not in domain.axes or domain.n_dims < 2:
        raise ValueError(
            f"{path}: a series in time needs the axis {TIME!r} and one of space, the domain has "
            f"{', '.join(domain.axes)}: give a name that ends in .vtu"
        )
    if at is not None:
        raise ValueError(f"{path}: a series in time is of a grid; give at= with .vtu or .npz")
    times = _along(solution, n)[TIME]
    if n is None or (isinstance(n, Mapping) and TIME not in n):
        times = np.linspace(times[0], times[-1], DEFAULT_N[4])
    folder = path.with_suffix("")
    root = ElementTree.Element("VTKFile", type="Collection", version="0.1")
    collection = ElementTree.SubElement(root, "Collection")
    for k, time in enumerate(times.tolist()):
        file = folder / f"{k:04d}.vtu"
        _write_mesh(solution, file, names, n, None, time)
        about = {"timestep": repr(time), "part": "0", "file": f"{folder.name}/{file.name}"}
        ElementTree.SubElement(collection, "DataSet", about)
    ElementTree.indent(root)
    return write_text_atomically(path, ElementTree.tostring(root, encoding="unicode") + "\n")
