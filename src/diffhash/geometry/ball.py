"""Discs and balls."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diffhash.geometry.boundary import Piece
from diffhash.geometry.domain import Domain, check_axes, margins, position


@dataclass(frozen=True)
class Ball(Domain):
    """The points at most ``radius`` from ``center``, in two axes or more.

    Its boundary is ``"surface"``.

    >>> Ball(center=(0, 0, 0), radius=2).boundary().measure / math.pi
    16.0

    Raises:
        ValueError: the radius is not finite and positive, or the axes are not those of the center.
    """

    center: Sequence[float] = (0.0, 0.0, 0.0)
    radius: float = 1.0
    axes: tuple[str, ...] = ("x", "y", "z")

    def __post_init__(self) -> None:
        try:
            center, radius = tuple(map(float, self.center)), float(self.radius)
            fits = len(center) > 1 and all(map(math.isfinite, center)) and 0 < radius < math.inf
        except (TypeError, ValueError):
            fits, center, radius = False, (), 0.0
        if not fits:
            raise ValueError(
                f"center={self.center!r}, radius={self.radius!r}: give two or more finite "
                "coordinates and a finite radius above 0"
            )
        axes = check_axes(self.axes)
        if len(axes) != len(center):
            raise ValueError(
                f"center={self.center!r}, axes={axes}: give a coordinate for each axis"
            )
        for name, value in {"center": center, "radius": radius, "axes": axes}.items():
            object.__setattr__(self, name, value)

    @property
    def bounds(self) -> tuple[tuple[float, float], ...]:  # pyright: ignore
        """The bounding box, (low, high) along each axis."""
        return tuple((c - self.radius, c + self.radius) for c in self.center)

    @property
    def measure(self) -> float:
        """The area or volume."""
        n = self.n_dims
        return math.pi ** (n / 2) / math.gamma(n / 2 + 1) * self.radius**n

    def _from_center(self, x: Tensor) -> Tensor:
        return x - torch.tensor(self.center, dtype=x.dtype, device=x.device)

    def _position(self, x: Tensor) -> Tensor:
        distance = torch.linalg.vector_norm(self._from_center(x), dim=1) / self.radius
        margin = margins(self).max().item() / self.radius
        return position(distance <= 1 + margin, distance < 1 - margin)

    def _pieces(self) -> tuple[Piece, ...]:
        return (Sphere(self),)


def Disc(center: Any = (0.0, 0.0), radius: float = 1.0, axes: Any = ("x", "y")) -> Ball:
    """The ball in two axes.

    >>> hole = Disc(center=(0.5, 0.5), radius=0.25)
    >>> hole.contains([[0.5, 0.7], [0.5, 0.8]]).tolist()
    [True, False]

    Raises:
        ValueError: the center or the axes are not two, or the radius is not finite and positive.
    """
    if len(check_axes(axes)) != 2:
        raise ValueError(f"axes={axes!r}: a disc has two; Ball takes more")
    return Ball(center, radius, axes)


@dataclass(eq=False)
class Sphere(Piece):
    """The surface of a ball."""

    ball: Ball

    def __post_init__(self) -> None:
        ball = self.ball
        self.labels, self.across = ("surface",), ball.axes
        self.size = ball.measure * ball.n_dims / ball.radius
        self.unit_dims = ball.n_dims - 1

    def place(self, unit: Tensor) -> Tensor:
        center = torch.tensor(self.ball.center, dtype=unit.dtype)
        return center + self.ball.radius * _directions(unit)

    def nearest(self, x: Tensor) -> tuple[Tensor, Tensor]:
        offset = self.ball._from_center(x)
        offset[(offset == 0).all(dim=1), 0] = 1.0  # all of the sphere is as close to the center
        normal = torch.nn.functional.normalize(offset, dim=1, eps=1e-300)
        center = torch.tensor(self.ball.center, dtype=x.dtype, device=x.device)
        return center + self.ball.radius * normal, normal


def _directions(unit: Tensor) -> Tensor:
    """Unit vectors ``[m, d]``, uniform on the sphere if ``unit [m, d - 1]`` is uniform.

    In the plane from the angle; in space with Archimedes' z = 1 - 2u. With more axes the last two
    coordinates have the squared length 1 - s, where s^((d-2)/2) is uniform, and the others have the
    direction of a unit vector in d - 2 axes.
    """
    *lower, angle = unit.unbind(dim=1)
    circle = torch.stack([torch.cos(2 * math.pi * angle), torch.sin(2 * math.pi * angle)], dim=1)
    if not lower:
        return circle
    if len(lower) == 1:
        z = 1 - 2 * lower[0]
        return torch.cat([circle * torch.sqrt(1 - z * z)[:, None], z[:, None]], dim=1)
    s = lower[-1][:, None] ** (2 / (unit.shape[1] - 1))
    return torch.cat([torch.sqrt(s) * _directions(unit[:, :-2]), torch.sqrt(1 - s) * circle], dim=1)
