"""Tables I and II as CSV, Markdown and LaTeX, ours beside the paper's."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from string import ascii_lowercase

import pandas as pd

from diffhash._files import write_text_atomically
from diffhash.paper.printed import FOOTNOTES, METRICS, PAPER_DEVICE, TITLES, VALUES, Footnote
from diffhash.paper.table import Line, Table, check_any_records, line_epochs, train_seconds
from diffhash.results.formats import (
    format_decades,
    format_epochs,
    format_interval,
    format_value,
    printable,
)
from diffhash.results.metrics import metric, model_symbol
from diffhash.results.record import RunRecord
from diffhash.results.statistics import describe_interval, interval_rank

_HOW = ("seed", "status", "diverged_epoch", "epochs", "learning_rate")
_COST = ("train_seconds", "wall_seconds", "n_parameters", "peak_memory_mb", "config_hash")
_HEADINGS = {name: metric(name).heading for name in METRICS} | {"train_seconds": "Train s"}
_SYMBOLS = {name: metric(name).latex for name in METRICS} | {"train_seconds": "Train (s)"}
_FIELD = re.compile(rf"({{(?:{'|'.join(VALUES)})}})")
_MARKDOWN = re.compile(r"[\\|<>`]|!(?=\[)|\[(?=[^\]]*\]\()")
_LATEX = str.maketrans(
    {c: rf"\{c}" for c in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
)
_MACHINE = ("processor", "cpu_count", "torch_threads", "device", "torch")
_ENVIRONMENT = (*_MACHINE[:-1], "platform", "python", "torch", "lightning", "diffhash",
                "git_commit")  # fmt: skip


def write_tables(tables: Mapping[str, Table], output: Path | str) -> list[Path]:
    """Write each table as ``.csv``, ``.md`` and ``.tex`` into ``output``, and return the paths.

    Beside each, ``table1-runs.csv`` has what was recorded of every run, all of its metrics among
    it: what the table's statistics rest on.

    Raises:
        RecordError: not a single record.
        OSError: the output folder cannot be written.
    """
    check_any_records(tables.values())
    below, paths = remarks(tables.values()), []
    for name, table in tables.items():
        runs = [{"row": row} | r.flat() for row, items in table.runs.items() for _, r in items]
        columns = ["row", *_HOW, *table.metrics, *_COST]
        for suffix, text in (
            (".csv", table.frame.to_csv(index=False)),
            (".md", to_markdown(table, below[name])),
            (".tex", to_latex(table, below[name])),
            ("-runs.csv", pd.DataFrame(runs, columns=columns).to_csv(index=False)),
        ):
            paths.append(write_text_atomically(Path(output) / f"{name}{suffix}", text))
    return paths


# -------------------------------------------------------------------------------------- Markdown


def to_markdown(table: Table, remarks: Iterable[str] = ()) -> str:
    """A Markdown table to paste into a README.

    Each cell is ``ours / paper (decades)``. Where rows stand on several seeds it has three lines:
    the median, its interval, and ``/ paper (decades)``.

    Args:
        table: with its rows.
        remarks: lines printed below the table.
    """
    several = table.several_seeds
    notes = _row_notes(table, outcomes=several)
    lines = []
    for row in table.lines.values():
        marks = _marks(notes, row)
        lines.append(
            {"Model": markdown_text(row["model"]) + (f" <sup>{marks}</sup>" if marks else ""),
             "Epochs": line_epochs(row)}
            | {_HEADINGS[value]: _cell(row, value, several) for value in VALUES}
            | {"Peak MB": _memory(row)}
            | ({"n": _count(row)} if several else {"Seeds": _seeds(row)})
        )  # fmt: skip
    body = pd.DataFrame(lines).to_markdown(
        index=False, disable_numparse=True, colalign=("left", *["right"] * 7, "left")
    )

    def text(line: str) -> str:
        return _FIELD.sub(lambda match: _HEADINGS[match[0][1:-1]], markdown_text(line))

    form = "ours [interval] / paper (decades)" if several else "ours / paper (decades)"
    foot = [
        *(f"- <sup>{mark}</sup> {text(note.text)}" for mark, note in notes.items()),
        *(f"- {text(line)}" for line in (*_legend(table), *remarks)),
    ]
    return "\n".join([f"**{TITLES[table.name]}**: {form}.", "", str(body), "", *foot, ""])


def markdown_text(text: str) -> str:
    r"""Text as Markdown that shows it: no column, tag, image or link of a table comes out of it."""
    return _MARKDOWN.sub(r"\\\g<0>", text)


def _cell(row: Line, value: str, several: bool) -> str:
    ours = format_value(value, row[value])
    if not row["seeds"]:
        ours = row["status"] if value == METRICS[0] and not several else _outcome(row)
    distance = format_decades(row[f"decades_{value}"])
    paper = f"/ {format_value(value, row[f'paper_{value}'])}"
    paper = paper if distance == "–" else f"{paper} ({distance})"
    if not several:
        return f"{ours} {paper}"
    interval = format_interval(value, row[f"{value}_low"], row[f"{value}_high"])
    interval = interval if row["n"] > 1 and row["seeds"] else ""
    return "<br>".join(filter(None, (ours, interval, paper)))


def _seeds(row: Line) -> str:
    seeds = row["seeds"].replace(" ", ", ")
    return seeds + row["status"].removeprefix("completed") if seeds else "–"


def _count(row: Line) -> str:
    """How many seeds count: ``10``, ``10, 1 diverged``."""
    return f"{row['n']}, {row['n_diverged']} diverged" if row["n_diverged"] else str(row["n"])


# ----------------------------------------------------------------------------------------- LaTeX


def to_latex(table: Table, remarks: Iterable[str] = ()) -> str:
    r"""A LaTeX ``table`` for ``\input``; needs ``\usepackage{booktabs}`` and nothing else.

    Every model has three lines: ours, the paper's, the distance in decades; over several seeds
    two more, the ends of the median's interval, so that columns stay as narrow. Arguments as in
    :func:`to_markdown`.
    """
    several = table.several_seeds
    notes = _row_notes(table, outcomes=True)
    lines = []
    for position, row in enumerate(table.lines.values()):
        marks = _marks(notes, row)
        model = model_symbol(_latex(row["model"]))
        model = ("\\addlinespace\n" if position else "") + model + (f"$^{{{marks}}}$" * bool(marks))
        ours = _numbers(row, "{}")
        if not row["seeds"]:  # no completed run: the note below says at which epoch it ended
            ours = [_outcome(row)] * len(VALUES)
        seeds = str(row["n"]) if several else row["seeds"].replace(" ", ", ") or "--"
        lines.append([model, line_epochs(row), *ours, _number(_memory(row)), seeds])
        if row["seeds"] and row["n"] > 1:
            diverged = f"{row['n_diverged']} div." if row["n_diverged"] else ""
            for end, rest in (("low", diverged), ("high", "")):
                lines.append([rf"\quad {end}", "", *_numbers(row, f"{{}}_{end}"), "", rest])
        if not pd.isna(row["paper_epochs"]):
            epochs = format_epochs(row["paper_epochs"])
            distance = _numbers(row, "decades_{}", lambda _, value: format_decades(value))
            lines.append([r"\quad paper", epochs, *_numbers(row, "paper_{}"), "", ""])
            lines.append([r"\quad decades", "", *distance, "", ""])
    head = ["Model", "Epochs", *_SYMBOLS.values(), "MB", "$n$" if several else "Seeds"]
    tabular = pd.DataFrame(lines, columns=pd.Index(head)).to_latex(
        index=False, escape=False, column_format="lrrrrrrrl"
    )
    # It is to fit a page.
    size, small = ("scriptsize", "tiny") if several else ("footnotesize", "scriptsize")
    foot = "\\\\\n".join(
        [
            *(f"$^{{{mark}}}$ {_latex(note.text)}" for mark, note in notes.items()),
            *(_latex(x.replace("In brackets", "low, high")) for x in (*_legend(table), *remarks)),
        ]
    )
    return f"""% needs \\usepackage{{booktabs}}
