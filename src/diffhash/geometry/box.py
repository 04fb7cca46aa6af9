"""Boxes and intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diffhash.geometry.boundary import Piece
from diffhash.geometry.domain import Domain, check_axes, margins, position


@dataclass(frozen=True, init=False, repr=False)
class Box(Domain):
    """The points between (low, high) along each axis.

    Its sides are ``"x-"`` and ``"x+"`` for each axis x. A product of boxes is a box.

    >>> plate = Box(x=(0, 2), y=(0, 1))
    >>> plate.axes, plate.measure
    (('x', 'y'), 2.0)
    >>> wall = plate.boundary("x+")
    >>> wall.measure, wall.normals(wall.sample(2)).tolist()
    (1.0, [[1.0, 0.0], [1.0, 0.0]])
    >>> plate * Interval(t=(0, 1))
    Box(x=(0.0, 2.0), y=(0.0, 1.0), t=(0.0, 1.0))

    Raises:
        ValueError: a side has no finite positive length, or no axis is given.
    """

    axes: tuple[str, ...]
    bounds: tuple[tuple[float, float], ...]

    def __init__(self, **sides: Any) -> None:
        object.__setattr__(self, "axes", check_axes(sides))
        object.__setattr__(self, "bounds", tuple(_side(*item) for item in sides.items()))

    def __repr__(self) -> str:
        return f"Box({', '.join(f'{axis}={side}' for axis, side in self.sides.items())})"

    @property
    def sides(self) -> dict[str, tuple[float, float]]:
        """The pair (low, high) of each axis."""
        return dict(zip(self.axes, self.bounds, strict=True))

    @property
    def measure(self) -> float:
        """The length, area or volume."""
        return math.prod(high - low for low, high in self.bounds)

    def _position(self, x: Tensor) -> Tensor:
        low, high = torch.tensor(self.bounds, dtype=x.dtype, device=x.device).T
        margin = margins(self).to(x)
        closed = ((x >= low - margin) & (x <= high + margin)).all(dim=1)
        return position(closed, ((x > low + margin) & (x < high - margin)).all(dim=1))

    def _pieces(self) -> tuple[Piece, ...]:
        return tuple(Face(self, axis, sign) for axis in self.axes for sign in "-+")


def Interval(**axis: Any) -> Box:
    """The box of one axis.

    >>> Interval(t=(0, 1)).sample(3, rule="grid").flatten().tolist()
    [0.0, 0.5, 1.0]

    Raises:
        ValueError: there is not exactly one axis, or it has no finite positive length.
    """
    if len(axis) != 1:
        raise ValueError(f"Interval({', '.join(axis)}): give one axis; Box takes several")
    return Box(**axis)


def _side(axis: str, side: Any) -> tuple[float, float]:
    try:
        low, high = map(float, side)
        fits = 0 < high - low < math.inf
    except (TypeError, ValueError):
        fits = False
    if not fits:
        raise ValueError(f"{axis}={side!r}: give (low, high) with finite low < high")
    return low, high


@dataclass(eq=False)
class Face(Piece):
    """A side of a box."""

    box: Box
    axis: str
    sign: str

    def __post_init__(self) -> None:
        sides = self.box.sides
        self.column = self.box.axes.index(self.axis)
        self.value = sides.pop(self.axis)[self.sign == "+"]
        self.labels, self.across = (self.axis + self.sign,), (self.axis,)
        self.size = math.prod((high - low for low, high in sides.values()), start=1.0)
        self.unit_dims = len(sides)

    def place(self, unit: Tensor) -> Tensor:
        k = self.column
        points = self.box._place(
            torch.cat([unit[:, :k], unit.new_zeros(len(unit), 1), unit[:, k:]], 1)
        )
        points[:, k] = self.value
        return points

    def nearest(self, x: Tensor) -> tuple[Tensor, Tensor]:
        low, high = torch.tensor(self.box.bounds, dtype=x.dtype, device=x.device).T
        closest = torch.minimum(torch.maximum(x, low), high)
        closest[:, self.column] = self.value
        normal = torch.zeros_like(x)
        normal[:, self.column] = 1.0 if self.sign == "+" else -1.0
        return closest, normal
