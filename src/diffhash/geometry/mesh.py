"""Solid bodies, given by the triangles of their surface."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from os import PathLike
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffhash.geometry.boundary import Piece
from diffhash.geometry.domain import Domain, check_axes, margins


@dataclass(frozen=True, eq=False, repr=False)
class Mesh(Domain):
    """The body within a closed surface of triangles. Its boundary is ``"surface"``.

    The surface must not cross itself, which is not checked; several bodies have a union ``|``.
    Needs trimesh and rtree: ``pip install 'diffhash[geometry]'``.

    >>> import trimesh
    >>> brick = Mesh(trimesh.creation.box(extents=(1, 2, 3)))
    >>> brick.measure, brick.boundary().measure
    (6.0, 22.0)
    >>> brick.contains([[0.5, 0.0, 0.0], [0.6, 0.0, 0.0]]).tolist()
    [True, False]

    Args:
        source: a file that trimesh reads (STL, OBJ, PLY …), or a trimesh mesh.
        axes: the names of the three axes.

    Raises:
        ValueError: the file cannot be read as one mesh, its surface has gaps, or its triangles
            turn in different directions.
    """

    source: Any
    axes: tuple[str, ...] = ("x", "y", "z")
    _mesh: Any = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "axes", check_axes(self.axes, 3))
        object.__setattr__(self, "_mesh", _load(self.source))
        if not isinstance(self.source, str | PathLike):
            object.__setattr__(self, "source", None)

    def __repr__(self) -> str:
        what = f"<{len(self._mesh.faces)} triangles>" if self.source is None else repr(self.source)
        return f"Mesh({what}, axes={self.axes})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mesh) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    @cached_property
    def _key(self) -> tuple[str, tuple[str, ...]]:
        digest = hashlib.sha256(self._mesh.vertices.tobytes() + self._mesh.faces.tobytes())
        return digest.hexdigest(), self.axes

    @property
    def bounds(self) -> tuple[tuple[float, float], ...]:  # pyright: ignore
        """The bounding box, (low, high) along each axis."""
        low, high = self._mesh.bounds.tolist()
        return tuple(zip(low, high, strict=True))

    @property
    def measure(self) -> float:
        """The volume."""
        return float(self._mesh.volume)

    def _position(self, x: Tensor) -> Tensor:
        at = x.cpu().numpy()
        position = np.full(len(at), -1, dtype=np.int8)
        margin = margins(self).max().item()
        low, high = self._mesh.bounds
        [near] = np.nonzero(((at >= low - margin) & (at <= high + margin)).all(axis=1))
        if len(near):
            closest, distance, triangle = self._closest(at[near])
            outward = self._outward(closest, triangle)
            side = np.sign(((closest - at[near]) * outward).sum(axis=1))
            position[near] = np.where(distance <= margin, 0, side)
        return torch.from_numpy(position).to(x.device)

    def _closest(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The closest point of the surface, the distance from it, and its triangle."""
        from trimesh.proximity import closest_point

        if not len(x):
            return x, np.zeros(0), np.zeros(0, dtype=np.int64)
        return closest_point(self._mesh, x)  # pyright: ignore[reportReturnType]

    def _outward(self, at: np.ndarray, triangle: np.ndarray) -> np.ndarray:
        """The pseudonormals n at points p of the surface. A point x whose closest point is p lies
        outside if (x - p)·n is positive.

        Within a triangle it is the normal, on an edge the sum of two normals, and at a corner the
        sum of all normals, weighted by their angles: Bærentzen and Aanæs, Signed distance
        computation using the angle weighted pseudonormal, IEEE TVCG 11 (2005).
        """
        from trimesh.triangles import points_to_barycentric

        mesh = self._mesh
        shares = points_to_barycentric(mesh.triangles[triangle], at)
        zero = shares < 1e-9
        n_zero = zero.sum(axis=1)
        corner = mesh.faces[triangle, shares.argmax(axis=1)]
        edge = self._edge_normals[triangle, zero.argmax(axis=1)]
        choices = [mesh.face_normals[triangle], edge, mesh.vertex_normals[corner]]
        return np.select([(n_zero == k)[:, None] for k in range(3)], choices)

    @cached_property
    def _edge_normals(self) -> np.ndarray:
        """Sums of the two normals at the edge opposite each triangle's corner, ``[T, 3, 3]``."""
        mesh = self._mesh
        edges = np.sort(
            np.stack([mesh.faces[:, [1, 2]], mesh.faces[:, [2, 0]], mesh.faces[:, [0, 1]]], 1)
        )
        _, index = np.unique(edges.reshape(-1, 2), axis=0, return_inverse=True)
        sums = np.zeros((index.max() + 1, 3))
        np.add.at(sums, index.reshape(-1), np.repeat(mesh.face_normals, 3, axis=0))
        return sums[index.reshape(-1)].reshape(-1, 3, 3)

    def _pieces(self) -> tuple[Piece, ...]:
        return (Triangles(self),)


