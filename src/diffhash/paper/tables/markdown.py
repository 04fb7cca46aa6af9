"""A table of the paper in Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pandas as pd

from diffhash.paper.printed import METRICS, TITLES, VALUES
from diffhash.paper.table import Line, Table, line_epochs
from diffhash.paper.tables.notes import legend, line_memory, line_outcome, row_notes
from diffhash.results.formats import format_decades, format_interval, format_value
from diffhash.results.metrics import metric

_SYMBOLS = {name: metric(name).heading for name in METRICS} | {"train_seconds": "Train s"}
_SPECIAL = re.compile(r"[\\|<>`]|!(?=\[)|\[(?=[^\]]*\]\()")
_FIELD = re.compile(rf"({{(?:{'|'.join(VALUES)})}})")


def to_markdown(table: Table, remarks: Iterable[str] = ()) -> str:
    """A Markdown table to paste into a README.

    Each cell is ``ours / paper (decades)``. Where rows stand on several seeds it has three lines:
    the median, its interval, and ``/ paper (decades)``.

    Args:
        table: with its rows.
        remarks: lines printed below the table.
    """
    several = table.several_seeds
    notes = row_notes(table, outcomes=several)
    cell = _cell_over_seeds if several else _cell
    lines = []
    for row in table.lines.values():
        marks = ",".join(m for m, note in notes.items() if row["row"] in note.rows)
        lines.append(
            {"Model": markdown_text(row["model"]) + (f" <sup>{marks}</sup>" if marks else ""),
             "Epochs": line_epochs(row)}
            | {_SYMBOLS[v]: cell(row, v) for v in VALUES}
            | {"Peak MB": line_memory(row)}
            | ({"n": _count(row)} if several else {"Seeds": _seeds(row)})
        )  # fmt: skip
    body = pd.DataFrame(lines).to_markdown(
        index=False, disable_numparse=True, colalign=("left", *["right"] * 7, "left")
    )
    form = "ours [interval] / paper (decades)" if several else "ours / paper (decades)"
    return "\n".join(
        [
            f"**{TITLES[table.name]}**: {form}.",
            "",
            str(body),
            "",
            *(f"- <sup>{m}</sup> {_text(n.text)}" for m, n in notes.items()),
            *(f"- {_text(line)}" for line in (*legend(table), *remarks)),
            "",
        ]
    )


def _cell(row: Line, value: str) -> str:
    ours = format_value(value, row[value])
    if not row["seeds"]:
        ours = row["status"] if value == METRICS[0] else line_outcome(row)
    return f"{ours} {_beside(row, value)}"


def _cell_over_seeds(row: Line, value: str) -> str:
    ours = format_value(value, row[value]) if row["seeds"] else line_outcome(row)
    interval = format_interval(value, row[f"{value}_low"], row[f"{value}_high"])
    interval = interval if row["n"] > 1 and row["seeds"] else ""
    return "<br>".join(filter(None, (ours, interval, _beside(row, value))))


def _beside(row: Line, value: str) -> str:
    distance = format_decades(row[f"decades_{value}"])
    paper = f"/ {format_value(value, row[f'paper_{value}'])}"
    return paper if distance == "–" else f"{paper} ({distance})"


def _seeds(row: Line) -> str:
    seeds = row["seeds"].replace(" ", ", ")
    return seeds + row["status"].removeprefix("completed") if seeds else "–"


def _count(row: Line) -> str:
    """How many seeds count: ``10``, ``10, 1 diverged``."""
    return f"{row['n']}, {row['n_diverged']} diverged" if row["n_diverged"] else str(row["n"])


def _text(text: str) -> str:
    return _FIELD.sub(lambda match: _SYMBOLS[match[0][1:-1]], markdown_text(text))


def markdown_text(text: str) -> str:
    r"""Text as Markdown that shows it: no column, tag, image or link of a table comes out of it."""
    return _SPECIAL.sub(r"\\\g<0>", text)
