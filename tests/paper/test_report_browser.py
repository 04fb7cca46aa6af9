"""The report in a headless Chromium, where there is one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from diffhash.results import read_record, write_record
from scripts.report_screenshots import SIZES, THEMES, NoBrowserError, open_browser, open_page
from tests.paper.report_page import report

PLOTS = (
    "distance", "predictions-table1", "histories-table1", "predictions-table2",
    "histories-table2",
)  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    try:
        with open_browser() as opened:
            yield opened
    except NoBrowserError as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="module")
def file(_paper_runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of two seeds, one diverged, and a row that is missing."""
    folder = tmp_path_factory.mktemp("browser")
    runs = shutil.copytree(_paper_runs, folder / "runs")
    second = shutil.copytree(runs / "table2" / "cubic" / "seed0", runs / "table2/cubic/seed1")
    record = replace(read_record(second), seed=1, status="diverged", diverged_epoch=2, epochs=2)
    write_record(second, record)
    shutil.rmtree(runs / "table1" / "ff")
    report(runs, folder / "out")
    return folder / "out" / "index.html"


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("size", SIZES)
def test_every_plot_is_drawn_and_nothing_is_too_wide(
    browser: Any, file: Path, size: str, theme: str
) -> None:
    page = open_page(browser, file, size, theme)
    for plot in PLOTS:
        assert page.locator(f"#{plot} svg .trace").count() > 0, plot
    assert page.locator("figure.plot").count() == len(PLOTS)
    widths = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert widths[0] <= widths[1]
    boxes = page.evaluate(
        "Array.from(document.querySelectorAll('main table, main pre, .canvas svg'), (e) =>"
        " e.closest('.scroll, pre, .plot').getBoundingClientRect().right)"
    )
    assert max(boxes) <= widths[1]
    assert page.problems == []
    page.context.close()


@pytest.fixture(scope="module")
def page(browser: Any, file: Path) -> Iterator[Any]:
    opened = open_page(browser, file, "desktop", "light")
    yield opened
    assert opened.problems == []


@pytest.mark.parametrize("theme", THEMES)
def test_the_theme_is_the_systems(browser: Any, file: Path, theme: str) -> None:
    opened = open_page(browser, file, "desktop", theme)
    ground, text = opened.evaluate(
        "[getComputedStyle(document.body).backgroundColor,"
        " document.querySelector('#distance .canvas').layout.font.color]"
    )
    assert ground == {"light": "rgb(252, 252, 250)", "dark": "rgb(21, 23, 26)"}[theme]
    assert text == {"light": "#1b1b1a", "dark": "#e9e9e5"}[theme]
    opened.context.close()


def test_choices_change_what_is_shown(page: Any) -> None:
    def shown() -> set[str]:
        data = "document.querySelector('#predictions-table1 .canvas').data"
        names = f"{data}.filter((t) => t.visible === true).map((t) => t.name)"
        return set(page.evaluate(names))

    assert shown() == {"exact", "MLP 10k", "Cubic 3k"}
    page.locator("#predictions-table1 .legendtoggle").nth(1).click()
    page.wait_for_timeout(1000)  # plotly waits for a second click
    assert shown() == {"exact", "Cubic 3k"}
    x = "document.querySelector('#histories-table1 .canvas')._fullData[0].x[0]"
    before = page.evaluate(x)
    page.locator("#histories-table1 .updatemenu-button").nth(1).click()
    assert page.evaluate(x) != before, "epochs instead of seconds"


def test_no_button_of_a_plot_sends_it_away(page: Any) -> None:
    buttons = page.locator("#distance .modebar-btn")
    names = {buttons.nth(i).get_attribute("data-title") for i in range(buttons.count())}
    assert names == {
        "Zoom", "Pan", "Zoom in", "Zoom out", "Reset axes", "Download plot as a PNG",
    }  # fmt: skip
