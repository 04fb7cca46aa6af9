"""What the README quotes of ``results/tables``: never typed in by hand."""

from __future__ import annotations

import re
from pathlib import Path

from diffhash._files import write_text_atomically

_REMARKS = ("In brackets", "Train s", "Largest", "Measured")


def results_block(tables: Path | str) -> str:
    """Both tables, their train seconds and the count of claims, out of ``results/tables``.

    Tables over several seeds are to fit a screen: they keep the columns in which the paper prints
    something.

    Raises:
        FileNotFoundError: the tables have not been written.
    """
    folder = Path(tables)
    parts = []
    for name in ("table1.md", "table2.md"):
        text = (folder / name).read_text(encoding="utf-8")
        heading, table, remarks = text.split("\n\n", 2)
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
    rows = [line.strip("|").split("|") for line in table.splitlines()]
    columns = list(zip(*rows, strict=True))
    kept = [c for c in columns if not all(cell.rstrip().endswith("/ –") for cell in c[2:])]
    kept = [c for c in kept if c[0].strip() != "Peak MB"]
    return "\n".join(f"|{'|'.join(cells)}|" for cells in zip(*kept, strict=True))


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
