from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest


@pytest.fixture
def make_report(run_script: Callable[..., int]) -> Callable[..., int]:
    return partial(run_script, "make_report.py")


def test_it_writes_both_files_and_says_where(
    make_report, paper_runs: Path, paper: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "out"
    options = ("--benchmarks", tmp_path / "none", "--paper", paper)
    assert make_report("--runs", paper_runs, "--output", out, *options) == 0
    assert capsys.readouterr().out.split() == [f"{out}/index.html", f"{out}/report.md"]
    assert (out / "index.html").is_file() and (out / "report.md").is_file()


def test_what_is_wrong_is_said_in_one_line(
    make_report, paper_runs: Path, paper: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "file").touch()
    output = tmp_path / "file" / "out"
    assert make_report("--runs", paper_runs, "--output", output, "--paper", paper) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("make_report: ") and str(tmp_path / "file") in line
    (paper_runs / "table1" / "cubic" / "seed0" / "result.json").write_text("{")
    assert make_report("--runs", paper_runs, "--output", tmp_path / "o", "--paper", paper) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("make_report: corrupt record ")
