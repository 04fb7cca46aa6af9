"""Writing the report from the records: ``index.html``, which needs nothing else, and a Markdown."""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from diffhash._files import write_text_atomically
from diffhash.paper.claims.page import (
    FINDINGS_TITLE,
    HOW_TO_READ,
    check_claims,
    findings_markdown,
)
from diffhash.paper.claims.page import to_markdown as claims_markdown
from diffhash.paper.claims.verdicts import Claim, claim_fields, count_verdicts, verdict_text
from diffhash.paper.printed import TITLES
from diffhash.paper.report.benchmarks import BENCHMARKS, benchmark_plots
from diffhash.paper.report.figures import (
    continuity_plot,
    distance_plot,
    histories_plot,
    predictions_plot,
)
from diffhash.paper.summary import summary
from diffhash.paper.table import Table
from diffhash.paper.tables import markdown_text, remarks, to_markdown
from diffhash.results.formats import format_value, printable
from diffhash.results.reading import plain_config
from diffhash.results.record import CONFIG_FILE, RunRecord

_HERE = Path(__file__).parent
_VERDICTS = {"supported": "good", "refuted": "bad", "undecided": "open"}
# What differs between the runs of a row anyway.
_OWN = ("seed", "seeds", "run_dir", "runs_dir", "ckpt_path")


def write_report(
    tables: Mapping[str, Table], output: Path | str, benchmarks: Path | str = BENCHMARKS
) -> list[Path]:
    """Write ``index.html`` and ``report.md`` into ``output``; the same records, the same bytes.

    Rows without a record are shown as missing, and so is everything if there is none at all.

    Args:
        tables: both, with the records of their rows.
        output: where to write.
        benchmarks: folder of benchmarks; those that are missing are left out.

    Returns:
        The paths written.

    Raises:
        RecordError: corrupt histories, predictions or benchmarks; the message names the path.
        OSError: the output folder cannot be written.
    """
    claims, findings = check_claims(tables)
    one, two = both = list(tables.values())
    below = remarks(both)
    figures = [
        continuity_plot(), predictions_plot(one, 3), histories_plot(one, 4),
        predictions_plot(two, 5), histories_plot(two, None),
    ]  # fmt: skip
    context = {
        "cards": summary(both, claims),
        "distance": distance_plot(both),
        "tables": both,
        "markdown": {
            t.name: to_markdown(t, below[t.name]).removeprefix(f"**{TITLES[t.name]}**: ")
            for t in both
        },
        "claims": [_claim(claim) for claim in claims],
        "claims_markdown": claims_markdown(claims, findings),
        "claims_notes": HOW_TO_READ,
        "findings_title": FINDINGS_TITLE,
        "findings": findings_markdown(findings),
        "verdicts": count_verdicts(claims),
        "figures": figures,
        "benchmarks": benchmark_plots(benchmarks),
        "environments": _environments(both),
        "runs": [row for table in both for row in _row_runs(table)],
    }
    embedded: dict[str, str] = {
        name: Markup((_HERE / file).read_text(encoding="utf-8"))
        for name, file in (("style", "style.css"), ("script", "script.js"))
    }
    embedded["plotly"] = get_plotlyjs()
    texts = {
        "index.html": _render("page.html", context | embedded, autoescape=True),
        "report.md": _render("report.md", context, autoescape=False),
    }
    return [write_text_atomically(Path(output) / name, text) for name, text in texts.items()]


def _claim(claim: Claim) -> dict[str, Any]:
    """A claim for the template: its verdict's class, and the fields that are listed below it."""
    return {
        "text": claim.statement.text,
        "source": claim.statement.source,
        "verdict": verdict_text(claim),
        "kind": _VERDICTS[claim.verdict],
        "fields": claim_fields(claim),
    }


def _render(template: str, context: Mapping[str, Any], *, autoescape: bool) -> str:
    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=autoescape, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters["to_html"] = to_html
    environment.filters |= {"md": _text, "packed": _packed}
    return environment.get_template(template).render(context)


