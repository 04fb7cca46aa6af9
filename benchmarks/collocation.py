"""The classical floor of six problems: collocation with splines, by NumPy and SciPy alone.

Each unknown is a tensor product of B-splines, whose coefficients satisfy the equation and the
conditions at as many points, Greville's: one sparse system where the problem is linear, and
Newton's steps where it is not. Nothing makes use of an equation that separates.

- With time: in windows of it, each a polynomial that satisfies the equation at Gauss's nodes.
- ``burgers1d``: cells are smaller towards x = 0.
- ``kovasznay``: velocities have a degree more than the pressure along their own axis, so that
  continuity holds in each pressure's spline (Buffa, de Falco and Sangalli, 2011).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import pi

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from scipy.interpolate import BSpline
from scipy.sparse.linalg import splu

from diffhash.problems import zoo

DEGREE = 9
CELLS = {
    "helmholtz2d": (8, 12, 16, 24, 32, 48),
    "wave1d": (8, 12, 16, 24, 32, 48),
    "convection": (12, 16, 24, 32, 48),
    "multiscale_poisson2d": (16, 24, 32, 48, 64, 96),
    "kovasznay": (4, 6, 8, 12, 16, 24),
    "burgers1d": (24, 32, 48, 64, 96),
}
COLUMNS = ("problem", "degree", "cells", "parameters", "l2", "seconds")
_NEWTON = 12  # steps at most
_POINTS = 10_000  # at which errors are measured, those of `diffhash.solve`

Field = Callable[[np.ndarray], np.ndarray]  # of points [N, 2], the first unknown's values


@dataclass(frozen=True)
class Axis:
    """B-splines of a degree on consecutive cells, which end or close in a circle.

    Args:
        ends: of the cells.
        degree: an odd one where they close.
        is_closed: whether they do, after more cells than the degree, all of one length.
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
        """As many as splines: Greville's; the cells' lower ends, where they close; of a single cell
        its start and Gauss's nodes."""
        if self.is_closed:
            return self.ends[:-1]
        if len(self.ends) == 2:
            nodes, _ = np.polynomial.legendre.leggauss(self.degree)
            low, high = self.ends
            return np.append(low, low + (high - low) * (nodes + 1) / 2)
        sums = np.convolve(self._knots[1:-1], np.ones(self.degree), "valid")
        return np.clip(sums / self.degree, self.ends[0], self.ends[-1])

    def at(self, x: np.ndarray, order: int = 0) -> sparse.csr_array:
        """Their derivatives of an order at points, ``[N, n]``."""
        knots = self._knots
        n = len(knots) - self.degree - 1
        values = BSpline(knots, np.eye(n), self.degree)(x, nu=order)
        if self.is_closed:
            n -= self.degree
            values[:, : self.degree] += values[:, n:]
        return sparse.csr_array(values[:, :n])


class Product:
    """Splines of two axes at the products of their points; the second runs faster."""

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
        """Splines' derivatives of these orders, at these points or at others of both axes."""
        points, orders = at or self.points, (i, j)
        factors = [axis.at(x, k) for axis, x, k in zip(self.axes, points, orders, strict=True)]
        return sparse.csr_array(sparse.kron(*factors, format="csr"))

    def field(self, c: np.ndarray) -> Field:
        """Of the splines' coefficients."""
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
    """``matrix`` in these rows, and ``other`` in the others."""
    rows = rows.astype(float)[:, None]
    return sparse.csr_array(matrix.multiply(rows) + other.multiply(1 - rows))


def _newton(
    system: Callable[[np.ndarray], tuple[np.ndarray, sparse.csr_array]], c: np.ndarray
) -> np.ndarray:
    """c with r(c) = 0, from r and its Jacobian."""
    for _ in range(_NEWTON):
        r, jacobian = system(c)
        step = splu(sparse.csc_array(jacobian)).solve(r)
        c = c - step
        if np.abs(step).max() <= 1e-12 * np.abs(c).max():
            break
    return c


def _linear(matrix: sparse.csr_array, right: np.ndarray) -> np.ndarray:
    """With a second solution for what round-off has left."""
    factors = splu(sparse.csc_array(matrix))
    c = factors.solve(right)
    return c + factors.solve(right - matrix @ c)


