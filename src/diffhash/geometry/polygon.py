"""Polygons with holes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffhash.geometry.boundary import Piece
from diffhash.geometry.domain import Domain, check_axes, margins

Points = tuple[tuple[float, float], ...]


@dataclass(frozen=True, repr=False)
class Polygon(Domain):
    """The points within a ring of straight edges and outside of the rings of its holes.

    The parts of its boundary are ``"outer"``, ``"hole0"``, ``"hole1"`` … and ``"holes"`` for all
    holes.
    Needs shapely: ``pip install 'diffhash[geometry]'``.

    >>> square = [(0, 0), (4, 0), (4, 4), (0, 4)]
    >>> frame = Polygon(square, holes=[[(1, 1), (3, 1), (3, 3), (1, 3)]])
    >>> frame.measure, frame.boundary("holes").measure
    (12.0, 8.0)
    >>> frame.boundary().normals([[1.0, 2.0]]).tolist()
    [[1.0, 0.0]]

    Args:
        points: the corners ``(x, y)`` in either direction, or a shapely polygon.
        holes: the corners of each hole.
        axes: the names of the two axes.

    Raises:
        ValueError: there are fewer than three corners, one is not finite, an edge crosses another,
            or a hole is not inside.
    """

    points: Any
    holes: Any = ()
    axes: tuple[str, ...] = ("x", "y")

    def __post_init__(self) -> None:
        points, holes = self.points, self.holes
        if hasattr(points, "geom_type"):
            if points.geom_type != "Polygon" or len(holes):
                raise ValueError(
                    f"points is a shapely {points.geom_type} with holes={holes!r}: give a Polygon "
                    "with holes of its own; several polygons unite by |"
                )
            points, holes = points.exterior.coords, [ring.coords for ring in points.interiors]
        rings = {
            "points": _ring("points", points, turn=1),
            "holes": tuple(_ring(f"holes[{k}]", hole, turn=-1) for k, hole in enumerate(holes)),
            "axes": check_axes(self.axes, 2),
        }
        for name, value in rings.items():
            object.__setattr__(self, name, value)
        if not self._shape.is_valid:
            why = shapely().is_valid_reason(self._shape)
            raise ValueError(f"{self}: {why}; edges must not cross, and holes lie inside")

    def __repr__(self) -> str:
        n = sum(map(len, (self.points, *self.holes)))
        if n > 12:
            return f"Polygon(<{n} corners, {len(self.holes)} holes>, axes={self.axes})"
        return f"Polygon(points={self.points}, holes={self.holes}, axes={self.axes})"

    @cached_property
    def _shape(self) -> Any:
        shape = shapely().Polygon(self.points, self.holes)
        shapely().prepare(shape)
        return shape

    @cached_property
    def _edges(self) -> Any:
        edges = self._shape.boundary
        shapely().prepare(edges)
        return edges

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("points", "holes", "axes")}

    @property
    def bounds(self) -> tuple[tuple[float, float], ...]:  # pyright: ignore
        """The bounding box, (low, high) along each axis."""
        return tuple((min(column), max(column)) for column in zip(*self.points, strict=True))

    @property
    def measure(self) -> float:
        """The area."""
        return _area(self.points) + sum(map(_area, self.holes))

    def _position(self, x: Tensor) -> Tensor:
        at = x.cpu().numpy()
        inside = shapely().contains_xy(self._shape, at)
        margin = margins(self).max().item()
        near = shapely().dwithin(self._edges, shapely().points(at), margin)
        return torch.from_numpy(np.where(near, 0, np.where(inside, 1, -1)).astype(np.int8)).to(
            x.device
        )

    def _pieces(self) -> tuple[Piece, ...]:
        holes = [Ring(hole, (f"hole{k}", "holes"), self.axes) for k, hole in enumerate(self.holes)]
        return (Ring(self.points, ("outer",), self.axes), *holes)


def shapely() -> Any:
    """Import the package shapely.

    Raises:
        ImportError: it is not installed.
    """
    try:
        import shapely
    except ImportError as error:
        raise ImportError("Polygon needs shapely: pip install 'diffhash[geometry]'") from error
    return shapely


def _area(ring: Points) -> float:
    """Half the sum of x_k y_(k+1) - x_(k+1) y_k: positive where the ring turns left."""
    (x0, y0), following = ring[0], (*ring[1:], ring[0])
    corners = [
        ((x - x0, y - y0), (u - x0, v - y0)) for (x, y), (u, v) in zip(ring, following, strict=True)
    ]
    return 0.5 * math.fsum(x * v - u * y for (x, y), (u, v) in corners)


def _ring(name: str, points: Any, turn: int) -> Points:
    try:
        ring = [(float(x), float(y)) for x, y in points]
    except (TypeError, ValueError):
        raise ValueError(f"{name}={points!r}: give corners (x, y)") from None
    ring = [point for k, point in enumerate(ring) if point != ring[k - 1]]
    if len(ring) < 3 or not all(math.isfinite(c) for point in ring for c in point):
        raise ValueError(f"{name}={ring}: give three or more different corners, all finite")
    return tuple(ring if _area(tuple(ring)) * turn > 0 else reversed(ring))


@dataclass(eq=False)
class Ring(Piece):
    """A closed line of straight edges with the domain on its left."""

    corners: Sequence[tuple[float, float]]
    labels: tuple[str | Domain, ...]
    across: tuple[str, ...]

    def __post_init__(self) -> None:
        self.start = torch.tensor(self.corners, dtype=torch.float64)
        self.edge = self.start.roll(-1, dims=0) - self.start
        length = torch.linalg.vector_norm(self.edge, dim=1)
        self.ends = length.cumsum(dim=0)
        self.normal = torch.stack([self.edge[:, 1], -self.edge[:, 0]], dim=1) / length[:, None]
        self.normal += 0.0  # no -0
        self.size, self.unit_dims = self.ends[-1].item(), 1

    def place(self, unit: Tensor) -> Tensor:
        along = unit[:, 0] * self.size
        k = torch.searchsorted(self.ends, along, right=True).clamp_max(len(self.ends) - 1)
        length = torch.linalg.vector_norm(self.edge[k], dim=1)
        share = 1 - (self.ends[k] - along) / length
        return self.start[k] + share.clamp(0, 1)[:, None] * self.edge[k]

    def nearest(self, x: Tensor) -> tuple[Tensor, Tensor]:
        parts = [self._nearest(part) for part in x.split(max(1, 2**20 // len(self.edge)))]
        closest, k = (torch.cat(column) for column in zip(*parts, strict=True))
        return closest, self.normal.to(x)[k]

    def _nearest(self, x: Tensor) -> tuple[Tensor, Tensor]:
        start, edge = self.start.to(x), self.edge.to(x)
        share = ((x[:, None] - start) * edge).sum(dim=2) / (edge * edge).sum(dim=1)
        closest = start + share.clamp(0, 1)[..., None] * edge
        k = torch.linalg.vector_norm(x[:, None] - closest, dim=2).argmin(dim=1)
        return closest[torch.arange(len(x), device=x.device), k], k
