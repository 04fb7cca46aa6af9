"""The texts of what is written, as templates of Jinja: prose here, numbers from Python."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from diffhash.results.formats import format_decades, format_p

_MARKDOWN = re.compile(r"[\\|<>`]|!(?=\[)|\[(?=[^\]]*\]\()")


def markdown_text(text: str) -> str:
    r"""Text as Markdown that shows it: no column, tag, image or link of a table comes out of it."""
    return _MARKDOWN.sub(r"\\\g<0>", text)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


_ENVIRONMENT = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=select_autoescape(("html",)),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_ENVIRONMENT.filters |= {
    "shown": markdown_text, "decades": format_decades, "p": format_p, "duration": _duration,
}  # fmt: skip


def render(template: str, **values: Any) -> str:
    """A template of this folder with values; names out of a record are text in ``.html``."""
    return _ENVIRONMENT.get_template(template).render(values)
