from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from diffhash.paper.printed import FOOTNOTES, TABLES, load_paper_table
from diffhash.results.record import RecordError

# The rows as they stand in the text of the paper, columns separated by white space.
PRINTED = {
    "table1": r"""
MLP 10k 1.9E-06 4.1E-02 5.6E+02 83.2s
MLP 100k 1.9E-07 6.9E-03 1.5E+02 790.6s
SIREN 10k 1.3E-06 2.2E-02 3.2E+02 79.4s
FF 10k 1.3E-06 2.2E-02 3.2E+02 79.4s
Linear 10k 3.4E-08 2.1E-01 1.8E+05 677.5s
$S_2^*$ 10k 8.1E-07 2.3E+00 6.2E+06 1005.6s
Cubic 3k <b>3.0E-12</b> <b>4.4E-06</b> <b>4.6E+00</b> 574.3s
""",
    "table2": r"""
MLP 10k 1.6E-05 5.8E-02 111.3s
MLP 50k 2.4E-06 <b>1.1E-05</b> 592.4s
SIREN 10k 7.8E+02 2.7E-00 135.4s
FF 10k 4.1E-03 2.1E-03 118.0s
Linear 10k 5.3E-06 1.6E+00 724.6s
$S_2$ 10k 2.6E-04 1.7E-01 1131.2s
Cubic 3k 5.9E-04 <b>8.9E-05</b> 781.3s
""",
}
COLUMNS = {
    "table1": ("mse_u", "mse_ux", "mse_uxx"),
    "table2": ("loss", "mse_u"),
}


def _cells(line: str) -> tuple[list[str], list[bool]]:
    cells = line.split()
    bold = [cell.startswith("<b>") for cell in cells]
    return [re.sub(r"</?b>|[$_^{}*]", "", cell) for cell in cells], bold


@pytest.mark.parametrize("table", TABLES)
def test_the_transcription_is_what_the_paper_prints(table: str, paper: Path) -> None:
    lines = PRINTED[table].strip().splitlines()
    file = (paper / f"{table}.csv").read_text().splitlines()
    assert file[0] == ",".join(["row", "label", "epochs", *COLUMNS[table], "train_cost", "bold"])
    for printed, transcribed in zip(lines, file[1:], strict=True):
        cells, bold = _cells(printed)
        _, *values, in_bold = transcribed.split(",")
        assert values == cells
        named = [n for n, b in zip(COLUMNS[table], bold[2:-1], strict=True) if b]
        assert in_bold.split() == named


@pytest.mark.parametrize("table", TABLES)
def test_the_loaded_numbers_are_the_printed_ones(table: str, paper: Path) -> None:
    frame = load_paper_table(table, paper)
    for (_, row), line in zip(frame.iterrows(), PRINTED[table].strip().splitlines(), strict=True):
        (label, epochs, *values, cost), _ = _cells(line)
        assert row["label"] == label
        assert row["epochs"] == int(epochs.removesuffix("k")) * 1000
        assert [row[c] for c in COLUMNS[table]] == [float(v) for v in values]
        assert row["train_seconds"] == float(cost.removesuffix("s"))


def test_columns_the_paper_does_not_print_are_nan(paper: Path) -> None:
    assert load_paper_table("table1", paper)["loss"].isna().all()
    assert load_paper_table("table2", paper)[["mse_ux", "mse_uxx"]].isna().all(axis=None)


def test_totals_of_the_train_cost(paper: Path) -> None:
    totals = [load_paper_table(table, paper)["train_seconds"].sum() for table in TABLES]
    assert np.round(totals, 1).tolist() == [3290.0, 3594.2]


def test_row_keys(paper: Path) -> None:
    common = ["siren", "ff", "linear", "s2", "cubic"]
    assert list(load_paper_table("table1", paper).index) == ["mlp_10k", "mlp_100k", *common]
    assert list(load_paper_table("table2", paper).index) == ["mlp_10k", "mlp_50k", *common]


@pytest.mark.parametrize("table", TABLES)
def test_footnotes_are_on_rows_there_are(table: str, paper: Path) -> None:
    rows = set(load_paper_table(table, paper).index)
    assert {row for on, _ in FOOTNOTES[table] for row in on} <= rows


def test_an_unknown_table(paper: Path) -> None:
    with pytest.raises(ValueError, match="table = 'table3': expected one of table1, table2"):
        load_paper_table("table3", paper)


def test_an_absent_transcription(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_paper_table("table1", tmp_path)


@pytest.mark.parametrize(
    "line", ["row,label\ncubic,Cubic", "", "row,label,epochs,mse_u,train_cost\na,A,3k,x,1s"]
)
def test_a_corrupt_transcription_names_its_path(tmp_path: Path, line: str) -> None:
    (tmp_path / "table1.csv").write_text(line)
    with pytest.raises(RecordError, match=r"table1\.csv"):
        load_paper_table("table1", tmp_path)
