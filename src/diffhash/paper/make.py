"""Write the tables, the claims, the summary, and the marked blocks of pages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from diffhash._files import write_text_atomically
from diffhash.paper.claims.page import write_claims
from diffhash.paper.claims.verdicts import count_verdicts, judge
from diffhash.paper.readme import update_page
from diffhash.paper.summary import summary
from diffhash.paper.table import Table
from diffhash.paper.tables import total_sentence, write_tables


def make_tables(
    tables: Mapping[str, Table], output: Path | str, pages: Iterable[Path | str] = ()
) -> list[str]:
    """Write the tables, the claims and the summary into ``output``.

    Args:
        tables: both tables, with the records of their rows.
        output: the folder of the files.
        pages: files whose marked blocks are written anew.

    Returns:
        The paths, and sentences on train seconds and verdicts.

    Raises:
        RecordError: histories or predictions are corrupt; the message names the path.
        ValueError: a page lacks the markers.
        OSError: a file cannot be written, or a page is missing.
    """
    both, claims = list(tables.values()), judge(tables)
    paths = [*write_tables(tables, output), *write_claims(claims, output)]
    paths.append(write_text_atomically(Path(output) / "summary.md", summary(both, claims)))
    for page in pages:
        update_page(page, output)
    return [*map(str, paths), total_sentence(both),
            f"Claims of the paper: {count_verdicts(claims)}."]  # fmt: skip
