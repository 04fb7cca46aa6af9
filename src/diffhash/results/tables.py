"""Tables I and II as CSV, Markdown and LaTeX, ours beside the paper's."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import pandas as pd

from diffhash.results.aggregate import (
    TrainTotal,
    aggregate,
    row_records,
    row_timing,
    train_total,
)
from diffhash.results.paper import (
    FOOTNOTES,
    PAPER_DEVICE,
    PAPER_DIRECTORY,
    TABLES,
    TITLES,
    VALUES,
    Footnote,
)
from diffhash.results.record import METRICS, RecordError, RunRecord, write_text_atomically

Row = dict[Any, Any]
"""One line of an :func:`diffhash.results.aggregate.aggregate` frame."""

_MARKDOWN_SYMBOLS = {
    "mse_u": "MSE u",
    "mse_ux": "MSE u_x",
    "mse_uxx": "MSE u_xx",
    "loss": "Loss",
    "train_seconds": "Train s",
}
_LATEX_SYMBOLS = {
    "mse_u": r"$\mathrm{MSE}_{u}$",
    "mse_ux": r"$\mathrm{MSE}_{u_x}$",
    "mse_uxx": r"$\mathrm{MSE}_{u_{xx}}$",
    "loss": r"$\mathrm{Loss}$",
    "train_seconds": "Train (s)",
}
_FIELD = re.compile(rf"({{(?:{'|'.join(VALUES)})}})")
_LATEX_SPECIAL = str.maketrans(
    {c: rf"\{c}" for c in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
)
_ENVIRONMENT_KEYS = (
    "processor", "cpu_count", "torch_threads", "device", "platform", "python", "torch",
    "lightning", "diffhash", "git_commit",
)  # fmt: skip
_MACHINE_KEYS = ("processor", "cpu_count", "torch_threads", "device", "torch")
_LEGEND = (
    "Medians over the seeds listed. Loss: the final training loss. Decades: log10(ours / paper), "
    "negative where ours is lower. MB: peak memory of the largest run."
)
_NOT_ALONE = "{train_seconds}: of the run itself, which others beside it may have slowed down."


def write_tables(
    runs: Path | str, output: Path | str, paper: Path | str = PAPER_DIRECTORY
) -> tuple[list[Path], str]:
    """Write ``table1`` and ``table2`` as ``.csv``, ``.md`` and ``.tex`` into ``output``.

    Returns:
        The paths written, and one sentence with the total train seconds beside the paper's.

    Raises:
        RecordError: no records at all under ``runs``, or unusable ones (see
            :func:`diffhash.results.aggregate.row_records`).
        OSError: the output folder cannot be written.
    """
    frames = {table: aggregate(table, runs, paper) for table in TABLES}
    if not any(frame["n"].sum() for frame in frames.values()):
        raise RecordError(f"no records under {Path(runs)}: run `make reproduce-tables` first")
    total = total_sentence(train_total(frames.values()))
    memory = memory_sentence(frames)
    paths = []
    for table, frame in frames.items():
        found = row_records(table, runs)
        records = [record for row in found.values() for _, record in row]
        timings = [timing.record for row in found.values() if (timing := row_timing(runs, row))]
        remarks = [timing_sentence(timings), total, memory, *environment_lines(records)]
        for suffix, text in (
            ("csv", frame.to_csv(index=False)),
            ("md", to_markdown(table, frame, remarks)),
            ("tex", to_latex(table, frame, remarks)),
        ):
            paths.append(write_text_atomically(Path(output) / f"{table}.{suffix}", text))
    return paths, total


def to_markdown(table: str, frame: pd.DataFrame, remarks: Iterable[str] = ()) -> str:
    """A Markdown table to paste into a README; each cell is ``ours / paper (decades)``.

    Args:
        table: ``"table1"`` or ``"table2"``.
        frame: what :func:`diffhash.results.aggregate.aggregate` returns.
        remarks: lines printed below the table.
    """
    notes = _notes(table, frame)
    lines = []
    for row in frame.to_dict("records"):
        marks = ",".join(m for m, note in notes.items() if row["row"] in note.rows)
        lines.append(
            {"Model": row["model"] + (f" <sup>{marks}</sup>" if marks else ""),
             "Epochs": _epochs(row)}
            | {_MARKDOWN_SYMBOLS[v]: _markdown_cell(row, v) for v in VALUES}
            | {"Peak MB": _memory(row), "Seeds": _seeds(row)}
        )  # fmt: skip
    body = pd.DataFrame(lines).to_markdown(
        index=False, disable_numparse=True, colalign=("left", *["right"] * 7, "left")
    )
    return "\n".join(
        [
            f"**{TITLES[table]}**: ours / paper (decades).",
            "",
            str(body),
            "",
            *(f"- <sup>{m}</sup> {_markdown_text(n.text)}" for m, n in notes.items()),
            f"- {_LEGEND}",
            *(f"- {_markdown_text(line)}" for line in remarks),
            "",
        ]
    )


def to_latex(table: str, frame: pd.DataFrame, remarks: Iterable[str] = ()) -> str:
    r"""A LaTeX ``table`` for ``\input``; needs ``\usepackage{booktabs}`` and nothing else.

    Every model has three lines: ours, the paper's, the distance in decades. Arguments as in
    :func:`to_markdown`.
    """
    notes = _notes(table, frame, outcomes=True)
    lines = []
    for position, row in enumerate(frame.to_dict("records")):
        marks = ",".join(m for m, note in notes.items() if row["row"] in note.rows)
        model = _latex_model(row["model"]) + (f"$^{{{marks}}}$" if marks else "")
        ours = [_latex_number(format_value(v, row[v])) for v in VALUES]
        if not row["seeds"]:  # no completed run: the note below says at which epoch it ended
            ours = [_outcome(row)] * len(VALUES)
        space = "\\addlinespace\n" if position else ""
        seeds = row["seeds"].replace(" ", ", ") or "--"
        memory = _latex_number(_memory(row))
        lines.append([space + model, _epochs(row), *ours, memory, seeds])
        if pd.isna(row["paper_epochs"]):
            continue
        paper = [_latex_number(format_value(v, row[f"paper_{v}"])) for v in VALUES]
        distance = [_latex_number(format_decades(row[f"decades_{v}"])) for v in VALUES]
        lines.append([r"\quad paper", format_epochs(row["paper_epochs"]), *paper, "", ""])
        lines.append([r"\quad decades", "", *distance, "", ""])
    head = ["Model", "Epochs", *(_LATEX_SYMBOLS[v] for v in VALUES), "MB", "Seeds"]
    tabular = pd.DataFrame(lines, columns=pd.Index(head)).to_latex(
        index=False, escape=False, column_format="lrrrrrrrl"
    )
    foot = [
        *(f"$^{{{m}}}$ {_latex_text(n.text)}" for m, n in notes.items()),
        *(_latex_text(line) for line in (_LEGEND, *remarks)),
    ]
    return "\n".join(
        [
            "% needs \\usepackage{booktabs}",
            "\\begin{table}",
            "\\centering\\footnotesize\\setlength{\\tabcolsep}{4pt}",
            f"\\caption{{{TITLES[table].partition('. ')[2]}: ours and the paper's.}}",
            f"\\label{{tab:{table}}}",
            tabular.rstrip("\n"),
            "",
            "\\medskip",
            "\\begin{minipage}{\\linewidth}\\raggedright\\scriptsize",
            "\\\\\n".join(foot),
            "\\end{minipage}",
            "\\end{table}",
            "",
        ]
    )


def format_value(column: str, value: float) -> str:
    """Compact: two significant digits, or seconds to a tenth; NaN is ``–``.

    >>> format_value("mse_u", 5.43e-13), format_value("mse_uxx", 4.6)
    ('5.4e-13', '4.6')
    >>> format_value("train_seconds", 790.61), format_value("loss", float("nan"))
    ('790.6', '–')
    """
    if pd.isna(value):
        return "–"
    if column == "train_seconds":
        return f"{value:.1f}"
    mantissa, _, exponent = f"{value:.1e}".partition("e")
    return f"{mantissa}e{int(exponent)}" if exponent and int(exponent) else mantissa


def format_decades(value: float) -> str:
    """``-0.74``, ``+1.20``; NaN: ``–``."""
    return "–" if pd.isna(value) else f"{value:+.2f}"


def format_epochs(epochs: int) -> str:
    """``10k`` for 10000, ``150`` for 150."""
    return f"{epochs // 1000}k" if epochs and epochs % 1000 == 0 else str(epochs)


def total_sentence(total: TrainTotal) -> str:
    """Our total train seconds beside the paper's, saying which rows are counted if not all."""
    if total.n_rows == total.n_paper_rows:
        return (
            f"Train seconds of both tables together: {total.ours:.1f} "
            f"(paper: {total.paper:.1f} on an {PAPER_DEVICE})."
        )
    return (
        f"Train seconds of the {total.n_rows} rows of {total.n_paper_rows} that completed: "
        f"{total.ours:.1f} (paper, on an {PAPER_DEVICE}: {total.paper_same_rows:.1f} for the same "
        f"rows, {total.paper:.1f} for all)."
    )


