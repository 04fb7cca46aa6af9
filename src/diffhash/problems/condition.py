"""Conditions: what u has to satisfy, and where."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from diffhash.geometry import Domain, Periodic, Surface
from diffhash.problems.derivatives import Derivatives, stack

EXACT: Literal["exact"] = "exact"
Residual = Callable[[Tensor, Derivatives], Tensor]
Kind = Literal["residual", "boundary", "labels"]


@dataclass(frozen=True)
class Measured:
    """Points with measured values; see `measured`.

    Attributes:
        x: points, ``[N, d]``.
        values: ``[N, E]``.
        weights: of each point, ``[N]``; None for equal ones.
        axes: names of the columns of ``x``; None for the problem's.

    Raises:
        ValueError: tensors of wrong shapes or kinds, or weights that are negative or all 0.
    """

    x: Tensor
    values: Tensor
    weights: Tensor | None = None
    axes: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("x", "values", "weights"):
            value = getattr(self, name)
            if value is None and name == "weights":
                continue
            if not isinstance(value, Tensor) or value.is_complex() or value.requires_grad:
                got = type(value).__name__
                if isinstance(value, Tensor):
                    got = f"{value.dtype}{' with a gradient' if value.requires_grad else ''}"
                raise ValueError(f"{name} is {got}; give a tensor of constant real numbers")
            object.__setattr__(self, name, value.double())
        n = len(self.x) if self.x.ndim else 0
        if self.x.ndim != 2 or not n:
            raise ValueError(f"x has the shape {list(self.x.shape)}; give [N, d] with N >= 1")
        if self.values.ndim == 1:
            object.__setattr__(self, "values", self.values[:, None])
        if self.values.ndim != 2 or len(self.values) != n or not self.values.shape[1]:
            raise ValueError(
                f"values has the shape {list(self.values.shape)}; give [{n}] or [{n}, E] for the "
                f"{n} points"
            )
        if self.weights is not None:
            good = self.weights.shape == (n,) and bool((self.weights >= 0).all())
            if not (good and 0 < self.weights.sum() < math.inf):
                raise ValueError(
                    f"weights: give {n} finite numbers of at least 0, not all of them 0"
                )


@dataclass(frozen=True)
class Condition:
    """residual(x, d) = target at the points of a set: one part of the loss, its mean square.

    >>> from diffhash.geometry import Box
    >>> square = Box(x=(0, 1), y=(0, 1))
    >>> poisson = Condition("equation", square, lambda x, d: d.u_xx + d.u_yy, target=-1.0)
    >>> insulated = Condition("right", square.boundary("x+"), lambda x, d: d.u_n)

    Args:
        name: of the loss's part: its column in the history is ``loss_<name>``.
        where: a domain or a part of one for equations; `Domain.boundary`, `Domain.initial` or an
            interface for conditions there; `Domain.periodic` for pairs of points, whose derivatives
            ``d`` are the differences between the two; or `Measured` values.
        residual: of points ``x [N, d]`` and `Derivatives` ``d``: one equation ``[N]``, or several
            by `stack`, ``[N, E]``. It is traced, which finds the derivatives that it reads and
            whether it is linear in them.
        target: a number, a tensor, or a function of ``x`` with values ``[N]`` or ``[N, E]``;
            ``"exact"`` is the residual of the problem's exact solution, with the true values of
            coefficients that are trained. Of `Measured` points it is their values.
        weight: of the part.
        kind: which of a task's numbers of points and weights apply; None follows from ``where``.

    Raises:
        ValueError: a name that cannot be a column's, a weight that is negative or not finite, or a
            wrong type of place, residual or kind.
    """

    name: str
    where: Domain | Surface | Periodic | Measured
    residual: Residual
    target: Callable[[Tensor], Any] | Tensor | float | Literal["exact"] = 0.0
    weight: float = 1.0
    kind: Kind | None = None

    def __post_init__(self) -> None:
        if not (isinstance(self.name, str) and self.name.isidentifier()):
            raise ValueError(f"name={self.name!r}: give a condition a name of letters and digits")
        if not isinstance(self.where, (Domain, Surface, Periodic, Measured)):
            raise ValueError(
                f"{self.name}: where={self.where!r}: give a domain, a part of its boundary, "
                "Domain.periodic or Measured"
            )
        if not callable(self.residual):
            raise ValueError(
                f"{self.name}: residual={self.residual!r}: give a function of x and derivatives d"
            )
        if not isinstance(self.weight, Real) or not 0 <= self.weight < math.inf:
            raise ValueError(
                f"{self.name}: weight={self.weight}: give a finite number of at least 0"
            )
        if self.kind is None:
            kinds = {Domain: "residual", Measured: "labels"}
            kind = next((k for t, k in kinds.items() if isinstance(self.where, t)), "boundary")
            object.__setattr__(self, "kind", kind)
        if self.kind not in get_args(Kind):
            raise ValueError(f"{self.name}: kind={self.kind!r}: give {', '.join(get_args(Kind))}")
        if isinstance(self.where, Measured):
            values = self.where.values
            none = isinstance(self.target, (int, float)) and self.target == 0
            if not none and self.target is not values:
                raise ValueError(f"{self.name}: its target is what was measured; give none besides")
            object.__setattr__(self, "target", values)


def normal_errors(n: int) -> Tensor:
    """Of ``n`` measured values, with standard deviation 1: the same at every call, ``[n]``."""
    return torch.randn(n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def measured(
    name: str,
    data: str | Path | Mapping[str, Any],
    axes: Sequence[str],
    values: Sequence[str],
    weights: str | None = None,
    weight: float = 1.0,
) -> Condition:
    """Measured values of derivatives as a condition: at each point, d = value.

    >>> data = {"x": [0.1, 0.5, 0.9], "u": [0.3, 1.0, 0.3], "u_x": [3.0, 0.0, -3.0]}
    >>> condition = measured("sensors", data, axes=["x"], values=["u", "u_x"])
    >>> condition.where.values.shape
    torch.Size([3, 2])

    Args:
        name: of the condition.
        data: a CSV or Parquet file, a pandas DataFrame or a mapping of names to arrays.
        axes: the columns that hold the coordinates: the problem's axes, in their order.
        values: the columns with the values, each named for what it measures: ``u``, ``v_x`` …
        weights: the column with a weight for each point, if there is one.
        weight: of the condition.

    Raises:
        ValueError: a column that is missing, not of finite numbers, or negative weights.
    """
    source, table = "data", data
    lengths: dict[str, int] = {}
    if isinstance(data, (str, Path)):
        source, table = str(data), _read(Path(data))

    def column(key: str) -> Tensor:
        names = list(table.keys())  # type: ignore[union-attr]
        if key not in names:
            raise ValueError(f"{source} has no column {key!r}: it has {', '.join(map(str, names))}")
        try:
            found: Any = table[key]  # type: ignore[index]
            found = found.detach().cpu().numpy() if isinstance(found, Tensor) else found
            numbers = torch.from_numpy(np.array(found, dtype=np.float64))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{source}: column {key!r} is not of numbers") from error
        if numbers.ndim != 1 or not numbers.isfinite().all():
            raise ValueError(f"{source}: column {key!r} must be one of finite numbers")
        lengths[key] = len(numbers)
        if len(numbers) != lengths[axes[0]]:
            raise ValueError(
                f"{source}: column {key!r} has {len(numbers)} numbers, column {axes[0]!r} has "
                f"{lengths[axes[0]]}"
            )
        return numbers

    x = torch.stack([column(axis) for axis in axes], dim=1)
    columns = [column(value) for value in values]
    weight_of = None if weights is None else column(weights)
    if len(x) == 0:
        raise ValueError(f"{source} has no points")
    if weight_of is not None and (not (weight_of >= 0).all() or not weight_of.any()):
        raise ValueError(
            f"{source}: column {weights!r}: give weights of at least 0, not all of them 0"
        )
    where = Measured(x, stack(*columns), weight_of, tuple(axes))

    def residual(_: Tensor, d: Derivatives) -> Tensor:
        return stack(*(getattr(d, value) for value in values))

    return Condition(name, where, residual, weight=weight)


def _read(path: Path) -> Any:
    try:
        import pandas as pd
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            f"{path}: reading measured data needs pandas: pip install 'diffhash[experiments]'"
        ) from None
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file")
    try:
        return pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    except Exception as error:  # each reader raises errors of its own
        raise ValueError(f"{path}: cannot be read as a table: {error}") from error
