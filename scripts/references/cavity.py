"""The flow in a cavity: its stream function in splines, by collocation and by Galerkin's method.

u = ψ_y, v = -ψ_x with Δ²ψ/Re = ψ_y Δψ_x - ψ_x Δψ_y, ψ = 0 and ψ_n given on the walls. Where the lid
meets the walls, ψ_xy jumps (ψ ~ r² there, and the pressure has a logarithm); the cells of the
splines shrink towards these corners.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from scipy.interpolate import BSpline
from scipy.sparse.linalg import splu

from diffhash.problems.reference import SplineReference
from scripts.references.fit import Axis, fit, relative

Array = np.ndarray
_STEPS = 25  # largest number of Newton steps
_EASY = 500  # largest Reynolds number that needs no start from a slower flow
_GAUSS = 12  # points of a quadrature on a cell


@dataclass(frozen=True)
class Basis:
    """Functions of one variable on [0, 1].

    Attributes:
        matrix: the function from ``x [M]`` and an order to the derivatives there, ``[M, n]``.
        points: the n - 4 points of collocation, or the points of a quadrature.
        weights: the weights of the quadrature; None for collocation.
        free: the coefficients ``[n, n - 4]`` of combinations that vanish with their slopes at both
            ends.
        cells: the ends of intervals that are integrated over one by one.
    """

    matrix: Callable[[Array, int], Array]
    points: Array
    free: Array
    cells: Array
    weights: Array | None = None


def spline_basis(breaks: Array, degree: int, galerkin: bool = False) -> Basis:
    """B-splines with averages of their knots as collocation points, or with Gauss's rule on each
    cell."""
    axis = Axis(breaks, degree)
    spline = BSpline(axis.knots, np.eye(len(axis.points)), degree)

    def matrix(x: Array, order: int) -> Array:
        return spline.derivative(order)(x) if order else spline(x)

    free = np.eye(len(axis.points))[:, 2:-2]
    if not galerkin:
        return Basis(matrix, axis.points[2:-2], free, breaks)
    nodes, weights = np.polynomial.legendre.leggauss(degree + 1)
    width = np.diff(breaks)[:, None] / 2
    points = breaks[:-1, None] + width * (nodes + 1)
    return Basis(matrix, points.reshape(-1), free, breaks, (width * weights).reshape(-1))


def lid(x: Array) -> Array:
    """The lid's velocity."""
    return 4 * x * (1 - x)


def _start(basis: Basis) -> Array:
    """Coefficients ``[n, n]`` of a stream function with the given values and slopes on the walls.

    At its ends the velocity of the lid has a slope that contradicts the walls. It is set to 0
    there, which changes the velocity on as small a part of the lid as the basis resolves.
    """
    ends = np.array([0.0, 1.0])
    walls = np.concatenate([basis.matrix(ends, 0), basis.matrix(ends, 1)])
    inverse = np.linalg.pinv(walls)
    n = walls.shape[1]
    x = (1 - np.cos(np.pi * (np.arange(4 * n) + 0.5) / (4 * n))) / 2
    profile = np.linalg.lstsq(basis.matrix(x, 0), lid(x), rcond=None)[0]
    profile = profile - inverse @ (walls @ profile)
    return np.outer(profile, inverse[:, 3])


def stream(basis: Basis, reynolds: float) -> Array:
    """Coefficients ``[n, n]`` of ψ by Newton's method, from the flow at half the Reynolds number
    if it is large."""
    start = stream(basis, reynolds / 2) if reynolds > _EASY else None
    system = _collocation if basis.weights is None else _galerkin
    step = system(basis, reynolds)
    c, before, m = _start(basis) if start is None else start, np.inf, basis.free.shape[1]
    for _ in range(_STEPS):
        change = basis.free @ step(c).reshape(m, m) @ basis.free.T
        c = c - change
        size = np.abs(change).max() / np.abs(c).max()
        if size < 1e-12 or (size < 1e-7 and size > before / 4):  # round-off is reached
            return c
        before = size
    raise ValueError(f"reynolds={reynolds}: Newton's method does not converge")


