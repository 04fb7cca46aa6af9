"""``claims.md`` and ``claims.csv``: every claim with its verdict and the figures behind it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from diffhash._files import write_text_atomically
from diffhash.paper.claims.evidence import ACCURATE, COST_MARGIN, NO_SKILL
from diffhash.paper.claims.verdicts import count_verdicts
from diffhash.paper.templates import render
from diffhash.results.statistics import ALPHA

_COLUMNS = ["source", "claim", "criterion", "verdict", "points", "p_claim", "p_claim_holm",
            "survives_holm", "combine", "comparison", "test", "n", "decades", "share", "p",
            "p_opposite", "holds", "figures", "missing"]  # fmt: skip


def write_claims(lines: pd.DataFrame, output: Path | str) -> list[Path]:
    """Write ``claims.md`` and ``claims.csv``, a line per comparison, into ``output``.

    Args:
        lines: the lines of `diffhash.paper.claims.verdicts.judge`.
        output: the folder of the files.
    """
    frame = lines.copy()
    frame["figures"] = [
        "; ".join(f"{row} {text}" for _, row, text in each) for each in lines["figures"]
    ]
    frame["n"] = [" ".join(map(str, n)) for n in lines["n"]]
    frame.loc[frame["n"] == "", ["p", "p_opposite"]] = None  # compared by value
    texts = {"md": to_markdown(lines), "csv": frame.to_csv(index=False, columns=_COLUMNS)}
    return [write_text_atomically(Path(output) / f"claims.{k}", t) for k, t in texts.items()]


def to_markdown(lines: pd.DataFrame) -> str:
    """The page: an explanation of the tests, and the paper's claims."""
    levels = {"alpha": ALPHA, "accurate": ACCURATE, "no_skill": NO_SKILL}
    count, claims = count_verdicts(lines), _claims(lines)
    return render("claims.md", claims=claims, count=count, cost_margin=COST_MARGIN, **levels)


def _claims(lines: Any) -> Iterator[tuple[Any, ...]]:
    """For each claim a line, the number of its parts, the decisive part, the missing quantities,
    and every sample once, by quantity and row.

    The decisive part is the weakest if all parts must hold together, and the strongest if one is
    enough; without a verdict it decides the direction.
    """
    for _, parts in lines.groupby("claim", sort=False):
        claim, tested = parts.iloc[0], parts[parts["test"] != ""]
        is_open = claim["verdict"] == "undecided"
        holds = claim["points"] == "for" if is_open else claim["verdict"] == "supported"
        strength = ["p" if holds else "p_opposite", "size"]
        size = -tested["decades"].abs().fillna(0.0)
        ordered = tested.assign(size=size).sort_values(strength, kind="stable")
        which = -1 if (claim["combine"] == "all") == holds else 0
        figures: dict[str, dict[str, str]] = {}
        for group, row, text in (figure for each in parts["figures"] for figure in each):
            figures.setdefault(group, {})[row] = text
        missing = "; ".join(filter(None, parts["missing"].unique()))
        yield claim, len(parts), ordered.iloc[which] if len(tested) else None, missing, figures
