"""Tables: drawn on a terminal, plain in a pipe."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from diffhash.cli.comparison import COSTS, Ratio
from diffhash.cli.selection import ABSENT, Entry, differing, text_of
from diffhash.results.formats import format_decades, format_epochs, format_value, printable
from diffhash.results.metrics import metric, metric_names
from diffhash.results.record import FINISHED, RunRecord

if TYPE_CHECKING:
    from diffhash.problems import Reference

_WIDE = 10_000  # the width in a pipe, so that no line breaks
_COLOURS = {
    "completed": "green",
    "converged": "green",
    "out_of_time": "yellow",
    "diverged": "red",
    "interrupted": "yellow",
}


def print_records(entries: Iterable[Entry]) -> None:
    """Print a line for each record, with the settings that differ and the metrics that any record
    has, except errors of derivatives. The path is last, where a narrow terminal may break it."""
    entries = list(entries)
    names = (*metric_names(entry.record.metrics for entry in entries), "estimate")
    shown = [n for n in names if not (metric(n).kind and "_" in metric(n).quantity)]
    metrics = [n for n in shown if any(entry.fields.get(n) is not None for entry in entries)]
    settings = differing(entries)
    left = ("encoder", "problem", "task", *settings)
    head = (*left, "seed", "status", "epochs", *metrics, "train s", "run")
    table = _table("", head, left=(*left, "status", "run"))
    for index, entry in enumerate(entries):
        record = entry.record
        _add(
            table,
            f"{record.encoder} ({record.preset})" if record.preset else record.encoder,
            record.problem,
            record.task,
            *(column[index] for column in settings.values()),
            str(record.seed),
            _status(record),
            format_epochs(record.epochs),
            *(_number(name, entry.fields.get(name)) for name in metrics),
            format_value("train_seconds", record.train_seconds),
            str(entry.directory),
        )
    _print(table, width=_WIDE)


def print_comparison(a: Entry, b: Entry, comparison: dict[str, dict[str, Any]]) -> None:
    """Print the sections of a comparison, with a remark for a section without differences."""
    runs = _table("", ("", "A", "B"), left=("", "A", "B"))
    _add(runs, "run", str(a.directory), str(b.directory))
    _add(runs, "status", _status(a.record), _status(b.record))
    if a.record.warnings or b.record.warnings:
        told = [" ".join(f"{text}." for text in one.record.warnings) for one in (a, b)]
        _add(runs, "warnings", *(text or ABSENT for text in told))
    _print(runs)
    for title in ("Settings", "Environment"):
        if not (differences := comparison[title.lower()]):
            click.echo(f"{title}: the same\n")
            continue
        table = _table(f"{title} that differ", ("", "A", "B"), left=("", "A", "B"))
        for key, values in differences.items():
            _add(table, key, *map(text_of, values))
        _print(table)
    print_ratios("Metrics", comparison["metrics"])
    print_ratios("Costs", comparison["costs"])


def print_ratios(
    title: str, ratios: dict[str, Ratio], a: str = "A", b: str = "B", ratio: str = "B / A"
) -> None:
    """Print numbers of two runs, their ratio and its decades, without numbers that neither run
    has."""
    table = _table(title, ("", a, b, ratio, "decades"), left=("",))
    for name, one in ratios.items():
        if one.a is None and one.b is None:
            continue
        _add(
            table,
            name,
            _number(name, one.a),
            _number(name, one.b),
            ABSENT if one.ratio is None else f"{one.ratio:.4g}",
            format_decades(float("nan") if one.decades is None else one.decades),
        )
    _print(table)


def print_references(references: Mapping[str, Reference]) -> None:
    """Print a line for each problem: the error, and the methods with their errors."""
    table = _table("", ("problem", "error", "methods"), left=("problem", "methods"))
    for name, reference in references.items():
        methods = (
            f"{method}: {error:.0e}" if error else method
            for method, error in reference.methods.items()
        )
        _add(table, name, f"{reference.error:.1e}", "; ".join(methods))
    _print(table)


def print_json(value: Any) -> None:
    """Print a value as indented JSON; numbers that JSON lacks are printed as words, other values as
    text."""
    click.echo(json.dumps(_json_value(value), indent=2, allow_nan=False, default=str))


def _json_value(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _json_value(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json_value(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _add(table: Table, *cells: str | Text) -> None:
    """Add a row; text from records is printed literally, without a terminal's control sequences."""
    shown = [cell if isinstance(cell, Text) else Text(printable(cell)) for cell in cells]
    table.add_row(*shown)


def _table(title: str, head: Sequence[str], left: Sequence[str]) -> Table:
    table = Table(
        title=Text(printable(title)) if title else None,
        title_justify="left", title_style="bold", box=SIMPLE_HEAD,
        show_edge=False, pad_edge=False, padding=(0, 1, 0, 0),
    )  # fmt: skip
    for name in head:
        if name in left:
            table.add_column(name, overflow="fold")
        else:
            table.add_column(name, justify="right", no_wrap=True)
    return table


def _print(table: Table, width: int | None = None) -> None:
    console = Console(highlight=False, markup=False)
    if width or not console.is_terminal:
        console.width = width or _WIDE
    console.print(table)
    console.print()


def _status(record: RunRecord) -> Text:
    epoch = record.epochs if record.diverged_epoch is None else record.diverged_epoch
    end = "" if record.status in FINISHED else f" @ epoch {epoch}"
    if record.warnings:
        return Text(f"{record.status}{end}, warned", style="yellow")
    return Text(record.status + end, style=_COLOURS[record.status])


def _number(name: str, value: float | None) -> str:
    if value is None:
        return ABSENT
    if isinstance(value, int):
        return str(value)
    return f"{value:.3g}" if name in COSTS else format_value(name, value)
