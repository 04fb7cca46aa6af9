"""Every interpolation table against closed forms and against its stated properties."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.polynomial import Polynomial
from scipy.special import betainc

from diffhash.ops.interpolation import INTERPOLATIONS, Interpolation, interpolation

EPS = torch.finfo(torch.float64).eps
NAMES = list(INTERPOLATIONS)
# Highest degree of polynomials that the interpolant can be; constants where nothing is said.
SPLINES = (
    "linear",
    "quadratic",
    "cubic",
    "quartic",
    "quintic",
    "sextic",
    "septic",
    "octic",
    "nonic",
)
REPRODUCES = {name: degree for degree, name in enumerate(SPLINES, start=1)}
REPRODUCES |= {"catmull_rom": 2, "hermite": 3, "s1": 0, "s2": 0, "s3": 0}
fractions = st.floats(0, 1)


def _round_off(table: Interpolation, order: int) -> float:
    """Horner's rule errs by about 2 · degree · eps of the sum of the absolute terms."""
    size = max(sum(abs(float(c)) for c in row) for row in table.derivative(order)) + 1
    return 2 * table.degree * EPS * size * table.columns


def _one_sided(table: Interpolation, order: int, side: int) -> dict[tuple[int, int], Fraction]:
    """Exact derivative of each basis function at the face of cell 0, by vertex and its degree of
    freedom.

    side 0: from within cell 0 at t = 0; side 1: from within cell -1 at t = 1.
    """
    values = {}
    for k, row in enumerate(table.derivative(order)):
        value = sum((c * side**m for m, c in enumerate(row)), start=Fraction(0))
        tap, dof = divmod(k, table.dofs)
        values[table.first_tap + tap - side, dof] = value
    return values


@pytest.mark.parametrize("name", NAMES)
@given(t=fractions)
@settings(max_examples=30, deadline=None)
def test_the_weights_sum_to_one_and_their_derivatives_to_zero(name: str, t: float) -> None:
    table = INTERPOLATIONS[name]
    point = torch.tensor(t, dtype=torch.float64)
    for order in range(table.degree + 2):
        values = table.weights(point, order)[:: table.dofs]  # slopes are zero
        total = values.sum().item()
        tolerance = _round_off(table, order) if order <= table.degree else 0
        assert total == pytest.approx(float(order == 0), abs=tolerance, rel=0)


@pytest.mark.parametrize("name", NAMES)
def test_partition_of_unity_is_exact(name: str) -> None:
    table = INTERPOLATIONS[name]
    sums = [sum(column) for column in zip(*table.coefficients[:: table.dofs], strict=True)]
    assert sums == [1] + [0] * table.degree


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_weights_equal_the_closed_form(
    name: str, order: int, vertex_basis: Callable[[str], list[Callable[[Any, int], Any]]]
) -> None:
    table = INTERPOLATIONS[name]
    t = np.linspace(0, 1, 41)[1:-1]
    got = table.weights(torch.from_numpy(t), order).numpy()
    for k in range(table.columns):
        tap, dof = divmod(k, table.dofs)
        expected = vertex_basis(name)[dof](t - (table.first_tap + tap), order)
        np.testing.assert_allclose(got[:, k], expected, atol=4 * _round_off(table, order), rtol=0)


@pytest.mark.parametrize(("name", "n"), [("linear", 0), ("s1", 1), ("s2", 2), ("s3", 3)])
def test_smoothstep_is_the_incomplete_beta_function(name: str, n: int) -> None:
    t = np.linspace(0, 1, 33)
    got = INTERPOLATIONS[name].weights(torch.from_numpy(t)).numpy()
    tolerance = 8 * _round_off(INTERPOLATIONS[name], 0)
    np.testing.assert_allclose(got[:, 1], betainc(n + 1, n + 1, t), atol=tolerance, rtol=0)
    np.testing.assert_allclose(got[:, 0], betainc(n + 1, n + 1, 1 - t), atol=tolerance, rtol=0)


