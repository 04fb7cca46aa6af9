"""Measured values of unknowns and derivatives: from files and from arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from diffhash.geometry import Box
from diffhash.jets import Jet
from diffhash.optim import Task, Term
from diffhash.problems import Condition, Measured, Problem, measured

D = torch.float64
TABLE = {
    "x": [0.0, 0.25, 1.0],
    "t": [0, 1, 2],
    "u": [1.0, 2.0, -3.0],
    "v_x": [0.5, 0.0, 1e3],
    "w": [1.0, 0.0, 3.0],
    "note": ["a", "b", "c"],
}


class Flow(Problem):
    unknowns = ("u", "v")
    domain = Box(x=(0, 1), t=(0, 2))

    def __init__(self, data: Any, weights: str | None = "w", **settings: Any) -> None:
        self.data = measured("told", data, ("x", "t"), ("u", "v_x"), weights, **settings)

    def conditions(self) -> list[Condition]:
        return [self.data]


def as_kind(kind: str, folder: Path) -> Any:
    frame = pd.DataFrame(TABLE)
    match kind:
        case "csv":
            frame.to_csv(folder / "data.csv", index=False)
            return folder / "data.csv"
        case "a name":
            frame.to_csv(folder / "data.csv", index=False)
            return str(folder / "data.csv")
        case "parquet":
            pytest.importorskip("pyarrow")
            frame.to_parquet(folder / "data.parquet")
            return folder / "data.parquet"
        case "frame":
            return frame
        case "nullable":
            return frame.convert_dtypes()
        case "arrays":
            return {k: np.array(v) for k, v in TABLE.items()}
        case "tensors":
            return {k: torch.tensor(v) for k, v in TABLE.items() if k != "note"}
    return TABLE


@pytest.mark.parametrize(
    "kind", ["csv", "a name", "parquet", "frame", "nullable", "arrays", "tensors", "lists"]
)
def test_all_kinds_of_tables_say_the_same(kind: str, tmp_path: Path) -> None:
    task = Task(data_weight=2.0, wave_number=None)
    (term,) = task.objective(Flow(as_kind(kind, tmp_path), weight=5.0)).terms
    assert isinstance(term.condition.where, Measured)
    assert term.x.tolist() == [[0.0, 0.0], [0.25, 1.0], [1.0, 2.0]]
    assert term.target.tolist() == [[1.0, 0.5], [2.0, 0.0], [-3.0, 1e3]]
    assert term.x.dtype == term.target.dtype == D
    jet = Jet(torch.zeros(len(term.rows), 3, 2, dtype=D), term.rows, term.names)
    # Weights 1, 0, 3 have the mean 4/3; 6 values.
    expected = 2 * 5 * (1.25 * 1 + 4.0 * 0 + (9 + 1e6) * 3) * (3 / 4) / 6
    assert term.loss(jet).item() == pytest.approx(expected, rel=1e-14)


def test_equal_weights_are_none() -> None:
    weighted = Task().objective(Flow(TABLE | {"w": [0.3, 0.3, 0.3]})).terms[0]
    plain = Task().objective(Flow(TABLE, None)).terms[0]
    data = torch.randn(len(plain.rows), 3, 2, dtype=D)
    losses = [term.loss(Jet(data, term.rows, term.names)).item() for term in (weighted, plain)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-14)
    assert plain.kernel_form() is not None
    assert weighted.kernel_form() is not None


def test_what_was_measured_does_not_change_with_the_arrays() -> None:
    u = np.array([1.0, 2.0, 3.0])
    problem = Flow(TABLE | {"u": u})
    u[:] = 0
    assert Task().objective(problem).terms[0].target[:, 0].tolist() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"u": None}, "data has no column 'u': it has 'x', 't', 'v_x', 'w', 'note'"),
        ({"x": None}, "data has no column 'x'"),
        ({"w": None}, "data has no column 'w'"),
        ({"u": ["a", "b", "c"]}, "data: column 'u' is not of numbers: could not convert"),
        (
            {"u": [1.0, float("nan"), float("nan")]},
            "data: column 'u' is nan in row 2, and not finite in 2 of 3 rows; leave those out",
        ),
        ({"u": [1.0, None, 2.0]}, "data: column 'u'"),
        ({"u": [1.0, 2.0, 3j]}, "data: column 'u' is not of numbers: they are complex"),
        ({"t": [0, 1, float("inf")]}, "data: column 't' is inf in row 3"),
        ({"u": [[1.0], [2.0], [3.0]]}, "data: column 'u' has the shape [3, 1]; give one number"),
        ({"u": [1.0, 2.0]}, "data: column 'u' has 2 numbers, column 'x' has 3"),
        ({"w": [1.0, 2.0]}, "data: column 'w' has 2 numbers, column 'x' has 3"),
        ({"w": [1.0, -1.0, 2.0]}, "data: column 'w': give weights of at least 0, not all"),
        ({"w": [0.0, 0.0, 0.0]}, "data: column 'w': give weights of at least 0, not all"),
        ({k: [] for k in TABLE}, "data has no points"),
    ],
)
def test_a_table_that_does_not_serve(changed: dict[str, Any], message: str) -> None:
    table = {k: v for k, v in (TABLE | changed).items() if v is not None}
    with pytest.raises(ValueError) as caught:
        Flow(table)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("given", [[], (), None, 3, [1]])
@pytest.mark.parametrize("setting", ["axes", "values"])
def test_columns_are_named(setting: str, given: Any) -> None:
    names: dict[str, Any] = {"axes": ["x", "t"], "values": "v_x"}
    assert measured("told", TABLE, **names).where.values.shape == (3, 1)
    with pytest.raises(ValueError, match=rf"^{setting}=.*: give the name of at least one column"):
        measured("told", TABLE, **(names | {setting: given}))


def test_columns_are_named_once_and_weights_by_name() -> None:
    with pytest.raises(ValueError, match=r"^values=\['u', 'u'\]: give each column once"):
        measured("told", TABLE, axes=["x", "t"], values=["u", "u"])
    weights: Any = pd.Series([1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="weights=Series: give the name of a column"):
        measured("told", TABLE, axes=["x", "t"], values=["u"], weights=weights)


def test_spaces_after_commas_are_no_part_of_a_name(tmp_path: Path) -> None:
    (tmp_path / "told.csv").write_text("x, t, v_x\n0.5, 0.25, 3.0\n")
    where = measured("told", tmp_path / "told.csv", axes=["x", "t"], values=["v_x"]).where
    assert where.x.tolist() == [[0.5, 0.25]] and where.values.tolist() == [[3.0]]


def test_an_array_without_names_is_no_table() -> None:
    with pytest.raises(ValueError, match=r"^data=ndarray: give a CSV or Parquet file"):
        Flow(np.zeros((3, 4)))  # type: ignore[arg-type]


def test_files_that_do_not_serve(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere\.csv: there is no such file"):
        Flow(tmp_path / "nowhere.csv")
    (tmp_path / "empty.csv").touch()
    (tmp_path / "text.parquet").write_text("none")
    for name in ("empty.csv", "text.parquet"):
        with pytest.raises(ValueError, match=rf"{name}: cannot be read as a table"):
            Flow(tmp_path / name)
    pd.DataFrame(TABLE).drop(columns="u").to_csv(tmp_path / "less.csv")
    with pytest.raises(ValueError, match=r"less\.csv has no column 'u'"):
        Flow(tmp_path / "less.csv")
    pd.DataFrame(TABLE).to_csv(tmp_path / "semicolons.csv", sep=";", index=False)
    with pytest.raises(ValueError, match=r"has 'x;t;.*; columns are separated by commas"):
        Flow(tmp_path / "semicolons.csv")


def test_values_are_named_for_unknowns_and_axes() -> None:
    class Other(Flow):
        unknowns = ("v", "w")

    with pytest.raises(ValueError, match="told: 'u' is no derivative: give one of v, w"):
        Task().objective(Other(TABLE))

    class Turned(Flow):
        domain = Box(t=(0, 2), x=(0, 1))

    with pytest.raises(ValueError, match=r"told: its points are of the axes \('x', 't'\); give"):
        Task().objective(Turned(TABLE))


def ones(*shape: int) -> torch.Tensor:
    return torch.ones(*shape, dtype=D)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"x": ones(3)}, r"x has the shape \[3\]; give \[N, d\]"),
        ({"x": ones(0, 1), "values": ones(0)}, r"x has the shape \[0, 1\]; give \[N, d\] with N"),
        ({"x": [[1.0]]}, "x is list; give a tensor"),
        ({"x": ones(3, 1).requires_grad_()}, r"x is torch\.float64 with a gradient"),
        ({"values": ones(2)}, r"values has the shape \[2, 1\]; give \[3\] or \[3, E\]"),
        ({"values": ones(3, 0)}, r"values has the shape \[3, 0\]"),
        ({"values": ones(1, 3, 1)}, r"values has the shape \[1, 3, 1\]"),
        ({"values": ones(3) + 0j}, r"values is torch\.complex128"),
        ({"weights": ones(2)}, "weights: give 3 finite numbers of at least 0"),
        ({"weights": ones(3, 1)}, "weights: give 3 finite numbers"),
        ({"weights": 0 * ones(3)}, "weights: give 3 .* not all of them 0"),
        ({"weights": -ones(3)}, "weights: give 3"),
        ({"weights": ones(3) / 0}, "weights: give 3"),
    ],
)
def test_measured_points_are_checked(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Measured(**{"x": ones(3, 1), "values": ones(3)} | given)


def test_points_in_float32_or_integers_are_kept_as_they_are() -> None:
    where = Measured(torch.tensor([[0, 1], [1, 2]]), torch.tensor([0.1, 0.2]))
    condition = Condition("told", where, lambda x, d: d.u)
    term = Term(Flow(TABLE), condition, 1)
    assert term.x.dtype == term.target.dtype == D
    assert term.target[:, 0].tolist() == torch.tensor([0.1, 0.2]).double().tolist()
