"""Writing Figures 1 to 5 as PNG and PDF."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from diffhash.paper.figures.comparisons import figure3, figure4, figure5
from diffhash.paper.figures.continuity import figure1, figure2
from diffhash.paper.figures.rows import table_rows
from diffhash.paper.printed import TITLES
from diffhash.paper.table import Table
from diffhash.results.figures.style import write_figure
from diffhash.results.record import RecordError

_SINGLE_GRID = {"figure1": figure1, "figure2": figure2}
_OF_RECORDS = {
    "table1": {"figure3": figure3, "figure4": figure4},
    "table2": {"figure5": figure5},
}


_MESSAGE = "not made for want of records: {}"


class NoRecordsError(RecordError):
    """Some figures could not be made for want of records.

    Attributes:
        written: the files of the others, which were made.
    """

    def __init__(self, message: str, written: list[Path]) -> None:
        super().__init__(message)
        self.written = written


def make_figures(tables: Mapping[str, Table], output_dir: Path | str) -> list[Path]:
    """Write ``figure1`` … ``figure5`` as ``.png`` and ``.pdf`` and return their paths.

    Figures 1 and 2 fit single grids, the others are drawn from the tables' records:
    of a row with several seeds the pointwise median, and as a band the interval
    that the tables give. A row without a record is said to have none in its panel; a table
    without any leaves its figures out.

    Raises:
        NoRecordsError: a table without records; all other figures have been written.
        RecordError: a corrupt file, or predictions that do not fit each other.
        OSError: ``output_dir`` cannot be written.
    """
    output = Path(output_dir)
    rows = {table: table_rows(tables[table]) for table in _OF_RECORDS}
    lacking = _lacking(tables)
    written: list[Path] = []
    for name, draw in _SINGLE_GRID.items():
        written += write_figure(draw(), output / name)
    for table, figures in _OF_RECORDS.items():
        if table in lacking:
            continue
        for name, draw in figures.items():
            written += write_figure(draw(rows[table]), output / name)
    if lacking:
        raise NoRecordsError(_MESSAGE.format("; ".join(lacking.values())), written)
    return written


def check_records(tables: Mapping[str, Table]) -> None:
    """Refuse before anything is written where no table has a record.

    Raises:
        NoRecordsError: as said.
    """
    lacking = _lacking(tables)
    if len(lacking) == len(_OF_RECORDS):
        raise NoRecordsError(_MESSAGE.format("; ".join(lacking.values())), [])


def _lacking(tables: Mapping[str, Table]) -> dict[str, str]:
    """The tables without records, and what cannot be made of them."""
    return {
        table: f"{', '.join(figures)} (records of {TITLES[table]} in {tables[table].folder})"
        for table, figures in _OF_RECORDS.items()
        if not any(row.runs for row in table_rows(tables[table]))
    }
