"""`make solvers-picture`: the classical floor converges, and a run writes what it says."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pandas as pd
import pytest

from benchmarks import collocation

SCRIPT = Path(__file__).parents[2] / "scripts" / "solvers_picture.py"
ERRORS = {  # with the second number of cells of the table
    "helmholtz2d": 2e-6,
    "wave1d": 5e-6,
    "convection": 3e-7,
    "multiscale_poisson2d": 3e-3,
    "kovasznay": 1e-3,
    "burgers1d": 5e-5,
}


@pytest.mark.parametrize("problem", collocation.CELLS)
def test_collocation_converges(problem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(collocation.CELLS, problem, collocation.CELLS[problem][:2])
    coarse, fine = (row["l2"] for row in collocation.rows(problem))
    assert fine < min(coarse / 3, ERRORS[problem])


@pytest.mark.slow
def test_curves_are_kept_and_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(collocation.CELLS, "wave1d", (8,))
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
