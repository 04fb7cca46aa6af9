"""The gallery shows every problem of the package, small and with its errors."""

from __future__ import annotations

import pytest

from diffhash.problems import zoo
from scripts.gallery import DOCS, MAX_BYTES, REASONS, is_solved, page, read_results


@pytest.mark.parametrize("name", zoo())
def test_every_problem_has_a_small_picture(name: str) -> None:
    content = (DOCS / "gallery" / f"{name}.png").read_bytes()
    assert content.startswith(b"\x89PNG")
    assert len(content) <= MAX_BYTES


def test_a_reason_is_told_for_what_is_not_solved_and_for_nothing_else() -> None:
    results = read_results(DOCS)
    assert set(results) == set(zoo())
    assert {name for name, result in results.items() if not is_solved(result)} == set(REASONS)


def test_the_page_is_the_one_that_is_made() -> None:
    assert (DOCS / "gallery.md").read_text(encoding="utf-8") == page(DOCS)
