"""The table of rows that the paper does not have: its tasks by Gauss–Newton."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from diffhash.paper.readme import update_page
from diffhash.paper.second_order import NAME
from diffhash.paper.table import load_tables


def test_they_have_a_table_of_their_own(
    write_run: Callable[..., Path], paper_runs: Path,
    run_script: Callable[..., int], tmp_path: Path,
) -> None:  # fmt: skip
    before = load_tables(paper_runs)
    for seed, (steps, mse) in enumerate([(30, 1e-12), (34, 3e-12)]):
        ended = {"status": "converged", "epochs": steps, "epochs_requested": 100}
        row = {"encoder": "quintic", "preset": "compact", "task": "pinn", "mse_u": mse}
        write_run(paper_runs, NAME, "quintic_pinn", seed=seed, train_seconds=40.0, **ended, **row)
    arguments = ("--runs", paper_runs, "--output", tmp_path / "tables")
    assert run_script("make_tables.py", *arguments) == 0
    frame = pd.read_csv(tmp_path / "tables/second_order.csv")
    assert frame["steps"].tolist() == [30, 34]
    assert frame["mse_u"].tolist() == [1e-12, 3e-12]
    text = (tmp_path / "tables/second_order.md").read_text()
    assert text.startswith("**Not in the paper")
    (line,) = [line for line in text.splitlines() if "Quintic" in line]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[:4] == ["physics-informed", "Quintic", "32", "2.0e-12 [1.0e-12, 3.0e-12]"]
    assert cells[-2:] == ["40.0 [40.0, 40.0]", "2"]
    after = load_tables(paper_runs)
    for name, table in before.items():
        pd.testing.assert_frame_equal(table.frame, after[name].frame)
    page = tmp_path / "page.md"
    page.write_text("<!-- second_order --><!-- /second_order -->")
    update_page(page, tmp_path / "tables")
    assert text.rstrip() in page.read_text()


def test_they_are_not_needed(
    paper_runs: Path, run_script: Callable[..., int], tmp_path: Path
) -> None:
    arguments = ("--runs", paper_runs, "--output", tmp_path / "tables")
    assert run_script("make_tables.py", *arguments) == 0
    assert not list((tmp_path / "tables").glob("second_order*"))
    page = tmp_path / "page.md"
    page.write_text("<!-- second_order --><!-- /second_order -->")
    update_page(page, tmp_path / "tables")
    assert "make reproduce-tables OPTIONAL=1" in page.read_text()
