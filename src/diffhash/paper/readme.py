"""What the README and the docs quote of ``results/tables``: never typed in by hand."""

from __future__ import annotations

import re
from itertools import zip_longest
from pathlib import Path

import pandas as pd

from diffhash._files import write_text_atomically
from diffhash.paper import second_order
from diffhash.paper.printed import ROWS
from diffhash.results.formats import format_epochs, format_value, markdown_table

PAGES = ("README.md", "docs/reproduction.md", "docs/reference/zoo.md")
"""The pages with marked blocks, in a clone."""
_REMARKS = ("In brackets", "Train s", "Largest", "Measured")


def update_page(page: Path | str, tables: Path | str) -> None:
    """Put each block whose markers the page has, ``<!-- rows -->`` and ``<!-- /rows -->``, between
    them.

    Raises:
        FileNotFoundError: no page, or no tables.
        ValueError: the page has no markers, or one that is missing or there twice.
    """
    text = Path(page).read_text(encoding="utf-8")
    names = dict.fromkeys(re.findall(r"<!-- /?(\w+) -->", text))
    for name in names or [""]:
        begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        if name not in _BLOCKS or text.count(begin) != 1 or text.count(end) != 1:
            raise ValueError(
                f"{page}: needs <!-- name --> and <!-- /name -->, once each, with a name of "
                f"{', '.join(_BLOCKS)}"
            )
        before, rest = text.split(begin)
        # A table needs an empty line before it.
        text = f"{before}{begin}\n\n{_BLOCKS[name](Path(tables))}\n\n{end}{rest.split(end)[1]}"
    write_text_atomically(page, text)


def rows_block(tables: Path) -> str:
    """Both tables in one, short: a line per model, ours beside the paper's."""
    data, pinn = (pd.read_csv(tables / f"{name}.csv", index_col="row") for name in ROWS)
    # Beside a model of Table I stands that of Table II, whose longer budget may be another.
    pinn = pinn.rename(index=dict(zip(ROWS["table2"], ROWS["table1"], strict=True)))
    rows = list(dict.fromkeys((*ROWS["table1"], *data.index, *pinn.index)))
    # A row that only one table has, as far as it has been run, has no numbers in the other.
    data, pinn = data.reindex(rows), pinn.reindex(rows)
    budgets = (frame["epochs"].fillna(frame["paper_epochs"]) for frame in (data, pinn))
    columns = [
        data["model"].fillna(pinn["model"]),
        [" / ".join(dict.fromkeys(format_epochs(int(n)) for n in pair if n == n))
         for pair in zip(*budgets, strict=True)],
    ]  # fmt: skip
    for frame, value in ((data, "mse_u"), (pinn, "mse_u"), (pinn, "train_seconds")):
        for name in (value, f"paper_{value}"):
            columns.append([format_value(value, number) for number in frame[name]])
    heads = ["Model", "Epochs", "Data: MSE u", "paper", "PINN: MSE u", "paper", "PINN: seconds",
             "paper"]  # fmt: skip
    return markdown_table(pd.DataFrame(zip(*columns, strict=True), columns=heads), "ll")


def zoo_block(tables: Path) -> str:
    """The package's problems, two to a line: of each the settings with the least error."""
    zoo = pd.read_csv(tables / "zoo.csv").fillna({"settings": ""})
    cells = []
    for _, of_problem in zoo.groupby(["problem", "settings"], sort=False):
        runs = [rows for _, rows in of_problem.groupby(["encoder", "epochs"], sort=False)]
        best = min(runs, key=lambda rows: rows["l2"].max()).to_dict("records")
        cells.append(
            [
                f"`{best[0]['problem']}`{best[0]['settings'].replace('problem.', ', ')}",
                ", ".join(f"{row['unknown']} {format_value('l2', row['l2'])}" for row in best),
                f"{best[0]['train_seconds']:.0f}",
            ]
        )
    half = (len(cells) + 1) // 2
    pairs = zip_longest(cells[:half], cells[half:], fillvalue=[""] * 3)
    columns = ["Problem", "Relative L2 error", "Seconds"] * 2
    return markdown_table(pd.DataFrame([[*a, *b] for a, b in pairs], columns=columns), "llllll")


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
        "[Every claim with its figures](../results/tables/claims.md); footnotes: "
        "[Table I](../results/tables/table1.md), [Table II](../results/tables/table2.md)."
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


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8").rstrip()


def _second_order(tables: Path) -> str:
    """Rows that the paper does not have, where they have been run."""
    path = tables / f"{second_order.NAME}.md"
    if not path.is_file():
        return "Not run: `make reproduce-tables OPTIONAL=1`."
    return _text(path)


_BLOCKS = {
    "summary": lambda tables: _text(tables / "summary.md"),
    "published": lambda tables: _text(tables / "published.md"),
    "results": results_block,
    second_order.NAME: _second_order,
    "rows": rows_block,
    "zoo": zoo_block,
}
