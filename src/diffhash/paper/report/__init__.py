"""The report: one HTML page, and one in Markdown, of all that the records say."""

from __future__ import annotations

from diffhash.paper.report.page import write_report

__all__ = ["write_report"]
