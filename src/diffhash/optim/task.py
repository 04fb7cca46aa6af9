"""A task: how many points and what weight each condition of a problem has in the loss."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Literal, get_args

from diffhash._warnings import warn
from diffhash.geometry import Periodic
from diffhash.geometry.boundary import Boundary
from diffhash.geometry.rules import MAX_POINTS, check_rule, integer_seed
from diffhash.ops.sizes import check_sizes
from diffhash.optim.objective import Objective
from diffhash.optim.term import Term
from diffhash.problems import Condition, Problem
from diffhash.problems.condition import Measured
from diffhash.problems.problem import points_of
from diffhash.problems.tracer import operator_size

_PROBED = 64  # points at which the size of a residual is computed

Kind = Literal["pinn", "data"]
_WEIGHTS = {"residual": "residual", "boundary": "boundary", "labels": "data"}  # of conditions


@dataclass(frozen=True)
class Task:
    """How the loss is made from a problem: its conditions, their numbers of points, their weights.

    The loss is Σ weight_i · mean((residual_i - target_i)²) over the conditions i, where the mean is
    over the points and equations of a condition. A condition without points, as by
    ``points={"ends": 0}``, is left out. A warning names sides of a boundary that get hardly any of
    its points.

    The defaults are those of `diffhash.training.solve` and, on a command line, of ``recipe=pde``.

    >>> from diffhash.problems import Heat1D
    >>> task = Task(n_residual=500, n_boundary=50, points={"start": 100}, weights={"start": 10.0})
    >>> {term.name: len(term) for term in task.objective(Heat1D()).terms}
    {'equation': 500, 'ends': 50, 'start': 100}

    Args:
        kind: ``"pinn"`` takes all conditions of the problem, ``"data"`` the exact solution over the
            whole domain instead of them.
        n_residual: the number of points of each condition in the domain.
        n_boundary: the number of points of each condition on the boundary, at the start of time or
            between periodic sides.
        n_labels: the number of points of each condition with known values of u. Of measured
            values all are taken, whatever this number is.
        residual_weight: the weight of each condition in the domain.
        boundary_weight: the weight of each condition on the boundary.
        data_weight: the weight of each condition with known or measured values.
        points: numbers of points of single conditions, by their names.
        weights: weights of single conditions, by their names.
        rule: the rule by which points are placed; see `Domain.sample`.
        seed: the seed of that rule.
        wave_number: the weight of each condition is divided by the square of the size that its
            residual has for a wave of amplitude 1 with this many radians across the domain.
            Equations of any order and units then weigh as much as values of u do. See
            `diffhash.problems.tracer.operator_size`. None divides by nothing, which the paper's
            runs do (``recipe=best``).

    Raises:
        ValueError: a number is out of range, or a kind or a rule is unknown. `objective` raises it
            for a name that no condition has, for a condition that cannot be evaluated, and for one
            whose residual has no finite size.
    """

    kind: Kind = "pinn"
    n_residual: int = 8192
    n_boundary: int = 2048
    n_labels: int = 1000
    residual_weight: float = 1.0
    boundary_weight: float = 1.0
    data_weight: float = 1.0
    points: Mapping[str, int] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)
    rule: str = "even"
    seed: int | None = None
    wave_number: float | None = 10.0

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"kind={self.kind!r}: give {' or '.join(get_args(Kind))}")
        if self.kind == "pinn":
            check_sizes(1, MAX_POINTS, n_residual=self.n_residual, n_boundary=self.n_boundary)
        check_sizes(int(self.kind == "data"), MAX_POINTS, n_labels=self.n_labels)
        for name in ("points", "weights"):
            if not isinstance(value := getattr(self, name), Mapping):
                raise ValueError(f"{name}={value!r}: give a number for each condition by its name")
        for name, n in self.points.items():
            check_sizes(0, MAX_POINTS, **{f"points.{name}": n})
        given = {f"{kind}_weight": getattr(self, f"{kind}_weight") for kind in _WEIGHTS.values()}
        given |= {f"weights.{name}": weight for name, weight in self.weights.items()}
        for setting, weight in given.items():
            if not isinstance(weight, Real) or not 0 <= float(weight) < math.inf:
                raise ValueError(f"{setting}={weight}: give a finite number of at least 0")
        wave = self.wave_number
        if wave is not None and not (isinstance(wave, Real) and 0 < float(wave) < math.inf):
            raise ValueError(
                f"wave_number={self.wave_number}: give a finite number above 0, or "
                "None (null on the command line)"
            )
        check_rule(self.rule)
        integer_seed(self.seed)

    @property
    def numbers_of_points(self) -> dict[str, int]:
        """The numbers of points, by the names of their settings."""
        kinds = {"n_labels": self.n_labels}
        if self.kind == "pinn":
            kinds |= {"n_residual": self.n_residual, "n_boundary": self.n_boundary}
        return kinds | {f"points.{name}": n for name, n in self.points.items()}

    def objective(self, problem: Problem, periodic: Sequence[str] = ()) -> Objective:
        """Make the loss of a problem.

        Args:
            problem: the problem that has the conditions.
            periodic: names of the axes along which the field is periodic by itself, so that
                periodic conditions are left out.

        Raises:
            ValueError: a name in `points` or `weights` is no condition's, a condition cannot be
                evaluated, or its residual has no finite size.
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
            if isinstance(where, Boundary) and (few := where.sides_with_few(int(n))):
                told = ", ".join(f"{count} on {side}" for side, count in few.items())
                warn(
                    f"{condition.name}: of its {n} points lie {told}, because they are shared by "
                    "length: give each side a condition of its own, as domain.boundary('x'), or "
                    "scale the axes"
                )
        return Objective(problem, terms)

    def _unit(self, problem: Problem, condition: Condition) -> float:
        """The unit of a condition's residual, by which it is divided."""
        if self.wave_number is None:
            return 1.0
        unit = residual_unit(problem, condition, self.wave_number)
        if not math.isfinite(unit):
            raise ValueError(
                f"wave_number={self.wave_number}: the residual of {condition.name} has no finite "
                "derivative in u at random values of u, so that its size is not known; give None, "
                "and a weight of your own"
            )
        return unit

    def _conditions(self, problem: Problem) -> Sequence[Condition]:
        return problem.checked_conditions() if self.kind == "pinn" else [problem.labels()]


def residual_unit(problem: Problem, condition: Condition, wave_number: float) -> float:
    """The size of a condition's residual for a wave of amplitude 1, or 1 if that is 0; see
    `operator_size`."""
    x, normal = points_of(condition, problem.domain, _PROBED)
    widths = [high - low for low, high in problem.domain.bounds]
    return operator_size(condition, problem.names, widths, wave_number, x, normal) or 1.0