def _on_square(
    cells: int, of_value: float, of_laplacian: float, source: Field
) -> tuple[Field, int]:
    """of_value · u + of_laplacian · Δu = source on the unit square, u = 0 on its edge."""
    s = Product(_uniform(0, 1, cells), _uniform(0, 1, cells))
    operator = of_laplacian * (s.d(2, 0) + s.d(0, 2)) + of_value * s.d(0, 0)
    right = source(np.stack([s.x, s.y], axis=1))
    c = _linear(_chosen(s.on_edge, s.d(0, 0), operator), np.where(s.on_edge, 0.0, right))
    return s.field(c), s.size


def helmholtz2d(cells: int) -> tuple[Field, int]:
    """Δu + u = f."""

    def source(x: np.ndarray) -> np.ndarray:
        return (1 - 2 * (4 * pi) ** 2) * np.sin(4 * pi * x).prod(axis=1)

    return _on_square(cells, 1.0, 1.0, source)


def multiscale_poisson2d(cells: int) -> tuple[Field, int]:
    """-Δu = f."""

    def source(x: np.ndarray) -> np.ndarray:
        parts = [2 * (w * pi) ** 2 * np.sin(w * pi * x).prod(axis=1) for w in (4, 8, 12, 16)]
        return np.mean(parts, axis=0)

    return _on_square(cells, 0.0, -1.0, source)


def _marched(
    x: Axis,
    windows: int,
    start: Sequence[np.ndarray],
    solve: Callable[[Product, Sequence[np.ndarray], np.ndarray], Sequence[np.ndarray]],
) -> tuple[Field, int]:
    """The first unknown on [0, 1], window by window, and the number of coefficients.

    Args:
        x: splines in space.
        windows: of time.
        start: each unknown at the points of x.
        solve: each unknown's coefficients in a window, of its splines, of those at its start, and
            whether a point is there.
    """
    ends = np.linspace(0, 1, windows + 1)
    values = x.at(x.points).toarray()
    before = [np.linalg.solve(values, at_start) for at_start in start]
    fields, size = [], 0
    for low, high in pairwise(ends):
        s = Product(x, Axis(np.array([low, high])))
        found = solve(s, [np.repeat(c, DEGREE + 1) for c in before], s.y == low)
        before = [c.reshape(len(x.points), -1)[:, -1] for c in found]
        fields.append(s.field(found[0]))
        size += s.size * len(found)

    def field(points: np.ndarray) -> np.ndarray:
        window = np.clip(np.searchsorted(ends, points[:, 1], "right") - 1, 0, windows - 1)
        out = np.empty(len(points))
        for number, own in enumerate(fields):
            out[window == number] = own(points[window == number])
        return out

    return field, size


