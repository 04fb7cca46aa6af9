"""Errors of u, u_x and u_xx on a dense grid of the whole domain."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from diffhash.jets import Jet, axis_rows
from diffhash.networks import Field, FieldPlan
from diffhash.ops.sizes import MAX_POINTS, check_sizes
from diffhash.problems import Problem


def _over_axes(squares: Jet, order: int) -> Tensor:
    """The mean over the axes, of mean squares of a derivative along each."""
    value = squares.rows[0]
    assert isinstance(value, tuple)
    units = order * torch.eye(len(value), dtype=torch.int64)
    return torch.stack([squares[tuple(unit)] for unit in units.tolist()]).mean()


METRICS: dict[str, Callable[[Jet, Jet], Tensor]] = {
    "mse_u": lambda error, exact: error.value,
    "mse_ux": lambda error, exact: _over_axes(error, 1),
    "mse_uxx": lambda error, exact: _over_axes(error, 2),
}
"""Each of the mean squares of u and its derivatives: of what is off, and of the exact ones."""


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

    def metrics(self) -> list[dict[str, float]]:
        """The present errors of the field (`METRICS`), of each replica of it.

        NaN without an exact solution.
        """
        if self.exact is None:
            return [dict.fromkeys(METRICS, math.nan)] * (self._n_replicas or 1)
        exact = self._squares(self.exact)
        errors = [self._squares(jet - self.exact) for jet in self.jets()]
        return [{name: of(error, exact).item() for name, of in METRICS.items()} for error in errors]

    def _squares(self, data: Tensor) -> Jet:
        return Jet(data.square().mean(dim=(1, 2), keepdim=True), self.rows)
