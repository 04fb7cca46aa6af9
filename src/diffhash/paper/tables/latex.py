"""A table of the paper in LaTeX."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

import pandas as pd

from diffhash.paper.printed import METRICS, VALUES
from diffhash.paper.table import Line, Table, line_epochs
from diffhash.paper.tables.notes import legend, line_memory, line_outcome, row_notes
from diffhash.results.formats import format_decades, format_epochs, format_value
from diffhash.results.metrics import metric

_SYMBOLS = {name: metric(name).latex for name in METRICS} | {"train_seconds": "Train (s)"}
_FIELD = re.compile(rf"({{(?:{'|'.join(VALUES)})}})")
_SPECIAL = str.maketrans(
    {c: rf"\{c}" for c in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
)


def to_latex(table: Table, remarks: Iterable[str] = ()) -> str:
    r"""A LaTeX ``table`` for ``\input``; needs ``\usepackage{booktabs}`` and nothing else.

    Every model has three lines: ours, the paper's, the distance in decades; over several seeds
    two more, the ends of the median's interval, so that columns stay as narrow. Arguments as in
    :func:`diffhash.paper.tables.to_markdown`.
    """
    several = table.several_seeds
    notes = row_notes(table, outcomes=True)
    lines = []
    for position, row in enumerate(table.lines.values()):
        marks = ",".join(m for m, note in notes.items() if row["row"] in note.rows)
        model = _model(row["model"]) + (f"$^{{{marks}}}$" if marks else "")
        ours = _values(row, "{}", format_value)
        if not row["seeds"]:  # no completed run: the note below says at which epoch it ended
            ours = [line_outcome(row)] * len(VALUES)
        space = "\\addlinespace\n" if position else ""
        seeds = str(row["n"]) if several else row["seeds"].replace(" ", ", ") or "--"
        lines.append([space + model, line_epochs(row), *ours, _number(line_memory(row)), seeds])
        if row["seeds"] and row["n"] > 1:
            for end, rest in (("low", _diverged(row)), ("high", "")):
                values = _values(row, f"{{}}_{end}", format_value)
                lines.append([rf"\quad {end}", "", *values, "", rest])
        if pd.isna(row["paper_epochs"]):
            continue
        paper = _values(row, "paper_{}", format_value)
        distance = _values(row, "decades_{}", lambda _, value: format_decades(value))
        lines.append([r"\quad paper", format_epochs(row["paper_epochs"]), *paper, "", ""])
        lines.append([r"\quad decades", "", *distance, "", ""])
    last = "$n$" if several else "Seeds"
    head = ["Model", "Epochs", *(_SYMBOLS[v] for v in VALUES), "MB", last]
    tabular = pd.DataFrame(lines, columns=pd.Index(head)).to_latex(
        index=False, escape=False, column_format="lrrrrrrrl"
    )
    # It is to fit a page.
    size, small = ("scriptsize", "tiny") if several else ("footnotesize", "scriptsize")
    foot = [
        *(f"$^{{{m}}}$ {_text(n.text)}" for m, n in notes.items()),
        *(_text(line.replace("In brackets", "low, high")) for line in (*legend(table), *remarks)),
    ]
    return "\n".join(
        [
            "% needs \\usepackage{booktabs}",
            "\\begin{table}",
            f"\\centering\\{size}\\setlength{{\\tabcolsep}}{{4pt}}",
            f"\\caption{{{table.subject}: ours and the paper's.}}",
            f"\\label{{tab:{table.name}}}",
            tabular.rstrip("\n"),
            "",
            "\\medskip",
            f"\\begin{{minipage}}{{\\linewidth}}\\raggedright\\{small}",
            "\\\\\n".join(foot),
            "\\end{minipage}",
            "\\end{table}",
            "",
        ]
    )


def _values(row: Line, column: str, show: Callable[[str, float], str]) -> list[str]:
    return [_number(show(value, row[column.format(value)])) for value in VALUES]


def _diverged(row: Line) -> str:
    return f"{row['n_diverged']} div." if row["n_diverged"] else ""


def _model(model: str) -> str:
    return _text(model).replace("S1", "$S_1$").replace("S2", "$S_2$")


def _number(text: str) -> str:
    """Number, word or dash for text mode, with a proper minus sign."""
    return "--" if text == "–" else text.replace("-", "$-$")


def _text(text: str) -> str:
    """Escape text for LaTeX and put the symbols in place of a footnote's fields."""
    return "".join(
        _SYMBOLS[part[1:-1]] if _FIELD.fullmatch(part) else part.translate(_SPECIAL)
        for part in _FIELD.split(text)
    )
