"""The classical floor of problems on boxes: collocation with splines, by NumPy and SciPy alone.

Each unknown is a sum of tensor products of B-splines. Its coefficients satisfy the equation and the
conditions at as many points, `Axis.points`. They are found by one sparse system where the problem
is linear, and by Newton's method where it is not. No solver makes use of separable equations.

- Problems with time are solved in windows of time. In each, the solution is a polynomial in time
  that satisfies the equation at Gauss's nodes.
- Cells are smaller towards x = 0 in ``burgers1d`` and towards all walls in ``cavity``. In
  ``allen_cahn`` they cover half of the period and are smaller towards its end, where the initial
  values have a kink.
- In ``kovasznay`` and ``cavity``, velocities have a degree more than the pressure along their own
  axis, so that the divergence is a spline of the pressure's space (Buffa, de Falco and Sangalli,
  2011).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import pi
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from scipy.interpolate import BSpline
from scipy.sparse.linalg import splu

from benchmarks.machine import environment_columns
from diffhash._files import write_text_atomically
from diffhash.problems import Problem, zoo

DEGREE = 9
FILE = "floor.csv"  # in the folder of the tables
COLUMNS = ("problem", "quantity", "degree", "cells", "parameters", "l2", "seconds")
_NEWTON = 12  # the largest number of Newton's steps
_POINTS = 10_000  # points at which errors are measured, as in `diffhash.solve`

Field = Callable[[np.ndarray], np.ndarray]  # an unknown's values [N] at points [N, d]
Found = tuple[list[Field], int]  # all unknowns, and the number of coefficients


@dataclass(frozen=True)
class Axis:
    """The B-splines of a degree on the consecutive cells of an interval or of a circle.

    Args:
        ends: the ends of the cells, ascending.
        degree: the degree of the splines; an odd one on a circle.
        is_closed: whether the cells form a circle; there must then be more cells than the degree,
            all of one length.
    """

    ends: np.ndarray
    degree: int = DEGREE
    is_closed: bool = False

    @property
    def _knots(self) -> np.ndarray:
        first, last, k = self.ends[0], self.ends[-1], self.degree
        if not self.is_closed:
            return np.concatenate([np.full(k, first), self.ends, np.full(k, last)])
        cells = len(self.ends) - 1
        return first + (last - first) / cells * np.arange(-k, cells + k + 1)

    @property
    def points(self) -> np.ndarray:
        """As many points as there are splines: Greville's points; on a circle, the lower ends of
        the cells; for a single cell, its start and Gauss's nodes."""
        if self.is_closed:
            return self.ends[:-1]
        if len(self.ends) == 2:
            nodes, _ = np.polynomial.legendre.leggauss(self.degree)
            low, high = self.ends
            return np.append(low, low + (high - low) * (nodes + 1) / 2)
        sums = np.convolve(self._knots[1:-1], np.ones(self.degree), "valid")
        return np.clip(sums / self.degree, self.ends[0], self.ends[-1])

    def at(self, x: np.ndarray, order: int = 0) -> sparse.csr_array:
        """The derivatives of an order of all splines at points, ``[N, n]``."""
        knots = self._knots
        n = len(knots) - self.degree - 1
        values = BSpline(knots, np.eye(n), self.degree)(x, nu=order)
        if self.is_closed:
            n -= self.degree
            values[:, : self.degree] += values[:, n:]
        return sparse.csr_array(values[:, :n])


class Product:
    """The tensor products of the splines and points of two axes; the second axis varies faster."""

    def __init__(self, first: Axis, second: Axis) -> None:
        self.axes = first, second
        self.points = first.points, second.points
        x, y = np.meshgrid(*self.points, indexing="ij")
        self.x, self.y = x.ravel(), y.ravel()
        self.size = len(self.x)
        ends = (np.isin(self.x, first.ends[[0, -1]]), np.isin(self.y, second.ends[[0, -1]]))
        self.on_edge = ends[0] | ends[1]
        self.on_side = ends[0]

    def d(
        self, i: int, j: int, at: tuple[np.ndarray, np.ndarray] | None = None
    ) -> sparse.csr_array:
        """The derivatives of orders i and j at the products of the axes' points, or of ``at``."""
        points, orders = at or self.points, (i, j)
        factors = [axis.at(x, k) for axis, x, k in zip(self.axes, points, orders, strict=True)]
        return sparse.csr_array(sparse.kron(*factors, format="csr"))

    def field(self, c: np.ndarray) -> Field:
        """The function of points that has the coefficients c."""
        first, second = self.axes

        def values(x: np.ndarray) -> np.ndarray:
            along_second = first.at(x[:, 0]) @ c.reshape(len(self.points[0]), -1)
            return np.asarray(second.at(x[:, 1]).multiply(along_second).sum(axis=1))

        return values


