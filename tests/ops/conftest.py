"""Small grids, points on them, and an evaluation of both that shares no code with the library."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from numpy.polynomial import Polynomial
from numpy.typing import NDArray
from scipy.interpolate import BSpline
from scipy.special import beta
from torch import Tensor

from diffhash.ops.interpolation import INTERPOLATIONS
from diffhash.ops.layout import GridLayout, grid_layout

Array = NDArray[np.float64]
Basis = Callable[[Any, int], Any]
PRIMES = (1, 2654435761, 805459861, 3674653429)


def _layout(
    name: str,
    d: int,
    *,
    hashed: bool = False,
    n_levels: int = 2,
    base_resolution: int | None = None,
    level_offset: bool = False,
    periodic: tuple[int, ...] = (),
) -> GridLayout:
    """A layout of dense levels, or with a finest level that is hashed into 8 rows; nested layouts
    have more cells along later axes."""
    base = base_resolution or (5 if hashed else 2)
    is_nested = name not in ("linear", "s1") or level_offset or bool(periodic)
    return grid_layout(
        d,
        name,
        n_levels,
        log2_hashmap_size=3 if hashed else 20,
        base_resolution=[base + j for j in range(d)] if is_nested else base,
        per_level_scale=2.0,
        level_offset=level_offset,
        periodic=periodic,
    )


@pytest.fixture
def make_layout() -> Callable[..., GridLayout]:
    return _layout


@pytest.fixture
def make_grid() -> Callable[..., tuple[GridLayout, dict[str, Any]]]:
    """``make_grid(name, d, hashed, offset, periodic=())``: a small nested grid, its settings."""

    def make(
        name: str, d: int, hashed: bool, offset: bool, periodic: tuple[int, ...] = ()
    ) -> tuple[GridLayout, dict[str, Any]]:
        settings = {
            "n_levels": 2,
            "log2_hashmap_size": 3 if hashed else 20,
            "base_resolution": tuple((5 if hashed else 3) + j for j in range(d)),
            "per_level_scale": 2.0 if d == 1 else 1.4,
            "level_offset": offset,
            "convention": "nested",
            "periodic": periodic,
        }
        return grid_layout(d, name, **settings), settings

    return make


@pytest.fixture
def make_points() -> Callable[..., Tensor]:
    """``make_points(layout, n)``: random points at least a twentieth of a cell from any face."""

    def make(layout: GridLayout, n: int, seed: int = 0) -> Tensor:
        x = _uniform((4096, layout.n_input_dims), seed)
        clear = torch.ones(len(x), dtype=torch.bool)
        for level in layout.levels:
            t = (x * torch.tensor(level.scales) + level.shift) % 1
            clear &= ((t > 0.05) & (t < 0.95)).all(dim=1)
        return x[clear][:n]

    return make


def _uniform(shape: tuple[int, ...], seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, dtype=torch.float64, generator=generator)


@pytest.fixture
def normal() -> Callable[..., Tensor]:
    """``normal(*shape, seed=0)``: float64 N(0, 1)."""

    def make(*shape: int, seed: int = 0) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    return make


def _smoothstep_basis(n: int) -> Basis:
    """S_n is the integral of the beta density tⁿ(1-t)ⁿ / B(n+1, n+1)."""
    density = Polynomial([0, 1]) ** n * Polynomial([1, -1]) ** n / beta(n + 1, n + 1)
    step = density.integ()

    def basis(r: Any, order: int) -> Any:
        r = np.asarray(r, dtype=float)
        inside = np.abs(r) < 1
        if order == 0:
            return np.where(inside, 1 - step(np.abs(r)), 0)
        # The sign of r to the power `order`: the chain rule for |r|.
        return np.where(inside, -step.deriv(order)(np.abs(r)) * np.sign(r) ** order, 0)

    return basis


def _spline_basis(degree: int) -> Basis:
    spline = BSpline.basis_element(np.arange(degree + 2.0), extrapolate=False)

    def basis(r: Any, order: int) -> Any:
        # Vertex v is the middle knot of its basis function, the left one if there are two.
        values = spline(np.asarray(r, dtype=float) + (degree + 1) // 2, nu=order)
        return np.nan_to_num(values)

    return basis


def _keys_basis(r: Any, order: int) -> Any:
    """Keys' cubic convolution kernel with a = -1/2, which is Catmull-Rom."""
    r = np.asarray(r, dtype=float)
    near = Polynomial([1, 0, -2.5, 1.5])
    far = Polynomial([2, -4, 2.5, -0.5])
    near, far = (near.deriv(order), far.deriv(order)) if order else (near, far)
    a = np.abs(r)
    sign = np.sign(r) ** order if order else 1
    return sign * np.where(a < 1, near(a), np.where(a < 2, far(a), 0))


