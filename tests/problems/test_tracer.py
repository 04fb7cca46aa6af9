"""The derivatives that a residual reads, and its linearity in them, are found by running it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from diffhash.geometry import Box, Disc, Domain
from diffhash.jets import Jet, Sum, jet_rows
from diffhash.optim import Term
from diffhash.problems import EXACT, Coefficient, Condition, Derivatives, Problem, stack

D = torch.float64
N = 12


class Own(Problem):
    unknowns = ("u", "v")
    domain = Box(x=(1, 2), y=(1, 3))

    def __init__(self, domain: Domain | None = None) -> None:
        if domain is not None:
            self.domain = domain
        self.k = Coefficient(1.0)
        self.m = Coefficient(0.0)
        self.net = nn.Linear(2, 1, dtype=D)

    def conditions(self) -> list[Condition]:
        return []


def make(residual: Any, problem: Own | None = None, where: Any = None) -> Term:
    problem = problem or Own()
    return Term(problem, Condition("own", where or problem.domain, residual), N, rule="uniform")


def value(term: Term, data: Tensor) -> Tensor:
    """Errors of a term from a jet of all derivatives up to order two, given as its rows."""
    every = jet_rows(4, 2)
    rows = []
    for row in term.rows:
        parts = row.terms if isinstance(row, Sum) else ((1.0, row),)
        rows.append(sum(w * data[every.index(alpha)] for w, alpha in parts))
    return term.errors(Jet(torch.stack(rows), term.rows, term.names))


def random_jet(names: Any, scale: float = 1.0) -> tuple[Tensor, Derivatives]:
    every = jet_rows(4, 2)
    data = scale * torch.randn(len(every), N, 2, dtype=D)
    return data, Derivatives(Jet(data, every, names))


def names_of(rows: Any) -> str:
    def letters(alpha: Any) -> str:
        return "".join("xy"[j] * m for j, m in enumerate(alpha)) or "1"

    return " ".join(
        "+".join(f"{w:g}{letters(alpha)}" for w, alpha in row.terms)
        if isinstance(row, Sum)
        else letters(row)
        for row in rows
    )


RESIDUALS: dict[str, tuple[Any, str, bool]] = {
    "a value": (lambda x, d: d.u, "1", True),
    "with an offset": (lambda x, d: 3 * d.u - x[:, 0].sin() + 2, "1", True),
    "what lies below comes with it": (lambda x, d: d.u_xxy, "1 x y xx xy xxy", True),
    "of two unknowns": (lambda x, d: d.u_x + x[:, 1] * d.v_y - d.v, "1 x y", True),
    "two equations": (lambda x, d: stack(d.u_x, d.v + d.u_x), "1 x", True),
    "a product": (lambda x, d: d.u * d.v, "1", False),
    "a square": (lambda x, d: d.u_x**2, "1 x", False),
    "an absolute value": (lambda x, d: d.u.abs(), "1", False),
    "a kink": (lambda x, d: d.u.relu() + d.v, "1", False),
    "a small nonlinear part": (lambda x, d: d.u + 1e-3 * d.u**3, "1", False),
    "one equation of two": (lambda x, d: stack(d.u_x, d.v * d.u), "1 x", False),
    "a branch on values": (lambda x, d: torch.where(d.u > 0, d.u, 2 * d.u), "1", False),
    # Sums of the highest derivatives alone travel as one row.
    "a Laplacian": (lambda x, d: d.u_xx + d.u_yy, "1 x y 1xx+1yy", True),
    "with weights": (lambda x, d: 2 * d.u_xx - 4 * d.u_yy + d.u, "1 x y 1xx+-2yy", True),
    "times a function of x": (lambda x, d: x[:, 0] * (d.u_xx + d.u_yy), "1 x y 1xx+1yy", True),
    "plus lower ones": (lambda x, d: d.u_xx + d.u_yy + d.u_x, "1 x y 1xx+1yy", True),
    "of both unknowns": (
        lambda x, d: stack(d.u_xx + d.u_yy, 3 * (d.v_xx + d.v_yy)), "1 x y 1xx+1yy", True
    ),
    "biharmonic": (
        lambda x, d: d.u_xxxx + 2 * d.u_xxyy + d.u_yyyy,
        "1 x y xx xy yy xxx xxy xyy yyy 1xxxx+2xxyy+1yyyy",
        True,
    ),
    "in a product": (lambda x, d: (d.u_xx + d.u_yy) * d.u, "1 x y 1xx+1yy", False),
    # These sums do not.
    "weights that vary": (lambda x, d: x[:, 0] * d.u_xx + d.u_yy, "1 x y xx yy", True),
    "weights of two equations": (
        lambda x, d: stack(d.u_xx + d.u_yy, d.u_xx - d.u_yy), "1 x y xx yy", True
    ),
    "weights of two unknowns": (lambda x, d: d.u_xx + d.u_yy + d.v_xx, "1 x y xx yy", True),
    "each by itself": (lambda x, d: d.u_xx**2 + d.u_yy**2, "1 x y xx yy", False),
    "a product of two": (lambda x, d: d.u_xx * d.u_yy, "1 x y xx yy", False),
    "one of them below": (lambda x, d: d.u_xx + d.u_x, "1 x xx", True),
    "a weight that differs in a small part": (
        lambda x, d: d.u_xx + torch.where(x[:, 0] > x[:, 0].detach().clamp(max=1.9), 2.0, 1.0)
        * d.u_yy,
        "1 x y xx yy",
        True,
    ),
}  # fmt: skip


@pytest.mark.parametrize("code", RESIDUALS)
def test_rows_and_linearity(code: str) -> None:
    residual, rows, is_linear = RESIDUALS[code]
    if code == "a weight that differs in a small part":
        problem = Own()
        condition = Condition("own", problem.domain, residual)
        term = Term(problem, condition, 500, rule="uniform", seed=1)
        assert 0 < (term.x[:, 0] > 1.9).sum() < 100
        assert names_of(term.rows) == rows
        return
    term = make(residual)
    assert names_of(term.rows) == rows
    assert (term.coefficients is not None) == is_linear
    for scale in (1.0, 1e-2, 30.0):
        data, d = random_jet(term.names, scale)
        expected = residual(term.x, d)
        expected = expected[:, None] if expected.ndim == 1 else expected
        size = expected.abs().max().item()
        torch.testing.assert_close(value(term, data), expected, rtol=1e-12, atol=1e-12 * size)
        if not is_linear:
            continue
        form = term.kernel_form()
        assert form is not None
        every, rows_data = jet_rows(4, 2), []
        for row in term.rows:
            parts = row.terms if isinstance(row, Sum) else ((1.0, row),)
            rows_data.append(sum(w * data[every.index(alpha)] for w, alpha in parts))
        linear = torch.einsum("kcne,knc->ne", form[0], torch.stack(rows_data)) - form[1]
        torch.testing.assert_close(linear, expected, rtol=1e-11, atol=1e-11 * size)


@pytest.mark.parametrize(
    ("residual", "rows"),
    [
        (lambda p: lambda x, d: p.k * d.u, "1"),
        (lambda p: lambda x, d: d.u + p.k, "1"),  # an offset
        (lambda p: lambda x, d: d.u + p.m * d.v, "1"),  # which is 0 where it starts
        (lambda p: lambda x, d: d.u + p.m * d.u_x, "1 x"),
        (lambda p: lambda x, d: p.net(x)[:, 0] * d.u, "1"),
        (lambda p: lambda x, d: p.k * (d.u_xx + d.u_yy), "1 x y 1xx+1yy"),
        (lambda p: lambda x, d: d.u_xx + p.k * d.u_yy, "1 x y xx yy"),
        (lambda p: lambda x, d: d.u_xx + p.m.cos() * d.u_yy + p.m, "1 x y xx yy"),  # slope 0 there
        (lambda p: lambda x, d: d.u_xx + p.net(x)[:, 0] * d.u_yy, "1 x y xx yy"),
    ],
)
def test_what_is_trained_is_never_taken_for_a_constant(residual: Any, rows: str) -> None:
    problem = Own()
    values = [p.detach().clone() for p in problem.parameters()]
    with torch.no_grad():  # however it is built
        term = make(residual(problem), problem)
    assert term.coefficients is None
    assert term.kernel_form() is None
    assert names_of(term.rows) == rows
    assert all(torch.equal(a, b) for a, b in zip(values, problem.parameters(), strict=True))
    for parameter in problem.parameters():
        parameter.data = parameter.data + 0.3
    data, d = random_jet(term.names)
    expected = residual(problem)(term.x, d)[:, None]
    found = value(term, data)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-13)
    of = [p for p in problem.parameters() if p.requires_grad]
    one, other = (
        torch.autograd.grad(v.square().sum(), of, allow_unused=True) for v in (found, expected)
    )
    assert any(g is not None for g in other)
    for a, b in zip(one, other, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)


def test_what_is_frozen_is_a_constant() -> None:
    problem = Own()
    problem.requires_grad_(False)
    term = make(lambda x, d: problem.k * d.u + problem.net(x)[:, 0] * d.v, problem)
    assert term.kernel_form() is not None


def test_the_derivative_along_the_normal() -> None:
    problem = Own(Disc(center=(1, -1), radius=2.0))
    boundary = problem.domain.boundary()
    term = make(lambda x, d: d.u_n + d.normal[:, 0] * d.v, problem, boundary)
    assert names_of(term.rows) == "1 x y"
    assert term.kernel_form() is not None
    data, _ = random_jet(term.names)
    normal = (term.x - torch.tensor([1.0, -1.0])) / 2
    every = jet_rows(4, 2)
    slopes = torch.stack([data[every.index(alpha)][:, 0] for alpha in ((1, 0), (0, 1))], dim=1)
    expected = (normal * slopes).sum(dim=1) + normal[:, 0] * data[0, :, 1]
    torch.testing.assert_close(value(term, data)[:, 0], expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(
    ("residual", "name"),
    [
        (lambda x, d: d.u_x if d.u.mean() > 0 else d.u_y, "u_y"),
        (lambda x, d: d.v_x if len(x) < N else d.v_xy, "v_xy"),
    ],
)
def test_a_residual_reads_the_same_derivatives_always(residual: Any, name: str) -> None:
    for target in (0.0, EXACT):
        condition = Condition("own", Own.domain, residual, target)
        with pytest.raises(
            ValueError, match=rf"^own: its residual reads {name} only at some .*if$"
        ):
            Term(Solved(), condition, N, rule="uniform")


class Solved(Own):
    def solution(self, x: Tensor) -> Tensor:
        return -x


def test_few_points_serve() -> None:
    for n in (1, 2, 3):
        problem = Own()
        term = Term(problem, Condition("own", problem.domain, lambda x, d: d.u_xx + d.u_yy), n)
        assert (len(term), names_of(term.rows)) == (n, "1 x y 1xx+1yy")
