from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest


@pytest.fixture
def make_report(run_script: Callable[..., int]) -> Callable[..., int]:
    return partial(run_script, "make_report.py")


def test_it_writes_the_page_and_says_where(
    make_report, paper_runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "out"
    assert make_report("--runs", paper_runs, "--output", out) == 0
    assert capsys.readouterr().out.split() == [f"{out}/index.html"]
    assert (out / "index.html").is_file()


def test_what_is_wrong_is_said_in_one_line(
    make_report, paper_runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "file").touch()
    output = tmp_path / "file" / "out"
    assert make_report("--runs", paper_runs, "--output", output) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("make_report: ") and str(tmp_path / "file") in line


def test_without_records_the_report_that_is_there_stays(
    make_report, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "index.html").write_text("full")
    runs = tmp_path / "none"
    assert make_report("--runs", runs, "--output", tmp_path / "out") == 1
    assert capsys.readouterr().err.splitlines() == [
        f"make_report: no records under {runs}: run `make reproduce-tables` first"
    ]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["index.html"]
    assert (tmp_path / "out" / "index.html").read_text() == "full"
