"""The base class of domains: axes, bounds, membership, points, boundary, and the set algebra."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from diffhash.geometry.rules import CHUNK, Seed, check_count, draw, integer_seed

if TYPE_CHECKING:
    from diffhash.geometry.boundary import Boundary, Periodic, Piece, Where
    from diffhash.geometry.csg import Difference, Intersection, Union

# A point this close to a boundary is on it, because coordinates have round-off errors: a distance
# relative to the domain's extent, and one in spacings of float64 numbers at the coordinates.
ROUND_OFF = 1e-12
SPACINGS = 4


class Domain(ABC):
    """A closed set of points with named axes.

    Domains of different axes have a product, ``Disc() * Interval(t=(0, 1))``; domains of the same
    axes have a union ``|``, a difference ``-`` and an intersection ``&``. Points are float64,
    ``[n, d]``.

    Attributes:
        axes: the axes' names. The axis ``t`` is time: see `boundary`.
        bounds: (low, high) of the bounding box along each axis.
    """

    axes: tuple[str, ...]
    bounds: tuple[tuple[float, float], ...]

    @property
    def n_dims(self) -> int:
        """The number of axes."""
        return len(self.axes)

    @property
    def measure(self) -> float | None:
        """The length, area or volume if it is known exactly; else None."""
        return None

    def contains(self, x: Any) -> Tensor:
        """Whether each point of ``x [N, d]`` lies in the closed domain, ``[N]``.

        It is computed in float64; points within round-off of the domain are in it.

        Raises:
            ValueError: ``x`` has another shape.
        """
        x = as_points(x, self)
        return torch.cat([self._position(chunk) >= 0 for chunk in x.split(CHUNK)])

    def sample(self, n: int, rule: str = "sobol", seed: Seed = None) -> Tensor:
        """``n`` points of the domain by ``rule``, ``[n, d]`` in float64 on the CPU.

        Args:
            n: the number of points.
            rule: the rule by which points are placed:

                - ``sobol``: members of a Sobol' sequence, scrambled if there is a seed.
                - ``grid``: a lattice with both ends of each axis, and nearly as many points along
                  each axis.
                - ``midpoint``: the centres of such a lattice's cells.
                - ``uniform``: independent points. ``lhs``: a Latin hypercube.
                - ``even``: ``grid`` in one dimension, ``sobol`` in more.
                - ``evaluation``: ``midpoint`` in one dimension, ``sobol`` with the seed 1 in more.

                A rule places points in the bounding box; points outside the domain are left out. Of
                a sequence the first n points in the domain are taken. Of a set (``grid``,
                ``midpoint``, ``lhs``) with m points in the domain, those with the indices
                ⌊j m / n⌋ are taken.
            seed: the same seed gives the same points. None is the plain Sobol' sequence, and the
                seed 0 for ``uniform`` and ``lhs``. A generator gives other points at each call.

        Raises:
            ValueError: ``n``, ``rule`` or ``seed`` is not allowed, or the domain is empty.
        """
        return draw(
            check_count(n), self.n_dims, self._place, self._accepts, rule, integer_seed(seed), self
        )

    def boundary(self, *parts: str | Domain, where: Where | None = None) -> Boundary:
        """The boundary or parts of it, with points and outward normals.

        Args:
            parts: none for the whole boundary except the start and the end of time, which are
                `initial` and `final`. Otherwise names of sides (``"x-"``, ``"x+"``; ``"outer"``,
                ``"holes"``, ``"hole0"`` … of a polygon; ``"surface"`` of a ball or a mesh); axes
                (``"x"`` for both sides across x, ``"x", "y"`` for surfaces across these two); or
                domains of which this domain is composed, for the parts of their boundaries that
                belong to this domain's.
            where: a function of ``x [N, d]`` that returns ``[N]``; only the points of these parts
                where it is true are taken. None for all.

        Raises:
            ValueError: there is no such part.
        """
        from diffhash.geometry.boundary import Boundary

        return Boundary(self, parts, where)

    def initial(self, axis: str = "t") -> Boundary:
        """The points with the least coordinate along ``axis``: the start of time."""
        return self._end(axis, "-")

    def final(self, axis: str = "t") -> Boundary:
        """The points with the greatest coordinate along ``axis``: the end of time."""
        return self._end(axis, "+")

    def periodic(self, axis: str) -> Periodic:
        """Pairs of points on the two opposite sides across ``axis``, for periodic conditions.

        Raises:
            ValueError: ``axis`` is unknown, or the domain has no such sides.
        """
        from diffhash.geometry.boundary import Periodic

        return Periodic(self, axis)

    def _end(self, axis: str, sign: str) -> Boundary:
        if axis not in self.axes:
            raise ValueError(
                f"{self} has no axis {axis!r}: give the one that is time, of {self.axes}"
            )
        return self.boundary(axis + sign)

    # -------------------------------------------------------------------- of each kind of domain
    @abstractmethod
    def _position(self, x: Tensor) -> Tensor:
        """1 where ``x [N, d]`` is inside, 0 on the boundary (to round-off), -1 outside: ``[N]``,
        int8."""

    @abstractmethod
    def _pieces(self) -> tuple[Piece, ...]:
        """The pieces of which the boundary consists."""

    def _place(self, unit: Tensor) -> Tensor:
        """Map points of the unit cube to the bounding box."""
        low, high = torch.tensor(self.bounds, dtype=torch.float64).T
        return low + (high - low) * unit

    def _accepts(self, x: Tensor) -> Tensor:
        return self._position(x) >= 0

    # ------------------------------------------------------------------------------------ algebra
    def __mul__(self, other: Domain) -> Domain:
        """The product: all points whose first coordinates lie in this domain and whose other
        coordinates lie in ``other``."""
        from diffhash.geometry.product import multiply

        return multiply(self, other) if isinstance(other, Domain) else NotImplemented

    def __or__(self, other: Domain) -> Union:
        from diffhash.geometry.csg import Union

        return Union(self, other) if isinstance(other, Domain) else NotImplemented

    def __sub__(self, other: Domain) -> Difference:
        from diffhash.geometry.csg import Difference

        return Difference(self, other) if isinstance(other, Domain) else NotImplemented

    def __and__(self, other: Domain) -> Intersection:
        from diffhash.geometry.csg import Intersection

        return Intersection(self, other) if isinstance(other, Domain) else NotImplemented


def as_points(x: Any, domain: Any) -> Tensor:
    """``x`` as a float64 tensor ``[N, d]`` for the axes of ``domain``.

    Raises:
        ValueError: ``x`` has another shape.
    """
    x = torch.as_tensor(x).detach().double()
    if x.ndim != 2 or x.shape[1] != len(domain.axes):
        raise ValueError(
            f"points of shape {list(x.shape)}: give [N, {len(domain.axes)}], "
            f"a column for each of the axes {domain.axes}"
        )
    return x


def check_axes(axes: Any, n: int | None = None) -> tuple[str, ...]:
    """``axes`` as a tuple of ``n`` different names.

    Raises:
        ValueError: ``axes`` is anything else.
    """
    names = (axes,) if isinstance(axes, str) else tuple(axes)
    fits = all(isinstance(name, str) and name.isidentifier() for name in names)
    if not fits or not names or len(set(names)) < len(names) or n not in (None, len(names)):
        raise ValueError(f"axes={axes!r}: give {n or 'some'} different names, letters as in 'x'")
    return names


def position(closed: Tensor, open: Tensor) -> Tensor:
    """The result of `Domain._position`, from membership of the closed and of the open domain."""
    return closed.to(torch.int8) + open.to(torch.int8) - 1


def extents(domain: Domain) -> Tensor:
    """The lengths high - low of the bounding box, ``[d]``."""
    low, high = torch.tensor(domain.bounds, dtype=torch.float64).T
    return high - low


def margins(domain: Domain) -> Tensor:
    """The largest distance along each axis at which a point counts as on a boundary, ``[d]``."""
    largest = torch.tensor(domain.bounds, dtype=torch.float64).abs().amax(dim=1)
    return ROUND_OFF * extents(domain) + SPACINGS * torch.finfo(torch.float64).eps * largest


def around(x: Tensor, distance: Tensor) -> Tensor:
    """64 points around each of ``x [N, d]`` at ``distance [d]``, ``[N · 64, d]``.

    The directions are neither along an axis nor a diagonal, where other boundaries often are.
    """
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(64, x.shape[1], dtype=torch.float64, generator=generator)
    directions = torch.nn.functional.normalize(directions, dim=1) * distance
    return (x[:, None] + directions.to(x)).reshape(-1, x.shape[1])
