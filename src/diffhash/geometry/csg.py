"""Unions, differences and intersections of domains, and the interface between two."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from diffhash.geometry.boundary import Part, Piece, Surface
from diffhash.geometry.domain import Domain, around, margins, position

# The distance from a boundary at which membership is tested, in margins of round-off.
STEP = 1000


@dataclass(frozen=True, repr=False)
class Combination(Domain):
    """Two domains of the same axes, combined.

    Raises:
        ValueError: the axes differ.
    """

    first: Domain
    second: Domain
    axes: tuple[str, ...] = field(init=False, compare=False)
    bounds: tuple[tuple[float, float], ...] = field(init=False, compare=False)

    symbol: ClassVar[str]

    def __post_init__(self) -> None:
        if self.first.axes != self.second.axes:
            raise ValueError(
                f"{self}: the axes {self.first.axes} and {self.second.axes} differ: "
                "combine domains of the same axes in the same order"
            )
        object.__setattr__(self, "axes", self.first.axes)
        object.__setattr__(self, "bounds", self._bounds())

    def __repr__(self) -> str:
        return f"({self.first!r} {self.symbol} {self.second!r})"

    def _bounds(self) -> tuple[tuple[float, float], ...]:
        return self.first.bounds

    @staticmethod
    @abstractmethod
    def _combine(first: Tensor, second: Tensor) -> Tensor:
        """The position in this domain, from the positions in the two domains."""

    def _position(self, x: Tensor) -> Tensor:
        first, second = self.first._position(x), self.second._position(x)
        combined = self._combine(first, second)
        # On the boundaries of both domains, nearby points decide: two adjacent boxes have no
        # boundary between them, and a box minus its half has no other side of that half.
        [both] = torch.nonzero((first == 0) & (second == 0), as_tuple=True)
        if len(both):
            near = around(x[both], STEP * margins(self))
            inside = self._combine(self.first._position(near), self.second._position(near)) > 0
            inside = inside.reshape(len(both), -1)
            combined[both] = position(inside.any(dim=1), inside.all(dim=1))
        return combined

    def _cut(self, own: Sides, others: Sides, flip: bool = False) -> tuple[Piece, ...]:
        """The pieces of the first domain, then those of the second, each cut by the other
        domain."""
        first, second = self.first, self.second
        return (
            *(Cut(piece, first, second, own) for piece in first._pieces()),
            *(Cut(piece, second, first, others, flip) for piece in second._pieces()),
        )


# The conditions under which a point of one domain's boundary is on the combination's boundary:
# {+1: whether a point just outside must be in the other domain, -1: likewise just inside}. Where
# two boundaries coincide, pieces of the first are used; pieces of the second have both conditions.
Sides = dict[int, bool]


class Union(Combination):
    """All points that are in one or both of the two domains.

    >>> from diffhash.geometry import Box
    >>> ell = Box(x=(0, 2), y=(0, 1)) | Box(x=(0, 1), y=(0, 2))
    >>> ell.contains([[1.5, 0.5], [1.5, 1.5]]).tolist()
    [True, False]
    """

    symbol = "|"

    def _bounds(self) -> tuple[tuple[float, float], ...]:
        pairs = zip(self.first.bounds, self.second.bounds, strict=True)
        return tuple((min(a[0], b[0]), max(a[1], b[1])) for a, b in pairs)

    @staticmethod
    def _combine(first: Tensor, second: Tensor) -> Tensor:
        return torch.maximum(first, second)

    def _pieces(self) -> tuple[Piece, ...]:
        return self._cut({+1: False}, {+1: False, -1: False})


class Difference(Combination):
    """All points of the first domain that are not inside the second, whose boundary is included.

    >>> from diffhash.geometry import Box, Disc
    >>> hole = Disc(center=(0.5, 0.5), radius=0.25)
    >>> plate = Box(x=(0, 1), y=(0, 1)) - hole
    >>> edge = plate.boundary(hole)
    >>> edge.normals([[0.75, 0.5]]).tolist()
    [[-1.0, 0.0]]
    """

    symbol = "-"

    @staticmethod
    def _combine(first: Tensor, second: Tensor) -> Tensor:
        return torch.minimum(first, -second)

    def _pieces(self) -> tuple[Piece, ...]:
        return self._cut({-1: False}, {+1: True, -1: True}, flip=True)


class Intersection(Combination):
    """All points that are in both domains.

    Raises:
        ValueError: the two bounding boxes do not overlap.
    """

    symbol = "&"

    def _bounds(self) -> tuple[tuple[float, float], ...]:
        pairs = zip(self.first.bounds, self.second.bounds, strict=True)
        bounds = tuple((max(a[0], b[0]), min(a[1], b[1])) for a, b in pairs)
        if any(low >= high for low, high in bounds):
            raise ValueError(f"{self} is empty: the bounding boxes do not overlap")
        return bounds

    @staticmethod
    def _combine(first: Tensor, second: Tensor) -> Tensor:
        return torch.minimum(first, second)

    def _pieces(self) -> tuple[Piece, ...]:
        return self._cut({-1: True}, {+1: True, -1: True})


@dataclass(eq=False)
class Cut(Part):
    """The part of a piece of ``own``'s boundary that is on a combination's boundary."""

    own: Domain
    other: Domain
    sides: Sides
    flip: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.labels = (*self.piece.labels, self.own)

    def nearest(self, x: Tensor) -> tuple[Tensor, Tensor]:
        closest, normal = self.piece.nearest(x)
        return closest, 0.0 - normal if self.flip else normal

    def accepts(self, x: Tensor) -> Tensor:
        accepted = self.piece.accepts(x)
        step = STEP * margins(self.own).to(x) * self.piece.nearest(x)[1]
        for side, inside in self.sides.items():
            accepted &= (self.other._position(x + side * step) >= 0) == inside
        return accepted


@dataclass(frozen=True)
class Interface(Surface):
    """The boundary that two domains share; its normals point from the first to the second.

    >>> from diffhash.geometry import Box
    >>> left, right = Box(x=(0, 1), y=(0, 1)), Box(x=(1, 2), y=(0, 3))
    >>> between = Interface(left, right)
    >>> between.normals(between.sample(1)).tolist()
    [[1.0, 0.0]]

    Raises:
        ValueError: the two are no domains, their axes differ, or they do not touch.
    """

    first: Domain
    second: Domain

    def __post_init__(self) -> None:
        for domain in (self.first, self.second):
            if not isinstance(domain, Domain):
                raise ValueError(f"Interface of {domain!r}: give two domains, as Box and Disc")
        if self.first.axes != self.second.axes:
            raise ValueError(f"{self}: the axes {self.first.axes} and {self.second.axes} differ")
        _ = self._weighted  # an empty interface is an error at once

    @property
    def domain(self) -> Domain:  # pyright: ignore
        """The first of the two domains."""
        return self.first

    @cached_property
    def _pieces(self) -> tuple[Piece, ...]:
        # Points just outside of the first domain are in the second, points just inside are not.
        sides = {+1: True, -1: False}
        return tuple(Cut(piece, self.first, self.second, sides) for piece in self.first._pieces())