def timing_sentence(timings: Sequence[RunRecord]) -> str:
    """How the train seconds of a table were measured, and on which machine.

    Args:
        timings: records of its rows' timings.
    """
    if not timings:
        return "{train_seconds}: of the runs themselves, which may have slowed each other down."
    machines = [_parts(timing, _MACHINE_KEYS) for timing in timings]
    return (
        "{train_seconds}: seconds per epoch of a short run alone on the machine (median over its "
        "chunks of epochs, without the first), times the epochs. Timed with "
        f"{'; '.join(dict.fromkeys(machines))}."
    )


def memory_sentence(frames: Mapping[str, pd.DataFrame]) -> str:
    """The largest peak memory of any run, and whose it is."""
    rows = [
        (row["peak_memory_mb"], f"{TITLES[table].partition('.')[0]}, {row['model']} {_epochs(row)}")
        for table, frame in frames.items()
        for row in frame.to_dict("records")
        if not pd.isna(row["peak_memory_mb"])
    ]
    peak, name = max(rows)
    return f"Largest peak memory of a run: {peak:.0f} MB ({name})."


def environment_lines(records: Iterable[RunRecord]) -> list[str]:
    """One ``Measured with …`` line per distinct environment among the records."""
    found: list[str] = []
    for record in records:
        parts = _parts(record, _ENVIRONMENT_KEYS)
        line = f"Measured with {parts}."
        if parts and line not in found:
            found.append(line)
    return found


