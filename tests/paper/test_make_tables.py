from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest


@pytest.fixture
def make_tables(run_script: Callable[..., int]) -> Callable[..., int]:
    return partial(run_script, "make_tables.py")


def test_it_writes_tables_and_claims_and_says_where(
    make_tables, paper_runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    output = tmp_path / "out"
    assert make_tables("--runs", paper_runs, "--output", output) == 0
    printed = capsys.readouterr()
    names = [f"table{n}.{suffix}" for n in (1, 2) for suffix in ("csv", "md")]
    for name in [*names, "claims.md", "claims.csv", "summary.md"]:
        assert (output / name).is_file()
        assert str(output / name) in printed.out
    assert "6884.2 (paper: 6884.2" in printed.out
    assert " supported, " in printed.out
    assert printed.err == ""


def test_no_records(make_tables, tmp_path: Path, capsys) -> None:
    runs, output = tmp_path / "none", tmp_path / "out"
    assert make_tables("--runs", runs, "--output", output) == 1
    printed = capsys.readouterr()
    assert printed.err.splitlines() == [
        f"make_tables: no records under {runs}: run `make reproduce-tables` first"
    ]
    assert printed.out == ""
    assert not output.exists()


def test_an_output_that_cannot_be_written(
    make_tables, paper_runs: Path, tmp_path: Path, capsys
) -> None:
    (tmp_path / "file").touch()
    output = tmp_path / "file" / "tables"
    assert make_tables("--runs", paper_runs, "--output", output) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert str(tmp_path / "file") in line


def test_the_summary_says_how_many_seeds_a_row_has(
    make_tables, write_run, paper_runs: Path, tmp_path: Path
) -> None:
    def reproduced() -> str:
        assert make_tables("--runs", paper_runs, "--output", tmp_path) == 0
        return (tmp_path / "summary.md").read_text().splitlines()[0]

    assert "from 14 runs, 1 seed a row: " in reproduced()
    for seed in (1, 2):
        write_run(paper_runs, "table1", "cubic", seed=seed)
    assert "from 16 runs, 1 to 3 seeds a row: " in reproduced()
