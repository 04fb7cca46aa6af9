"""``claims.md`` and ``claims.csv``: every claim with its verdict and the figures it rests on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from diffhash._files import write_text_atomically
from diffhash.paper.claims.evidence import ACCURATE, COST_MARGIN, NO_SKILL, Evidence
from diffhash.paper.claims.statements import QUESTIONS, STATEMENTS, Finding, find
from diffhash.paper.claims.verdicts import (
    Claim,
    claim_fields,
    count_verdicts,
    decisive,
    direction_text,
    figures_text,
    judge,
    p_text,
    survives_text,
    verdict_text,
)
from diffhash.paper.table import Table
from diffhash.results.statistics import ALPHA

FINDINGS_TITLE = "What these rows show that the paper denies or does not say"
HOW_TO_READ = "\n\n".join(
    (
        f"Every claim is tested over seeds, one-sided, at {ALPHA:g}. Seeds of two rows share "
        "nothing but the data: rows are compared by exact Mann-Whitney tests. A row is compared "
        "with a number by the exact binomial test of how many of its seeds lie on a side of it "
        "(the sign test of the median, unless another share is named). A diverged run ranks worst. "
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


def check_claims(tables: Mapping[str, Table]) -> tuple[list[Claim], list[Finding]]:
    """The paper's claims against the records of both tables, and what the rows show besides.

    Raises:
        RecordError: a corrupt history or predictions file.
    """
    evidence = Evidence(tables)
    return judge(STATEMENTS, evidence), [find(evidence, question) for question in QUESTIONS]


def write_claims(tables: Mapping[str, Table], output: Path | str) -> tuple[list[Path], list[Claim]]:
    """Write ``claims.md`` and ``claims.csv`` into ``output``: their paths, and `check_claims`'s."""
    claims, findings = check_claims(tables)
    lines = [line for claim in claims for line in _lines("claim", claim, claim.statement.criterion)]
    for finding in findings:
        for claim in finding.candidates:
            lines += _lines(finding.question.text, claim, finding.question.criterion)
    texts = {"md": to_markdown(claims, findings), "csv": pd.DataFrame(lines).to_csv(index=False)}
    paths = [write_text_atomically(Path(output) / f"claims.{k}", t) for k, t in texts.items()]
    return paths, claims


def to_markdown(claims: Sequence[Claim], findings: Sequence[Finding]) -> str:
    """The page: how the tests are to be read, the paper's claims, and what else the rows show."""
    lines = []
    for claim in claims:
        statement = claim.statement
        lines.append(f"- **{verdict_text(claim)}** ({statement.source}): {statement.text}")
        lines += [f"  - {name}: {text}." for name, text in claim_fields(claim).items()]
    parts = (
        "# The paper's claims against our records", f"{count_verdicts(claims)}.", HOW_TO_READ,
        "## The paper's claims", "\n".join(lines), f"## {FINDINGS_TITLE}",
        findings_markdown(findings),
    )  # fmt: skip
    return "\n\n".join(parts) + "\n"


def findings_markdown(findings: Sequence[Finding]) -> str:
    """What the rows show that the paper denies or does not say: a table for each question."""
    parts = [
        "Each question was put to every row or pair that it can be put to. Listed are those whose "
        "medians, or values, point that way; survives: after correction for all candidates of the "
        "question."
    ]
    for finding in findings:
        text, criterion = finding.question.text, finding.question.criterion
        counts = f"{len(finding.claims)} of {len(finding.candidates)}"
        parts.append(f"**{text[0].upper()}{text[1:]}**: {counts} ({criterion}).")
        rows = [
            {
                "Verdict": verdict_text(claim),
                "Table": claim.statement.source.partition(".")[0].removeprefix("Table "),
                "What": claim.statement.text,
                "Ours": figures_text(claim.outcomes, grouped=False),
                "Effect": (part := decisive(claim, claim.outcomes)).effect or part.test,
                "p": p_text(claim),
                "Survives": survives_text(claim),
            }
            for claim in finding.claims
        ]
        if rows:
            parts.append(str(pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True)))
    return "\n\n".join(parts)


def _lines(section: str, claim: Claim, criterion: str) -> list[dict[str, Any]]:
    """One line per part of a claim."""
    return [
        {
            "section": section,
            "source": claim.statement.source,
            "claim": claim.statement.text,
            "criterion": criterion,
            "verdict": claim.verdict,
            "points": direction_text(claim.points),
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
            "holds": direction_text(outcome.points),
            "figures": "; ".join(f"{row} {text}" for _, row, text in outcome.figures),
            "missing": outcome.missing,
        }
        for outcome in claim.outcomes
    ]
