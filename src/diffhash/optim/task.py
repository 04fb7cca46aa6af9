"""A task: which of a problem's conditions make the loss, at how many points, with what weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Literal, get_args

from diffhash.geometry import Periodic
from diffhash.geometry.rules import MAX_POINTS, check_rule, integer_seed
from diffhash.ops.sizes import check_sizes
from diffhash.optim.objective import Objective
from diffhash.optim.term import Term
from diffhash.problems import Condition, Problem
from diffhash.problems.condition import Measured
from diffhash.problems.problem import points_of
from diffhash.problems.tracer import operator_size

_PROBED = 64  # points at which the size of a residual is looked at

Kind = Literal["pinn", "data"]
_WEIGHTS = {"residual": "residual", "boundary": "boundary", "labels": "data"}  # of conditions


@dataclass(frozen=True)
class Task:
    """Chooses conditions, points and weights.

    ``pinn`` takes all conditions of a problem; ``data`` its exact solution over the whole domain
    instead. A kind of conditions without points is left out.

    Args:
        kind: of the two.
        n_residual: points of each condition in the domain.
        n_boundary: of each on its boundary, at its start or between periodic sides.
        n_labels: of each with known values of u; measured ones are always all taken.
        residual_weight: of the conditions of that kind; likewise the others.
        points: numbers of points of single conditions, by name.
        weights: likewise.
        rule: how points are placed; see `Domain.sample`.
        seed: of the points.
        wave_number: if given, each condition's weight is divided by the square of what its residual
            is for a wave of amplitude 1 and this many radians across the domain: equations of any
            order and units then weigh as much as values of u do. See `operator_size`.

    Raises:
        ValueError: a number out of range, or a kind or rule that there is not; from `objective`, a
            name that no condition has, or a condition that cannot be evaluated.
    """

    kind: Kind = "pinn"
    n_residual: int = 2000
    n_boundary: int = 500
    n_labels: int = 1000
    residual_weight: float = 1.0
    boundary_weight: float = 1.0
    data_weight: float = 1.0
    points: Mapping[str, int] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)
    rule: str = "even"
    seed: int | None = None
    wave_number: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"kind={self.kind!r}: give {' or '.join(get_args(Kind))}")
        if self.kind == "pinn":
            check_sizes(1, MAX_POINTS, n_residual=self.n_residual)
            check_sizes(0, MAX_POINTS, n_boundary=self.n_boundary)
        check_sizes(int(self.kind == "data"), MAX_POINTS, n_labels=self.n_labels)
        for name, n in self.points.items():
            check_sizes(0, MAX_POINTS, **{f"points.{name}": n})
        given = {f"{kind}_weight": getattr(self, f"{kind}_weight") for kind in _WEIGHTS.values()}
        given |= {f"weights.{name}": weight for name, weight in self.weights.items()}
        for setting, weight in given.items():
            if not isinstance(weight, Real) or not 0 <= float(weight) < math.inf:
                raise ValueError(f"{setting}={weight}: give a finite number of at least 0")
        if self.wave_number is not None and not 0 < self.wave_number < math.inf:
            raise ValueError(
                f"wave_number={self.wave_number}: give a finite number above 0, or null"
            )
        check_rule(self.rule)
        integer_seed(self.seed)

    @property
    def numbers_of_points(self) -> dict[str, int]:
        """By setting."""
        kinds = {"n_labels": self.n_labels}
        if self.kind == "pinn":
            kinds |= {"n_residual": self.n_residual, "n_boundary": self.n_boundary}
        return kinds | {f"points.{name}": n for name, n in self.points.items()}

    def objective(self, problem: Problem, periodic: Sequence[str] = ()) -> Objective:
        """The loss of a problem.

        Args:
            problem: whose conditions these are.
            periodic: axes along which the field is periodic by itself, and needs no condition.
        """
        conditions = self._conditions(problem)
        names = [condition.name for condition in conditions]
        for setting, given in (("points", self.points), ("weights", self.weights)):
            for name in given:
                if name not in names:
                    raise ValueError(
                        f"{setting}.{name}: no condition has that name; there are "
                        f"{', '.join(names)}"
                    )
        numbers = {
            "residual": self.n_residual,
            "boundary": self.n_boundary,
            "labels": self.n_labels,
        }
        terms = []
        for condition in conditions:
            assert condition.kind is not None
            n = self.points.get(condition.name, numbers[condition.kind])
            if isinstance(condition.where, Measured):
                if condition.name in self.points:
                    raise ValueError(
                        f"points.{condition.name}={n}: measured points are all taken; leave it out"
                    )
                n = len(condition.where.x)
            where = condition.where
            if n == 0 or (isinstance(where, Periodic) and where.axis in periodic):
                continue
            weight = self.weights.get(
                condition.name, getattr(self, f"{_WEIGHTS[condition.kind]}_weight")
            )
            weight = weight / self._unit(problem, condition) ** 2
            terms.append(Term(problem, condition, int(n), weight, self.rule, self.seed))
        return Objective(problem, terms)

    def _unit(self, problem: Problem, condition: Condition) -> float:
        """What a condition's residual is measured in."""
        return (
            1.0 if self.wave_number is None else residual_unit(problem, condition, self.wave_number)
        )

    def _conditions(self, problem: Problem) -> Sequence[Condition]:
        return problem.checked_conditions() if self.kind == "pinn" else [problem.labels()]


def residual_unit(problem: Problem, condition: Condition, wave_number: float) -> float:
    """What a condition's residual is for a wave of amplitude 1; see `operator_size`."""
    x, normal = points_of(condition, problem.domain, _PROBED)
    widths = [high - low for low, high in problem.domain.bounds]
    return operator_size(condition, problem.names, widths, wave_number, x, normal) or 1.0
