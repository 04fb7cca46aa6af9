from __future__ import annotations

import io
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from diffhash.paper.printed import TABLES
from diffhash.paper.rows import row_records
from diffhash.paper.table import load_tables
from diffhash.paper.tables import (
    environment_lines,
    to_markdown,
    total_sentence,
    write_tables,
)
from diffhash.results.formats import (
    format_decades,
    format_epochs,
    format_interval,
    format_p,
    format_value,
)
from diffhash.results.record import RecordError

WriteRun = Callable[..., Path]


@pytest.fixture
def spoilt_runs(paper_runs: Path, write_run: WriteRun) -> Path:
    """Runs with the paper's numbers, except for a missing, a diverged and an extra row."""
    for row in ("ff", "linear", "cubic"):
        shutil.rmtree(paper_runs / "table1" / row)
    bad = {"status": "diverged", "diverged_epoch": 77, "epochs": 77}
    write_run(paper_runs, "table1", "linear", epochs_requested=10_000, **bad)
    write_run(paper_runs, "table1", "cubic", mse_u=3.0e-13)
    write_run(paper_runs, "table1", "cubic_best", preset="best", mse_u=2e-14)
    return paper_runs


def _markdown(runs: Path, name: str) -> str:
    tables = load_tables(runs)
    return to_markdown(tables[name], tables.values())


def _line(markdown: str, model: str) -> list[str]:
    """The cells of the only line of a model."""
    (line,) = [line for line in markdown.splitlines() if line.startswith(f"| {model} ")]
    return [cell.strip() for cell in line.strip("|").split("|")]


@pytest.mark.parametrize(
    ("column", "value", "text"),
    [
        ("mse_u", 5.43e-13, "5.4e-13"),
        ("mse_uxx", 6.2e6, "6.2e6"),
        ("mse_uxx", 4.6, "4.6"),
        ("mse_uxx", 0.14, "1.4e-1"),
        ("mse_uxx", 9.96, "1.0e1"),
        ("loss", 0.0, "0.0"),
        ("loss", float("nan"), "–"),
        ("loss", float("inf"), "diverged"),
        ("train_seconds", 1005.64, "1005.6"),
        ("train_seconds", 0.04, "0.0"),
    ],
)
def test_format_value(column: str, value: float, text: str) -> None:
    assert format_value(column, value) == text


def test_format_interval_and_p() -> None:
    nan, inf = float("nan"), float("inf")
    assert format_interval("mse_u", 2.0e-13, 9.06e-13) == "[2.0e-13, 9.1e-13]"
    assert format_interval("mse_u", 0.5, inf) == "[5.0e-1, diverged]"
    assert format_interval("train_seconds", 3.44, 3.5) == "[3.4, 3.5]"
    assert format_interval("mse_u", nan, nan) == ""
    assert [format_p(p) for p in (1.0, 0.0547, 5.4e-6)] == ["1", "0.055", "5.4e-6"]


def test_format_decades_and_epochs() -> None:
    assert [format_decades(v) for v in (-0.744, 1.2, float("nan"))] == ["-0.74", "+1.20", "–"]
    assert [format_epochs(n) for n in (3000, 100_000, 1500, 0)] == ["3k", "100k", "1500", "0"]


def test_markdown_shows_ours_the_papers_and_the_distance(spoilt_runs: Path) -> None:
    text = _markdown(spoilt_runs, "table1")
    cubic = _line(text, "Cubic <sup>e</sup>")
    assert cubic[:3] == ["Cubic <sup>e</sup>", "3k", "3.0e-13<br>/ 3.0e-12 (-1.00)"]
    assert cubic[5] == "1.0e-13<br>/ –", "the paper prints no loss in Table I"
    assert cubic[6] == "3.4<br>/ 574.3 (-2.23)"


def test_markdown_hides_no_failure(spoilt_runs: Path) -> None:
    text = _markdown(spoilt_runs, "table1")
    linear = _line(text, "Linear <sup>b,f</sup>")
    assert linear[2:4] == ["diverged<br>/ 3.4e-8", "diverged<br>/ 2.1e-1"]
    assert "- <sup>f</sup> Linear 10k: diverged @ epoch 77." in text
    assert _line(text, "FF <sup>a</sup>")[1:4] == [
        "10k",
        "missing<br>/ 1.3e-6",
        "missing<br>/ 2.2e-2",
    ]
    assert all(
        cell for line in text.splitlines() if line[:1] == "|" for cell in line[1:-1].split("|")
    )


