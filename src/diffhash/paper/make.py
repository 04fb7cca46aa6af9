"""Everything that is written from the tables: them, the claims, the summary, the README's share."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from diffhash._files import write_text_atomically
from diffhash.paper.claims import count_verdicts, write_claims
from diffhash.paper.summary import write_summary
from diffhash.paper.table import Table
from diffhash.paper.tables import total_sentence, write_tables

_REMARKS = ("In brackets", "Train s", "Largest", "Measured")


@dataclass(frozen=True)
class Written:
    """What `make_tables` wrote, and what is to be said of it.

    Attributes:
        paths: the files.
        total: a sentence on the train seconds of all rows.
        verdicts: how many claims are supported, refuted and undecided.
    """

    paths: list[Path]
    total: str
    verdicts: str


def make_tables(
    tables: Mapping[str, Table], output: Path | str, readme: Path | str | None = None
) -> Written:
    """Write the tables, the claims and the summary into ``output``.

    Args:
        tables: both, with the records of their rows.
        output: where to write.
        readme: file whose marked blocks are written anew, if any.

    Raises:
        RecordError: corrupt histories or predictions; the message names the path.
        ValueError: ``readme`` lacks the markers.
        OSError: a file cannot be written, or no ``readme``.
    """
    paths = write_tables(tables, output)
    claim_paths, claims = write_claims(tables, output)
    paths = [*paths, *claim_paths, write_summary(tables, claims, output)]
    if readme is not None:
        update_readme(readme, output)
    return Written(paths, total_sentence(tables.values()), count_verdicts(claims))


def update_readme(readme: Path | str, tables: Path | str) -> None:
    """Put the summary and `results_block` between the README's markers.

    Raises:
        FileNotFoundError: no README, or no tables.
        ValueError: the README lacks the markers.
    """
    text = Path(readme).read_text(encoding="utf-8")
    summary = (Path(tables) / "summary.md").read_text(encoding="utf-8").rstrip()
    for name, block in (("summary", summary), ("results", results_block(tables))):
        begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        if text.count(begin) != 1 or text.count(end) != 1:
            raise ValueError(f"{readme}: needs {begin} and {end}, once each")
        before, rest = text.split(begin)
        text = f"{before}{begin}\n{block}\n{end}{rest.split(end)[1]}"
    write_text_atomically(readme, text)


def results_block(tables: Path | str) -> str:
    """Both tables, their train seconds and the count of claims, out of ``results/tables``.

    Tables over several seeds are to fit a screen: they keep the columns in which the paper prints
    something.

    Raises:
        FileNotFoundError: the tables have not been written.
    """
    folder, parts = Path(tables), []
    for name in ("table1.md", "table2.md"):
        heading, table, remarks = (folder / name).read_text(encoding="utf-8").split("\n\n", 2)
        table = re.sub(r" *<sup>.*?</sup>", lambda m: " " * len(m[0]), table)
        parts += [heading, _narrow(table) if "<br>" in table else table]
    last = [line.removeprefix("- ") for line in remarks.splitlines()]
    parts.append("\n".join(line for line in last if line.startswith(_REMARKS)))
    verdicts = (folder / "claims.md").read_text(encoding="utf-8").split("\n\n", 2)[1]
    parts.append(
        f"The paper's claims, each checked against these runs: {verdicts} "
        "[Every claim with its figures](results/tables/claims.md); footnotes: "
        "[Table I](results/tables/table1.md), [Table II](results/tables/table2.md)."
    )
    return "\n\n".join(parts)


def _narrow(table: str) -> str:
    rows = [re.split(r"(?<!\\)\|", line[1:-1]) for line in table.splitlines()]
    columns = [
        column
        for column in zip(*rows, strict=True)
        if not all(cell.rstrip().endswith("/ –") for cell in column[2:])
        and column[0].strip() != "Peak MB"
    ]
    return "\n".join(f"|{'|'.join(cells)}|" for cells in zip(*columns, strict=True))
