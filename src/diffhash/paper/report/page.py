"""Write ``index.html`` from the records: one page without further files."""

from __future__ import annotations

import base64
import gzip
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pandas as pd
import yaml
from markdown_it import MarkdownIt
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from diffhash._files import write_text_atomically
from diffhash.paper.claims import page as claims_page
from diffhash.paper.claims.verdicts import judge
from diffhash.paper.report import plots
from diffhash.paper.summary import summary
from diffhash.paper.table import Table
from diffhash.paper.tables import to_markdown
from diffhash.paper.templates import render
from diffhash.results.formats import format_value
from diffhash.results.reading import read_config
from diffhash.results.record import CONFIG_FILE

_OWN = ("seed", "run_dir", "seeds", "runs_dir", "ckpt_path")  # differ between runs of a row
_ENDS = ["seed", "status", "diverged_epoch", "epochs"]
_COSTS = ["train_seconds", "wall_seconds", "peak_memory_mb"]


def write_report(
    tables: Mapping[str, Table], output: Path | str, suite: Path | str | None = None
) -> Path:
    """Write ``index.html`` into ``output``, and return its path; equal records give equal bytes.

    Rows without a record are shown as missing.

    Args:
        tables: both tables, with the records of their rows.
        output: the folder of the page.
        suite: a folder with the table of ``make suite``, for a plot of it; None for no plot.

    Raises:
        RecordError: histories or predictions are corrupt; the message names the path.
        OSError: the output folder cannot be written.
    """
    claims, both = judge(tables), list(tables.values())
    html = render(
        "report.html",
        tables=both,
        cards=re.findall(r"- \*\*(.*?): (.*?)\*\*, (.*)", summary(both, claims)),
        distance=plots.distance_plot(both),
        markdown={
            name: to_markdown(table, both).removeprefix(f"**{table.number}. {table.subject}**: ")
            for name, table in tables.items()
        },
        claims="#" + claims_page.to_markdown(claims),  # a section's heading
        predictions={name: plots.predictions_plot(table) for name, table in tables.items()},
        histories={name: plots.histories_plot(table) for name, table in tables.items()},
        suite=None if suite is None else plots.suite_plot(Path(suite)),
        runs=[row for table in both for row in _row_runs(table)],
        plotly=get_plotlyjs(),
        to_html=to_html,
        packed=_packed,
    )
    return write_text_atomically(Path(output) / "index.html", html)


def _packed(text: str) -> Markup:
    """Text as base64 of gzip, which is half as long; the page's script unpacks it."""
    return Markup(base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode())


def _row_runs(table: Table) -> Iterator[tuple[str, str, dict[str, str]]]:
    """For each row a heading, a table of the runs, and their different configs, each under the
    seeds that have it."""
    for row in table.rows.values():
        configs: dict[str, list[str]] = {}
        for directory, record in row.runs:
            configs.setdefault(_config(directory / CONFIG_FILE), []).append(str(record.seed))
        lines = pd.DataFrame([record.flat() for _, record in row.runs])
        if row.runs:
            shown = lines.reindex(columns=[*_ENDS, *table.metrics, *_COSTS]).astype(object)
            for name in shown.columns[len(_ENDS) :]:
                shown[name] = [format_value(name, value) for value in shown[name]]
            cells = shown.where(shown.notna(), "–").to_html(index=False, border=0)
            heading = f"{table.number}, {row.label}: {len(row.runs)} run{'s' * (len(row.runs) > 1)}"
            named = {", ".join(seeds): text for text, seeds in configs.items() if text}
            yield heading, f"{_SCROLL}{cells}</div>", named


def _config(path: Path) -> str:
    """The config without the settings that differ between runs of a row; empty without a file."""
    try:
        settings = read_config(path)
    except FileNotFoundError:
        return ""
    return yaml.safe_dump({k: v for k, v in settings.items() if k not in _OWN}, sort_keys=False)


# The text has names from records, which must not load anything or be links.
_MARKDOWN = (
    MarkdownIt("commonmark", {"html": False})
    .enable("table")
    .disable(["image", "link", "autolink", "reference", "html_block", "html_inline"])
)
_SCROLL = '<div class="scroll" tabindex="0" role="region" aria-label="Table">'
_DECADES = re.compile(r"\(([+-])(\d+\.\d+|inf)\)")


def to_html(markdown: str) -> Markup:
    """Convert Markdown to HTML. HTML in it is shown as text, except for footnote marks
    (``<sup>a</sup>``) and line breaks in cells (``<br>``).

    Distances in decades, ``(+0.22)``, get a class for values that are better than the paper's, near
    it, or more than a decade worse; cells with an outcome other than a number get a class, too.
    """

    def distance(match: re.Match[str]) -> str:
        kind = "better" if match[1] == "-" else "near" if float(match[2]) <= 1 else "worse"
        return f'<span class="decades {kind}">{match[1]}{match[2]}</span>'

    html = re.sub(r"&lt;sup&gt;([a-z,]+)&lt;/sup&gt;", r"<sup>\1</sup>", _MARKDOWN.render(markdown))
    html = _DECADES.sub(distance, html.replace("&lt;br&gt;", "<br>"))
    html = re.sub(
        r"<td(?=[^>]*>[^<]*\b(?:diverged|interrupted|missing)\b)", r'<td class="outcome"', html
    )
    return Markup(
        html.replace("<table>", f"{_SCROLL}<table>").replace("</table>", "</table></div>")
    )