def _collocation(basis: Basis, reynolds: float) -> Callable[[Array], Array]:
    """The Newton step, as a function of ψ's coefficients, for the equation at the points."""
    d = [basis.matrix(basis.points, m) for m in range(5)]
    reduced = [sp.csr_matrix(one @ basis.free) for one in d]

    def product(a: int, b: int) -> Any:
        return sp.kron(reduced[a], reduced[b], format="csr")

    viscous = (product(4, 0) + 2 * product(2, 2) + product(0, 4)) / reynolds
    first = product(1, 0), product(0, 1)
    third = product(3, 0) + product(1, 2), product(2, 1) + product(0, 3)

    def step(c: Array) -> Array:
        def value(a: int, b: int) -> Array:
            return (d[a] @ c @ d[b].T).reshape(-1)

        psi_x, psi_y = value(1, 0), value(0, 1)
        l_x, l_y = value(3, 0) + value(1, 2), value(2, 1) + value(0, 3)
        residual = (value(4, 0) + 2 * value(2, 2) + value(0, 4)) / reynolds
        residual = residual - psi_y * l_x + psi_x * l_y
        jacobian = viscous - sp.diags(psi_y) @ third[0] - sp.diags(l_x) @ first[1]
        jacobian = jacobian + sp.diags(psi_x) @ third[1] + sp.diags(l_y) @ first[0]
        return splu(sp.csc_matrix(jacobian)).solve(residual)

    return step


def _galerkin(basis: Basis, reynolds: float) -> Callable[[Array], Array]:
    """The Newton step, as a function of ψ's coefficients, for ∫ Δψ (Δφ/Re + ψ_y φ_x - ψ_x φ_y) = 0
    with all φ that vanish with their slopes on the walls."""
    assert basis.weights is not None
    d = [basis.matrix(basis.points, m) for m in range(3)]
    reduced = [sp.csr_matrix(one @ basis.free) for one in d]

    def product(a: int, b: int) -> Any:
        return sp.kron(reduced[a], reduced[b], format="csr")

    phi_x, phi_y, laplacian = product(1, 0), product(0, 1), product(2, 0) + product(0, 2)
    w = np.outer(basis.weights, basis.weights).reshape(-1)
    viscous = laplacian.T @ (sp.diags(w) @ laplacian) / reynolds

    def step(c: Array) -> Array:
        def value(a: int, b: int) -> Array:
            return (d[a] @ c @ d[b].T).reshape(-1)

        psi_x, psi_y, l = value(1, 0), value(0, 1), value(2, 0) + value(0, 2)
        carried = sp.diags(w * psi_y) @ phi_x - sp.diags(w * psi_x) @ phi_y
        residual = laplacian.T @ (w * l) / reynolds + carried.T @ l
        turned = phi_x.T @ (sp.diags(w * l) @ phi_y)
        jacobian = viscous + carried.T @ laplacian + turned - turned.T
        return splu(sp.csc_matrix(jacobian)).solve(residual)

    return step


def flow(basis: Basis, c: Array, reynolds: float, x: Array, y: Array) -> Array:
    """u, v and p at the lattice of ``x`` and ``y``, ``[X, Y, 3]``; p(0, 0) = 0.

    p is the integral of its gradient, along the floor and then upward.
    """

    def value(a: int, b: int, x: Array, y: Array) -> Array:
        return basis.matrix(x, a) @ c @ basis.matrix(y, b).T

    def slope_x(x: Array, y: Array) -> Array:
        u, v = value(0, 1, x, y), -value(1, 0, x, y)
        rate = (value(2, 1, x, y) + value(0, 3, x, y)) / reynolds
        return rate - u * value(1, 1, x, y) - v * value(0, 2, x, y)

    def slope_y(x: Array, y: Array) -> Array:
        u, v = value(0, 1, x, y), -value(1, 0, x, y)
        rate = -(value(3, 0, x, y) + value(1, 2, x, y)) / reynolds
        return rate + u * value(2, 0, x, y) + v * value(1, 1, x, y)

    zero = np.zeros(1)
    floor = _integral(lambda s: slope_x(s, zero)[:, 0], basis.cells, x)
    up = _integral(lambda s: slope_y(x, s).T, basis.cells, y).T
    return np.stack([value(0, 1, x, y), -value(1, 0, x, y), floor[:, None] + up], axis=-1)