def _uniform(low: float, high: float, cells: int, is_closed: bool = False) -> Axis:
    return Axis(np.linspace(low, high, cells + 1), is_closed=is_closed)


def _chosen(
    rows: np.ndarray, matrix: sparse.csr_array, other: sparse.csr_array
) -> sparse.csr_array:
    """The rows of ``matrix`` where ``rows`` is true, and those of ``other`` elsewhere."""
    rows = rows.astype(float)[:, None]
    return sparse.csr_array(matrix.multiply(rows) + other.multiply(1 - rows))


def _newton(
    system: Callable[[np.ndarray], tuple[np.ndarray, sparse.csr_array]], c: np.ndarray
) -> np.ndarray:
    """The solution of r(c) = 0 from an initial c; ``system`` computes r and its Jacobian."""
    for _ in range(_NEWTON):
        r, jacobian = system(c)
        step = splu(sparse.csc_array(jacobian)).solve(r)
        c = c - step
        if np.abs(step).max() <= 1e-12 * np.abs(c).max():
            break
    return c


def _linear(matrix: sparse.csr_array, right: np.ndarray) -> np.ndarray:
    """The solution of a linear system, with a second solve that reduces the round-off error."""
    factors = splu(sparse.csc_array(matrix))
    c = factors.solve(right)
    return c + factors.solve(right - matrix @ c)


def _on_square(
    axes: tuple[Axis, Axis], of_value: float, of_laplacian: float, source: Field
) -> Found:
    """The solution of of_value · u + of_laplacian · Δu = source with u = 0 on the edge."""
    s = Product(*axes)
    operator = of_laplacian * (s.d(2, 0) + s.d(0, 2)) + of_value * s.d(0, 0)
    right = source(np.stack([s.x, s.y], axis=1))
    c = _linear(_chosen(s.on_edge, s.d(0, 0), operator), np.where(s.on_edge, 0.0, right))
    return [s.field(c)], s.size


def _helmholtz2d(a: tuple[float, float], low: float) -> Callable[[int], Found]:
    """The solver of Δu + u = f on a square, for a solution with the frequencies a."""

    def solve(cells: int) -> Found:
        def source(x: np.ndarray) -> np.ndarray:
            return (1 - sum((pi * k) ** 2 for k in a)) * np.sin(pi * np.array(a) * x).prod(axis=1)

        return _on_square((_uniform(low, 1, cells), _uniform(low, 1, cells)), 1.0, 1.0, source)

    return solve


def _multiscale_poisson2d(cells: int) -> Found:
    """The solution of -Δu = f."""

    def source(x: np.ndarray) -> np.ndarray:
        parts = [2 * (w * pi) ** 2 * np.sin(w * pi * x).prod(axis=1) for w in (4, 8, 12, 16)]
        return np.mean(parts, axis=0)

    return _on_square((_uniform(0, 1, cells), _uniform(0, 1, cells)), 0.0, -1.0, source)


def _helmholtz3d(cells: int) -> Found:
    """The solution of Δu + u = f, by splines that are 0 on the boundary."""
    axis = _uniform(0, 1, cells)
    x = axis.points[1:-1]
    value, second = (axis.at(x, order)[:, 1:-1] for order in (0, 2))
    factors = [[value] * 3, [second, value, value], [value, second, value], [value, value, second]]
    matrix = sum(sparse.kron(sparse.kron(a, b), c) for a, b, c in factors)
    wave = np.sin(3 * pi * x)
    right = (1 - 27 * pi**2) * np.einsum("i,j,k->ijk", wave, wave, wave).ravel()
    c = _linear(sparse.csr_array(matrix), right).reshape(len(x), len(x), len(x))

    def field(points: np.ndarray) -> np.ndarray:
        along = [axis.at(points[:, j])[:, 1:-1].toarray() for j in range(3)]
        return np.einsum("ni,nj,nk,ijk->n", *along, c, optimize=True)

    return [field], c.size


