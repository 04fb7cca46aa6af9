"""Tables in the README and the docs are the committed ones, and short where they should be."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffhash.paper.printed import ROWS
from diffhash.paper.readme import PAGES, results_block, rows_block, update_page, zoo_block

ROOT = Path(__file__).parent.parent


def test_it_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


@pytest.mark.parametrize("page", PAGES)
def test_the_tables_are_the_committed_ones(page: str, tmp_path: Path) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    copy = tmp_path / "page.md"
    copy.write_text(text, encoding="utf-8")
    update_page(copy, ROOT / "results/tables")
    assert copy.read_text(encoding="utf-8") == text


def test_only_the_blocks_are_rewritten(tmp_path: Path) -> None:
    page, tables = tmp_path / "page.md", ROOT / "results/tables"
    text = (
        "before <!-- summary -->{}<!-- /summary --> and <!-- results -->{}<!-- /results --> after"
    )
    page.write_text(text.format("old", "\nold\n"))
    update_page(page, tables)
    blocks = (tables / "summary.md").read_text().rstrip(), results_block(tables)
    assert page.read_text() == text.format(*(f"\n\n{block}\n\n" for block in blocks))


def test_the_short_table_has_both_tasks_of_every_model() -> None:
    lines = rows_block(ROOT / "results/tables").splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0][:4] == ["Model", "Epochs", "Data: MSE u", "paper"]
    # The numbers of the paper for Cubic, as printed.
    cubic = next(line for line in cells if line[0] == "Cubic")
    assert cubic[1] == "3k"
    assert cubic[3::2] == ["3.0e-12", "8.9e-5", "781.3"]
    assert next(line for line in cells if line[:2] == ["MLP", "100k / 50k"])[5] == "1.1e-5"


def test_the_short_table_of_rows_that_are_missing(tmp_path: Path) -> None:
    """Rows that were not reproduced have only the paper's numbers."""
    head = "row,model,epochs,paper_epochs,mse_u,paper_mse_u,train_seconds,paper_train_seconds"
    table1 = [f"{row},{row},,3000,,1e-3,,5" for row in ROWS["table1"]]
    table2 = [f"{row},{row},3000,3000,2e-3,1e-3,4,5" for row in ROWS["table2"]]
    best = "cubic_best,Cubic (best),3000,,1e-9,,3,"
    (tmp_path / "table1.csv").write_text("\n".join([head, *table1, best]) + "\n")
    (tmp_path / "table2.csv").write_text("\n".join([head, *table2]) + "\n")
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in rows_block(tmp_path).splitlines()
    ]
    assert cells[2] == ["mlp_10k", "3k", "–", "1.0e-3", "2.0e-3", "1.0e-3", "4.0", "5.0"]
    assert cells[-1] == ["Cubic (best)", "3k", "1.0e-9", *"–––––"]
    assert len(cells) == 2 + 7 + 1


def test_the_problems_are_listed_with_their_best_run(tmp_path: Path) -> None:
    (tmp_path / "zoo.csv").write_text(
        "problem,settings,encoder,epochs,unknown,l2,train_seconds\n"
        "kdv,,cubic,100,u,0.5,3\nkdv,,quintic,100,u,0.25,4\n"
        "flow,problem.re=40,cubic,100,u,1e-3,5.4\nflow,problem.re=40,cubic,100,p,2e-3,5.4\n"
    )
    [line] = zoo_block(tmp_path).splitlines()[2:]
    assert [cell.strip() for cell in line.strip("|").split("|")] == [
        *("`kdv`", "u 2.5e-1", "4"),
        *("`flow`, re=40", "u 1.0e-3, p 2.0e-3", "5"),
    ]


def test_tables_over_seeds_are_narrow(tmp_path: Path) -> None:
    table = (
        "**Table**: ours [interval] / paper (decades).\n\n"
        "| Model <sup>a</sup> | MSE u | Loss | Peak MB | n |\n|:--|--:|--:|--:|:--|\n"
        "| Cubic <sup>a</sup> | 1.0<br>[0.5, 2.0]<br>/ 1.0 (+0.00) | 1.0<br>/ – | 9 | 10 |\n"
        "| Best | 1.0<br>[0.5, 2.0]<br>/ – | 1.0<br>/ – | 9 | 10 |\n\n"
        "- <sup>a</sup> A note.\n- In brackets: the interval.\n"
    )
    for name in ("table1.md", "table2.md"):
        (tmp_path / name).write_text(table)
    (tmp_path / "claims.md").write_text("# Claims\n\n3 supported.\n\nMore.\n")
    lines = results_block(tmp_path).splitlines()
    assert [cell.strip() for cell in lines[2].split("|")[1:-1]] == ["Model", "MSE u", "n"]
    assert [cell.strip() for cell in lines[5].split("|")[1:-1]] == [
        *("Best", "1.0<br>[0.5, 2.0]<br>/ –", "10"),
    ]
    assert "In brackets: the interval." in lines
    assert "A note." not in "".join(lines)


@pytest.mark.parametrize(
    "text",
    ["nothing here", "<!-- rows -->", "<!-- row --><!-- /row -->", "<!-- rows --><!-- rows -->"],
)
def test_a_page_without_the_markers_is_refused(text: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(ValueError, match="once each"):
        update_page(page, ROOT / "results/tables")
