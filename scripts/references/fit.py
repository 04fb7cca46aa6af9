"""Splines through values: knots, the points that determine a spline, and its coefficients."""

from __future__ import annotations

import json
import lzma
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import torch
from scipy.interpolate import BSpline

from diffhash.problems.reference import SplineReference

Array = np.ndarray


@dataclass(frozen=True)
class Axis:
    """Splines along an axis.

    Attributes:
        breaks: the points where the polynomial pieces meet, and both ends.
        degree: the degree, which is odd for periodic splines.
        periodic: whether the splines are periodic; the breaks are then equidistant.
    """

    breaks: Array
    degree: int
    periodic: bool = False

    @property
    def knots(self) -> Array:
        """The knots of the B-splines."""
        p, breaks = self.degree, self.breaks
        if not self.periodic:
            return np.concatenate([[breaks[0]] * p, breaks, [breaks[-1]] * p])
        beyond = (breaks[1] - breaks[0]) * np.arange(1, p + 1)
        return np.concatenate([breaks[0] - beyond[::-1], breaks, breaks[-1] + beyond])

    @property
    def points(self) -> Array:
        """The points whose values determine a spline: knots, or averages of them (Greville)."""
        if self.periodic:
            return self.breaks[:-1]
        p, knots = self.degree, self.knots
        averages = np.array([knots[k + 1 : k + p + 1].mean() for k in range(len(knots) - p - 1)])
        return averages.clip(self.breaks[0], self.breaks[-1])

    def coefficients(self, values: Array) -> Array:
        """The coefficients of splines from their values at the points, along the first axis."""
        matrix = BSpline.design_matrix(self.points, self.knots, self.degree).toarray()
        n, flat = len(values), values.reshape(len(values), -1)
        if self.periodic:  # the last coefficients are the first ones again
            matrix[:, : self.degree] += matrix[:, n:]
            found = np.linalg.solve(matrix[:, :n], flat)
            found = np.concatenate([found, found[: self.degree]])
        else:
            found = np.linalg.solve(matrix, flat)
        return found.reshape(-1, *values.shape[1:])


def fit(axes: Sequence[Axis], values: Array, quantum: float) -> SplineReference:
    """The spline through ``values [n_1, …, n_d, C]`` at the points of the axes, its coefficients
    rounded to multiples of ``quantum``."""
    for j, axis in enumerate(axes):
        values = np.moveaxis(axis.coefficients(np.moveaxis(values, j, 0)), 0, j)
    return SplineReference(
        {},
        0.0,
        {},
        tuple(axis.degree for axis in axes),
        tuple(torch.from_numpy(axis.knots) for axis in axes),
        torch.from_numpy(np.round(values / quantum) * quantum),
    )


def write(path: Path, spline: SplineReference, quantum: float) -> None:
    """Write the file that `diffhash.problems.reference.read_reference` reads."""
    multiples = np.round(spline.coefficients.numpy() / quantum).astype("<i8")
    smallest, orders = b"", ()
    for trial in product((1, 3, 6), repeat=multiples.ndim - 1):
        differences = multiples
        for axis, order in enumerate(trial):
            for _ in range(order):
                differences = np.diff(differences, axis=axis, prepend=0)
        planes = np.moveaxis(differences.view(np.uint8).reshape(*multiples.shape, 8), -1, 0)
        packed = lzma.compress(planes.tobytes())
        if not smallest or len(packed) < len(smallest):
            smallest, orders = packed, trial
    about = {name: getattr(spline, name) for name in ("methods", "error", "errors", "degrees")}
    about |= {"quantum": quantum, "differences": orders, "shape": multiples.shape}
    knots = {f"knots{j}": t.numpy() for j, t in enumerate(spline.knots)}
    packed = np.frombuffer(smallest, np.uint8)
    np.savez_compressed(path, about=json.dumps(about), packed=packed, **knots)  # type: ignore[arg-type]


def relative(value: Array, truth: Array) -> float:
    """‖value - truth‖ / ‖truth‖."""
    return float(np.linalg.norm(value - truth) / np.linalg.norm(truth))
