"""The texts of pages and tables as Jinja templates: prose is here, numbers are from Python."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from diffhash.results.formats import format_decades, format_p

_MARKDOWN = re.compile(r"[\\|<>`]|!(?=\[)|\[(?=[^\]]*\]\()")


def markdown_text(text: str) -> str:
    r"""Text with Markdown's characters escaped, so that it is no column, tag, image or link."""
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
    """Render a template of this folder; values are escaped in ``.html``."""
    return _ENVIRONMENT.get_template(template).render(values)
