"""Take screenshots of results/report/index.html for a desktop and a phone, in both themes.

Needs an installed Chromium or Chrome and the extra `browser`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from diffhash.cli.command import run_command

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SIZES = {"desktop": (1280, 900), "phone": (375, 812)}
THEMES = ("light", "dark")


class NoBrowserError(RuntimeError):
    """A Chromium or Playwright is missing; the message names which."""


@contextmanager
def open_browser() -> Iterator[Any]:
    """A headless Chromium, driven by Playwright.

    Raises:
        NoBrowserError: there is no Chromium, or Playwright is not installed.
    """
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        raise NoBrowserError("needs playwright: pip install -e '.[browser]'") from error
    path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if path is None:
        raise NoBrowserError(f"needs a browser: none of {', '.join(BROWSERS)} is on the PATH")
    sandbox = [] if os.geteuid() else ["--no-sandbox"]  # Chromium has no sandbox for root
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=sandbox)
        yield browser
        browser.close()


def open_page(browser: Any, file: Path, size: str, theme: str) -> Any:
    """The report in a new window, with all plots drawn; ``page.problems`` lists errors and requests
    for other files.

    Args:
        browser: the browser of `open_browser`.
        file: the page.
        size: a key of `SIZES`.
        theme: one of `THEMES`.
    """
    width, height = SIZES[size]
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme=theme,
        has_touch=size == "phone",
        is_mobile=size == "phone",
        device_scale_factor=1,
    )
    page = context.new_page()
    page.problems = []
    page.on("console", lambda m: page.problems.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.on("request", lambda r: _loads(page.problems, r.url, file))
    page.goto(file.resolve().as_uri())
    page.wait_for_selector("html[data-ready]", timeout=60_000, state="attached")
    return page


def _loads(problems: list[str], url: str, file: Path) -> None:
    if not url.startswith(("data:", "blob:")) and url != file.resolve().as_uri():
        problems.append(f"loads {url}")


def main() -> int:
    """Parse the command line, take the pictures, print their paths and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    option = parser.add_argument
    option("--report", type=Path, default=Path("results/report"), help="default: %(default)s")
    option("--output", type=Path, default=None, help="default: the folder of the report")
    option("--whole", action="store_true", help="the whole page, not the first screen")
    options = parser.parse_args()
    output = options.output or options.report
    file = options.report / "index.html"
    if not file.is_file():
        print(f"report_screenshots: {file}: no such file; run `make report`", file=sys.stderr)
        return 1
    output.mkdir(parents=True, exist_ok=True)
    with open_browser() as browser:
        for size in SIZES:
            for theme in THEMES:
                page = open_page(browser, file, size, theme)
                picture = output / f"{'whole' if options.whole else 'screen'}-{size}-{theme}.png"
                page.screenshot(path=picture, full_page=options.whole)
                print(picture, *page.problems, sep="\n")
                page.context.close()
    return 0


if __name__ == "__main__":
    run_command("report_screenshots", main, (NoBrowserError,))