def _biharmonic2d(cells: int) -> Found:
    """The solution of Δ²u = f, by splines that are 0 on the edge together with their slope."""
    axis = _uniform(0, 1, cells)
    x = axis.points[2:-2]
    value, second, fourth = (axis.at(x, order)[:, 2:-2] for order in (0, 2, 4))
    matrix = sparse.kron(fourth, value) + 2 * sparse.kron(second, second)
    matrix = matrix + sparse.kron(value, fourth)
    s, cosine = np.sin(pi * x) ** 2, np.cos(2 * pi * x)
    parts = np.outer(cosine, cosine) - np.outer(cosine, s) - np.outer(s, cosine)
    c = _linear(sparse.csr_array(matrix), 8 * pi**4 * parts.ravel()).reshape(len(x), len(x))

    def field(points: np.ndarray) -> np.ndarray:
        first, last = (axis.at(points[:, j])[:, 2:-2].toarray() for j in range(2))
        return np.einsum("ni,nj,ij->n", first, last, c, optimize=True)

    return [field], c.size


def _poisson1d(cells: int) -> Found:
    """The solution of 0.01 u″ = f, with u given at 0 and at ½, where it is known."""
    axis, problem = _uniform(0, 1, cells), zoo()["poisson1d"]()

    def given(x: np.ndarray, order: int) -> np.ndarray:
        jet = problem.exact_jet(torch.from_numpy(x[:, None]), ((order,),))
        return jet[(order,)].numpy().ravel()

    known = np.array([0.0, 0.5])
    x = np.delete(axis.points, [0, len(axis.points) - 1])
    matrix = sparse.vstack([axis.at(known), axis.at(x, 2)])
    right = np.concatenate([given(known, 0), given(x, 2)])
    c = _linear(sparse.csr_array(matrix), right)
    return [lambda points: axis.at(points[:, 0]) @ c], len(c)


def _marched(
    x: Axis,
    times: np.ndarray,
    start: Sequence[np.ndarray],
    solve: Callable[[Product, Sequence[np.ndarray], np.ndarray], Sequence[np.ndarray]],
) -> Found:
    """The unknowns in space and time, window by window, and the number of coefficients.

    Args:
        x: the splines in space.
        times: the ends of the windows.
        start: the initial values of each unknown at the points of x.
        solve: computes each unknown's coefficients in a window from the window's splines, the
            coefficients at its start, and the mask of the points at its start.
    """
    values = x.at(x.points).toarray()
    before = [np.linalg.solve(values, at_start) for at_start in start]
    fields, size = [], 0
    for low, high in pairwise(times):
        s = Product(x, Axis(np.array([low, high])))
        found = solve(s, [np.repeat(c, DEGREE + 1) for c in before], s.y == low)
        before = [c.reshape(len(x.points), -1)[:, -1] for c in found]
        fields.append([s.field(c) for c in found])
        size += s.size * len(found)

    def field(number: int) -> Field:
        def values(points: np.ndarray) -> np.ndarray:
            window = np.searchsorted(times, points[:, 1], "right") - 1
            window = np.clip(window, 0, len(fields) - 1)
            out = np.empty(len(points))
            for index, own in enumerate(fields):
                out[window == index] = own[number](points[window == index])
            return out

        return values

    return [field(number) for number in range(len(start))], size


