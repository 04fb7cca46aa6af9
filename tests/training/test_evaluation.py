"""Errors at points that are not trained on."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from diffhash import MLP, Field, Identity
from diffhash.geometry import Domain, Interval
from diffhash.problems import Condition, Problem, stack
from diffhash.training import Evaluation

D = torch.float64


class TwoSides(Problem):
    """u on the left, v on the right of 0."""

    unknowns = ("u", "v")
    domain = Interval(x=(-1, 1))
    parts: dict[str, Domain] = {"u": Interval(x=(-1, 0)), "v": Interval(x=(0, 1))}  # noqa: RUF012

    def conditions(self) -> list[Condition]:
        return [Condition("equation", self.domain, lambda x, d: stack(d.u_x, d.v_x))]

    def solution(self, x: Tensor) -> Tensor:
        return stack(x[:, 0], x[:, 0].exp())


def field_of(problem: Problem) -> Field:
    return Field(Identity(1, dtype=D), MLP(1, 2, 4, 1, dtype=D), problem.domain.bounds)


def test_an_unknown_of_a_part_of_the_domain_is_compared_there() -> None:
    problem, x = TwoSides(), torch.linspace(-1, 1, 21, dtype=D)[:, None]
    field = field_of(problem)
    evaluation = Evaluation(problem, x)
    evaluation.prepare(field, torch.device("cpu"))
    [metrics] = evaluation.metrics()
    u, v = field(x).detach().T
    left, right = slice(0, 11), slice(10, 21)
    error = (u - x[:, 0])[left]
    assert metrics["mse_u"] == pytest.approx(error.square().mean().item(), rel=1e-12)
    error, exact = (v - x[:, 0].exp())[right], x[right, 0].exp()
    assert metrics["l2_v"] == pytest.approx((error.norm() / exact.norm()).item(), rel=1e-12)
    assert metrics["max_v"] == pytest.approx(error.abs().max().item(), rel=1e-12)
    assert evaluation.exact is not None
    assert evaluation.exact[:, left, 0].isfinite().all()
    assert evaluation.exact[:, 11:, 0].isnan().all()


def test_parts_that_do_not_serve() -> None:
    class Other(TwoSides):
        parts = {"w": Interval(x=(0, 1))}  # noqa: RUF012

    with pytest.raises(ValueError, match=r"Other.parts: 'w' is no unknown; there are u, v"):
        Evaluation(Other(), 10)
    with pytest.raises(ValueError, match=r"v: none of 2 points of evaluation lies in"):
        Evaluation(TwoSides(), torch.tensor([[-1.0], [-0.5]], dtype=D))


def test_an_exact_solution_that_is_not_finite_is_refused() -> None:
    class Root(TwoSides):
        def solution(self, x: Tensor) -> Tensor:
            return stack(x[:, 0], (x[:, 0] - 0.5).sqrt())

    message = r"^Root\.solution: v is not finite at 2 of 3 points of evaluation, as \(0\)$"
    with pytest.raises(ValueError, match=message):
        Evaluation(Root(), torch.tensor([[-1.0], [0.0], [0.25], [0.75]], dtype=D))