def _hermite_basis(dof: int) -> Basis:
    """The function with value 1 and slope 0 at its vertex, or value 0 and slope 1; both are 0 a
    cell away."""
    a = Polynomial([0, 1])
    half = (a if dof else 1 + 2 * a) * (1 - a) ** 2  # of the distance |r|

    def basis(r: Any, order: int) -> Any:
        r = np.asarray(r, dtype=float)
        values = (half.deriv(order) if order else half)(np.abs(r))
        # The slope's function is odd; each derivative brings the chain rule for |r|.
        return np.where(np.abs(r) < 1, values * np.where(r < 0, -1.0, 1.0) ** (order + dof), 0)

    return basis


def _table_basis(name: str) -> Basis:
    """The basis of a table without a closed form here: its own polynomials, evaluated by numpy."""
    table = INTERPOLATIONS[name]
    pieces = [Polynomial([float(c) for c in row]) for row in table.coefficients]

    def basis(r: Any, order: int) -> Any:
        r = np.asarray(r, dtype=float)
        cell = np.floor(r)
        result = np.zeros_like(r)
        for k, piece in enumerate(pieces):
            piece = piece.deriv(order) if order else piece
            result = np.where(-cell == table.first_tap + k, piece(r - cell), result)
        return result

    return basis


SPLINES = ("quadratic", "cubic", "quartic", "quintic", "sextic", "septic", "octic", "nonic")
CLOSED_FORMS: dict[str, list[Basis]] = {
    "linear": [_smoothstep_basis(0)],
    "s1": [_smoothstep_basis(1)],
    "s2": [_smoothstep_basis(2)],
    "s3": [_smoothstep_basis(3)],
    **{name: [_spline_basis(degree)] for degree, name in enumerate(SPLINES, start=2)},
    "catmull_rom": [_keys_basis],
    "hermite": [_hermite_basis(0), _hermite_basis(1)],
}


@pytest.fixture
def vertex_basis() -> Callable[[str], list[Basis]]:
    """``vertex_basis(name)[m](r, order)``: a derivative of the basis function of a vertex's degree
    of freedom m, r cells away from it."""
    return lambda name: CLOSED_FORMS.get(name) or [_table_basis(name)]


def _mixed_derivative(f: Callable[[Tensor], Tensor], x: Tensor, alpha: tuple[int, ...]) -> Tensor:
    current = f(x)
    for axis, order in enumerate(alpha):
        for _ in range(order):
            columns = [
                torch.autograd.grad(c.sum(), x, create_graph=True, materialize_grads=True)[0]
                if c.requires_grad
                else torch.zeros_like(x)
                for c in current.unbind(dim=1)
            ]
            current = torch.stack([column[:, axis] for column in columns], dim=1)
    return current


@pytest.fixture
def mixed_derivative() -> Callable[..., Tensor]:
    """``mixed_derivative(f, x, alpha)``: ∂^α of a pointwise ``f`` by nested autograd."""
    return _mixed_derivative


@pytest.fixture
def independent_encode(vertex_basis: Callable[[str], list[Basis]]) -> Callable[..., Array]:
    """``independent_encode(name, settings, x, table, alpha)``: ∂^α of a nested grid, in numpy.

    Written from the formulas of the documentation; ``settings`` are `grid_layout`'s arguments.
    """

    def encode(
        name: str, settings: dict[str, Any], x: Array, table: Array, alpha: tuple[int, ...]
    ) -> Array:
        bases, stencil = vertex_basis(name), INTERPOLATIONS[name]
        periodic = settings.get("periodic", ())
        d, L = x.shape[1], settings["n_levels"]
        offset = settings.get("level_offset", False)
        first_row, columns = 0, []
        for l in range(L):
            N = [int(n * settings["per_level_scale"] ** l) for n in settings["base_resolution"]]
            shift = l / L if offset else 0.0
            resolutions = [n + (shift > 0) + stencil.taps - 1 for n in N]
            sizes = [N[j] if j in periodic else resolutions[j] for j in range(d)]
            n_vertices = min(-(-np.prod(sizes) // 8) * 8, 2 ** settings["log2_hashmap_size"])
            y = np.zeros((len(x), table.shape[1]))
            for i, point in enumerate(x):
                wrapped = [c % 1 if j in periodic else c for j, c in enumerate(point)]
                pos = np.array(N) * np.array(wrapped) + shift
                for v in product(*(range(n) for n in resolutions)):
                    r = pos - (np.array(v) + stencil.first_tap)
                    w = [v[j] % N[j] if j in periodic else v[j] for j in range(d)]
                    if np.prod(sizes) > n_vertices:
                        row = 0
                        for j in range(d):
                            row ^= w[j] * PRIMES[j] % 2**32
                        row %= n_vertices
                    else:
                        row = sum(w[j] * int(np.prod(sizes[:j])) for j in range(d))
                    for dofs in product(range(len(bases)), repeat=d):
                        values = [bases[m](r[j], alpha[j]) for j, m in enumerate(dofs)]
                        dof = sum(m * len(bases) ** j for j, m in enumerate(dofs))
                        entry = table[first_row + row * len(bases) ** d + dof]
                        y[i] += np.prod(values) * np.prod(np.array(N, float) ** alpha) * entry
            first_row += n_vertices * len(bases) ** d
            columns.append(y)
        assert first_row == len(table)
        return np.concatenate(columns, axis=1)

    return encode
