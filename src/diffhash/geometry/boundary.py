"""The boundary of a domain: pieces from which points are drawn, with outward normals."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from diffhash.geometry.domain import Domain, around, as_points, extents
from diffhash.geometry.rules import (
    CHUNK,
    Seed,
    apportion,
    check_count,
    check_rule,
    draw,
    integer_seed,
)

Where = Callable[[Tensor], Tensor]
# The largest distance from a boundary, relative to the domain's extent, at which a point has the
# boundary's normal, because points may have been rounded to float32.
TOLERANCE = 1e-6
# The number of points by which the remaining fraction of a cut piece is estimated.
SHARE_POINTS = 2**12


class Piece(ABC):
    """A set of one dimension less than its domain, with a map from the unit cube to its points.

    Attributes:
        labels: the names and the domains by which `Domain.boundary` chooses it.
        across: the axes along which its normals may have components.
        size: the measure of the map's image: length, area …; 1 for a point.
        measure: the measure of the image's points that `accepts` accepts, if known exactly.
        unit_dims: the dimension of the unit cube.
    """

    labels: tuple[str | Domain, ...]
    across: tuple[str, ...]
    size: float
    unit_dims: int

    @property
    def measure(self) -> float | None:
        return self.size

    @abstractmethod
    def place(self, unit: Tensor) -> Tensor:
        """Map ``[m, unit_dims]`` in the unit cube to points ``[m, d]``, uniformly in measure."""

    @abstractmethod
    def nearest(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The point of the map's image that is closest to each of ``x [N, d]``, and the normal
        there."""

    def accepts(self, x: Tensor) -> Tensor:
        """Whether each point of the image is in the piece, ``[N]``; all do if it is not cut."""
        return torch.ones(len(x), dtype=torch.bool, device=x.device)


