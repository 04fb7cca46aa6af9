"""Errors of u, u_x and u_xx on a dense grid of the whole domain."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from diffhash.jets import Jet, axis_rows
from diffhash.networks import Field, FieldPlan
from diffhash.ops.sizes import MAX_POINTS, check_sizes
from diffhash.problems import Problem


@dataclass(frozen=True)
class Metrics:
    """Mean squared errors; for several axes the mean over them. NaN without an exact solution."""

    mse_u: float
    mse_ux: float
    mse_uxx: float


class Evaluation:
    """Compares a field with the exact solution at points that are not trained on.

    Args:
        problem: whose solution it is.
        points: how many of the problem's `evaluation_points`; or points of one's own, ``[N, d]``.

    Attributes:
        problem: whose solution that is.
        x: the points, ``[N, d]``.
        rows: derivatives of first and second order along the axes.
        exact: u and its derivatives there, ``[1 + 2d, N, 1]``, if they are known.

    Raises:
        ValueError: a number of points out of range.
    """

    def __init__(self, problem: Problem, points: int | Tensor) -> None:
        self.problem = problem
        if isinstance(points, Tensor):
            self.x = points
        else:
            check_sizes(1, MAX_POINTS, evaluation_points=points)
            self.x = problem.evaluation_points(points)
        self.rows = axis_rows([2] * problem.n_dims)
        self.exact = problem.solution_jet(self.x, self.rows).data if problem.has_solution else None
        self._plan: FieldPlan | None = None
        self._n_replicas: int | None = None

    @staticmethod
    def check(field: Field) -> None:
        """Raise `ValueError` for a field of several components: a problem is for a scalar u."""
        if (components := field.network.widths[-1]) != 1:
            raise ValueError(
                f"n_outputs={components}: a problem, its evaluation and its record are for a "
                "scalar u; give 1"
            )

    def prepare(self, field: Field, device: torch.device) -> None:
        """Compute what training does not change, on the field's device.

        Raises:
            ValueError: a field of several components.
        """
        self.check(field)
        self._plan = field.plan(self.x.to(device), self.rows)
        self._n_replicas = field.n_replicas

    @torch.no_grad()
    def jets(self) -> list[Tensor]:
        """u and its derivatives at the points, float64 on the CPU: ``[1 + 2d, N, 1]`` a replica."""
        if self._plan is None:
            raise RuntimeError("Evaluation.prepare must be called before jets")
        data = self._plan.jet().data.to("cpu", torch.float64)
        return list(data) if data.ndim == 4 else [data]

    def metrics(self) -> list[Metrics]:
        """The present errors of the field, of each replica of it."""
        if self.exact is None:
            return [Metrics(*[float("nan")] * 3)] * (self._n_replicas or 1)
        return [self._errors(jet - self.exact) for jet in self.jets()]

    def _errors(self, difference: Tensor) -> Metrics:
        squares = Jet(difference.square().mean(dim=(1, 2), keepdim=True), self.rows)
        units = torch.eye(self.problem.n_dims, dtype=torch.int64)
        first = torch.stack([squares[tuple(unit)] for unit in units.tolist()]).mean()
        second = torch.stack([squares[tuple(unit)] for unit in (2 * units).tolist()]).mean()
        return Metrics(squares.value.item(), first.item(), second.item())