def _wave1d(cells: int) -> Found:
    """The solution of u_t = v, v_t = 4 u_xx."""
    x = _uniform(0, 1, cells)

    def solve(
        s: Product, before: Sequence[np.ndarray], is_start: np.ndarray
    ) -> Sequence[np.ndarray]:
        value, d_t = s.d(0, 0), s.d(0, 1)
        given = is_start | s.on_side
        nothing = 0 * value
        matrix = sparse.block_array(
            [
                [_chosen(given, value, d_t), _chosen(given, nothing, -value)],
                [_chosen(given, nothing, -4 * s.d(2, 0)), _chosen(given, value, d_t)],
            ],
            format="csr",
        )
        right = [np.where(is_start & ~s.on_side, value @ c, 0.0) for c in before]
        return np.split(_linear(sparse.csr_array(matrix), np.concatenate(right)), 2)

    shape = np.sin(pi * x.points) + np.sin(4 * pi * x.points) / 2
    fields, size = _marched(x, np.linspace(0, 1, cells // 2 + 1), [shape, 0 * shape], solve)
    return fields[:1], size


Reaction = Callable[[list[np.ndarray]], tuple[list[np.ndarray], list[list[np.ndarray]]]]


def _evolution(
    x: Axis,
    times: np.ndarray,
    start: Sequence[np.ndarray],
    linear: Sequence[Mapping[int, float]],
    advection: float = 0.0,
    reaction: Reaction | None = None,
    at_ends: int = 0,
) -> Found:
    """The solution of u_i,t + advection · u_i u_i,x = Σ_k linear[i][k] ∂ₓᵏ u_i + r_i(u).

    Args:
        reaction: computes r from the values of all unknowns, and its derivatives ∂r_i/∂u_j.
        at_ends: the order of the derivative in x that is 0 at both ends, unless x is closed.
    """
    n = len(start)

    def solve(
        s: Product, before: Sequence[np.ndarray], is_start: np.ndarray
    ) -> Sequence[np.ndarray]:
        value, slope = s.d(0, 0), s.d(1, 0)
        is_end = s.on_side & ~is_start if not x.is_closed else np.zeros_like(is_start)
        given = is_start | is_end
        edge = _chosen(is_start, value, s.d(at_ends, 0))
        wanted = [np.where(is_start, value @ c, 0.0) for c in before]
        rests = [
            s.d(0, 1) - sum((k * s.d(order, 0) for order, k in own.items()), 0 * value)
            for own in linear
        ]

        def system(c: np.ndarray) -> tuple[np.ndarray, sparse.csr_array]:
            parts = np.split(c, n)
            values, slopes = [value @ p for p in parts], [slope @ p for p in parts]
            r, rows = [], []
            react, d_react = reaction(values) if reaction else ([0.0] * n, None)
            for i in range(n):
                own = rests[i] @ parts[i] + advection * values[i] * slopes[i] - react[i]
                r.append(np.where(given, edge @ parts[i] - wanted[i], own))
                blocks = []
                for j in range(n):
                    block = rests[i] if i == j else 0 * value
                    if i == j and advection:
                        block = block + value.multiply(advection * slopes[i][:, None])
                        block = block + slope.multiply(advection * values[i][:, None])
                    if d_react is not None:
                        block = block - value.multiply(d_react[i][j][:, None])
                    outside = edge if i == j else 0 * value
                    blocks.append(_chosen(given, outside, sparse.csr_array(block)))
                rows.append(blocks)
            matrix = rows[0][0] if n == 1 else sparse.block_array(rows, format="csr")
            return np.concatenate(r), sparse.csr_array(matrix)

        if advection or reaction:
            return np.split(_newton(system, np.concatenate(before)), n)
        r, matrix = system(np.zeros(n * s.size))
        return np.split(_linear(matrix, -r), n)

    return _marched(x, times, start, solve)


def _graded(low: float, high: float, cells: int, steepness: float, ends: str) -> Axis:
    """An axis with smaller cells towards the middle, the upper end or both ends."""
    t = np.linspace(0, 1, cells + 1)
    t = {
        "middle": (1 + np.sinh(steepness * (2 * t - 1)) / np.sinh(steepness)) / 2,
        "upper": 1 - np.sinh(steepness * (1 - t)) / np.sinh(steepness),
        "both": (1 + np.tanh(steepness * (2 * t - 1)) / np.tanh(steepness)) / 2,
    }[ends]
    t[[0, -1]] = 0.0, 1.0
    return Axis(low + (high - low) * t)


def _heat1d(cells: int) -> Found:
    x = _uniform(0, 1, cells)
    start = np.cos(pi * x.points) + np.cos(3 * pi * x.points) / 2
    return _evolution(x, np.linspace(0, 1, cells // 4 + 1), [start], [{2: 0.05}], at_ends=1)


def _convection(cells: int) -> Found:
    x = _uniform(0, 2 * pi, cells, is_closed=True)
    return _evolution(x, np.linspace(0, 1, cells // 2 + 1), [np.sin(x.points)], [{1: -30.0}])


def _burgers1d(cells: int) -> Found:
    # Cells at the layer are a thirtieth as wide as they would be on a uniform axis.
    x = _graded(-1, 1, cells, 6.0, "middle")
    start, times = -np.sin(pi * x.points), np.linspace(0, 1, cells // 4 + 1)
    return _evolution(x, times, [start], [{2: 0.01 / pi}], advection=1.0)


def _kdv(cells: int) -> Found:
    x = _uniform(-15, 15, cells, is_closed=True)
    start, times = 2 / np.cosh(x.points + 2) ** 2, np.linspace(0, 1, cells // 8 + 1)
    return _evolution(x, times, [start], [{3: -1.0}], advection=6.0)


def _kdv_cosine(cells: int) -> Found:
    x = _uniform(-1, 1, cells, is_closed=True)
    start, times = np.cos(pi * x.points), np.linspace(0, 1, cells // 6 + 1)
    return _evolution(x, times, [start], [{3: -(0.022**2)}], advection=1.0)


def _kuramoto_sivashinsky(cells: int) -> Found:
    x = _uniform(0, 2 * pi, cells, is_closed=True)
    start = np.cos(x.points) * (1 + np.sin(x.points))
    linear = {2: -100 / 16**2, 4: -100 / 16**4}
    return _evolution(x, np.linspace(0, 1, cells // 4 + 1), [start], [linear], advection=100 / 16)


def _allen_cahn(cells: int) -> Found:
    x = _graded(0, 1, cells, 2.0, "upper")
    start = x.points**2 * np.cos(pi * x.points)
    times = np.linspace(0, 1, cells // 8 + 1) ** 3

    def reaction(u: list[np.ndarray]) -> tuple[list[np.ndarray], list[list[np.ndarray]]]:
        return [5 * u[0] - 5 * u[0] ** 3], [[5 - 15 * u[0] ** 2]]

    (right,), size = _evolution(x, times, [start], [{2: 1e-4}], reaction=reaction, at_ends=1)
    return [lambda points: right(np.abs(points))], size


def _gray_scott(cells: int) -> Found:
    x = _uniform(-1, 1, cells, is_closed=True)

    def bump(at: np.ndarray) -> np.ndarray:
        return np.exp(10 * (np.cos(pi * at) - 1))

    def reaction(u: list[np.ndarray]) -> tuple[list[np.ndarray], list[list[np.ndarray]]]:
        feed, other = u
        both, of_u, of_v = 1000 * feed * other**2, 1000 * other**2, 2000 * feed * other
        rates = [40 * (1 - feed) - both, both - 100 * other]
        return rates, [[-40 - of_u, -of_v], [of_u, of_v - 100]]

    start = [1 - bump(x.points - 0.05) / 2, bump(x.points) / 4]
    times = np.linspace(0, 1, cells // 4 + 1)
    return _evolution(x, times, start, [{2: 0.04}, {2: 0.02}], reaction=reaction)


def _flow(
    wide: Sequence[Axis], reynolds: float, given: Callable[[np.ndarray, int], np.ndarray]
) -> Found:
    """The solution of the steady Navier–Stokes equations.

    The velocity is given on the edge, and the pressure in a corner. The given velocity implies
    continuity in the four corners and, by the total flow through the edge, in one more point. In
    place of these five equations are momentum along x in the corners and the given pressure.

    Args:
        wide: the splines of u along x, and those of v along y.
        given: computes the given values of an unknown at points, from the unknown's number.
    """
    low = [Axis(axis.ends, DEGREE - 1) for axis in wide]
    u, v, p = Product(wide[0], low[1]), Product(low[0], wide[1]), Product(low[0], low[1])
    exact = [given(np.stack([s.x, s.y], axis=1), number) for number, s in enumerate((u, v, p))]
    ends = wide[0].ends[[0, -1]], wide[1].ends[[0, -1]]
    sizes = np.cumsum([u.size, v.size])

    def momentum(
        number: int, at: tuple[np.ndarray, np.ndarray]
    ) -> Callable[[list[np.ndarray]], tuple[np.ndarray, list[sparse.csr_array]]]:
        own = (u, v)[number]
        u0, v0, d_x, d_y = u.d(0, 0, at), v.d(0, 0, at), own.d(1, 0, at), own.d(0, 1, at)
        diffusion = -(own.d(2, 0, at) + own.d(0, 2, at)) / reynolds
        p_x = p.d(1 - number, number, at)

        def rows(parts: list[np.ndarray]) -> tuple[np.ndarray, list[sparse.csr_array]]:
            c = parts[number]
            at_u, at_v, slope_x, slope_y = u0 @ parts[0], v0 @ parts[1], d_x @ c, d_y @ c
            r = at_u * slope_x + at_v * slope_y + diffusion @ c + p_x @ parts[2]
            blocks = [u0.multiply(slope_x[:, None]), v0.multiply(slope_y[:, None]), p_x]
            own_block = d_x.multiply(at_u[:, None]) + d_y.multiply(at_v[:, None]) + diffusion
            blocks[number] = blocks[number] + own_block
            return r, [sparse.csr_array(block) for block in blocks]

        return rows

    inside = [momentum(number, own.points) for number, own in enumerate((u, v))]
    in_corners = momentum(0, ends)
    is_corner = np.isin(p.x, ends[0]) & np.isin(p.y, ends[1])
    kept = np.delete(np.flatnonzero(~is_corner), p.size // 2)
    continuity = [u.d(1, 0, p.points)[kept], v.d(0, 1, p.points)[kept], 0 * p.d(0, 0)[kept]]
    first = np.flatnonzero(is_corner)[:1]
    gauge = [0 * u.d(0, 0, p.points)[first], 0 * v.d(0, 0, p.points)[first], p.d(0, 0)[first]]

    def system(c: np.ndarray) -> tuple[np.ndarray, sparse.csr_array]:
        parts = np.split(c, sizes)
        residuals, blocks = [], []
        for number, own in enumerate((u, v)):
            r, row = inside[number](parts)
            value = own.d(0, 0)
            edges = [value if j == number else 0 * block for j, block in enumerate(row)]
            residuals.append(np.where(own.on_edge, value @ parts[number] - exact[number], r))
            blocks.append([_chosen(own.on_edge, *pair) for pair in zip(edges, row, strict=True)])
        r, row = in_corners(parts)
        residuals += [continuity[0] @ parts[0] + continuity[1] @ parts[1], r]
        residuals.append(gauge[2] @ parts[2] - exact[2][first])
        matrix = sparse.block_array([*blocks, continuity, row, gauge], format="csr")
        return np.concatenate(residuals), sparse.csr_array(matrix)

    c = _newton(system, np.zeros(sizes[-1] + p.size))
    return [s.field(own) for s, own in zip((u, v, p), np.split(c, sizes), strict=True)], len(c)


def _kovasznay(cells: int) -> Found:
    problem = zoo()["kovasznay"]()

    def given(x: np.ndarray, number: int) -> np.ndarray:
        return problem.solution(torch.from_numpy(x)).numpy()[:, number]

    return _flow((_uniform(-0.5, 1, cells), _uniform(-0.5, 1.5, cells)), 40.0, given)


def _cavity(reynolds: float) -> Callable[[int], Found]:
    def given(x: np.ndarray, number: int) -> np.ndarray:
        on_lid = (x[:, 1] == 1) & (number == 0)
        return np.where(on_lid, 4 * x[:, 0] * (1 - x[:, 0]), 0.0)

    return lambda cells: _flow([_graded(0, 1, cells, 1.5, "both")] * 2, reynolds, given)


@dataclass(frozen=True)
class Floor:
    """A classical solver of a problem, with the numbers of cells per axis that are tried.

    Attributes:
        problem: makes the problem, with the settings in its name.
        solve: computes the unknowns with a number of cells per axis.
    """

    problem: Callable[[], Problem]
    solve: Callable[[int], Found]
    cells: tuple[int, ...]


def _of(name: str, **settings: Any) -> Callable[[], Problem]:
    return lambda: zoo()[name](**settings)


FLOORS = {
    "helmholtz2d": Floor(_of("helmholtz2d"), _helmholtz2d((4, 4), 0), (8, 12, 16, 24, 32, 48)),
    "wave1d": Floor(_of("wave1d"), _wave1d, (8, 12, 16, 24, 32, 48)),
    "convection": Floor(_of("convection"), _convection, (12, 16, 24, 32, 48)),
    "multiscale_poisson2d": Floor(
        _of("multiscale_poisson2d"), _multiscale_poisson2d, (16, 24, 32, 48, 64, 96)
    ),
    "kovasznay": Floor(_of("kovasznay"), _kovasznay, (4, 6, 8, 12, 16, 24)),
    "burgers1d": Floor(_of("burgers1d"), _burgers1d, (24, 32, 48, 64, 96)),
    "poisson1d": Floor(_of("poisson1d"), _poisson1d, (8, 16, 32, 48)),
    "heat1d": Floor(_of("heat1d"), _heat1d, (4, 8, 12, 16)),
    "allen_cahn": Floor(_of("allen_cahn"), _allen_cahn, (96, 160, 256)),
    "kdv": Floor(_of("kdv"), _kdv, (96, 144, 192)),
    "kdv_cosine": Floor(_of("kdv_cosine"), _kdv_cosine, (96, 160, 256)),
    "kuramoto_sivashinsky": Floor(
        _of("kuramoto_sivashinsky"), _kuramoto_sivashinsky, (128, 192, 256)
    ),
    "gray_scott": Floor(_of("gray_scott"), _gray_scott, (96, 128)),
    "helmholtz2d a=10": Floor(
        _of("helmholtz2d", a=10), _helmholtz2d((10, 10), 0), (16, 24, 32, 48, 64)
    ),
    "helmholtz2d a=[1,4] low=-1": Floor(
        _of("helmholtz2d", a=[1, 4], low=-1), _helmholtz2d((1, 4), -1), (12, 16, 24, 32, 48)
    ),
    "helmholtz3d": Floor(_of("helmholtz3d"), _helmholtz3d, (4, 6, 8, 10)),
    "biharmonic2d": Floor(_of("biharmonic2d"), _biharmonic2d, (6, 8, 12, 16, 24)),
    "cavity": Floor(_of("cavity"), _cavity(100), (8, 12, 16, 24)),
    "cavity reynolds=400": Floor(_of("cavity", reynolds=400), _cavity(400), (12, 16, 24)),
}
"""The floors by the names of the suite's cases, and that of ``helmholtz2d`` without settings."""


def rows(name: str) -> Iterator[dict[str, object]]:
    """Rows of the table: each unknown's relative L2 error for each number of cells per axis."""
    floor = FLOORS[name]
    problem = floor.problem()
    x = problem.domain.sample(_POINTS, "evaluation")
    truth = problem.solution(x).reshape(len(x), -1).numpy().T
    for cells in floor.cells:
        start = time.perf_counter()
        fields, size = floor.solve(cells)
        seconds = time.perf_counter() - start
        for unknown, field, exact in zip(problem.unknowns, fields, truth, strict=True):
            l2 = np.linalg.norm(field(x.numpy()) - exact) / np.linalg.norm(exact)
            values = (name, unknown, DEGREE, cells, size, l2, seconds)
            yield dict(zip(COLUMNS, values, strict=True))


def read(path: Path) -> Any:  # a DataFrame
    """The table in a file; an empty one where there is no file."""
    if not path.is_file():
        return pd.DataFrame(columns=COLUMNS)
    return pd.read_csv(path, keep_default_na=False, na_values=["nan"])


def complete(path: Path, names: Iterable[str], again: bool = False) -> Any:
    """The table in a file, after its missing problems among ``names`` are solved and added.

    With ``again``, all of these problems are solved again.
    """
    floor, names = read(path), [name for name in names if name in FLOORS]
    if again:
        floor = floor[~floor["problem"].isin(names)]
    for name in names:
        if name not in {*floor["problem"]}:
            print(f"{name}, floor", file=sys.stderr)
            found = pd.DataFrame([*rows(name)]).assign(**environment_columns(torch.device("cpu")))
            floor = pd.concat([floor, found]) if len(floor) else found
            text = floor.to_csv(index=False, float_format="%.4g", na_rep="nan")
            write_text_atomically(path, text)
    return floor


def best(floor: Any) -> Any:
    """For each problem, the rows for the number of cells whose largest error is the smallest."""
    largest = floor.groupby(["problem", "cells"])["l2"].max().reset_index()
    finest = largest.loc[largest.groupby("problem")["l2"].idxmin(), ["problem", "cells"]]
    return floor.merge(finest, on=["problem", "cells"])
