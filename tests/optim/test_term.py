"""Conditions of wrong shapes, kinds or values are refused: none is broadcast or read beyond."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import inf, nan
from typing import Any

import pytest
import torch
from torch import Tensor

from diffhash import Jet
from diffhash.geometry import Box, Interval
from diffhash.optim import Objective, Task, Term
from diffhash.problems import (
    EXACT,
    Coefficient,
    Condition,
    Derivatives,
    Measured,
    Poisson1D,
    Problem,
    stack,
)

D = torch.float64
N = 8
DOMAIN = Interval(x=(0, 1))


class Own(Problem):
    """A problem with one condition and a solution."""

    domain = DOMAIN

    def __init__(self, condition: Condition | None = None) -> None:
        self.given = condition

    def conditions(self) -> list[Condition]:
        assert self.given is not None
        return [self.given]

    def solution(self, x: Tensor) -> Tensor:
        return x[:, 0].sin()


def make(residual: Any = lambda x, d: d.u, target: Any = 0.0, **changed: Any) -> Term:
    condition = Condition("own", changed.pop("where", DOMAIN), residual, target, **changed)
    problem = changed.pop("problem", None) or Own()
    return Term(problem, condition, N, rule="grid")


def ones(*shape: int) -> Tensor:
    return torch.ones(*shape, dtype=D)


def with_one(tensor: Tensor, value: float) -> Tensor:
    tensor = tensor.clone()
    tensor[2] = value
    return tensor


# ----------------------------------------------------------------------------- targets


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (lambda x: ones(N, 2), r"own: its target is of the shape \[8, 2\] at 8 points, .*\[8, 1\]"),
        (lambda x: ones(1, 1), r"its target is of the shape \[1, 1\]"),
        (lambda x: ones(1), r"its target is of the shape \[1\]"),
        (lambda x: ones(N, N), r"its target is of the shape \[8, 8\]"),
        (lambda x: ones(1, N, 1), r"its target is of the shape \[1, 8, 1\]"),
        (lambda x: ones(N + 1), r"its target is of the shape \[9\]"),
        (lambda x: ones(N, 0), r"its target is of the shape \[8, 0\]"),
        (lambda x: torch.tensor(1.0), r"its target is of the shape \[\]"),
        (lambda x: ones(len(x), 2), r"its target is of the shape \[8, 2\]"),
        (lambda x: x * x[:, 0], r"its target is of the shape \[8, 8\]"),
        (lambda x: x.numpy()[:, 0], r"its target is ndarray at 8 points"),
        (lambda x: None, r"its target is NoneType"),
        (lambda x: ones(N) + 0j, r"its target is torch\.complex128; give real numbers"),
        (nan, r"own: its target is not finite at 8 of 8 points"),
        (lambda x: with_one(ones(N), nan), r"its target is not finite at 1 of 8 points"),
        (lambda x: with_one(ones(N), -inf), r"its target is not finite at 1 of 8 points"),
        (lambda x: 1 / x[:, 0], r"its target is not finite at 1 of 8 points"),
        (
            lambda x: ones(N).requires_grad_(),
            r"its target requires a gradient, but only its residual",
        ),
        ("exactly", r"own: target='exactly': the only word is 'exact'"),
    ],
)
def test_a_target_is_one_number_for_each_equation(target: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(target=target)


@pytest.mark.parametrize(
    "target",
    [2, 2.0, lambda x: 2, lambda x: 2 + 0 * x, lambda x: 2 + 0 * x[:, 0],
     lambda x: 2 * ones(N), lambda x: 2 * ones(N).long(), lambda x: 2 * ones(N).float()],
)  # fmt: skip
def test_a_target_may_be_a_number_or_a_function(target: Any) -> None:
    term = make(target=target)
    assert term.target.dtype == D
    assert torch.equal(term.target, 2 * ones(N, 1))
    two = make(lambda x, d: stack(d.u, d.u_x), 3.0)
    assert torch.equal(two.target, 3 * ones(N, 2))


@pytest.mark.parametrize("target", [ones(N), ones(N, 1), torch.tensor(1.0)])
def test_a_tensor_without_its_points_is_refused(target: Tensor) -> None:
    """At other points, as in a window of time or an error estimate, it would have other values."""
    with pytest.raises(ValueError, match=r"^own: its target is a tensor .*Measured\(x, values\)$"):
        make(target=target)


def test_the_exact_target_is_the_residual_of_the_solution() -> None:
    term = make(lambda x, d: stack(d.u_xx + x[:, 0] * d.u**2, d.u_x), EXACT)
    s, c = term.x[:, 0].sin(), term.x[:, 0].cos()
    expected = torch.stack([-s + term.x[:, 0] * s**2, c], dim=1)
    torch.testing.assert_close(term.target, expected, rtol=1e-14, atol=1e-15)


class Inverse(Own):
    """k u_x + m u, with k or both as coefficients to be found."""

    def __init__(self, k: Coefficient, m: Any = 1.0) -> None:
        super().__init__()
        self.k, self.m = k, m

    def conditions(self) -> list[Condition]:
        return [Condition("own", DOMAIN, lambda x, d: self.k * d.u_x + self.m * d.u, EXACT)]


def test_the_exact_target_has_the_true_coefficients_and_not_where_they_start() -> None:
    problem = Inverse(Coefficient(0.5, true=2.0))
    (term,) = Task(n_residual=N).objective(problem).terms
    x = term.x[:, 0]
    torch.testing.assert_close(term.target[:, 0], 2 * x.cos() + x.sin(), rtol=1e-14, atol=0)
    assert problem.k.item() == 0.5
    assert not term.target.requires_grad
    frozen = Inverse(Coefficient(0.5, true=2.0).requires_grad_(False))  # a constant like any other
    (term,) = Task(n_residual=N).objective(frozen).terms
    torch.testing.assert_close(term.target[:, 0], 0.5 * x.cos() + x.sin(), rtol=1e-14, atol=0)
    for problem, names in (
        (Inverse(Coefficient(0.5)), "k"),
        (Inverse(Coefficient(0.5, true=2.0), Coefficient(1.0)), "m"),
        (Inverse(Coefficient(0.5), Coefficient(1.0)), "k, m"),
    ):
        message = rf"^own: target=exact needs the true value of {names}, which is trained"
        with pytest.raises(ValueError, match=message):
            Task(n_residual=N).objective(problem)


# ------------------------------------------------------------------------- residuals

SHAPES: dict[str, Callable[[Tensor, Derivatives], Any]] = {
    "mixed [N] and [N, 1]": lambda x, d: d.u_xx + x * d.u,
    "a mixed column beside a good one": lambda x, d: torch.cat([d.u[:, None], x * d.u], dim=-1),
    "a mean": lambda x, d: d.u.mean(),
    "a mean over points": lambda x, d: d.u.mean(dim=0, keepdim=True),
    "transposed": lambda x, d: stack(d.u, d.u_x).T,
    "no column": lambda x, d: d.u[:, None][:, 1:],
    "three axes": lambda x, d: d.u[:, None, None],
    "integers": lambda x, d: d.u.round().long(),
    "booleans": lambda x, d: d.u == x[:, 0],
    "complex numbers": lambda x, d: d.u + 0j,
    "no tensor": lambda x, d: None,
    "a number": lambda x, d: 1.0,
    "a list": lambda x, d: [d.u, d.u_x],
}


@pytest.mark.parametrize("code", SHAPES)
def test_a_residual_is_an_equation_at_each_point(code: str) -> None:
    with pytest.raises(ValueError, match=r"^own: its residual is (of shape|\w+|torch\.\w+ of)"):
        make(SHAPES[code])


def test_as_many_equations_as_points_are_no_mistake() -> None:
    condition = Condition("own", DOMAIN, lambda x, d: stack(*[d.u * k for k in range(1, 6)]))
    assert Term(Own(), condition, 5).target.shape == (5, 5)


def test_both_residual_and_target_may_not_be_mixed() -> None:
    with pytest.raises(ValueError, match=r"own: its residual is of shape \[N, N\] for N points"):
        make(lambda x, d: x * d.u, lambda x: x * x[:, 0])


@pytest.mark.parametrize(
    "residual",
    [
        lambda x, d: d.u - d.u.mean(),
        lambda x, d: d.u_x**2 - (d.u / d.u.max()),
        lambda x, d: d.u.roll(1),
        lambda x, d: d.u + x[:, 0].sum(),
        lambda x, d: d.u.cumsum(0),
        lambda x, d: d.u_xx * (1.0 if x[0, 0] < 0.5 else 2.0),
    ],
)
@pytest.mark.parametrize("trained", [False, True])
def test_a_residual_does_not_mix_points(residual: Any, trained: bool) -> None:
    """This holds whether or not it is linear, and whether or not it has a trained coefficient."""
    k = Coefficient(1.0).requires_grad_(trained)
    with pytest.raises(
        ValueError, match="own: its residual at a point depends on the other points"
    ):
        make(lambda x, d: k * residual(x, d))


def test_pairs_are_not_mixed_either() -> None:
    domain = Box(x=(0, 1), t=(0, 1))

    problem = Own()
    problem.domain = domain
    condition = Condition("own", domain.periodic("x"), lambda x, d: d.u - d.u.mean())
    with pytest.raises(
        ValueError, match="own: its residual at a point depends on the other points"
    ):
        Term(problem, condition, N)


@pytest.mark.parametrize(
    ("residual", "n_bad"),
    [
        (lambda x, d: d.u / x[:, 0], 1),
        (lambda x, d: d.u**2 + (x[:, 0] - 0.5).log(), 4),
        (lambda x, d: d.u * nan, 8),
    ],
)
def test_a_residual_that_is_never_finite(residual: Any, n_bad: int) -> None:
    with pytest.raises(ValueError, match=rf"own: .* not finite at {n_bad} of 8 points"):
        make(residual)


@pytest.mark.parametrize(
    "residual", [lambda x, d: d.u.log(), lambda x, d: d.u_x / d.u, lambda x, d: d.u.sqrt() - d.u_x]
)
def test_a_residual_may_be_finite_for_some_unknowns_alone(residual: Any) -> None:
    assert make(residual).coefficients is None


@pytest.mark.parametrize(
    ("residual", "message"),
    [
        (lambda x, d: x[:, 0], "own: its residual reads neither an unknown nor a derivative"),
        (lambda x, d: d.v, r"own: 'v' is no derivative: give one of u, and after an"),
        (lambda x, d: d.u_y, r"own: 'u_y' is no derivative: .* of x$"),
        (lambda x, d: d.u_, r"own: 'u_' is no derivative"),
        (lambda x, d: d.u_n, "own: there is no normal here: give a condition on a boundary"),
        (lambda x, d: d.normal[:, 0] * d.u, "own: there is no normal here"),
    ],
)
def test_what_cannot_be_read_is_named(residual: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(residual)


def test_an_error_of_the_residuals_own_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        make(lambda x, d: d.u / (1 // 0))


@pytest.mark.parametrize("replicas", [(), (3,)], ids=["one", "replicas"])
def test_a_residual_that_changes_its_shape_later(replicas: tuple[int, ...]) -> None:
    mixes = False

    def residual(x: Tensor, d: Derivatives) -> Tensor:
        return d.u[..., None] * d.u[..., None, :] if mixes else d.u

    term = make(residual)
    jet = Jet(torch.zeros(*replicas, 1, N, 1, dtype=D), term.rows, term.names)
    Objective(Own(), [term]).loss([jet])
    mixes = True
    with pytest.raises(ValueError, match=r"own: its residual is .*8, 8\].*\[8, 1\]"):
        Objective(Own(), [term]).loss([jet])


# ------------------------------------------------------------------------------ points


@pytest.mark.parametrize(
    ("where", "message"),
    [
        (Interval(t=(0, 1)), r"own: its points are of the axes \('t',\); give .*\('x',\)"),
        (Box(x=(0, 1), y=(0, 1)), r"own: its points are of the axes \('x', 'y'\)"),
        (Interval(x=(0, 2)), r"own: x = 1\.14286 of its point 5 is not in .* domain, 0 to 1"),
        (Measured(ones(3, 2), ones(3)), r"own: its points have the shape \[3, 2\]; give \[N, 1\]"),
        (Measured(-ones(3, 1), ones(3)), r"own: x = -1 of its point 1 is not in"),
        (Measured(nan * ones(3, 1), ones(3)), r"own: x = nan of its point 1 is not in"),
        (Measured(ones(3, 1), nan * ones(3)), r"own: its target is not finite at 3 of 3 points"),
        (Measured(ones(3, 1), ones(3), axes=("t",)), r"own: its points are of the axes \('t',\)"),
    ],
)
def test_points_lie_in_the_domain(where: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(where=where)


def test_axes_in_another_order_are_not_mistaken() -> None:
    class Flow(Own):
        domain = Box(x=(0, 1), t=(0, 1))

    turned = Interval(t=(0, 1)) * Interval(x=(0, 1))
    with pytest.raises(ValueError, match=r"axes \('t', 'x'\); give .* \('x', 't'\)"):
        Term(Flow(), Condition("own", turned, lambda x, d: d.u), N)


def test_errors_get_points_that_float32_can_tell_apart_or_float64() -> None:
    seen = []

    def residual(x: Tensor, d: Derivatives) -> Tensor:
        seen.append(x.dtype)
        return (torch.sin(x[:, 0]) * d.u).to(d.u.dtype)

    def loss(domain: Any) -> Tensor:
        problem = Own(Condition("own", domain, residual))
        problem.domain = domain
        (term,) = Task(n_residual=5, wave_number=None).objective(problem).terms
        return term.loss(Jet(torch.ones(1, 5, 1), term.rows, term.names))

    for low, dtype in ((0.0, torch.float32), (1e6, D)):
        value = loss(Interval(x=(low, low + 1 / 3)))
        assert (value.dtype, seen[-1]) == (torch.float32, dtype)
        x = low + torch.linspace(0, 1 / 3, 5, dtype=D)
        assert value.item() == pytest.approx(x.sin().square().mean().item(), rel=1e-5)


def test_the_parts_add_up_to_the_loss() -> None:
    objective = Task(n_labels=4, n_residual=6, data_weight=0.3).objective(Poisson1D())
    data = [torch.ones(len(t.rows), len(t), 1, dtype=D) for t in objective.terms]
    jets = [Jet(d, t.rows, t.names) for d, t in zip(data, objective.terms, strict=True)]
    loss = objective.loss(jets)
    assert len(objective.parts) == 2
    assert objective.parts[0] + objective.parts[1] == loss
    assert objective.parts[0] == 0.3 * (1 - objective.terms[0].target).square().mean()
    assert not any(part.requires_grad for part in objective.parts)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"name": ""}, r"name='': give a condition a name"),
        ({"name": "a\nb"}, r"name='a\\nb'"),
        ({"name": 3}, r"name=3"),
        ({"weight": nan}, r"own: weight=nan: give a finite number of at least 0"),
        ({"weight": "1"}, r"own: weight=1: give"),
        ({"weight": -1}, r"own: weight=-1"),
        ({"kind": "label"}, r"own: kind='label': give residual, boundary, labels"),
        ({"where": "left"}, r"own: where='left': give a domain"),
        ({"where": ones(3, 1)}, r"own: where=tensor"),
        ({"residual": None}, r"own: residual=None: give a function of x and derivatives d"),
        ({"where": Measured(ones(3, 1), ones(3)), "target": 1.0}, r"own: its target is what was"),
        ({"where": Measured(ones(3, 1), ones(3)), "target": ones(3)}, r"own: its target is what"),
    ],
)
def test_a_condition_is_made_of_what_fits(changed: dict[str, Any], message: str) -> None:
    settings: dict[str, Any] = {"name": "own", "where": DOMAIN, "residual": lambda x, d: d.u}
    with pytest.raises(ValueError, match=message):
        Condition(**settings | changed)


def test_a_changed_copy_of_a_condition() -> None:
    told = Condition("own", Measured(ones(3, 1), 2 * ones(3)), lambda x, d: d.u)
    assert (told.kind, replace(told, weight=2.0).weight) == ("labels", 2.0)
    assert torch.equal(Term(Own(), told, 1).target, 2 * ones(3, 1))