def test_an_interrupted_run_is_said(tmp_path: Path, write_run: WriteRun) -> None:
    write_run(tmp_path, "table1", "s2", status="interrupted", epochs=9)
    text = _markdown(tmp_path, "table1")
    assert "| interrupted<br>/ 8.1e-7 | interrupted<br>/ 2.3 |" in re.sub(" +", " ", text)
    # It is a record, though of no seed.
    write_tables(load_tables(tmp_path), tmp_path / "out")
    for seed in (1, 2):
        write_run(tmp_path, "table1", "s2", seed=seed)
    text = _markdown(tmp_path, "table1")
    assert _line(text, "S2 <sup>c,d,f,g</sup>")[-1] == "2"
    assert "S2 3k: completed; seed 0 interrupted @ epoch 9." in text


def test_both_tables_have_the_same_columns(paper_runs: Path) -> None:
    heads = [_markdown(paper_runs, table).splitlines()[2].split() for table in TABLES]
    assert heads[0] == heads[1]


def test_footnotes_say_what_is_odd(spoilt_runs: Path) -> None:
    table1 = _markdown(spoilt_runs, "table1")
    assert "identical SIREN and FF rows" in table1
    assert "MSE u_xx = 2.03e5: the paper's 1.8e5 is no skill" in table1
    assert "Cubic (best) is not in the paper" in table1
    table2 = _markdown(spoilt_runs, "table2")
    assert "MSE u = 1.95" in table2
    assert "bold" in table2
    assert "{" not in table1 + table2


def test_a_budget_that_is_not_the_papers_is_noted(tmp_path: Path, write_run: WriteRun) -> None:
    write_run(tmp_path, "table1", "siren", epochs=50, epochs_requested=50)
    text = _markdown(tmp_path, "table1")
    assert "SIREN 50: not the paper's budget of 10k epochs." in text
    assert "MLP 10k: not" not in text, "a missing row has no budget"


def test_write_tables(spoilt_runs: Path, tmp_path: Path) -> None:
    output = tmp_path / "deep" / "tables"
    paths = write_tables(load_tables(spoilt_runs), output)
    assert [path.name for path in paths] == [
        f"{table}{suffix}" for table in TABLES for suffix in (".csv", ".md", "-runs.csv")
    ]
    assert sorted(output.iterdir()) == sorted(paths)
    total = total_sentence(load_tables(spoilt_runs).values())
    assert total.startswith("Train seconds of the 12 rows of 14 that completed: ")
    assert "6884.2 for all" in total
    for path in paths[1], paths[4]:
        assert total in path.read_text()
        assert "processor Some_CPU & Co 100%" in path.read_text()


def test_every_run_is_listed_beside_its_table(spoilt_runs: Path, tmp_path: Path) -> None:
    write_tables(load_tables(spoilt_runs), tmp_path / "out")
    for table in TABLES:
        listed = pd.read_csv(tmp_path / "out" / f"{table}-runs.csv", keep_default_na=False)
        records = [
            (row, record.seed, record.status, record.mse_u)
            for row, items in row_records(spoilt_runs)[table].items()
            for _, record in items
        ]
        assert len(records) == len(listed)
        for line, (row, seed, status, mse_u) in zip(listed.itertuples(), records, strict=True):
            assert (line.row, line.seed, line.status) == (row, seed, status)
            # A diverged run has no error.
            assert line.mse_u == "" if mse_u is None else float(line.mse_u) == mse_u


def test_the_csv_gives_the_frame_back(spoilt_runs: Path, tmp_path: Path) -> None:
    paths = write_tables(load_tables(spoilt_runs), tmp_path / "out")
    read = pd.read_csv(io.StringIO(paths[0].read_text()), dtype={"seeds": str})
    frame = load_tables(spoilt_runs)["table1"].frame
    assert list(read.columns) == list(frame.columns)
    assert read["status"].tolist() == frame["status"].tolist()
    assert read["status"][4] == "diverged @ epoch 77"
    numbers = frame.select_dtypes("number").columns
    pd.testing.assert_frame_equal(read[numbers], frame[numbers], check_dtype=False)


