"""`make solvers-picture`: the classical floor converges, and a run writes its files."""

from __future__ import annotations

import runpy
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from benchmarks import collocation, suite

TABLES = Path(__file__).parents[2] / "results" / "tables"
SCRIPT = Path(__file__).parents[2] / "scripts" / "solvers_picture.py"
FEW = {  # numbers of cells, and the largest error of an unknown with the second of them
    "helmholtz2d": ((8, 12), 2e-6),
    "wave1d": ((8, 12), 5e-6),
    "convection": ((12, 16), 3e-7),
    "multiscale_poisson2d": ((16, 24), 3e-3),
    "kovasznay": ((4, 6), 5e-3),
    "burgers1d": ((24, 32), 5e-5),
    "poisson1d": ((8, 16), 2e-4),
    "heat1d": ((4, 8), 1e-6),
    "helmholtz2d a=10": ((16, 24), 1e-3),
    "helmholtz2d a=[1,4] low=-1": ((8, 12), 3e-3),
    "helmholtz3d": ((2, 4), 2e-4),
    "biharmonic2d": ((4, 6), 1e-5),
    "cavity": ((6, 8), 6e-3),
}


@pytest.mark.parametrize("name", FEW)
def test_collocation_converges(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cells, error = FEW[name]
    floor = replace(collocation.FLOORS[name], cells=cells)
    monkeypatch.setitem(collocation.FLOORS, name, floor)
    rows: Any = pd.DataFrame([*collocation.rows(name)])
    coarse, fine = rows.groupby("cells")["l2"].max()
    assert fine < min(coarse / 1.5, error)
    assert set(rows["quantity"]) == {*floor.problem().unknowns}


def test_every_floor_is_of_a_problem_of_the_suite() -> None:
    known = {case.name for case in suite.CASES} | {"helmholtz2d"}
    assert {*collocation.FLOORS} <= known
    committed = collocation.read(TABLES / collocation.FILE)
    assert set(committed["problem"]) == {*collocation.FLOORS}
    assert set(collocation.best(committed)["problem"]) == {*collocation.FLOORS}


@pytest.mark.slow
def test_curves_are_kept_and_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    floor = replace(collocation.FLOORS["wave1d"], cells=(8,))
    monkeypatch.setitem(collocation.FLOORS, "wave1d", floor)
    arguments = ["--seconds", "0.3", "--problems", "wave1d", "--optimizers", "adam", "splines"]
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments, "--output", str(tmp_path)])
    for _ in range(2):  # the second time nothing is left to do
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(SCRIPT), run_name="__main__")
        assert ended.value.code == 0
        curves = pd.read_csv(tmp_path / "tables" / "solvers_curves.csv")
        assert set(curves["optimizer"]) == {"adam", "splines"}
    assert len(pd.read_csv(tmp_path / "tables" / "floor.csv")) == 1
    assert (tmp_path / "figures" / "solvers.png").stat().st_size > 1000
