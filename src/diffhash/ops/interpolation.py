"""Interpolations as tables of polynomial coefficients.

On one grid cell an interpolation is a set of weights, one per tap (vertex),

    B_k(t) = Σ_m coefficients[k][m] · t^m,        t ∈ [0, 1),  k = 0 … taps - 1,

where tap k sits at vertex ``cell + first_tap + k``. Its derivatives are the same table,
differentiated. In several dimensions the weight of a vertex is the product over the axes. Adding
an interpolation means adding a table to `INTERPOLATIONS`.

`PRODUCT_SMOOTHSTEPS` are the paper's Eq. 10 instead: the step of the product, not the product of
the steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import comb, perm

import torch
from torch import Tensor

from diffhash.ops.constants import constant

Polynomial = tuple[Fraction, ...]  # ascending powers of t
Table = tuple[Polynomial, ...]  # one polynomial per tap


def differentiate(table: Table, order: int) -> Table:
    """The ``order``-th derivative in t of every polynomial; empty ones beyond the degree."""
    return tuple(tuple(perm(m, order) * row[m] for m in range(order, len(row))) for row in table)


def evaluate(table: Table, t: Tensor) -> Tensor:
    """Every polynomial at t, by Horner's rule: ``[...]`` → ``[taps, ...]``; NaN gives NaN."""
    shape = (-1, *(1 for _ in t.shape))
    columns = [
        constant(tuple(map(float, column)), t).view(shape) for column in zip(*table, strict=True)
    ] or [constant((0.0,) * len(table), t).view(shape)]
    if len(columns) == 1:
        return t * 0 + columns[0]  # times t, or the NaN of a NaN t would be lost
    result = columns[-1]
    for column in reversed(columns[:-1]):
        result = torch.addcmul(column, result, t)
    return result


@dataclass(frozen=True)
class Interpolation:
    """Weights of one interpolation.

    Attributes:
        name: what users write, e.g. ``"cubic"``.
        coefficients: exact ``[taps][degree + 1]`` table, ascending powers of t.
        first_tap: vertex of the first tap, relative to the cell that holds the point.
        continuity: the interpolant is C^continuity across cell faces.
        step: the polynomial that the product over axes is put through; None leaves it as it is.
        separable: the weight of vertex k as a sum of products, Σ_i c_i Π_j P_{i, k_j}(t_j): pairs
            (c_i, P_i). One term, c = 1 and P = B, without a step; with it
            S(Π_j B_{k_j}) = Σ_m s_m Π_j B_{k_j}^m.
    """

    name: str
    coefficients: Table
    first_tap: int
    continuity: int
    step: Polynomial | None = None
    separable: tuple[tuple[Fraction, Table], ...] = field(init=False, repr=False)

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
        """Vertices that contribute to a point, per axis."""
        return len(self.coefficients)

    @property
    def degree(self) -> int:
        """Degree of the polynomials in t; every derivative of a higher order is zero."""
        return len(self.coefficients[0]) - 1

    def derivative(self, order: int) -> Table:
        """The table of the ``order``-th derivative in t: ``[taps][degree + 1 - order]``."""
        return differentiate(self.coefficients, order)

    def weights(self, t: Tensor, order: int = 0) -> Tensor:
        """B_k^(order)(t): ``[...]`` → ``[..., taps]``."""
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

    In one dimension it is Sₙ per axis. In more it is no partition of unity (at the centre of a
    2-D cell the weights of S₁ add up to 4·S₁(¼) = 0.625), and only C⁰: across a vertex's own
    plane the other axes' weight q leaves a kink of slope q·Sₙ'(q) ≠ 0.
    """
    linear = _smoothstep("linear", 0)
    return Interpolation(name, linear.coefficients, linear.first_tap, 0, step=_step(order))


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


PRODUCT_SMOOTHSTEPS: dict[str, Interpolation] = {
    i.name: i for i in (_product_smoothstep(f"s{n}_product", n) for n in (1, 2, 3))
}


def interpolation(name: str) -> Interpolation:
    """Look an interpolation up by name.

    Raises:
        ValueError: the name is a key of neither `INTERPOLATIONS` nor `PRODUCT_SMOOTHSTEPS`.
    """
    known = INTERPOLATIONS | PRODUCT_SMOOTHSTEPS
    if name not in known:
        raise ValueError(f"interpolation={name!r} is unknown; choose one of {', '.join(known)}")
    return known[name]
