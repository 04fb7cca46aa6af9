"""Errors of the unknowns and of their derivatives at points that are not trained on."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from diffhash.geometry.rules import MAX_POINTS
from diffhash.jets import Jet, Row
from diffhash.ops.sizes import check_sizes
from diffhash.problems import Problem
from diffhash.problems.coefficient import Coefficient

Metrics = dict[str, float]  # by name


class FixedPoints(Protocol):
    """A field at fixed points, such as a `FieldPlan`."""

    def jet(self) -> Jet:
        """The unknowns and their derivatives at the points."""
        ...


class AnyField(Protocol):
    """A `Field`, or several fields as one."""

    network: Any

    @property
    def n_replicas(self) -> int | None:
        """See `Field`."""
        ...

    def plan(self, x: Tensor, rows: tuple[Row, ...]) -> FixedPoints:
        """Prepare the field at fixed points."""
        ...


def _mean_squares(difference: Tensor, exact: Tensor) -> Tensor:
    return difference.square().mean(dim=1)


def _relative_l2(difference: Tensor, exact: Tensor) -> Tensor:
    size = exact.square().mean(dim=1)
    return (difference.square().mean(dim=1) / size.where(size > 0, float("nan"))).sqrt()


def _largest(difference: Tensor, exact: Tensor) -> Tensor:
    return difference.abs().amax(dim=1)


ERRORS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mse": _mean_squares,
    "l2": _relative_l2,
    "max": _largest,
}
"""Kinds of errors: functions of the differences to the exact values and of the exact values, each
``[K, N, C]``, that return ``[K, C]``. Their titles are in `diffhash.results.metrics.KINDS`."""


def _label(derivative: str) -> str:
    """``ux`` for ``u_x`` in the names of metrics, where that is unambiguous."""
    short = re.fullmatch("[a-z](_[xyzt]+)?", derivative)
    return derivative.replace("_", "") if short else derivative


class Evaluation:
    """Compares a field with the exact solution of a problem.

    Each unknown and each derivative that the problem's conditions read has three metrics,
    ``mse_ux = mean((u_x - exact)²)``, ``l2_ux = √(mean((u_x - exact)²) / mean(exact²))`` and
    ``max_ux = max|u_x - exact|``, each over the points of evaluation. They are NaN without an exact
    solution, and l2 also where the exact values are all 0. The metrics of an unknown in a part of
    the domain (`Problem.parts`) are over the points there. The value of each trained coefficient is
    a metric with the coefficient's name, and ``error_nu = |ν/ν_true - 1|`` is another where the
    true value is known, or |ν| where that is 0.

    >>> from diffhash.problems import InversePoisson
    >>> Evaluation(InversePoisson(), points=100).names[-4:]
    ['max_uxx', 'max_uyy', 'k', 'error_k']

    Args:
        problem: the problem with the exact solution.
        points: the number of points, which the rule ``"evaluation"`` places in the domain; or the
            points themselves, ``[N, d]``.

    Attributes:
        problem: the problem with the exact solution.
        x: the points, ``[N, d]``.
        rows: the rows of the jet that is compared.
        derivatives: the names of the unknowns and derivatives that are compared.
        exact: the exact unknowns and derivatives ``[K, N, C]``, or None if they are not known; NaN
            outside the part of the domain that an unknown is defined in.

    Raises:
        ValueError: the number of points is out of range, a part belongs to no unknown or has none
            of the points, or the exact solution is not finite at a point.
    """

    def __init__(self, problem: Problem, points: int | Tensor) -> None:
        self.problem = problem
        if isinstance(points, Tensor):
            self.x = points
        else:
            check_sizes(1, MAX_POINTS, evaluation_points=points)
            self.x = problem.domain.sample(int(points), "evaluation")
        self.rows = problem.rows
        self.exact = problem.exact_jet(self.x, self.rows).data if problem.has_solution else None
        self._inside = self._members()
        self._check_exact()
        self.derivatives = problem.derivatives_of(self.rows)
        # Read now, because a module that moves to another device may get other parameter objects.
        self._trained = {
            name: parameter.true
            for name, parameter in problem.named_parameters()
            if isinstance(parameter, Coefficient)
        }
        self._labels = [_label(name) for name in self.derivatives]
        if twice := [name for name in self.names if self.names.count(name) > 1]:
            raise ValueError(
                f"{type(problem).__name__}: two of its metrics are named {twice[0]}: rename an "
                "unknown or a coefficient"
            )
        self._plan: FixedPoints | None = None
        self._n_replicas: int | None = None

    def _members(self) -> list[Tensor] | None:
        """The indices of each unknown's points; None where every unknown has all points."""
        problem, members = self.problem, [torch.arange(len(self.x))] * len(self.problem.unknowns)
        for name, part in problem.parts.items():
            if name not in problem.unknowns:
                raise ValueError(
                    f"{type(problem).__name__}.parts: {name!r} is no unknown; there are "
                    f"{', '.join(problem.unknowns)}"
                )
            inside, c = part.contains(self.x), problem.unknowns.index(name)
            if not inside.any():
                raise ValueError(
                    f"{name}: none of {len(self.x)} points of evaluation lies in {part}"
                )
            [members[c]] = inside.nonzero(as_tuple=True)
            if self.exact is not None:
                self.exact[:, ~inside, c] = float("nan")
        return members if problem.parts else None

    def _check_exact(self) -> None:
        """Refuse an exact solution with NaN or infinity, of which all errors would be NaN."""
        value = (0,) * self.problem.n_dims
        if self.exact is None or value not in self.rows:
            return
        every = torch.arange(len(self.x))
        for c, unknown in enumerate(self.problem.unknowns):
            at = every if self._inside is None else self._inside[c]
            bad = at[~self.exact[self.rows.index(value), at, c].isfinite()]
            if len(bad):
                point = ", ".join(f"{coordinate:g}" for coordinate in self.x[bad[0]].tolist())
                raise ValueError(
                    f"{type(self.problem).__name__}.solution: {unknown} is not finite at "
                    f"{len(bad)} of {len(at)} points of evaluation, as ({point})"
                )

    @property
    def names(self) -> list[str]:
        """The names of the metrics."""
        names = self._error_names()
        for name, true in self._trained.items():
            names += [name] if true is None else [name, f"error_{name}"]
        return names

    def check(self, field: AnyField) -> None:
        """Raise `ValueError` unless the field has as many components as there are unknowns."""
        components, unknowns = field.network.widths[-1], self.problem.unknowns
        if components != len(unknowns):
            raise ValueError(
                f"n_outputs={components}: the problem has {len(unknowns)} unknown(s), "
                f"{', '.join(unknowns)}; give {len(unknowns)}"
            )

    def prepare(self, field: AnyField, device: torch.device) -> None:
        """Prepare the plan of the field and the exact values on the field's device, once.

        Raises:
            ValueError: the field has another number of components than there are unknowns.
        """
        self.check(field)
        self._plan = field.plan(self.x.to(device), self.rows)
        self._n_replicas = field.n_replicas

    @torch.no_grad()
    def jets(self) -> list[Tensor]:
        """The unknowns and derivatives at the points, float64 on the CPU, ``[K, N, C]`` for each
        replica."""
        if self._plan is None:
            raise RuntimeError("Evaluation.prepare must be called before jets")
        data = self._plan.jet().data.to("cpu", torch.float64)
        return list(data) if data.ndim == 4 else [data]

    def metrics(self) -> list[Metrics]:
        """The metrics of the field with its present parameters, for each replica."""
        count = self._n_replicas or 1
        if self.exact is None:
            errors = [{name: float("nan") for name in self._error_names()} for _ in range(count)]
        else:
            errors = [self._errors(jet - self.exact) for jet in self.jets()]
        return [e | c for e, c in zip(errors, self._coefficients(count), strict=True)]

    def _error_names(self) -> list[str]:
        return [f"{kind}_{label}" for kind in ERRORS for label in self._labels]

    def _errors(self, difference: Tensor) -> Metrics:
        assert self.exact is not None
        if self._inside is None:
            pairs = [(difference, self.exact)]
        else:
            pairs = [
                (difference[:, at, c, None], self.exact[:, at, c, None])
                for c, at in enumerate(self._inside)
            ]
        values = [error(*pair).T.flatten() for error in ERRORS.values() for pair in pairs]
        return dict(zip(self._error_names(), torch.cat(values).tolist(), strict=True))

    def _coefficients(self, count: int) -> list[Metrics]:
        found: list[Metrics] = [{} for _ in range(count)]
        parameters = dict(self.problem.named_parameters())
        for name, true in self._trained.items():
            values = parameters[name].detach().reshape(-1).tolist()
            for metrics, value in zip(found, values, strict=True):
                metrics[name] = value
                if true is not None:
                    metrics[f"error_{name}"] = abs(value / true - 1) if true else abs(value)
        return found