\\begin{{table}}
\\centering\\{size}\\setlength{{\\tabcolsep}}{{4pt}}
\\caption{{{table.subject}: ours and the paper's.}}
\\label{{tab:{table.name}}}
{tabular.rstrip()}

\\medskip
\\begin{{minipage}}{{\\linewidth}}\\raggedright\\{small}
{foot}
\\end{{minipage}}
\\end{{table}}
"""


def _numbers(row: Line, column: str, show: Callable[[str, float], str] = format_value) -> list[str]:
    return [_number(show(value, row[column.format(value)])) for value in VALUES]


def _number(text: str) -> str:
    """Number, word or dash for text mode, with a proper minus sign."""
    return "--" if text == "–" else text.replace("-", "$-$")


def _latex(text: str) -> str:
    """Escape text for LaTeX and put the symbols in place of a footnote's fields."""
    return "".join(
        _SYMBOLS[part[1:-1]] if _FIELD.fullmatch(part) else part.translate(_LATEX)
        for part in _FIELD.split(text)
    )


# -------------------------------------------------------------------------- what stands below it


def _marks(notes: Mapping[str, Footnote], row: Line) -> str:
    return ",".join(mark for mark, note in notes.items() if row["row"] in note.rows)


def _memory(line: Line) -> str:
    peak = line["peak_memory_mb"]
    return "–" if pd.isna(peak) else f"{peak:.0f}"


def _outcome(line: Line) -> str:
    """The one word for a row without a completed run."""
    return next(word for word in ("diverged", "interrupted", "missing") if word in line["status"])


def _legend(table: Table) -> list[str]:
    """How the cells are to be read; with several seeds also what their intervals are, and why."""
    several = table.several_seeds
    how = (
        f"Medians over {'n seeds' if several else 'the seeds listed'}. Loss: the final training "
        "loss. Decades: log10(ours / paper), negative where ours is lower. MB: peak memory of the "
        "largest run."
    )
    if not several:
        return [how]
    counts = sorted({int(n) for n in table.frame["n"] if n > 1}, reverse=True)
    ranked = "; ".join(describe_interval(n) for n in counts if interval_rank(n))
    without = "; ".join(describe_interval(n) for n in counts if not interval_rank(n))
    if ranked:
        ranked = (
            "the distribution-free confidence interval of the median, at least 95 %, by order "
            f"statistics: {ranked}"
        )
    if without:
        without += (
            ", since no 95 % interval of the median exists below n = 6 without assuming a "
            "distribution"
        )
    return [
        how,
        f"In brackets: {'; '.join(filter(None, (ranked, without)))}. Errors spread over decades "
        "and may fall into two groups, so no distribution is assumed; a diverged run counts as "
        "infinite. {train_seconds}: smallest and largest chunk of the timing, or such an interval "
        "of the runs' own.",
    ]


def _row_notes(table: Table, *, outcomes: bool) -> dict[str, Footnote]:
    """Footnotes by mark: the paper's oddities, then what is special about our rows.

    ``outcomes`` adds how runs ended that did not complete, for where no cell has room for it.
    """
    notes = list(FOOTNOTES[table.name])
    rows = table.lines
    for key, row in rows.items():
        model, texts = table.labels[key], []
        if pd.isna(row["paper_epochs"]):
            texts.append(f"{row['model']} is not in the paper.")
        elif not pd.isna(row["epochs"]) and row["epochs"] != row["paper_epochs"]:
            budget = format_epochs(row["paper_epochs"])
            texts.append(f"{model}: not the paper's budget of {budget} epochs.")
        if outcomes and row["status"] not in ("completed", "missing"):
            texts.append(f"{model}: {row['status']}.")
        notes += [Footnote((key,), text) for text in texts]
    alone = any(row["timed_alone"] for row in rows.values())  # if all are, a line below says so
    others = [k for k, r in rows.items() if not (r["timed_alone"] or pd.isna(r["train_seconds"]))]
    if others and alone:
        text = "of the run itself, which others beside it may have slowed down."
        notes.append(Footnote(tuple(others), f"{{train_seconds}}: {text}"))
    return dict(zip(ascii_lowercase, notes, strict=False))


def remarks(tables: Iterable[Table]) -> dict[str, list[str]]:
    """What stands below each table on how it was measured and at what cost; nothing if nothing was.

    The cost is that of all tables together.
    """
    tables = list(tables)
    if not any(table.runs for table in tables):
        return {table.name: [] for table in tables}
    peak, whose = max(
        (line["peak_memory_mb"], f"{table.number}, {table.labels[row]}")
        for table in tables
        for row, line in table.lines.items()
        if not pd.isna(line["peak_memory_mb"])
    )
    together = [total_sentence(tables), f"Largest peak memory of a run: {peak:.0f} MB ({whose})."]
    return {
        table.name: [
            _timing_sentence([timing.record for timing in table.timings.values()]),
            *together,
            *environment_lines(record for _, record in table.records),
        ]
        for table in tables
    }


def total_sentence(tables: Iterable[Table]) -> str:
    """Our total train seconds beside the paper's, saying which rows are counted if not all."""
    rows = train_seconds(tables)
    both, paper = rows.dropna(), rows["paper"].sum()
    if len(both) == len(rows):
        return (
            f"Train seconds of both tables together: {both['ours'].sum():.1f} "
            f"(paper: {paper:.1f} on an {PAPER_DEVICE})."
        )
    return (
        f"Train seconds of the {len(both)} rows of {len(rows)} that completed: "
        f"{both['ours'].sum():.1f} (paper, on an {PAPER_DEVICE}: {both['paper'].sum():.1f} for the "
        f"same rows, {paper:.1f} for all)."
    )


def _timing_sentence(timings: list[RunRecord]) -> str:
    """How the train seconds of a table were measured, and on which machine."""
    if not timings:
        return "{train_seconds}: of the runs themselves, which may have slowed each other down."
    machines = "; ".join(dict.fromkeys(_parts(timing, _MACHINE) for timing in timings))
    return (
        "{train_seconds}: seconds per epoch of a short run alone on the machine (median over its "
        f"chunks of epochs, without the first), times the epochs. Timed with {machines}."
    )


def environment_lines(records: Iterable[RunRecord]) -> list[str]:
    """One ``Measured with …`` line per distinct environment among the records."""
    parts = dict.fromkeys(_parts(record, _ENVIRONMENT) for record in records)
    return [f"Measured with {part}." for part in parts if part]


def _parts(record: RunRecord, keys: Iterable[str]) -> str:
    environment = dict(record.environment)
    if (commit := environment.get("git_commit")) and environment.get("git_dirty"):
        environment["git_commit"] = f"{commit} (dirty)"
    return ", ".join(
        f"{key} {printable(str(environment[key]))}" for key in keys if environment.get(key)
    )