def wave1d(cells: int) -> tuple[Field, int]:
    """u_t = v, v_t = 4 u_xx."""
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
    return _marched(x, cells // 2, [shape, 0 * shape], solve)


def convection(cells: int) -> tuple[Field, int]:
    """u_t + 30 u_x = 0, on a circle."""
    x = _uniform(0, 2 * pi, cells, is_closed=True)

    def solve(
        s: Product, before: Sequence[np.ndarray], is_start: np.ndarray
    ) -> Sequence[np.ndarray]:
        matrix = _chosen(is_start, s.d(0, 0), s.d(0, 1) + 30 * s.d(1, 0))
        return [_linear(matrix, np.where(is_start, s.d(0, 0) @ before[0], 0.0))]

    return _marched(x, cells // 2, [np.sin(x.points)], solve)


def burgers1d(cells: int) -> tuple[Field, int]:
    """u_t + u u_x = 0.01/π u_xx."""
    steepness = 6.0  # of sinh: cells at the layer are a thirtieth of those without it
    x = Axis(np.sinh(steepness * np.linspace(-1, 1, cells + 1)) / np.sinh(steepness))

    def solve(
        s: Product, before: Sequence[np.ndarray], is_start: np.ndarray
    ) -> Sequence[np.ndarray]:
        u, u_x, rest = s.d(0, 0), s.d(1, 0), s.d(0, 1) - 0.01 / pi * s.d(2, 0)
        given = is_start | s.on_side
        wanted = np.where(is_start & ~s.on_side, u @ before[0], 0.0)

        def system(c: np.ndarray) -> tuple[np.ndarray, sparse.csr_array]:
            value, slope = u @ c, u_x @ c
            matrix = rest + u.multiply(slope[:, None]) + u_x.multiply(value[:, None])
            r = np.where(given, value - wanted, rest @ c + value * slope)
            return r, _chosen(given, u, sparse.csr_array(matrix))

        return [_newton(system, before[0])]

    return _marched(x, cells // 4, [-np.sin(pi * x.points)], solve)


def kovasznay(cells: int) -> tuple[Field, int]:
    """Navier–Stokes at Re = 40, with the pressure given at one point."""
    wide = [_uniform(-0.5, 1, cells), _uniform(-0.5, 1.5, cells)]
    low = [Axis(axis.ends, DEGREE - 1) for axis in wide]
    u, v, p = Product(wide[0], low[1]), Product(low[0], wide[1]), Product(low[0], low[1])
    problem = zoo()["kovasznay"]()
    exact = [
        problem.solution(torch.from_numpy(np.stack([s.x, s.y], axis=1))).numpy()[:, number]
        for number, s in enumerate((u, v, p))
    ]
    corner = (p.x == p.x.max()) & (p.y == p.y.max())
    sizes = np.cumsum([u.size, v.size])

    def momentum(own: Product) -> Callable[..., tuple[np.ndarray, list[sparse.csr_array]]]:
        u0, v0 = u.d(0, 0, own.points), v.d(0, 0, own.points)
        value, d_x, d_y = own.d(0, 0), own.d(1, 0), own.d(0, 1)
        diffusion = -(own.d(2, 0) + own.d(0, 2)) / 40
        number = 0 if own is u else 1
        p_x = p.d(1 - number, number, own.points)

        def rows(parts: list[np.ndarray]) -> tuple[np.ndarray, list[sparse.csr_array]]:
            c = parts[number]
            at_u, at_v, slope_x, slope_y = u0 @ parts[0], v0 @ parts[1], d_x @ c, d_y @ c
            r = at_u * slope_x + at_v * slope_y + diffusion @ c + p_x @ parts[2]
            blocks = [u0.multiply(slope_x[:, None]), v0.multiply(slope_y[:, None]), p_x]
            own_block = d_x.multiply(at_u[:, None]) + d_y.multiply(at_v[:, None]) + diffusion
            blocks[number] = blocks[number] + own_block
            r = np.where(own.on_edge, value @ c - exact[number], r)
            inside = sparse.diags_array((~own.on_edge).astype(float))
            blocks = [sparse.csr_array(inside @ block) for block in blocks]
            blocks[number] += sparse.diags_array(own.on_edge.astype(float)) @ value
            return r, blocks

        return rows

    of_u, of_v = momentum(u), momentum(v)
    u_x, v_y, value = u.d(1, 0, p.points), v.d(0, 1, p.points), p.d(0, 0)
    inside = sparse.diags_array((~corner).astype(float))
    continuity = [inside @ u_x, inside @ v_y, sparse.diags_array(corner.astype(float)) @ value]

    def system(c: np.ndarray) -> tuple[np.ndarray, sparse.csr_array]:
        parts = np.split(c, sizes)
        (r_u, first), (r_v, second) = of_u(parts), of_v(parts)
        r_p = u_x @ parts[0] + v_y @ parts[1]
        r_p = np.where(corner, value @ parts[2] - exact[2], r_p)
        matrix = sparse.block_array([first, second, continuity], format="csr")
        return np.concatenate([r_u, r_v, r_p]), sparse.csr_array(matrix)

    c = _newton(system, np.zeros(sizes[-1] + p.size))
    return u.field(np.split(c, sizes)[0]), len(c)


SOLVERS = {
    solver.__name__: solver
    for solver in (helmholtz2d, wave1d, convection, multiscale_poisson2d, kovasznay, burgers1d)
}


def rows(problem: str) -> Iterator[dict[str, object]]:
    """Of the table: the relative L2 error of the first unknown for each number of cells an axis."""
    exact = zoo()[problem]()
    x = exact.domain.sample(_POINTS, "evaluation")
    truth = exact.solution(x).reshape(len(x), -1)[:, 0].numpy()
    for cells in CELLS[problem]:
        start = time.perf_counter()
        field, size = SOLVERS[problem](cells)
        seconds = time.perf_counter() - start
        difference = field(x.numpy()) - truth
        l2 = np.linalg.norm(difference) / np.linalg.norm(truth)
        values = (problem, DEGREE, cells, size, l2, seconds)
        yield dict(zip(COLUMNS, values, strict=True))


def table(problems: Iterator[str] | tuple[str, ...] = tuple(CELLS)) -> pd.DataFrame:
    """All rows."""
    return pd.DataFrame([row for problem in problems for row in rows(problem)])
