"""Physics-informed learning (Section III-B)."""

from __future__ import annotations

from diffhash.ops.sizes import MAX_POINTS, check_sizes
from diffhash.problems import Problem
from diffhash.tasks.data import label_term
from diffhash.tasks.task import Task, Term


def pinn_task(
    problem: Problem,
    n_labels: int = 1000,
    n_residual: int = 2000,
    data_weight: float = 1.0,
    residual_weight: float = 1.0,
) -> Task:
    """loss = data_weight · MSE of labels + residual_weight · MSE of the residual D[u] - f.

    Labels lie where the problem knows u (`Problem.label_points`), residual (collocation) points
    evenly over the whole domain. ``n_labels=0`` leaves the labels out.

    Raises:
        ValueError: a count or weight out of range, or labels asked of a problem without an
            exact solution.
    """
    check_sizes(1, MAX_POINTS, n_residual=n_residual)
    check_sizes(0, MAX_POINTS, n_labels=n_labels)
    x = problem.domain_points(n_residual)
    terms = [
        Term(
            "residual",
            x,
            problem.source(x),
            problem.rows,
            problem.residual,
            residual_weight,
            problem.coefficients(x),
        )
    ]
    if n_labels:
        terms.insert(0, label_term(problem, problem.label_points(n_labels), data_weight))
    return Task(terms)
