"""The rows of a jet: names, multi-indices, sums, total orders, and the rows below them."""

from __future__ import annotations

import pickle
from math import inf, nan
from typing import Any

import pytest

from diffhash.jets import Names, Rows, Sum, axis_rows, jet_rows, row_order
from diffhash.jets.rows import read_rows, rows_text

LAPLACIAN = Sum(((1.0, (2, 0)), (1.0, (0, 2))))


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (0, [(0, 0)]),
        (1, [(0, 0), (1, 0), (0, 1)]),
        (2, [(0, 0), (1, 0), (0, 1), (2, 0), (1, 1), (0, 2)]),
        ((1, 1), [(0, 0), (1, 0), (0, 1), (1, 1)]),
        ([(2, 0), (0, 1)], [(0, 0), (1, 0), (0, 1), (2, 0)]),
        ("u_yy", [(0, 0), (0, 1), (0, 2)]),
        (["u_xx", "u_y"], [(0, 0), (1, 0), (0, 1), (2, 0)]),
        ({"u_x"}, [(0, 0), (1, 0)]),
        ([], [(0, 0)]),
        (LAPLACIAN, [(0, 0), (1, 0), (0, 1), LAPLACIAN]),
        ([LAPLACIAN, (2, 0)], [(0, 0), (1, 0), (0, 1), (2, 0), LAPLACIAN]),
        ([LAPLACIAN, LAPLACIAN], [(0, 0), (1, 0), (0, 1), LAPLACIAN]),
    ],
    ids=str,
)
def test_rows_come_with_those_below_in_one_order(rows: Rows, expected: list[Any]) -> None:
    found = jet_rows(rows, 2)
    assert found == tuple(expected)
    assert jet_rows(found, 2) == found


def test_rows_along_the_axes_alone() -> None:
    assert axis_rows((2, 1)) == ((0, 0), (1, 0), (0, 1), (2, 0))
    assert axis_rows((0, 3)) == ((0, 0), (0, 1), (0, 2), (0, 3))
    assert axis_rows([0]) == ((0,),)


def test_names_of_several_letters_and_unknowns_with_underscores() -> None:
    names = Names(("x", "tau"), ("u", "u_1"))
    assert names.find("u_xtaux") == (0, (2, 1))
    assert names.find("u_1") == (1, (0, 0))
    assert names.find("u_1_tau") == (1, (0, 1))
    assert jet_rows("u_1_tau", 2, names) == ((0, 0), (0, 1))


@pytest.mark.parametrize(
    "rows",
    [
        *(-1, 1.5, None, True, (2,), (2, 2, 2), (1, -1), (1, 0.5), "u_z", "x", [(1,)], [None]),
        *([[]], Sum(((1.0, (1,)),)), [LAPLACIAN, (1,)]),
    ],
    ids=str,
)
def test_what_is_no_derivative_is_named(rows: Any) -> None:
    with pytest.raises(ValueError, match=r"is no derivative: give "):
        jet_rows(rows, 2)


@pytest.mark.parametrize(
    "terms",
    [(), ((1.0, (0, 0)),), ((1.0, (2, 0)), (3.0, (0, 0))), ((nan, (2, 0)),), ((inf, (2, 0)),)],
    ids=str,
)
def test_sums_are_of_derivatives_with_finite_weights(terms: Any) -> None:
    with pytest.raises(ValueError, match=r"^Sum\(terms=.*the value is a row of its own$"):
        jet_rows(Sum(terms), 2)


def test_a_rows_order_is_the_highest_of_its_parts() -> None:
    assert row_order((2, 1)) == 3
    assert row_order(Sum(((1.0, (1, 0)), (1.0, (2, 2))))) == 4


def test_rows_pass_through_text_and_pickle() -> None:
    rows = jet_rows([LAPLACIAN, (3, 1), Sum(((1e-300, (1, 0)), (0.1, (0, 2))))], 2)
    assert read_rows(rows_text(rows)) == rows
    assert pickle.loads(pickle.dumps(rows)) == rows