def _integral(f: Callable[[Array], Array], cells: Array, ends: Array) -> Array:
    """The integrals of f from 0 to the sorted ends, ``[E, …]``, by Gauss's rule on the intervals
    between all ends and cells."""
    cuts = np.unique(np.concatenate([[0.0], cells[cells < ends[-1]], ends]))
    nodes, weights = np.polynomial.legendre.leggauss(_GAUSS)
    width = np.diff(cuts)
    at = cuts[:-1, None] + width[:, None] * (nodes + 1) / 2
    values = f(at.reshape(-1))
    values = values.reshape(len(width), _GAUSS, *values.shape[1:])
    parts = np.einsum("kg...,g,k->k...", values, weights / 2, width)
    total = np.concatenate([np.zeros((1, *parts.shape[1:])), parts.cumsum(axis=0)])
    return total[np.searchsorted(cuts, ends)]


def graded(smallest: float, factor: float, largest: float) -> Array:
    """The ends of cells of [0, 1] whose widths grow by the factor from both ends on, up to the
    largest."""
    ends, width = [0.0], smallest
    while ends[-1] < 0.5:
        ends.append(ends[-1] + width)
        width = min(width * factor, largest)
    half = np.array(ends) * 0.5 / ends[-1]
    return np.concatenate([half, 1 - half[-2::-1]])


@dataclass(frozen=True)
class Cells:
    """The cells of an axis for both methods, as arguments of `graded`, and the splines' degrees.

    Attributes:
        stored: the cells of collocation, whose solution is stored.
        second: the cells of Galerkin's method.
    """

    stored: tuple[float, float, float] = (1e-4, 1.5, 0.04)
    second: tuple[float, float, float] = (2e-4, 1.5, 0.05)
    degree: int = 9
    degree_second: int = 7
    quantum: float = 2.0**-34

    def coarser(self) -> Cells:
        """The same settings with about three quarters of the cells."""
        coarse = [(s, f**1.4, 1.4 * w) for s, f, w in (self.stored, self.second)]
        return replace(self, stored=coarse[0], second=coarse[1])


def collocated(cells: Cells, reynolds: float, x: Array, y: Array) -> Array:
    """u, v and p on a lattice by collocation, ``[X, Y, 3]``."""
    basis = spline_basis(graded(*cells.stored), cells.degree)
    return flow(basis, stream(basis, reynolds), reynolds, x, y)


def galerkin(cells: Cells, reynolds: float, x: Array, y: Array) -> Array:
    """u, v and p on a lattice by Galerkin's method, ``[X, Y, 3]``."""
    basis = spline_basis(graded(*cells.second), cells.degree_second, galerkin=True)
    return flow(basis, stream(basis, reynolds), reynolds, x, y)


def derive(cells: Cells, problem: Any) -> SplineReference:
    """The reference of a problem by collocation, and its error from Galerkin's method."""
    reynolds, axis = problem.reynolds, Axis(graded(*cells.stored), cells.degree)
    values = collocated(cells, reynolds, axis.points, axis.points)
    spline = fit((axis, axis), values, cells.quantum)

    basis = spline_basis(graded(*cells.second), cells.degree_second, galerkin=True)
    c = stream(basis, reynolds)
    x = (np.arange(200) + 0.5) / 200
    second = flow(basis, c, reynolds, x, x)
    coarse = cells.coarser()
    own_first = relative(
        collocated(coarse, reynolds, x, x)[..., :2], collocated(cells, reynolds, x, x)[..., :2]
    )
    own_second = relative(galerkin(coarse, reynolds, x, x)[..., :2], second[..., :2])

    points = torch.from_numpy(np.stack(np.meshgrid(x, x, indexing="ij"), -1).reshape(-1, 2))
    errors = {}
    for name in problem.derivatives:
        unknown, _, letters = name.partition("_")
        a, b = letters.count("x"), letters.count("y")
        if unknown == "p":
            if a + b > 0:
                continue
            truth = second[..., 2]
        elif unknown == "u":
            truth = basis.matrix(x, a) @ c @ basis.matrix(x, b + 1).T
        else:
            truth = -(basis.matrix(x, a + 1) @ c @ basis.matrix(x, b).T)
        component = problem.unknowns.index(unknown)
        mine = spline.derivative(points, (a, b))[:, component].numpy().reshape(truth.shape)
        errors[name] = relative(mine, truth)
    methods = {
        f"stream function, collocation by splines of degree {cells.degree} ({len(axis.breaks) - 1} "
        "graded cells an axis)": own_first,
        f"stream function, Galerkin's method with splines of degree {cells.degree_second} "
        f"({len(basis.cells) - 1} graded cells an axis)": own_second,
    }
    error = max(errors[unknown] for unknown in problem.unknowns)
    return replace(spline, methods=methods, error=error, errors=errors)
