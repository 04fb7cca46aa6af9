"""Conditions: the equations that u has to satisfy, and the places where they hold."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
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
    """Points with measured values, as the place of a `Condition`; `measured` makes it from a file.

    >>> where = Measured(x=torch.tensor([[0.1], [0.9]]), values=torch.tensor([0.3, 0.4]))
    >>> condition = Condition("sensors", where, lambda x, d: d.u)

    Attributes:
        x: the points, ``[N, d]``.
        values: the values of the residual's E equations at the points, ``[N, E]`` or ``[N]``.
        weights: the weight of each point, ``[N]``; None for equal weights.
        axes: the names of the columns of ``x``; None for the axes of the problem.

    Raises:
        ValueError: a tensor has a wrong shape or is not of constant real numbers, or weights are
            negative or all 0.
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
    """residual(x, d) = target at the points of a place: mean((residual - target)²) in the loss.

    >>> from diffhash.geometry import Box
    >>> square = Box(x=(0, 1), y=(0, 1))
    >>> poisson = Condition("equation", square, lambda x, d: d.u_xx + d.u_yy, target=-1.0)
    >>> insulated = Condition("right", square.boundary("x+"), lambda x, d: d.u_n)

    Args:
        name: the name of the condition, of letters, digits and ``_``. Its column in the history is
            ``loss_<name>``.
        where: the place. It is a domain for an equation; `Domain.boundary`, `Domain.initial` or
            an interface for a condition there; `Domain.periodic` for pairs of points, at which the
            derivatives ``d`` are differences between the two points; or `Measured` values.
        residual: a function of the points ``x [N, d]`` and their `Derivatives` ``d`` that returns
            ``[N]`` for one equation, or ``[N, E]`` for E equations joined by `stack`. It is called
            a few times before training to find the derivatives that it reads, and whether it is
            linear in them.
        target: a number, or a function of ``x`` with values ``[N]`` or ``[N, E]``. ``"exact"`` is
            the residual of the problem's exact solution with the true values of the coefficients.
            For `Measured` values it is these values.
        weight: the weight of the condition in the loss.
        kind: ``"residual"``, ``"boundary"`` or ``"labels"``: which numbers of points and weights of
            a `Task` apply. None chooses it by the place.

    Raises:
        ValueError: the name is no identifier, the weight is negative or not finite, the place or
            the kind is none of these, the residual is not a function of x and d, or the target is
            a tensor.
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
        _check_arguments(self.name, self.residual)
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
        elif isinstance(self.target, Tensor):
            raise ValueError(
                f"{self.name}: its target is a tensor of the shape {list(self.target.shape)}, but "
                "the points are not given with it: give a number or a function of x, or the points "
                "and their values as the place, Measured(x, values)"
            )


def _check_arguments(name: str, residual: Residual) -> None:
    try:
        signature = inspect.signature(residual)
    except (TypeError, ValueError):  # some callables have no signature
        return
    try:
        signature.bind(None, None)
    except TypeError as error:
        raise ValueError(
            f"{name}: its residual is a function of {signature}; give one of the points x and the "
            "derivatives d, as lambda x, d: d.u"
        ) from error


def normal_errors(n: int) -> Tensor:
    """Normal random errors ``[n]`` with the standard deviation 1, the same at every call."""
    return torch.randn(n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def measured(
    name: str,
    data: str | Path | Mapping[str, Any],
    axes: Sequence[str],
    values: Sequence[str],
    weights: str | None = None,
    weight: float = 1.0,
) -> Condition:
    """Make a condition of measured values: at each point the unknown or derivative has the value.

    >>> data = {"x": [0.1, 0.5, 0.9], "u": [0.3, 1.0, 0.3], "u_x": [3.0, 0.0, -3.0]}
    >>> condition = measured("sensors", data, axes=["x"], values=["u", "u_x"])
    >>> condition.where.values.shape
    torch.Size([3, 2])

    Args:
        name: the name of the condition.
        data: a CSV or Parquet file, a pandas DataFrame, or a mapping of column names to arrays.
        axes: the names of the columns with the coordinates, which are the problem's axes in their
            order.
        values: the names of the columns with the values, each of which is the name of the unknown
            or derivative that was measured: ``"u"``, ``"v_x"`` …
        weights: the name of the column with a weight for each point; None for equal weights.
        weight: the weight of the condition in the loss.

    Raises:
        ValueError: there are no names of axes or values, the file cannot be read, a column is
            missing or has a value that is not a finite number, or weights are negative or all 0.
        ModuleNotFoundError: pandas, which reads files, is missing.
    """
    axes, values = _column_names("axes", axes), _column_names("values", values)
    if weights is not None and not isinstance(weights, str):
        raise ValueError(f"weights={type(weights).__name__}: give the name of a column")
    source, table = "data", data
    lengths: dict[str, int] = {}
    if isinstance(data, (str, Path)):
        source, table = str(data), _read(Path(data))
    if not hasattr(table, "keys"):
        raise ValueError(
            f"data={type(data).__name__}: give a CSV or Parquet file, a data frame, or a mapping "
            "of names of columns to arrays"
        )

    def column(key: str) -> Tensor:
        names = list(table.keys())  # type: ignore[union-attr]
        if key not in names:
            hint = "; columns are separated by commas" if len(names) == 1 else ""
            raise ValueError(
                f"{source} has no column {key!r}: it has {', '.join(map(repr, names))}{hint}"
            )
        try:
            found: Any = table[key]  # type: ignore[index]
            found = found.detach().cpu().numpy() if isinstance(found, Tensor) else found
            if np.iscomplexobj(found):
                raise TypeError("they are complex")
            numbers = torch.from_numpy(np.array(found, dtype=np.float64))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{source}: column {key!r} is not of numbers: {error}") from error
        if numbers.ndim != 1:
            raise ValueError(
                f"{source}: column {key!r} has the shape {list(numbers.shape)}; give one "
                "number for each point"
            )
        if len(bad := (~numbers.isfinite()).nonzero()[:, 0]):
            raise ValueError(
                f"{source}: column {key!r} is {numbers[bad[0]].item()} in row {int(bad[0]) + 1}, "
                f"and not finite in {len(bad)} of {len(numbers)} rows; leave those out"
            )
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
    where = Measured(x, stack(*columns), weight_of, axes)

    def residual(_: Tensor, d: Derivatives) -> Tensor:
        return stack(*(getattr(d, value) for value in values))

    return Condition(name, where, residual, weight=weight)


def _column_names(setting: str, names: Any) -> tuple[str, ...]:
    given = (names,) if isinstance(names, str) else names
    given = tuple(given) if isinstance(given, Iterable) else ()
    if not given or not all(isinstance(name, str) for name in given):
        raise ValueError(f"{setting}={names!r}: give the name of at least one column, as ['u']")
    if len(set(given)) < len(given):
        raise ValueError(f"{setting}={names!r}: give each column once")
    return given


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
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
        return pd.read_csv(path, skipinitialspace=True)  # as in "x, t, u"
    except Exception as error:  # each reader raises errors of its own
        raise ValueError(
            f"{path}: cannot be read as a table; give a CSV or Parquet file: {error}"
        ) from error
