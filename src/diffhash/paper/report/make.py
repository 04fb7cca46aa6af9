"""Writing the report from the records: ``index.html``, which needs nothing else, and a Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from diffhash._files import write_text_atomically
from diffhash.paper import claims as claims_
from diffhash.paper import tables as tables_
from diffhash.paper.claims import Claim
from diffhash.paper.printed import TITLES
from diffhash.paper.report.benchmarks import BENCHMARKS, benchmark_plots
from diffhash.paper.report.continuity import continuity_plot
from diffhash.paper.report.curves import histories_plot, predictions_plot
from diffhash.paper.report.distance import distance_plot
from diffhash.paper.report.markup import to_html
from diffhash.paper.report.plots import Plot
from diffhash.paper.report.runs import environments, row_runs
from diffhash.paper.summary import summary
from diffhash.paper.table import Table
from diffhash.results.formats import printable

PAGE_FILE, MARKDOWN_FILE = "index.html", "report.md"
_HERE = Path(__file__).parent
_FIGURES = Path("../figures")  # as seen from the Markdown
_VERDICTS = {"supported": "good", "refuted": "bad", "undecided": "open"}


@dataclass(frozen=True)
class _Section:
    id: str
    title: str
    plots: Sequence[Plot] = ()


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
    claims, findings = claims_.check_claims(tables)
    verdicts = claims_.count_verdicts(claims)
    one, two = both = list(tables.values())
    figures = [
        continuity_plot(),
        predictions_plot(one, 3),
        histories_plot(one, 4),
        predictions_plot(two, 5),
        histories_plot(two, None),
    ]
    sections = [
        _Section("summary", "Summary", [distance_plot(both)]),
        *(_Section(table.name, table.number) for table in both),
        _Section("claims", "The paper's claims"),
        _Section("findings", claims_.FINDINGS_TITLE),
        _Section("figures", "Figures", figures),
        _Section("benchmarks", "Benchmarks", benchmark_plots(benchmarks)),
        _Section("environments", "Environments"),
        _Section("runs", "Runs"),
    ]
    sections = [s for s in sections if s.id != "benchmarks" or s.plots]
    context = {
        "cards": summary(both, claims),
        "tables": both,
        "markdown": _tables_markdown(both),
        "claims": [_claim(claim) for claim in claims],
        "claims_markdown": claims_.to_markdown(claims, findings),
        "claims_notes": claims_.HOW_TO_READ,
        "findings": claims_.findings_markdown(findings),
        "verdicts": verdicts,
        "environments": environments(both),
        "runs": [row for table in both for row in row_runs(table)],
        "sections": {section.id: section for section in sections},
        "figures_folder": _FIGURES,
    }
    page = _render("page.html", context | _embedded(), autoescape=True)
    print_version = _render("report.md", context, autoescape=False)
    folder = Path(output)
    return [
        write_text_atomically(folder / PAGE_FILE, page),
        write_text_atomically(folder / MARKDOWN_FILE, print_version),
    ]


def _tables_markdown(tables: Sequence[Table]) -> dict[str, str]:
    """Each table as `diffhash.paper.tables` writes it, but for its title."""
    below = tables_.remarks(tables)
    return {
        table.name: tables_.to_markdown(table, below[table.name]).removeprefix(
            f"**{TITLES[table.name]}**: "
        )
        for table in tables
    }


def _claim(claim: Claim) -> dict[str, Any]:
    """A claim for the template: its verdict's class, and the fields that are listed below it."""
    return {
        "text": claim.statement.text,
        "source": claim.statement.source,
        "verdict": claims_.verdict_text(claim),
        "kind": _VERDICTS[claim.verdict],
        "fields": claims_.claim_fields(claim),
    }


def _embedded() -> dict[str, Markup]:
    return {
        "style": Markup((_HERE / "style.css").read_text(encoding="utf-8")),
        "script": Markup((_HERE / "script.js").read_text(encoding="utf-8")),
        "plotly": Markup(get_plotlyjs()),
    }


def _render(template: str, context: Mapping[str, Any], *, autoescape: bool) -> str:
    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["to_html"] = to_html
    environment.filters["md"] = lambda text: tables_.markdown_text(printable(str(text)))
    return environment.get_template(template).render(context)
