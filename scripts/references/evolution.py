"""Two methods for u_t = Σ_m a_m ∂_x^m u + ∂_x flux(u) + reaction(u) on a periodic interval.

`fourier` is a Fourier spectral method with the exponential integrator ETDRK4 (Cox and Matthews,
J. Comput. Phys. 2002; Kassam and Trefethen, SIAM J. Sci. Comput. 2005). `splines` is collocation by
periodic splines with an implicit Runge–Kutta method, Radau IIA. They share the coefficients of the
equation, but neither derivatives nor time steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

Array = np.ndarray
_CIRCLE = 32  # points of the contour integrals
_FINER = 64  # points for Fourier coefficients, as a multiple of the nodes


@dataclass(frozen=True)
class Evolution:
    """The coefficients and functions of the equation.

    Attributes:
        low, high: the ends of the period.
        start: the function from ``x [N]`` to u at t = 0, ``[C, N]``.
        linear: the coefficients {m: a_m} of each unknown.
        reaction, flux: the functions from ``u [.., C, N]`` to ``[.., C, N]``.
        has_kink: whether the slope of the start jumps somewhere. Both methods then begin with its
            Fourier coefficients, since values at nodes do not determine the place of the jump.
    """

    low: float
    high: float
    start: Callable[[Array], Array]
    linear: Sequence[dict[int, float]]
    reaction: Callable[[Array], Array] | None = None
    flux: Callable[[Array], Array] | None = None
    has_kink: bool = False

    @property
    def length(self) -> float:
        """The length of the period."""
        return self.high - self.low

    def nodes(self, n: int) -> Array:
        """``n`` equidistant points of the period, ``[n]``."""
        return self.low + self.length * np.arange(n) / n

    def start_waves(self, n: int) -> Array:
        """The transform of the start for ``n`` nodes, ``[C, n // 2 + 1]``."""
        if not self.has_kink:
            return np.fft.rfft(self.start(self.nodes(n)))
        v = np.fft.rfft(self.start(self.nodes(_FINER * n)))[:, : n // 2 + 1] / _FINER
        v[:, -1] = 0
        return v

    def symbols(self, derivatives: Callable[[int], Array]) -> Array:
        """The symbols ``[C, K]`` of the linear part, from those of ∂_x^m."""
        return np.array(
            [sum(a * derivatives(m) for m, a in terms.items()) for terms in self.linear]
        )

    def nonlinear(self, v: Array, n: int, slope: Array) -> Array:
        """The transform of flux_x + reaction from that of u, ``[.., C, K]``."""
        u, value = np.fft.irfft(v, n), np.zeros_like(v)
        if self.reaction is not None:
            value += np.fft.rfft(self.reaction(u))
        if self.flux is not None:
            value += slope * np.fft.rfft(self.flux(u))
        return value


# ------------------------------------------------------------------------------------- Fourier
def fourier(equation: Evolution, times: Array, n: int, step: float) -> Array:
    """û at ``times``, ``[T, C, n // 2 + 1]``, with ``n`` points and steps of at most ``step``."""
    waves = 2j * np.pi / equation.length * np.arange(n // 2 + 1)
    slope = waves.copy()
    slope[-1] = 0  # the odd derivatives of the highest wave have no sign
    symbols = equation.symbols(lambda m: (slope if m % 2 else waves) ** m)

    def nonlinear(v: Array) -> Array:
        return equation.nonlinear(v, n, slope)

    @cache
    def coefficients(h: float) -> tuple[Array, ...]:
        circle = np.exp(2j * np.pi * (np.arange(_CIRCLE) + 0.5) / _CIRCLE)
        z = h * symbols[..., None] + circle
        e, half = np.exp(h * symbols), np.exp(h * symbols / 2)
        q = h * ((np.exp(z / 2) - 1) / z).mean(axis=-1)
        f1 = h * ((-4 - z + np.exp(z) * (4 - 3 * z + z**2)) / z**3).mean(axis=-1)
        f2 = h * ((2 + z + np.exp(z) * (z - 2)) / z**3).mean(axis=-1)
        f3 = h * ((-4 - 3 * z - z**2 + np.exp(z) * (4 - z)) / z**3).mean(axis=-1)
        return e, half, q, f1, f2, f3

    v, t, found = equation.start_waves(n), 0.0, []
    for end in times:
        count = int(np.ceil((end - t) / step * (1 - 1e-12))) if end > t else 0
        h = float(f"{(end - t) / max(count, 1):.13g}")  # equal for steps that differ by round-off
        for _ in range(count):
            e, half, q, f1, f2, f3 = coefficients(h)
            n_v = nonlinear(v)
            a = half * v + q * n_v
            n_a = nonlinear(a)
            b = half * v + q * n_a
            n_b = nonlinear(b)
            c = half * a + q * (2 * n_b - n_v)
            v = e * v + f1 * n_v + 2 * f2 * (n_a + n_b) + f3 * nonlinear(c)
        t = end
        found.append(v)
    return np.array(found)


def fourier_values(equation: Evolution, v: Array, n: int, x: Array, order: int = 0) -> Array:
    """∂_x^order u at ``x [M]`` from û of `fourier`, ``[.., M]``."""
    ik = 2j * np.pi / equation.length * np.arange(n // 2 + 1)
    weight = np.full(n // 2 + 1, 2.0)
    weight[[0, -1]] = 1
    waves = np.exp(ik[:, None] * (x - equation.low)) * (weight * ik**order / n)[:, None]
    return (v @ waves).real


# ------------------------------------------------------------------------------------- splines
_IMAGES = 60  # aliases of a wave on either side


def spline_symbols(n: int, length: float, degree: int, order: int) -> Array:
    """The symbols of ∂_x^m of the periodic spline through values at ``n`` nodes, at the nodes, with
    m = ``order``: Σ_j (i κ_j)^m κ_j^-(p+1) / Σ_j κ_j^-(p+1) with κ_j = κ + 2πj/h for each wave κ
    and the degree p (Schoenberg).
    """
    h = length / n
    kappa = 2 * np.pi / length * np.arange(1, n // 2 + 1)
    images = kappa[:, None] + 2 * np.pi / h * np.arange(-_IMAGES, _IMAGES + 1)
    weights = (kappa[:, None] / images) ** (degree + 1)
    found = ((1j * images) ** order * weights).sum(axis=1) / weights.sum(axis=1)
    return np.concatenate([[0.0 if order else 1.0], found])


def radau(stages: int) -> Array:
    """The matrix of Radau IIA, of order 2·stages - 1."""
    legendre = np.polynomial.legendre
    series = np.zeros(stages + 1)
    series[-2:] = -1, 1
    c = (np.sort(legendre.legroots(series)) + 1) / 2
    c[-1] = 1
    powers = np.arange(1, stages + 1)
    return (c[:, None] ** powers / powers) @ np.linalg.inv(c[:, None] ** (powers - 1))


def splines(
    equation: Evolution, times: Array, n: int, step: float, degree: int = 11, stages: int = 4
) -> Array:
    """u at ``n`` nodes at ``times``, ``[T, C, n]``, with steps of at most ``step``."""
    symbols = equation.symbols(lambda m: spline_symbols(n, equation.length, degree, m))
    slope, matrix = spline_symbols(n, equation.length, degree, 1), radau(stages)

    @cache
    def inverse(h: float) -> Array:
        """(1 - h λ A)^-1 h A for each unknown and wave, ``[C, K, S, S]``."""
        h_a = h * matrix
        return np.linalg.solve(np.eye(stages) - symbols[..., None, None] * h_a, 0j + h_a)

    v, t, found = equation.start_waves(n), 0.0, []
    for end in times:
        count = int(np.ceil((end - t) / step * (1 - 1e-12))) if end > t else 0
        h = float(f"{(end - t) / max(count, 1):.13g}")
        for _ in range(count):
            z, size, before = np.zeros((stages, *v.shape), dtype=complex), np.abs(v).max(), np.inf
            while True:  # the nonlinear part is iterated
                rates = symbols * v + equation.nonlinear(v + z, n, slope)
                new = np.einsum("ckst,tck->sck", inverse(h), rates)
                change, z = np.abs(new - z).max() / size, new
                if change < 1e-15 or (change < 1e-12 and change >= before):
                    break
                if not change < 1e6:
                    raise ValueError(f"step={step}: the iteration diverges; give a smaller one")
                before = change
            v = v + z[-1]
        t = end
        found.append(np.fft.irfft(v, n))
    return np.array(found)