class Surface(ABC):
    """Points on the boundary of a domain, with unit normals.

    Attributes:
        domain: the domain of the boundary; normals point out of it.
    """

    domain: Domain

    @cached_property
    @abstractmethod
    def _pieces(self) -> tuple[Piece, ...]: ...

    @property
    def axes(self) -> tuple[str, ...]:
        """The axes' names."""
        return self.domain.axes

    @property
    def bounds(self) -> tuple[tuple[float, float], ...]:
        """The bounds of the domain, (low, high) along each axis."""
        return self.domain.bounds

    @property
    def n_dims(self) -> int:
        """The number of axes."""
        return len(self.axes)

    @property
    def measure(self) -> float | None:
        """The number of points, length or area if it is known exactly; else None."""
        parts = [piece.measure for piece in self._pieces]
        return None if None in parts else float(sum(part for part in parts if part is not None))

    def sample(self, n: int, rule: str = "sobol", seed: Seed = None) -> Tensor:
        """``n`` points by ``rule``, ``[n, d]``: see `Domain.sample`.

        Each piece of the boundary gets points in proportion to its measure. No point is a corner,
        which would belong to two sides: ``grid`` takes the centres of a lattice's cells, and
        ``sobol`` is scrambled even without a seed. In one dimension the boundary consists of single
        points, each of which is returned once, whatever ``n`` is.

        Raises:
            ValueError: ``n``, ``rule`` or ``seed`` is not allowed, or this part is empty.
        """
        check_count(n)
        check_rule(rule)
        if rule == "grid" or (rule == "even" and self.n_dims == 2):
            rule = "midpoint"
        first = integer_seed(seed) or 0
        pieces, weights = self._weighted
        if self.n_dims == 1:
            return torch.cat([_point(piece) for piece in pieces])
        generator = torch.Generator().manual_seed(first)
        points = []
        for piece, count in zip(pieces, apportion(n, weights), strict=True):
            own = integer_seed(generator)
            if count:
                points.append(
                    draw(count, piece.unit_dims, piece.place, piece.accepts, rule, own, self)
                )
        return torch.cat(points)

    def sides_with_few(self, n: int) -> dict[str, int]:
        """The named sides that get fewer than 8 of ``n`` points and less than 1 %, with the numbers
        of points."""
        if self.n_dims == 1:  # each point is a side
            return {}
        pieces, weights = self._weighted
        counts: Counter[str] = Counter()
        for piece, count in zip(pieces, apportion(n, weights), strict=True):
            counts[next((name for name in piece.labels if isinstance(name, str)), "")] += count
        return {name: count for name, count in counts.items() if count < min(8, n / 100)}

    def normals(self, x: Any) -> Tensor:
        """The outward unit normals at points ``x [N, d]`` of this boundary, ``[N, d]`` in float64.

        At a wall in space the component along time is 0. At a corner it is the normal of the first
        of the sides that meet there.

        Raises:
            ValueError: a point is farther from this boundary than 10⁻⁶ of the domain's extent.
        """
        x = as_points(x, self)
        return torch.cat([self._normals(chunk) for chunk in x.split(CHUNK)])

    def _normals(self, x: Tensor) -> Tensor:
        best = torch.full((len(x),), torch.inf, dtype=x.dtype, device=x.device)
        normals = torch.zeros_like(x)
        for piece in self._pieces:
            closest, normal = piece.nearest(x)
            across = [self.axes.index(axis) for axis in piece.across]
            distance = torch.linalg.vector_norm(x - closest, dim=1)
            distance /= extents(self.domain)[across].max().item()
            [on] = torch.nonzero(distance <= TOLERANCE, as_tuple=True)
            distance[on] += self._beside(piece, closest[on])
            closer = (distance < best) & (distance <= 2 * TOLERANCE)
            best = torch.where(closer, distance, best)
            normals = torch.where(closer[:, None], normal, normals)
        if best.isinf().any():
            k = int(best.argmax())
            raise ValueError(f"the point {x[k].tolist()} is not on {self}: it has no normal there")
        return normals

    def _beside(self, piece: Piece, x: Tensor) -> Tensor:
        """0 where the piece accepts ``x``, the tolerance close to accepted points, ∞ elsewhere.

        The tolerance is needed because round-off decides whether a point at the end of a piece is
        accepted.
        """
        beside = torch.zeros(len(x), dtype=x.dtype, device=x.device)
        [cut] = torch.nonzero(~piece.accepts(x), as_tuple=True)
        if len(cut):
            near, _ = piece.nearest(around(x[cut], TOLERANCE * extents(self.domain)))
            near = piece.accepts(near).reshape(len(cut), -1).any(dim=1)
            beside[cut] = torch.where(near, TOLERANCE, torch.inf).to(x)
        return beside

    @cached_property
    def _weighted(self) -> tuple[list[Piece], list[float]]:
        """The pieces that are not empty, and their measures, which are estimates for cut pieces."""
        weights = [_weight(piece) for piece in self._pieces]
        kept = [(piece, w) for piece, w in zip(self._pieces, weights, strict=True) if w > 0]
        if not kept:
            raise ValueError(f"{self} is empty: no point of the boundary lies there")
        return [piece for piece, _ in kept], [weight for _, weight in kept]


def _point(piece: Piece) -> Tensor:
    return piece.place(torch.empty(1, 0, dtype=torch.float64))


def _weight(piece: Piece) -> float:
    if piece.measure is not None:
        return piece.measure
    if piece.unit_dims == 0:
        return piece.size * float(piece.accepts(_point(piece)).double())
    unit = torch.quasirandom.SobolEngine(piece.unit_dims, scramble=True, seed=0)
    points = piece.place(unit.draw(SHARE_POINTS, dtype=torch.float64))
    return piece.size * piece.accepts(points).double().mean().item()


