"""The methods and errors of exact solutions, and solutions from files."""

from __future__ import annotations

import json
import lzma
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import as_file, files
from typing import Any

import numpy as np
import torch
from torch import Tensor

_CHUNK = 2**13  # points at which a spline is evaluated at a time


@dataclass(frozen=True)
class Reference:
    """The methods by which the exact solution of a problem was obtained, and its error.

    Attributes:
        methods: the methods that gave the solution, each with its own relative error, which is
            the difference between its two finest resolutions. A solution from a file has two
            independent methods.
        error: the largest relative L2 error of an unknown over the domain. A field's error cannot
            be measured below it. For a file it is the difference between the second method and the
            stored values.
        errors: the same number for each unknown and derivative, by names such as ``u_xx``, if it
            was measured.
    """

    methods: Mapping[str, float]
    error: float
    errors: Mapping[str, float] = field(default_factory=dict)


CLOSED_FORM = Reference({"closed form": 0.0}, torch.finfo(torch.float64).eps)


@dataclass(frozen=True, eq=False)
class SplineReference(Reference):
    """A solution that is stored as a tensor product of B-splines.

    Called with points ``x [N, d]`` it returns the unknowns ``[N, C]`` in float64. Autograd
    differentiates them exactly, up to the order of the degree.

    Attributes:
        degrees: the degree of the splines along each axis.
        knots: the knots along each axis.
        coefficients: the coefficients ``[n_1, …, n_d, C]``, with n = knots - degree - 1.
    """

    degrees: tuple[int, ...] = ()
    knots: tuple[Tensor, ...] = ()
    coefficients: Tensor = field(default_factory=lambda: torch.empty(0))

    def __post_init__(self) -> None:
        object.__setattr__(self, "_splines", {})

    def __call__(self, x: Tensor) -> Tensor:
        """The unknowns at ``x [N, d]``, ``[N, C]``."""
        return _Evaluated.apply(x.double(), self, (0,) * len(self.degrees))  # type: ignore[return-value]

    def derivative(self, x: Tensor, orders: tuple[int, ...]) -> Tensor:
        """∂^orders of the unknowns at ``x [N, d]``, ``[N, C]``."""
        degrees, knots, coefficients = self._differentiated(orders)
        n_unknowns = coefficients.shape[-1]
        if min(degrees) < 0:
            return x.new_zeros(len(x), n_unknowns)
        parts = []
        for chunk in x.cpu().split(_CHUNK):
            index = torch.zeros(len(chunk), 1, dtype=torch.int64)
            bases = []
            for j, (degree, t) in enumerate(zip(degrees, knots, strict=True)):
                first, basis = _basis(chunk[:, j].contiguous(), t, degree)
                at = first[:, None] + torch.arange(degree + 1)
                index = (index[:, :, None] * coefficients.shape[j] + at[:, None]).flatten(1)
                bases.append(basis)
            values = coefficients.reshape(-1, n_unknowns)[index]
            for basis in reversed(bases):
                values = (values.unflatten(1, (-1, basis.shape[1])) * basis[:, None, :, None]).sum(
                    2
                )
            parts.append(values[:, 0])
        return torch.cat(parts).to(x) if parts else x.new_zeros(0, n_unknowns)

    def _differentiated(
        self, orders: tuple[int, ...]
    ) -> tuple[tuple[int, ...], tuple[Tensor, ...], Tensor]:
        """The degrees, knots and coefficients of a derivative, which is a spline, too."""
        kept: dict[tuple[int, ...], Any] = self._splines  # type: ignore[attr-defined]
        if orders not in kept:
            if not any(orders):
                return self.degrees, self.knots, self.coefficients
            axis = next(j for j, m in enumerate(orders) if m)
            lower = tuple(m - (j == axis) for j, m in enumerate(orders))
            degrees, knots, coefficients = self._differentiated(lower)
            p, t = degrees[axis], knots[axis]
            if p > 0:
                widths = t[p + 1 : -1] - t[1 : -p - 1]
                differences = p * coefficients.diff(dim=axis).movedim(axis, -1) / widths
                coefficients = differences.movedim(-1, axis)
            kept[orders] = (
                tuple(q - (j == axis) for j, q in enumerate(degrees)),
                tuple(u[1:-1] if j == axis else u for j, u in enumerate(knots)),
                coefficients,
            )
        return kept[orders]


def _basis(x: Tensor, knots: Tensor, degree: int) -> tuple[Tensor, Tensor]:
    """The B-splines that are not 0 at ``x [N]``, ``[N, p + 1]``, and the first one's index, by
    Cox's and de Boor's recurrence."""
    span = torch.searchsorted(knots, x, right=True) - 1
    span = span.clamp(degree, len(knots) - degree - 2)
    values = torch.ones(len(x), 1, dtype=x.dtype)
    for d in range(1, degree + 1):
        left = span[:, None] + torch.arange(1 - d, 1)
        low, high = knots[left], knots[left + d]
        share = (x[:, None] - low) / (high - low)
        zero = values.new_zeros(len(x), 1)
        values = torch.cat([(1 - share) * values, zero], 1) + torch.cat([zero, share * values], 1)
    return span - degree, values


class _Evaluated(torch.autograd.Function):
    """A derivative of a spline, whose derivatives are the spline's derivatives of higher order."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, spline: SplineReference, orders: tuple[int, ...]) -> Tensor:
        ctx.save_for_backward(x)
        ctx.spline, ctx.orders = spline, orders
        return spline.derivative(x.detach(), orders)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (x,), (gradient,) = ctx.saved_tensors, gradients
        # Autograd computes a derivative of one component with zero gradients for the others.
        if not gradient.requires_grad and not gradient.any():
            return torch.zeros_like(x), None, None
        columns = []
        for axis in range(x.shape[1]):
            orders = tuple(m + (j == axis) for j, m in enumerate(ctx.orders))
            slopes: Any = _Evaluated.apply(x, ctx.spline, orders)
            columns.append((gradient * slopes).sum(dim=1))
        return torch.stack(columns, dim=1), None, None


@cache
def stored(name: str) -> SplineReference:
    """The solution in the package's file ``reference_values/<name>.npz``, which
    ``scripts/references/make.py`` writes."""
    with as_file(files("diffhash.problems") / "reference_values" / f"{name}.npz") as path:
        return read_reference(path)


def read_reference(path: Any) -> SplineReference:
    """Read a file that ``scripts/references/make.py`` has written.

    Its coefficients are integer multiples of a quantum. They are stored byte by byte as repeated
    differences along each axis, which compress well.
    """
    with np.load(path, allow_pickle=False) as data:
        about = json.loads(str(data["about"]))
        axes = range(len(about["degrees"]))
        planes = np.frombuffer(lzma.decompress(data["packed"].tobytes()), np.uint8)
        planes = planes.reshape(8, *about["shape"])
        multiples = np.ascontiguousarray(np.moveaxis(planes, 0, -1)).view("<i8")[..., 0]
        for axis, order in enumerate(about["differences"]):
            for _ in range(order):
                multiples = multiples.cumsum(axis=axis)
        return SplineReference(
            about["methods"],
            about["error"],
            about["errors"],
            tuple(about["degrees"]),
            tuple(torch.from_numpy(data[f"knots{j}"]) for j in axes),
            torch.from_numpy(multiples * about["quantum"]),
        )
