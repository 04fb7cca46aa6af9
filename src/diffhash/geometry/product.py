"""Products of domains: a body over an interval of time."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from diffhash.geometry.boundary import Piece
from diffhash.geometry.box import Box
from diffhash.geometry.domain import Domain, check_axes


def multiply(first: Domain, second: Domain) -> Domain:
    """The product of two domains, which is a box for two boxes."""
    if isinstance(first, Box) and isinstance(second, Box):
        check_axes(first.axes + second.axes)
        return Box(**first.sides, **second.sides)
    return Product(first, second)


@dataclass(frozen=True, repr=False)
class Product(Domain):
    """All points whose first coordinates lie in ``first`` and whose others lie in ``second``.

    Its boundary is the boundary of each domain times the other domain; parts keep their names.

    >>> from diffhash.geometry import Disc, Interval
    >>> pipe = Disc() * Interval(t=(0, 2))
    >>> pipe.axes
    ('x', 'y', 't')
    >>> pipe.boundary()
    (Ball(center=(0.0, 0.0), radius=1.0, axes=('x', 'y')) * Box(t=(0.0, 2.0))).boundary()
    >>> pipe.initial().measure == Disc().measure
    True

    Raises:
        ValueError: both domains have an axis of the same name.
    """

    first: Domain
    second: Domain
    axes: tuple[str, ...] = field(init=False, compare=False)
    bounds: tuple[tuple[float, float], ...] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        axes = check_axes(self.first.axes + self.second.axes)
        object.__setattr__(self, "axes", axes)
        object.__setattr__(self, "bounds", self.first.bounds + self.second.bounds)

    def __repr__(self) -> str:
        return f"({self.first!r} * {self.second!r})"

    @property
    def measure(self) -> float | None:
        """The product of the two measures, if both are known."""
        first, second = self.first.measure, self.second.measure
        return None if first is None or second is None else first * second

    def _position(self, x: Tensor) -> Tensor:
        n = self.first.n_dims
        return torch.minimum(self.first._position(x[:, :n]), self.second._position(x[:, n:]))

    def _pieces(self) -> tuple[Piece, ...]:
        walls = [Extruded(piece, self.first, self.second, True) for piece in self.first._pieces()]
        ends = [Extruded(piece, self.second, self.first, False) for piece in self.second._pieces()]
        return (*walls, *ends)


@dataclass(eq=False)
class Extruded(Piece):
    """A piece of the boundary of ``own``, times ``other``."""

    piece: Piece
    own: Domain
    other: Domain
    comes_first: bool

    def __post_init__(self) -> None:
        self.labels, self.across = (*self.piece.labels, self.own), self.piece.across
        self.size = self.piece.size * math.prod(high - low for low, high in self.other.bounds)
        self.unit_dims = self.piece.unit_dims + self.other.n_dims

    @property
    def measure(self) -> float | None:
        own, other = self.piece.measure, self.other.measure
        return None if own is None or other is None else own * other

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The columns of ``x`` for the axes of the piece, and the other columns."""
        if self.comes_first:
            return x[:, : self.own.n_dims], x[:, self.own.n_dims :]
        return x[:, self.other.n_dims :], x[:, : self.other.n_dims]

    def _join(self, own: Tensor, other: Tensor) -> Tensor:
        return torch.cat([own, other] if self.comes_first else [other, own], dim=1)

    def place(self, unit: Tensor) -> Tensor:
        n = self.piece.unit_dims
        return self._join(self.piece.place(unit[:, :n]), self.other._place(unit[:, n:]))

    def nearest(self, x: Tensor) -> tuple[Tensor, Tensor]:
        own, other = self._split(x)
        closest, normal = self.piece.nearest(own)
        return self._join(closest, other), self._join(normal, torch.zeros_like(other))

    def accepts(self, x: Tensor) -> Tensor:
        own, other = self._split(x)
        return self.piece.accepts(own) & (self.other._position(other) >= 0)
