"""Data-driven learning (Section III-A)."""

from __future__ import annotations

import torch
from torch import Tensor

from diffhash.jets import Jet, jet_rows
from diffhash.ops.sizes import MAX_POINTS, check_sizes
from diffhash.problems import Problem
from diffhash.tasks.task import Task, Term


def data_task(problem: Problem, n_labels: int = 1000) -> Task:
    """loss = MSE of u over ``n_labels`` points spread evenly over the domain.

    Raises:
        ValueError: a count out of range, or a problem without an exact solution.
    """
    check_sizes(1, MAX_POINTS, n_labels=n_labels)
    return Task([label_term(problem, problem.domain_points(n_labels), weight=1.0)])


def label_term(problem: Problem, x: Tensor, weight: float) -> Term:
    """MSE of u against the exact solution at ``x``.

    Raises:
        ValueError: the problem has no exact solution to take labels from.
    """
    if not problem.has_solution:
        raise ValueError(
            f"problem={type(problem).__name__} has no exact solution to take labels from: "
            "the data task, and labels of the pinn task, need one (see Problem.solution)"
        )
    rows = jet_rows(0, problem.n_dims)
    labels = problem.solution_jet(x, rows).value
    ones = torch.ones_like(labels)[None, None]
    return Term("data", x, labels, rows, _label_error, weight, ones)


def _label_error(_: Tensor, u: Jet, target: Tensor) -> Tensor:
    return u.value - target