@dataclass(eq=False)
class Part(Piece):
    """A part of another piece: the points that `accepts` accepts."""

    piece: Piece

    def __post_init__(self) -> None:
        self.labels, self.across = self.piece.labels, self.piece.across
        self.size, self.unit_dims = self.piece.size, self.piece.unit_dims

    @property
    def measure(self) -> None:
        return None

    def place(self, unit: Tensor) -> Tensor:
        return self.piece.place(unit)

    def nearest(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.piece.nearest(x)


@dataclass(eq=False)
class Restricted(Part):
    """The points of a piece where a given function is true."""

    where: Where

    def accepts(self, x: Tensor) -> Tensor:
        mask = self.where(x)
        fits = isinstance(mask, Tensor) and mask.dtype == torch.bool
        if not fits or mask.shape not in ((len(x),), (len(x), 1)):
            got = f"{mask.dtype} {list(mask.shape)}" if isinstance(mask, Tensor) else type(mask)
            raise ValueError(f"where: {got} at {len(x)} points: give booleans, [{len(x)}]")
        return self.piece.accepts(x) & mask.reshape(len(x))


@dataclass(frozen=True)
class Boundary(Surface):
    """The boundary of a domain or a part of it: `Domain.boundary` makes it."""

    domain: Domain
    parts: tuple[str | Domain, ...] = ()
    where: Where | None = None

    def __post_init__(self) -> None:
        _ = self._pieces  # an unknown part is an error at once

    def __repr__(self) -> str:
        inside = [repr(part) for part in self.parts]
        if self.where is not None:
            inside.append(f"where={getattr(self.where, '__name__', self.where)}")
        return f"{self.domain!r}.boundary({', '.join(inside)})"

    @cached_property
    def _pieces(self) -> tuple[Piece, ...]:
        pieces = self._chosen(self.domain._pieces())
        if self.where is None:
            return pieces
        return tuple(Restricted(piece, self.where) for piece in pieces)

    def _chosen(self, pieces: tuple[Piece, ...]) -> tuple[Piece, ...]:
        if not self.parts:
            return tuple(piece for piece in pieces if piece.across != ("t",)) or pieces
        axes = {part for part in self.parts if part in self.domain.axes}
        used: set[int] = set()
        chosen = []
        for piece in pieces:
            of_axes = set(piece.across) <= axes
            matched = [
                k
                for k, part in enumerate(self.parts)
                if part in piece.labels or (of_axes and part in piece.across)
            ]
            used.update(matched)
            if matched:
                chosen.append(piece)
        for k, part in enumerate(self.parts):
            if k not in used:
                raise ValueError(
                    f"boundary({part!r}): the parts of {self.domain} are {known(pieces)}"
                )
        return tuple(chosen)


def known(pieces: tuple[Piece, ...]) -> str:
    """The names of the boundary's parts, for an error message."""
    names = [repr(label) for piece in pieces for label in piece.labels if isinstance(label, str)]
    groups = [", ".join(map(repr, piece.across)) for piece in pieces]
    groups = [f"all of {group} together" if ", " in group else group for group in groups]
    parts = ", ".join(dict.fromkeys([*names, *groups]))
    others = any(not isinstance(label, str) for piece in pieces for label in piece.labels)
    return parts + ", and the domains of which it is composed" * others


@dataclass(frozen=True)
class Periodic:
    """Pairs of points on two opposite sides of a domain: `Domain.periodic` makes it."""

    domain: Domain
    axis: str

    def __post_init__(self) -> None:
        if self.axis not in self.domain.axes:
            raise ValueError(f"periodic({self.axis!r}): give one of the axes {self.domain.axes}")
        for sign in "-+":
            self.domain.boundary(self.axis + sign)

    def __repr__(self) -> str:
        return f"{self.domain!r}.periodic({self.axis!r})"

    @property
    def axes(self) -> tuple[str, ...]:
        """The axes' names."""
        return self.domain.axes

    def sample(self, n: int, rule: str = "sobol", seed: Seed = None) -> tuple[Tensor, Tensor]:
        """``n`` pairs: points of the low side and the opposite points of the high side, ``[n, d]``
        each.

        Raises:
            ValueError: as in `Surface.sample`, or the two sides have different shapes.
        """
        low = self.domain.boundary(self.axis + "-").sample(n, rule, seed)
        high = low.clone()
        column = self.domain.axes.index(self.axis)
        high[:, column] = self.domain.bounds[column][1]
        opposite = self.domain.boundary(self.axis + "+")
        if not torch.stack([piece.accepts(high) for piece in opposite._pieces]).any(dim=0).all():
            raise ValueError(
                f"{self}: its two sides are not alike, so there are no pairs of points"
            )
        return low, high
