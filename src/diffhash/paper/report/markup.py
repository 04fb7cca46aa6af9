"""Markdown of tables and claims as HTML, with marks on what a reader looks for."""

from __future__ import annotations

import re

from markdown_it import MarkdownIt
from markupsafe import Markup

# Names out of records stand in it: they are to load nothing and to lead nowhere.
_MARKDOWN = (
    MarkdownIt("commonmark", {"html": False})
    .enable("table")
    .disable(["image", "link", "autolink", "reference", "html_block", "html_inline"])
)
_FOOTNOTE = re.compile(r"&lt;sup&gt;([a-z,]+)&lt;/sup&gt;")
_DECADES = re.compile(r"\(([+-])(\d+\.\d+|inf)\)")
_CELL = re.compile(r"<td([^>]*)>([^<]*\b(?:diverged|interrupted|missing)\b)")


def to_html(markdown: str) -> Markup:
    """Markdown as HTML; HTML in it is shown as text, but for footnote marks (``<sup>a</sup>``)
    and line breaks in cells (``<br>``).

    Distances in decades, ``(+0.22)``, get a class that says whether they are better than the
    paper, near it, or more than a decade worse; cells with an outcome other than a number say so.
    """
    html = _MARKDOWN.render(markdown)
    html = _FOOTNOTE.sub(r"<sup>\1</sup>", html).replace("&lt;br&gt;", "<br>")
    html = _DECADES.sub(_distance, html)
    html = _CELL.sub(r'<td\1 class="outcome">\2', html)
    return Markup(re.sub(r"<table>.*?</table>", _scrolling, html, flags=re.DOTALL))


def _distance(match: re.Match[str]) -> str:
    sign, size = match[1], float(match[2])
    kind = "better" if sign == "-" else "near" if size <= 1 else "worse"
    return f'<span class="decades {kind}">{sign}{match[2]}</span>'


def _scrolling(match: re.Match[str]) -> str:
    return f'<div class="scroll" tabindex="0" role="region" aria-label="Table">{match[0]}</div>'
