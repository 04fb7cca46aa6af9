"""Tables I and II as CSV, Markdown and LaTeX, ours beside the paper's."""

from __future__ import annotations

from diffhash.paper.tables.latex import to_latex
from diffhash.paper.tables.markdown import markdown_text, to_markdown
from diffhash.paper.tables.notes import remarks, total_sentence
from diffhash.paper.tables.write import write_tables

__all__ = ["markdown_text", "remarks", "to_latex", "to_markdown", "total_sentence", "write_tables"]
