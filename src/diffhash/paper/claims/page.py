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
from diffhash.results.statistics import ALPHA

HOW_TO_READ = "\n\n".join(
    (
        f"Every claim is tested over seeds, one-sided, at {ALPHA:g}. Seeds of two rows share "
        "nothing but the data: rows are compared by exact Mann-Whitney tests. A row is compared "
        "with a number by the exact binomial test of how many of its seeds lie on a side of it "
        "(the sign test of the median). A diverged run ranks worst. "
        "What does not depend on the seed (epochs, memory, cost of an epoch) is compared by value; "
        f"costs within {COST_MARGIN:.0%}, or within the chunks of their timing, count as equal.",
        f"A claim of several comparisons is supported if each has p < {ALPHA:g} in its direction "
        f"(the largest is its p), refuted if one has p < {ALPHA:g} in the other after Holm's "
        "correction over them, else undecided; a claim that any of several holds, the other way "
        "round. Survives: whether the verdict also outlives Holm's correction over the list of "
        "claims; that changes no verdict.",
        "Effects: decades, log10 between the medians or from the number to the median; the share "
        "of pairs of seeds in the order claimed (50 %: no difference; Cliff's delta is twice that "
        "minus 1), or of seeds on the side claimed. Ours: medians, in brackets the interval that "
        "the tables give.",
        f"Accurate: at most {ACCURATE:.0%} of the zero predictor's MSE (u = u_x = u_xx = 0); no "
        f"skill: more than {NO_SKILL:.0%} of it; percentages are of that MSE.",
    )
)
"""What the words of the page mean."""


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
    lines = []
    for claim in claims:
        statement = claim.statement
        lines.append(f"- **{claim.verdict_text}** ({statement.source}): {statement.text}")
        lines += [f"  - {name}: {text}." for name, text in claim.fields.items()]
    parts = (
        "# The paper's claims against our records", f"{count_verdicts(claims)}.", HOW_TO_READ,
        "## The paper's claims", "\n".join(lines),
    )  # fmt: skip
    return "\n\n".join(parts) + "\n"


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
