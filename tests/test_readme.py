"""The README says what is so: its code runs, its tables are the committed ones."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest

from diffhash.paper.make import results_block, update_readme

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_library_example_runs() -> None:
    failures, tried = doctest.testfile(str(ROOT / "README.md"), module_relative=False)
    assert tried > 5
    assert failures == 0


def test_the_tables_are_the_committed_ones(tmp_path: Path) -> None:
    copy = tmp_path / "README.md"
    copy.write_text(README, encoding="utf-8")
    update_readme(copy, ROOT / "results/tables")
    assert copy.read_text(encoding="utf-8") == README


def test_what_it_points_to_exists() -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", README)
    assert targets
    for target in targets:
        assert (ROOT / target).exists(), target


def test_every_make_target_it_names_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    names = {
        name for line in re.findall(r"^make ([a-z -]+)", README, re.M) for name in line.split()
    }
    assert names
    for name in names:
        assert re.search(rf"^{name}:", makefile, re.M), name


def test_only_the_blocks_are_rewritten(tmp_path: Path) -> None:
    readme, tables = tmp_path / "README.md", ROOT / "results/tables"
    text = (
        "before <!-- summary -->{}<!-- /summary --> and <!-- results -->{}<!-- /results --> after"
    )
    readme.write_text(text.format("old", "\nold\n"))
    update_readme(readme, tables)
    blocks = (tables / "summary.md").read_text(), f"{results_block(tables)}\n"
    assert readme.read_text() == text.format(*(f"\n{block}" for block in blocks))


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


def test_a_readme_without_the_markers_is_refused(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("nothing here")
    with pytest.raises(ValueError, match="once each"):
        update_readme(readme, ROOT / "results/tables")
