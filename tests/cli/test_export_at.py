"""Predictions at points that the user gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from diffhash.results import read_predictions


def test_points_of_the_recorded_grid_repeat_the_predictions(
    diffhash, runs: Path, tmp_path: Path
) -> None:
    recorded = read_predictions(runs / "cubic")
    points = recorded[["x"]].iloc[::-1].assign(label="kept out")
    points.to_csv(tmp_path / "points.csv", index=False)
    out = tmp_path / "x.csv"
    result = diffhash("export", runs / "cubic", "--at", tmp_path / "points.csv", "--output", out)
    assert result.exit_code == 0, result.stderr
    frame = pd.read_csv(out).iloc[::-1].reset_index(drop=True)
    np.testing.assert_allclose(frame[list(recorded)], recorded, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(frame["error_u"], frame["u"] - frame["exact_u"])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("y\n0.5\n", "no column x; the problem's coordinates are x"),
        ("x\n", "has no points"),
        ("", "No columns"),
        ("x\n0.5\nnan\n", "x = nan of point 2 is no number"),
        ("x\n0.5\ninf\n", "x = inf of point 2"),
        ("x\n0\n1\n1.0001\n", "x = 1.0001 of point 3 is not in the domain, 0.0 to 1.0"),
        ("x\n0.5\nhalf\n", "x = half of point 2 is no number"),
        ("x,x\n0.5,0.5\n", "two columns x"),
        ("\0", "NUL"),
    ],
)
def test_points_that_cannot_be_meant(
    diffhash, runs: Path, tmp_path: Path, text: str, reason: str
) -> None:
    path, out = tmp_path / "points.csv", tmp_path / "x.csv"
    path.write_text(text)
    result = diffhash("export", runs / "cubic", "--at", path, "--output", out)
    assert result.exit_code == 1
    [line] = result.stderr.splitlines()
    assert line.startswith(f"Error: --at {path}: ") and reason in line
    assert not out.exists()


def test_points_and_a_number_of_them(diffhash, runs: Path, tmp_path: Path) -> None:
    options = ("--at", tmp_path / "p.csv", "--output", tmp_path / "x.csv")
    result = diffhash("export", runs / "cubic", *options)
    assert result.exit_code == 1 and "there is no such file" in result.stderr
    assert diffhash("export", runs / "cubic", "--points", 5, *options).exit_code == 2
