"""Interpolations as tables of polynomial coefficients.

On one grid cell an interpolation is a set of weights, one per tap (vertex),

    B_k(t) = Σ_m coefficients[k][m] · t^m,        t ∈ [0, 1),  k = 0 … taps - 1,

where tap k sits at vertex ``cell + first_tap + k``. Its derivatives are the same table,
differentiated. In several dimensions the weight of a vertex is the product over the axes. Adding
an interpolation means adding a table to `INTERPOLATIONS`.

A vertex may have several degrees of freedom along an axis (``dofs``), e.g. value and slope: the
table then has a polynomial for each, in consecutive rows for each tap. Slopes are stored in units
of the cell, h ∂u/∂x. All entries of the table then have the unit of u, and an optimizer's step of a
given size has a similar effect on u for every entry and every level.

`PRODUCT_SMOOTHSTEPS` are the paper's Eq. 10 instead: the step of the product of the axes' weights,
not the product of their steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from math import comb, perm

import torch
from torch import Tensor

from diffhash.ops.constants import constant

Polynomial = tuple[Fraction, ...]  # ascending powers of t
Polynomials = tuple[Polynomial, ...]  # one polynomial per tap and degree of freedom


def differentiate(polynomials: Polynomials, order: int) -> Polynomials:
    """The ``order``-th derivative in t of every polynomial; empty ones beyond the degree."""
    return tuple(
        tuple(perm(m, order) * row[m] for m in range(order, len(row))) for row in polynomials
    )


def evaluate(polynomials: Polynomials, t: Tensor) -> Tensor:
    """Every polynomial at t, by Horner's rule: ``[...]`` → ``[taps, ...]``; NaN gives NaN."""
    shape = (-1, *(1 for _ in t.shape))
    columns = [
        constant(tuple(map(float, column)), t).view(shape)
        for column in zip(*polynomials, strict=True)
    ] or [constant((0.0,) * len(polynomials), t).view(shape)]
    if len(columns) == 1:
        return t * 0 + columns[0]  # t * 0 keeps the NaN of a NaN t
    result = columns[-1]
    for column in reversed(columns[:-1]):
        result = torch.addcmul(column, result, t)
    return result


