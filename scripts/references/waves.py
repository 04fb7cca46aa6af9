"""References of equations in one periodic dimension, by `scripts.references.evolution`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import pi
from typing import Any

import numpy as np
import torch

from diffhash.problems.reference import SplineReference
from scripts.references.evolution import (
    Array,
    Evolution,
    fourier,
    fourier_values,
    spline_symbols,
    splines,
)
from scripts.references.fit import Axis, fit, relative


@dataclass(frozen=True)
class Wave:
    """An equation, and the resolutions with which its reference is made.

    Attributes:
        equation: its coefficients and functions.
        x, t: the axes of the splines in which the solution is stored.
        n, step: the number of points and the step of the Fourier method.
        n_second, step_second, degree, stages: the number of points, the step, the degree and the
            stages of the method of splines.
        quantum: the number whose multiples the stored coefficients are.
        checks: the number of times at which the two methods are compared.
    """

    equation: Evolution
    x: Axis
    t: Axis
    n: int
    step: float
    n_second: int
    step_second: float
    degree: int = 11
    stages: int = 4
    quantum: float = 2.0**-30
    checks: int = 60

    def coarser(self, factor: int) -> Wave:
        """The same settings with time steps that are longer by the factor."""
        return replace(self, step=self.step * factor, step_second=self.step_second * factor)


def by_fourier(wave: Wave, times: Array, x: Array) -> Array:
    """u at ``times`` and ``x`` by the Fourier method, ``[T, C, N]``."""
    v = fourier(wave.equation, times, wave.n, wave.step)
    values = fourier_values(wave.equation, v, wave.n, x)
    values[times == 0] = wave.equation.start(x)
    return values


def by_splines(wave: Wave, times: Array) -> dict[str, Array]:
    """u and its derivatives, by names such as ``u_xx``, at all nodes by the method of splines,
    ``[T, C, N]`` each; ``u_t`` is from the equation."""
    e, n = wave.equation, wave.n_second
    u = splines(e, times, n, wave.step_second, wave.degree, wave.stages)
    v, found = np.fft.rfft(u), {}
    symbols = {m: spline_symbols(n, e.length, wave.degree, m) for m in range(5)}
    for m in range(5):
        if m < wave.degree - 1:
            found["u" + "_" * (m > 0) + "x" * m] = np.fft.irfft(symbols[m] * v, n)
    rates = e.symbols(lambda m: symbols[m]) * v + e.nonlinear(v, n, symbols[1])
    return found | {"u_t": np.fft.irfft(rates, n)}


def derive(wave: Wave, problem: Any) -> SplineReference:
    """The reference of a problem by the Fourier method, and its error from splines."""
    e, is_half = wave.equation, wave.x.breaks[0] > wave.equation.low
    values = by_fourier(wave, wave.t.points, wave.x.points)
    spline = fit((wave.x, wave.t), values.transpose(2, 0, 1), wave.quantum)

    t_end = wave.t.breaks[-1]
    times = t_end * (np.arange(wave.checks) + 0.5) / wave.checks
    nodes = e.nodes(wave.n_second)
    stride = max(1, wave.n_second // 1024)
    second = {name: value[..., ::stride] for name, value in by_splines(wave, times).items()}
    nodes = nodes[::stride]

    own_first = relative(by_fourier(wave.coarser(2), times, nodes), by_fourier(wave, times, nodes))
    own_second = relative(by_splines(wave.coarser(2), times)["u"][..., ::stride], second["u"])
    at = np.stack(np.meshgrid(times, np.abs(nodes) if is_half else nodes, indexing="ij"), -1)
    errors = {}
    points = torch.from_numpy(at.reshape(-1, 2)[:, ::-1].copy())
    signs = np.where(nodes < 0, -1.0, 1.0) if is_half else 1.0
    for name in problem.derivatives:
        unknown, _, letters = name.partition("_")
        orders = letters.count("x"), letters.count("t")
        if sum(orders) > 1 and orders[1]:
            continue
        c = problem.unknowns.index(unknown)
        mine = spline.derivative(points, orders)[:, c].numpy().reshape(len(times), -1)
        mine = mine * (signs if orders[0] % 2 else 1.0)
        errors[name] = relative(mine, second[name.replace(unknown, "u", 1)][:, c])
    methods = {
        f"Fourier ({wave.n} points), ETDRK4 (steps of {wave.step:.0e})": own_first,
        f"splines of degree {wave.degree} ({wave.n_second} points), Radau IIA of order "
        f"{2 * wave.stages - 1} (steps of {wave.step_second:.0e})": own_second,
    }
    error = max(errors[unknown] for unknown in problem.unknowns)
    return replace(spline, methods=methods, error=error, errors=errors)


def _bump(x: Array) -> Array:
    return np.exp(10 * (np.cos(pi * x) - 1))


def _gray_scott(u: Array) -> Array:
    reaction = 1000 * u[..., 0, :] * u[..., 1, :] ** 2
    return np.stack([40 * (1 - u[..., 0, :]) - reaction, reaction - 100 * u[..., 1, :]], axis=-2)


def _toward_end(smallest: float, length: float, factor: float, largest: float) -> Array:
    """The ends of cells from 0 to ``length`` whose widths grow by the factor, up to the largest."""
    ends, width = [0.0], smallest
    while ends[-1] < length:
        ends.append(ends[-1] + width)
        width = min(width * factor, largest)
    return np.array(ends) * length / ends[-1]


WAVES = {
    "allen_cahn": Wave(
        Evolution(
            -1,
            1,
            lambda x: (x**2 * np.cos(pi * x))[None],
            [{2: 1e-4}],
            reaction=lambda u: 5 * u - 5 * u**3,
            has_kink=True,
        ),
        Axis(1 - _toward_end(2e-4, 1.0, 1.3, 0.0022)[::-1], 11),
        Axis(_toward_end(2e-6, 1.0, 1.5, 0.03), 9),
        n=16384,
        step=2e-3,
        n_second=8192,
        step_second=4e-3,
        degree=5,
        stages=3,
        quantum=2.0**-34,
        checks=20,
    ),
    "kuramoto_sivashinsky": Wave(
        Evolution(
            0,
            2 * pi,
            lambda x: (np.cos(x) * (1 + np.sin(x)))[None],
            [{2: -100 / 16**2, 4: -100 / 16**4}],
            flux=lambda u: -100 / 32 * u**2,
        ),
        Axis(np.linspace(0, 2 * pi, 257), 15, periodic=True),
        Axis(np.linspace(0, 1, 361), 13),
        n=256,
        step=2e-5,
        n_second=768,
        step_second=1e-4,
    ),
    "kdv_cosine": Wave(
        Evolution(
            -1, 1, lambda x: np.cos(pi * x)[None], [{3: -(0.022**2)}], flux=lambda u: -(u**2) / 2
        ),
        Axis(np.linspace(-1, 1, 321), 15, periodic=True),
        Axis(np.linspace(0, 1, 221), 15),
        n=384,
        step=2.5e-5,
        n_second=1536,
        step_second=1e-3,
        quantum=2.0**-38,
    ),
    "gray_scott": Wave(
        Evolution(
            -1,
            1,
            lambda x: np.array([1 - _bump(x - 0.05) / 2, _bump(x) / 4]),
            [{2: 0.04}, {2: 0.02}],
            reaction=_gray_scott,
        ),
        Axis(np.linspace(-1, 1, 321), 15, periodic=True),
        Axis(_toward_end(2e-4, 1.0, 1.1, 0.004), 11),
        n=384,
        step=5e-5,
        n_second=768,
        step_second=1e-4,
    ),
}

# Equations of problems in closed form, whose solutions the Fourier method confirms.
CONFIRMED = {
    "burgers1d": Evolution(
        -1,
        1,
        lambda x: -np.sin(pi * x)[None],
        [{2: 0.01 / pi}],
        flux=lambda u: -(u**2) / 2,
    ),
    "kdv": Evolution(
        -15,
        15,
        lambda x: (2 / np.cosh(x + 2) ** 2)[None],
        [{3: -1.0}],
        flux=lambda u: -3 * u**2,
    ),
}
