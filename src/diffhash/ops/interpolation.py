"""Interpolations as tables of polynomial coefficients.

On one grid cell an interpolation is a set of weights, one per tap (vertex),

    B_k(t) = Σ_m coefficients[k][m] · t^m,        t ∈ [0, 1),  k = 0 … taps - 1,

where tap k sits at vertex ``cell + first_tap + k``. Its derivatives are the same table,
differentiated. Adding an interpolation means adding a table to `INTERPOLATIONS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import comb, perm

from torch import Tensor

Polynomial = tuple[Fraction, ...]  # ascending powers of t


@dataclass(frozen=True)
class Interpolation:
    """Weights of one interpolation along one axis.

    Attributes:
        name: what users write, e.g. ``"cubic"``.
        coefficients: exact ``[taps][degree + 1]`` table, ascending powers of t.
        first_tap: vertex of the first tap, relative to the cell that holds the point.
        continuity: the interpolant is C^continuity across cell faces.
    """

    name: str
    coefficients: tuple[Polynomial, ...]
    first_tap: int
    continuity: int

    @property
    def taps(self) -> int:
        """Vertices that contribute to a point, per axis."""
        return len(self.coefficients)

    @property
    def degree(self) -> int:
        """Degree of the polynomials in t; every derivative of a higher order is zero."""
        return len(self.coefficients[0]) - 1

    def derivative(self, order: int) -> tuple[Polynomial, ...]:
        """The table of the ``order``-th derivative in t: ``[taps][degree + 1 - order]``."""
        return tuple(
            tuple(perm(m, order) * row[m] for m in range(order, len(row)))
            for row in self.coefficients
        )

    def weights(self, t: Tensor, order: int = 0) -> Tensor:
        """B_k^(order)(t), by Horner's rule: ``[...]`` → ``[..., taps]``."""
        if order > self.degree:
            return t.unsqueeze(-1) * t.new_zeros(self.taps)  # keeps the NaN of a NaN t
        columns = list(zip(*self.derivative(order), strict=True))
        c = t.new_tensor([[float(c) for c in column] for column in columns])
        t = t.unsqueeze(-1)
        result = c[-1].expand(*t.shape[:-1], self.taps) + 0 * t
        for column in reversed(c[:-1].unbind()):
            result = result * t + column
        return result


def _multiply(p: Sequence[Fraction], q: Sequence[Fraction]) -> Polynomial:
    product = [Fraction(0)] * (len(p) + len(q) - 1)
    for i, a in enumerate(p):
        for j, b in enumerate(q):
            product[i + j] += a * b
    return tuple(product)


def _smoothstep(name: str, order: int) -> Interpolation:
    """Sₙ(t) = t^(n+1) Σ_k C(n+k, k) C(2n+1, n-k) (-t)^k on the upper vertex, 1 - Sₙ on the lower.

    n = 0 is linear interpolation, n = 1 is Eq. 9 of the paper.
    """
    upper = [Fraction(0)] * (2 * order + 2)
    for k in range(order + 1):
        binomials = comb(order + k, k) * comb(2 * order + 1, order - k)
        upper[order + 1 + k] = Fraction((-1) ** k * binomials)
    lower = [-c for c in upper]
    lower[0] += 1
    return Interpolation(name, (tuple(lower), tuple(upper)), first_tap=0, continuity=order)


def _bspline(name: str, degree: int) -> Interpolation:
    """Uniform B-spline, by de Boor's recursion on its pieces.

    With N_p(x) = (x N_{p-1}(x) + (p + 1 - x) N_{p-1}(x - 1)) / p on [0, p + 1], the weight of tap
    k is N_p on its piece p - k. (de Boor, "A Practical Guide to Splines", ch. IX.)
    """
    pieces: list[Polynomial] = [(Fraction(1),)]
    for p in range(1, degree + 1):
        zero = (Fraction(0),) * p
        padded = [zero, *pieces, zero]
        pieces = []
        for i in range(p + 1):
            rising = _multiply((Fraction(i, p), Fraction(1, p)), padded[i + 1])
            falling = _multiply((Fraction(p + 1 - i, p), Fraction(-1, p)), padded[i])
            pieces.append(tuple(a + b for a, b in zip(rising, falling, strict=True)))
    return Interpolation(name, tuple(reversed(pieces)), -(degree // 2), continuity=degree - 1)


def _catmull_rom(name: str) -> Interpolation:
    """Cubic through its vertices with central-difference slopes; C¹ (Catmull & Rom, 1974)."""
    rows = ((0, -1, 2, -1), (2, 0, -5, 3), (0, 1, 4, -3), (0, 0, -1, 1))
    table = tuple(tuple(Fraction(c, 2) for c in row) for row in rows)
    return Interpolation(name, table, first_tap=-1, continuity=1)


INTERPOLATIONS: dict[str, Interpolation] = {
    i.name: i
    for i in (
        _smoothstep("linear", 0),
        _smoothstep("s1", 1),
        _smoothstep("s2", 2),
        _smoothstep("s3", 3),
        _bspline("quadratic", 2),
        _bspline("cubic", 3),
        _bspline("quintic", 5),
        _catmull_rom("catmull_rom"),
    )
}


def interpolation(name: str) -> Interpolation:
    """Look an interpolation up by name.

    Raises:
        ValueError: the name is not a key of `INTERPOLATIONS`.
    """
    if name not in INTERPOLATIONS:
        known = ", ".join(INTERPOLATIONS)
        raise ValueError(f"interpolation={name!r} is unknown; choose one of {known}")
    return INTERPOLATIONS[name]