def _packed(text: str) -> Markup:
    """As base64 of gzip, which is half as long and which the page's script unpacks."""
    return Markup(base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode())


# ------------------------------------------------------------------------------------- fine print


def _environments(tables: Sequence[Table]) -> str:
    """A table of the distinct environments of runs and timings, in order of appearance."""
    found = [record for table in tables for _, record in table.records]
    found += [timing.record for table in tables for timing in table.timings.values()]
    counted = Counter(json.dumps(record.environment) for record in found)
    frame = pd.DataFrame([json.loads(key) for key in counted], dtype=object).T
    frame.columns = [f"{n} run{'s' * (n > 1)}" for n in counted.values()]
    cells = frame.map(lambda value: "–" if _is_none(value) else _text(value))
    return _table(cells.rename(index=_text).reset_index(names=""), "left") if found else ""


def _is_none(value: Any) -> bool:
    return value is None or value != value


def _row_runs(table: Table) -> list[dict[str, Any]]:
    """The runs of a table, row by row: a table of them, and their configs.

    ``configs``: YAML under the seeds that it is the config of, but for the seed; a row whose runs
    were made alike has one.
    """
    rows = []
    for row, label in table.labels.items():
        seeds: dict[str, list[str]] = {}
        found = table.runs.get(row, [])
        for directory, record in found:
            seeds.setdefault(_config(directory / CONFIG_FILE), []).append(str(record.seed))
        configs = {
            f"seed{'s' * (len(of) > 1)} {', '.join(of)}": text for text, of in seeds.items() if text
        }
        lines = pd.DataFrame([_run_line(record, table.metrics) for _, record in found])
        rows.append(
            {"heading": f"{table.number}, {label}", "count": len(found), "table": _table(lines),
             "configs": configs}
        )  # fmt: skip
    return [row for row in rows if row["count"]]


def _run_line(record: RunRecord, metrics: Sequence[str]) -> dict[str, str]:
    end = "" if record.diverged_epoch is None else f" @ epoch {record.diverged_epoch}"
    values = {name: record.metrics.get(name) for name in metrics}
    shown = {k: "–" if value is None else format_value(k, value) for k, value in values.items()}
    return {
        "seed": str(record.seed),
        "status": record.status + end,
        "epochs": str(record.epochs),
        **shown,
        "train_seconds": f"{record.train_seconds:.1f}",
        "wall_seconds": f"{record.wall_seconds:.1f}",
        "peak_memory_mb": f"{record.peak_memory_mb:.0f}",
    }


def _text(value: Any) -> str:
    return markdown_text(printable(str(value)))


def _table(frame: pd.DataFrame, align: str = "right") -> str:
    return str(frame.to_markdown(index=False, disable_numparse=True, stralign=align))


def _config(path: Path) -> str:
    """The config without what tells the runs of a row apart; empty without a file."""
    try:
        settings = plain_config(path)
    except FileNotFoundError:
        return ""
    kept = {key: value for key, value in settings.items() if key not in _OWN}
    return yaml.safe_dump(kept, sort_keys=False)


# --------------------------------------------------------------------------------------- markup

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

    def distance(match: re.Match[str]) -> str:
        sign, size = match[1], float(match[2])
        kind = "better" if sign == "-" else "near" if size <= 1 else "worse"
        return f'<span class="decades {kind}">{sign}{match[2]}</span>'

    html = _MARKDOWN.render(markdown)
    html = _FOOTNOTE.sub(r"<sup>\1</sup>", html).replace("&lt;br&gt;", "<br>")
    html = _CELL.sub(r'<td\1 class="outcome">\2', _DECADES.sub(distance, html))
    scroll = '<div class="scroll" tabindex="0" role="region" aria-label="Table">'
    return Markup(html.replace("<table>", f"{scroll}<table>").replace("</table>", "</table></div>"))