def test_smoothstep_s1_is_the_papers_equation_9() -> None:
    assert INTERPOLATIONS["s1"].coefficients[1] == (0, 0, 3, -2)


@pytest.mark.parametrize(("name", "degree"), [(name, p + 1) for p, name in enumerate(SPLINES)])
def test_bsplines_equal_the_cox_de_boor_recursion(name: str, degree: int) -> None:
    def cox_de_boor(p: int, x: Fraction) -> Fraction:
        if p == 0:
            return Fraction(int(0 <= x < 1))
        return (x * cox_de_boor(p - 1, x) + (p + 1 - x) * cox_de_boor(p - 1, x - 1)) / p

    table = INTERPOLATIONS[name]
    for t in (Fraction(0), Fraction(1, 3), Fraction(5, 7)):
        for k, row in enumerate(table.coefficients):
            weight = sum(c * t**m for m, c in enumerate(row))
            assert weight == cox_de_boor(degree, t + degree - k)


def test_the_cubic_weights_are_the_textbook_ones() -> None:
    table = INTERPOLATIONS["cubic"]
    assert [6 * row[0] for row in table.coefficients] == [1, 4, 1, 0]


@pytest.mark.parametrize("name", ["linear", "s1", "s2", "s3", "catmull_rom", "hermite"])
def test_interpolating_tables_pass_through_their_vertices(name: str) -> None:
    table = INTERPOLATIONS[name]
    at_vertex = {v: w for v, w in _one_sided(table, 0, side=0).items() if w}
    assert at_vertex == {(0, 0): 1}


@pytest.mark.parametrize("name", NAMES)
def test_derivatives_are_continuous_up_to_the_class_and_not_beyond(name: str) -> None:
    table = INTERPOLATIONS[name]

    def jumps(order: int) -> list[Fraction]:
        right, left = _one_sided(table, order, side=0), _one_sided(table, order, side=1)
        return [right.get(v, Fraction(0)) - left.get(v, Fraction(0)) for v in right | left]

    for order in range(table.continuity + 1):
        assert not any(jumps(order))
    assert any(jumps(table.continuity + 1))


@pytest.mark.parametrize("name", NAMES)
def test_polynomials_are_reproduced_up_to_the_right_degree(name: str) -> None:
    table = INTERPOLATIONS[name]
    cells = 4
    x = np.linspace(0, cells, 60 * cells, endpoint=False)
    design = np.zeros((len(x), (cells + table.taps - 1) * table.dofs))
    weights = table.weights(torch.from_numpy(x % 1)).numpy()
    for k in range(table.columns):
        design[np.arange(len(x)), x.astype(int) * table.dofs + k] += weights[:, k]
    highest = REPRODUCES.get(name, 0)
    for degree in range(highest + 1):
        assert _misfit(design, x / cells, degree) < len(x) * EPS * np.linalg.cond(design)
    if name in REPRODUCES:
        assert _misfit(design, x / cells, highest + 1) > 1e-6


def _misfit(design: Any, x: Any, degree: int) -> float:
    """Largest error of the best fit to a polynomial of that degree with roots between the ends."""
    target = Polynomial.fromroots(np.linspace(0, 1, degree + 2)[1:-1])(x) if degree else x**0
    target = target / np.abs(target).max()
    solution = np.linalg.lstsq(design, target, rcond=None)[0]
    return float(np.abs(design @ solution - target).max())


@pytest.mark.parametrize("name", NAMES)
def test_weights_keep_shape_dtype_and_nan(name: str) -> None:
    table = INTERPOLATIONS[name]
    t = torch.tensor([[0.25, float("nan"), 0.5]], dtype=torch.float32)
    for order in range(table.degree + 2):
        weights = table.weights(t, order)
        assert weights.shape == (1, 3, table.columns)
        assert weights.dtype == torch.float32
        assert weights[0, 1].isnan().all()
        assert weights[0, [0, 2]].isfinite().all()


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"interpolation='spline' is unknown.*cubic.*catmull_rom"):
        interpolation("spline")