@dataclass(frozen=True)
class Interpolation:
    """The weights of an interpolation.

    >>> cubic = interpolation("cubic")
    >>> cubic.taps, cubic.degree, cubic.continuity
    (4, 3, 2)
    >>> cubic.weights(torch.tensor(0.5)).sum(), cubic.weights(torch.tensor(0.5), order=1).sum()
    (tensor(1.), tensor(0.))

    Attributes:
        name: the name in settings, e.g. ``"cubic"``.
        coefficients: the exact table ``[taps · dofs][degree + 1]`` of coefficients of ascending
            powers of t; the row of degree of freedom m at tap k is ``k · dofs + m``.
        first_tap: the vertex of the first tap, relative to the cell that contains the point.
        continuity: the interpolant is C^continuity across cell faces.
        step: a polynomial S of the product over axes, which gives the weight; None for the product.
        dofs: the degrees of freedom of a vertex per axis: 1 for its value, or 2 with the slope.
        separable: the weight of vertex k as a sum of products, Σ_i c_i Π_j P_{i, k_j}(t_j): pairs
            (c_i, P_i). Without a step this is one term, c = 1 and P = B; with a step it is
            S(Π_j B_{k_j}) = Σ_m s_m Π_j B_{k_j}^m.
    """

    name: str
    coefficients: Polynomials
    first_tap: int
    continuity: int
    step: Polynomial | None = None
    dofs: int = 1
    separable: tuple[tuple[Fraction, Polynomials], ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        terms = [(Fraction(1), self.coefficients)]
        if self.step is not None:
            terms, power = [], tuple((Fraction(1),) for _ in self.coefficients)
            for c in self.step:
                if c:
                    terms.append((c, power))
                pairs = zip(power, self.coefficients, strict=True)
                power = tuple(_multiply(p, row) for p, row in pairs)
        object.__setattr__(self, "separable", tuple(terms))

    @property
    def taps(self) -> int:
        """The number of vertices per axis that contribute to a point."""
        return len(self.coefficients) // self.dofs

    @property
    def columns(self) -> int:
        """The number of weights of a point per axis: taps · dofs."""
        return len(self.coefficients)

    @property
    def degree(self) -> int:
        """The degree of the polynomials in t; every derivative of a higher order is zero."""
        return len(self.coefficients[0]) - 1

    def derivative(self, order: int) -> Polynomials:
        """The table of the ``order``-th derivative in t: ``[columns][degree + 1 - order]``."""
        return differentiate(self.coefficients, order)

    def weights(self, t: Tensor, order: int = 0) -> Tensor:
        """B_k^(order)(t): ``[...]`` → ``[..., columns]``."""
        return evaluate(self.derivative(order), t).movedim(0, -1)


def _multiply(p: Sequence[Fraction], q: Sequence[Fraction]) -> Polynomial:
    product = [Fraction(0)] * (len(p) + len(q) - 1)
    for i, a in enumerate(p):
        for j, b in enumerate(q):
            product[i + j] += a * b
    return tuple(product)


def _step(order: int) -> Polynomial:
    """Sₙ(t) = t^(n+1) Σ_k C(n+k, k) C(2n+1, n-k) (-t)^k; n = 1 is Eq. 9 of the paper."""
    upper = [Fraction(0)] * (2 * order + 2)
    for k in range(order + 1):
        binomials = comb(order + k, k) * comb(2 * order + 1, order - k)
        upper[order + 1 + k] = Fraction((-1) ** k * binomials)
    return tuple(upper)


def _smoothstep(name: str, order: int) -> Interpolation:
    """Sₙ(t) on the upper vertex, 1 - Sₙ on the lower; n = 0 is linear interpolation."""
    upper = _step(order)
    lower = (1 - upper[0], *(-c for c in upper[1:]))
    return Interpolation(name, (lower, upper), first_tap=0, continuity=order)


def _product_smoothstep(name: str, order: int) -> Interpolation:
    """Sₙ of the product of the linear weights (Eq. 10 of the paper).

    In one dimension it equals Sₙ per axis. In more dimensions it is no partition of unity (at the
    centre of a 2-D cell the weights of S₁ add up to 4·S₁(¼) = 0.625), and only C⁰: with the weight
    q of the other axes, the derivative across the vertex's own plane jumps, by slopes q·Sₙ'(q) ≠ 0.
    """
    linear = _smoothstep("linear", 0)
    return Interpolation(name, linear.coefficients, linear.first_tap, 0, step=_step(order))


@cache
def _bspline_pieces(degree: int) -> Polynomials:
    """N_p on each of its p + 1 pieces between whole numbers, in powers of t = x - i."""
    if degree == 0:
        return ((Fraction(1),),)
    p, zero = degree, (Fraction(0),) * degree
    padded = (zero, *_bspline_pieces(p - 1), zero)
    pieces = []
    for i in range(p + 1):
        rising = _multiply((Fraction(i, p), Fraction(1, p)), padded[i + 1])
        falling = _multiply((Fraction(p + 1 - i, p), Fraction(-1, p)), padded[i])
        pieces.append(tuple(a + b for a, b in zip(rising, falling, strict=True)))
    return tuple(pieces)


def _bspline(name: str, degree: int) -> Interpolation:
    """Uniform B-spline, by de Boor's recursion on its pieces.

    With N_p(x) = (x N_{p-1}(x) + (p + 1 - x) N_{p-1}(x - 1)) / p on [0, p + 1], the weight of tap
    k is N_p on its piece p - k. (de Boor, "A Practical Guide to Splines", ch. IX.)

    Up to degree 9 the absolute values of a weight's (or derivative's) terms in powers of t add up
    to less than 9 times the largest: Horner's rule loses no more than a digit.
    """
    pieces = _bspline_pieces(degree)
    return Interpolation(name, tuple(reversed(pieces)), -(degree // 2), continuity=degree - 1)


def _catmull_rom(name: str) -> Interpolation:
    """Cubic through the values at vertices, with central-difference slopes; C¹ (Catmull & Rom,
    1974)."""
    rows = ((0, -1, 2, -1), (2, 0, -5, 3), (0, 1, 4, -3), (0, 0, -1, 1))
    table = tuple(tuple(Fraction(c, 2) for c in row) for row in rows)
    return Interpolation(name, table, first_tap=-1, continuity=1)


def _hermite(name: str) -> Interpolation:
    """Cubic Hermite: value and slope at each vertex; C¹.

    In several dimensions a vertex holds u and its mixed first derivatives, 2^d numbers.
    """
    rows = ((1, 0, -3, 2), (0, 1, -2, 1), (0, 0, 3, -2), (0, 0, -1, 1))
    table = tuple(tuple(Fraction(c) for c in row) for row in rows)
    return Interpolation(name, table, first_tap=0, continuity=1, dofs=2)


# The names of B-splines of degree 2 to 9.
_BSPLINES = ("quadratic", "cubic", "quartic", "quintic", "sextic", "septic", "octic", "nonic")

INTERPOLATIONS: dict[str, Interpolation] = {
    i.name: i
    for i in (
        _smoothstep("linear", 0),
        *(_smoothstep(f"s{n}", n) for n in (1, 2, 3)),
        *(_bspline(name, degree) for degree, name in enumerate(_BSPLINES, start=2)),
        _catmull_rom("catmull_rom"),
        _hermite("hermite"),
    )
}


PRODUCT_SMOOTHSTEPS: dict[str, Interpolation] = {
    i.name: i for i in (_product_smoothstep(f"s{n}_product", n) for n in (1, 2, 3))
}


# B-splines by their degree; the B-spline of degree 1 is linear interpolation.
_BY_DEGREE = {f"bspline_{p}": name for p, name in enumerate(("linear", *_BSPLINES), start=1)}


def interpolation(name: str) -> Interpolation:
    """Find an interpolation by its name; ``bspline_5`` is another name for ``quintic``, and so on.

    Raises:
        ValueError: the name is a key of neither `INTERPOLATIONS` nor `PRODUCT_SMOOTHSTEPS`.
    """
    known = INTERPOLATIONS | PRODUCT_SMOOTHSTEPS
    found = known.get(_BY_DEGREE.get(name, name))
    if found is None:
        raise ValueError(
            f"interpolation={name!r} is unknown; choose one of {', '.join(known)}, or bspline_1 "
            f"to bspline_{len(_BY_DEGREE)}"
        )
    return found
