"""``claims.md`` and ``claims.csv``: every claim with its verdict and the figures it rests on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from diffhash._files import write_text_atomically
from diffhash.paper.claims.evidence import ACCURATE, COST_MARGIN, NO_SKILL, Evidence
from diffhash.paper.claims.statements import STATEMENTS
from diffhash.paper.claims.verdicts import DIRECTIONS, Claim, count_verdicts, judge
from diffhash.paper.table import Table
from diffhash.paper.templates import render
from diffhash.results.statistics import ALPHA


def check_claims(tables: Mapping[str, Table]) -> list[Claim]:
    """The paper's claims against the records of both tables.

    Raises:
        RecordError: a corrupt history or predictions file.
    """
    return judge(STATEMENTS, Evidence(tables))


def write_claims(claims: Sequence[Claim], output: Path | str) -> list[Path]:
    """Write ``claims.md`` and ``claims.csv``, a line per comparison, into ``output``."""
    frame = pd.DataFrame([line for claim in claims for line in _lines(claim)])
    texts = {"md": to_markdown(claims), "csv": frame.to_csv(index=False)}
    return [write_text_atomically(Path(output) / f"claims.{k}", t) for k, t in texts.items()]


def to_markdown(claims: Sequence[Claim]) -> str:
    """The page: how the tests are to be read, and the paper's claims."""
    levels = {"alpha": ALPHA, "accurate": ACCURATE, "no_skill": NO_SKILL}
    count = count_verdicts(claims)
    return render("claims.md", claims=claims, count=count, cost_margin=COST_MARGIN, **levels)


def _lines(claim: Claim) -> list[dict[str, Any]]:
    """One line per part of a claim."""
    return [
        {
            "source": claim.statement.source,
            "claim": claim.statement.text,
            "criterion": claim.statement.criterion,
            "verdict": claim.verdict,
            "points": DIRECTIONS[claim.points],
            "p_claim": claim.p,
            "p_claim_holm": claim.p_holm,
            "survives_holm": "" if claim.survives is None else claim.survives,
            "combine": claim.statement.combine,
            "comparison": outcome.text,
            "test": outcome.test,
            "n": " ".join(map(str, outcome.n)),
            "decades": outcome.decades,
            "share": outcome.share,
            "p": outcome.tested.p if outcome.random else None,
            "p_opposite": outcome.tested.p_opposite if outcome.random else None,
            "holds": DIRECTIONS[outcome.points],
            "figures": "; ".join(f"{row} {text}" for _, row, text in outcome.figures),
            "missing": outcome.missing,
        }
        for outcome in claim.outcomes
    ]
