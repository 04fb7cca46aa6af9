"""Damaged records among good ones are named in one line each and left out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from diffhash.paper.table import load_tables
from diffhash.results import read_record
from diffhash.results.record import RecordError, find_records
from tests.results.mutations import spoiled_copies

CONFIG = "encoder: {name: cubic}\ntask: {name: data}\nseed: 0\n"
GOOD = range(5)


@pytest.fixture
def spoiled(tmp_path: Path, write_run: Callable[..., Path]) -> tuple[Path, list[Path]]:
    """A folder of runs with good seeds of one row, and a hundred copies that are damaged."""
    runs = tmp_path / "runs"
    for seed in GOOD:
        folder = write_run(runs, "table1", "cubic", seed=seed)
        (folder / "config.yaml").write_text(CONFIG)
    write_run(runs, "table2", "cubic")
    made = spoiled_copies(runs / "table1/cubic/seed0", runs / "table1/cubic", 105)
    return runs, [folder for _, folder in made]


def test_good_records_are_found_and_bad_ones_named_in_a_line(
    spoiled: tuple[Path, list[Path]],
) -> None:
    runs, folders = spoiled
    problems: list[RecordError] = []
    found = {directory for directory, _ in find_records(runs, problems.append)}
    assert {runs / f"table1/cubic/seed{seed}" for seed in GOOD} <= found
    tables = load_tables(runs, problems.append)
    rows = tables["table1"].rows["cubic"].runs
    assert set(GOOD) <= {record.seed for _, record in rows}
    for problem in map(str, problems):
        assert problem.isprintable() and len(problem) < 2000
    # Every folder is either whole in the table or named.
    kept = {directory for directory, _ in rows}
    for folder in folders:
        if folder not in kept and (folder / "result.json").exists():
            assert any(str(folder) in str(problem) for problem in problems), folder


def test_each_alone_is_one_error(spoiled: tuple[Path, list[Path]]) -> None:
    for folder in spoiled[1]:
        try:
            read_record(folder)
        except (RecordError, FileNotFoundError, NotADirectoryError) as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize(
    "script",
    [
        "make_tables",
        *(pytest.param(s, marks=pytest.mark.slow) for s in ("make_figures", "make_report")),
    ],
)
def test_scripts_go_on(
    spoiled: tuple[Path, list[Path]], run_script: Callable[..., int], tmp_path: Path,
    capsys: pytest.CaptureFixture, script: str,
) -> None:  # fmt: skip
    output = tmp_path / "out"
    options = ["--runs", spoiled[0], "--output", output]
    assert run_script(f"{script}.py", *options) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines and all(line.startswith(f"{script}: left out: ") for line in lines)
    assert len(lines) == len(set(lines))
    assert any(output.iterdir())