def test_a_complete_total(paper_runs: Path, tmp_path: Path) -> None:
    assert total_sentence(load_tables(paper_runs).values()) == (
        "Train seconds of both tables together: 6884.2 (paper: 6884.2 on an RTX 3060)."
    )


def test_no_records_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"no records under .*runs"):
        load_tables(tmp_path / "runs")


def test_a_failure_leaves_the_old_tables(paper_runs: Path, tmp_path: Path) -> None:
    paths = write_tables(load_tables(paper_runs), tmp_path / "out")
    old = [path.read_text() for path in paths]
    (paper_runs / "table2" / "cubic" / "seed0" / "result.json").write_text("{")
    with pytest.raises(RecordError, match="corrupt record"):
        write_tables(load_tables(paper_runs), tmp_path / "out")
    assert [path.read_text() for path in paths] == old


def test_environments(make_record: Callable) -> None:
    here = make_record()
    dirty = make_record(environment={"torch": "2.13.0", "git_commit": "abc", "git_dirty": True})
    lines = environment_lines([here, here, dirty, make_record(environment={})])
    assert lines == [
        "Measured with processor Some_CPU & Co 100%, cpu_count 2, python 3.11.7, torch 2.13.0, "
        "git_commit abc123.",
        "Measured with torch 2.13.0, git_commit abc (dirty).",
    ]


# --------------------------------------------------------------------------------- over seeds


@pytest.fixture
def seeded_runs(tmp_path: Path, paper_runs: Path, write_run: WriteRun) -> Path:
    """Rows of Table II with ten seeds, with three, one of which diverged, and with one."""
    for row in ("cubic", "siren"):
        shutil.rmtree(paper_runs / "table2" / row)
    for seed in range(10):
        write_run(paper_runs, "table2", "cubic", seed=seed, mse_u=1e-5 * (seed + 1))
    for seed in range(3):
        bad = {"status": "diverged", "diverged_epoch": 77, "epochs": 77} if seed == 1 else {}
        write_run(paper_runs, "table2", "siren", seed=seed, mse_u=2.0 + seed, **bad)
    return paper_runs


def test_markdown_over_seeds(seeded_runs: Path) -> None:
    text = _markdown(seeded_runs, "table2")
    cubic = _line(text, "Cubic <sup>c,e</sup>")
    assert cubic[2] == "5.5e-5<br>[2.0e-5, 9.0e-5]<br>/ 8.9e-5 (-0.21)"
    assert cubic[-1] == "10"
    siren = _line(text, "SIREN <sup>a,b,f,g</sup>")
    assert siren[2] == "4.0<br>[2.0, diverged]<br>/ 2.7 (+0.17)"
    assert siren[-1] == "3, 1 diverged"
    assert "</sup> SIREN 3k: completed; seed 1 diverged @ epoch 77." in text
    assert _line(text, "FF ")[2] == "2.1e-3<br>/ 2.1e-3 (+0.00)", "one seed has no interval"
    assert (
        "In brackets: the distribution-free confidence interval of the median, at least 95 %, by "
        "order statistics: 2nd and 9th of n = 10 (97.9 %); smallest and largest of n = 3, since no "
        "95 % interval of the median exists below n = 6"
    ) in text
    assert "In brackets" not in _markdown(seeded_runs, "table1")


def test_the_csv_has_the_interval(seeded_runs: Path, tmp_path: Path) -> None:
    paths = write_tables(load_tables(seeded_runs), tmp_path / "out")
    read = pd.read_csv(paths[3]).set_index("row")
    assert read.loc["cubic", ["mse_u_low", "mse_u_high"]].tolist() == pytest.approx([2e-5, 9e-5])
    assert read.loc["cubic", ["n", "n_diverged"]].tolist() == [10, 0]
    assert read.loc["siren", ["n", "n_diverged"]].tolist() == [3, 1]
    assert read.loc["siren", "mse_u_high"] == float("inf")