def _load(source: Any) -> Any:
    try:
        import rtree  # noqa: F401  (trimesh imports it when it looks for the nearest triangle)
        import trimesh
    except ImportError as error:
        raise ImportError(
            "Mesh needs trimesh and rtree: pip install 'diffhash[geometry]'"
        ) from error
    if isinstance(source, trimesh.Trimesh):
        mesh = source.copy()
    elif isinstance(source, str | PathLike):
        try:
            mesh = trimesh.load_mesh(source)
        except Exception as error:
            raise ValueError(
                f"source={str(source)!r}: cannot be read as a mesh: {error}"
            ) from error
    else:
        raise ValueError(f"source={source!r}: give a file of triangles or a trimesh mesh")
    if not isinstance(mesh, trimesh.Trimesh) or not len(mesh.faces):
        raise ValueError(f"source={str(source)!r}: holds no triangles")
    mesh.merge_vertices()
    if not mesh.is_watertight:
        raise ValueError(
            f"source={str(source)!r}: the surface is not watertight, so nothing is inside of it; "
            "close its gaps (trimesh.repair.fill_holes closes small ones)"
        )
    if not mesh.is_winding_consistent:
        raise ValueError(
            f"source={str(source)!r}: its triangles turn in different directions, so it has no "
            "outside (trimesh.repair.fix_winding turns them)"
        )
    if mesh.volume < 0:
        mesh.invert()
    return mesh


@dataclass(eq=False)
class Triangles(Piece):
    """The surface of a mesh."""

    mesh: Mesh

    def __post_init__(self) -> None:
        self.labels, self.across = ("surface",), self.mesh.axes
        self.triangles = torch.tensor(np.array(self.mesh._mesh.triangles), dtype=torch.float64)
        self.ends = torch.tensor(np.cumsum(self.mesh._mesh.area_faces), dtype=torch.float64)
        self.size, self.unit_dims = self.ends[-1].item(), 2

    def place(self, unit: Tensor) -> Tensor:
        # The first number chooses the triangle, by area, and the distance from its first corner.
        along = unit[:, 0] * self.size
        k = torch.searchsorted(self.ends, along, right=True).clamp_max(len(self.ends) - 1)
        area = self.ends.diff(prepend=self.ends.new_zeros(1))[k]
        far = torch.sqrt((1 - (self.ends[k] - along) / area).clamp(0, 1))[:, None]
        a, b, c = self.triangles[k].unbind(dim=1)
        across = unit[:, 1:]
        return (1 - far) * a + far * ((1 - across) * b + across * c)

    def nearest(self, x: Tensor) -> tuple[Tensor, Tensor]:
        closest, _, triangle = self.mesh._closest(x.cpu().numpy())
        normal = self.mesh._mesh.face_normals[triangle]
        return torch.from_numpy(closest).to(x), torch.from_numpy(np.array(normal)).to(x)