def _parts(record: RunRecord, keys: Iterable[str]) -> str:
    environment = dict(record.environment)
    if (commit := environment.get("git_commit")) and environment.get("git_dirty"):
        environment["git_commit"] = f"{commit} (dirty)"
    return ", ".join(f"{key} {environment[key]}" for key in keys if environment.get(key))


def _notes(table: str, frame: pd.DataFrame, *, outcomes: bool = False) -> dict[str, Footnote]:
    """Footnotes by mark: the paper's oddities, then what is special about our rows.

    ``outcomes`` adds how runs ended that did not complete, for where no cell has room for it.
    """
    notes = list(FOOTNOTES[table])
    rows = frame.to_dict("records")
    for row in rows:
        key, model = (row["row"],), f"{row['model']} {_epochs(row)}"
        if pd.isna(row["paper_epochs"]):
            notes.append(Footnote(key, f"{row['model']} is not in the paper."))
        elif not pd.isna(row["epochs"]) and row["epochs"] != row["paper_epochs"]:
            paper = format_epochs(row["paper_epochs"])
            notes.append(Footnote(key, f"{model}: not the paper's budget of {paper} epochs."))
        if outcomes and row["status"] not in ("completed", "missing"):
            notes.append(Footnote(key, f"{model}: {row['status']}."))
    others = [r for r in rows if not r["timed_alone"] and not pd.isna(r["train_seconds"])]
    if others and any(row["timed_alone"] for row in rows):  # if all are, a line below says so
        notes.append(Footnote(tuple(row["row"] for row in others), _NOT_ALONE))
    return dict(zip(ascii_lowercase, notes, strict=False))


def _epochs(row: Row) -> str:
    """The budget of our runs; of a missing row the paper's, to tell it from the others."""
    return format_epochs(row["paper_epochs"] if pd.isna(row["epochs"]) else row["epochs"])


def _markdown_cell(row: Row, value: str) -> str:
    ours = format_value(value, row[value])
    if not row["seeds"]:
        ours = row["status"] if value == METRICS[0] else _outcome(row)
    text = f"{ours} / {format_value(value, row[f'paper_{value}'])}"
    if not pd.isna(row[f"decades_{value}"]):
        text += f" ({format_decades(row[f'decades_{value}'])})"
    return text


def _memory(row: Row) -> str:
    peak = row["peak_memory_mb"]
    return "–" if pd.isna(peak) else f"{peak:.0f}"


def _seeds(row: Row) -> str:
    seeds = row["seeds"].replace(" ", ", ")
    return seeds + row["status"].removeprefix("completed") if seeds else "–"


def _outcome(row: Row) -> str:
    """The one word for a row without a completed run."""
    return next(word for word in ("diverged", "interrupted", "missing") if word in row["status"])


def _latex_model(model: str) -> str:
    return _latex_text(model).replace("S1", "$S_1$").replace("S2", "$S_2$")


def _latex_number(text: str) -> str:
    """Number, ``inf`` or dash for text mode, with a proper minus sign."""
    return "--" if text == "–" else text.replace("-", "$-$")


def _latex_text(text: str) -> str:
    """Escape text for LaTeX and put the symbols in place of a footnote's fields."""
    return "".join(
        _LATEX_SYMBOLS[part[1:-1]] if _FIELD.fullmatch(part) else part.translate(_LATEX_SPECIAL)
        for part in _FIELD.split(text)
    )


def _markdown_text(text: str) -> str:
    return _FIELD.sub(lambda match: _MARKDOWN_SYMBOLS[match[0][1:-1]], text)
