"""``claims.md`` and ``claims.csv``: every claim with its verdict and the figures it rests on."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from diffhash._files import write_text_atomically
from diffhash.paper.claims.evidence import ACCURATE, COST_MARGIN, NO_SKILL
from diffhash.paper.claims.verdicts import count_verdicts, said
from diffhash.paper.templates import render
from diffhash.results.statistics import ALPHA

_COLUMNS = ["source", "claim", "criterion", "verdict", "points", "p_claim", "p_claim_holm",
            "survives_holm", "combine", "comparison", "test", "n", "decades", "share", "p",
            "p_opposite", "holds", "figures", "missing"]  # fmt: skip


def write_claims(lines: pd.DataFrame, output: Path | str) -> list[Path]:
    """Write ``claims.md`` and ``claims.csv``, a line per comparison, into ``output``.

    Args:
        lines: of `diffhash.paper.claims.verdicts.judge`.
        output: where to write.
    """
    frame = lines.copy()
    frame["figures"] = [
        "; ".join(f"{row} {text}" for _, row, text in each) for each in lines["figures"]
    ]
    frame["n"] = [" ".join(map(str, n)) for n in lines["n"]]
    frame.loc[frame["n"] == "", ["p", "p_opposite"]] = None  # by value
    texts = {"md": to_markdown(lines), "csv": frame.to_csv(index=False, columns=_COLUMNS)}
    return [write_text_atomically(Path(output) / f"claims.{k}", t) for k, t in texts.items()]


def to_markdown(lines: pd.DataFrame) -> str:
    """The page: how the tests are to be read, and the paper's claims."""
    claims = [(parts.iloc[0], *said(parts)) for _, parts in lines.groupby("claim", sort=False)]
    levels = {"alpha": ALPHA, "accurate": ACCURATE, "no_skill": NO_SKILL}
    count = count_verdicts(lines)
    return render("claims.md", claims=claims, count=count, cost_margin=COST_MARGIN, **levels)
