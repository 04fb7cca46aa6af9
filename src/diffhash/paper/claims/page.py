"""``claims.md`` and ``claims.csv``: every claim with its verdict and the figures it rests on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import pandas as pd

from diffhash.paper.claims import data_driven, discussion, physics_informed
from diffhash.paper.claims.engine import Claim, Verdict, judge
from diffhash.paper.claims.evidence import Evidence
from diffhash.paper.claims.findings import Finding, find
from diffhash.paper.claims.quantities import ACCURATE, COST_MARGIN, NO_SKILL
from diffhash.paper.claims.wording import (
    decisive,
    direction_text,
    figures_text,
    p_text,
    survives_text,
    test_text,
    verdict_text,
)
from diffhash.paper.table import Table
from diffhash.results.record import write_text_atomically
from diffhash.results.statistics import ALPHA

STATEMENTS = (*data_driven.CLAIMS, *physics_informed.CLAIMS, *discussion.CLAIMS)
FINDINGS_TITLE = "What these rows show that the paper denies or does not say"
_HOW = (
    f"Every claim is tested over seeds, one-sided, at {ALPHA:g}. Seeds of two rows share nothing "
    "but the data: rows are compared by exact Mann-Whitney tests. A row is compared with a number "
    "by the exact binomial test of how many of its seeds lie on a side of it (the sign test of the "
    "median, unless another share is named). A diverged run ranks worst. What does not depend on "
    "the seed (epochs, memory, cost of an epoch) is compared by value; costs within "
    f"{COST_MARGIN:.0%}, or within the chunks of their timing, count as equal.",
    f"A claim of several comparisons is supported if each has p < {ALPHA:g} in its direction (the "
    f"largest is its p), refuted if one has p < {ALPHA:g} in the other after Holm's correction "
    "over them, else undecided; a claim that any of several holds, the other way round. Survives: "
    "whether the verdict also outlives Holm's correction over the list of claims; that changes no "
    "verdict.",
    "Effects: decades, log10 between the medians or from the number to the median; the share of "
    "pairs of seeds in the order claimed (50 %: no difference; Cliff's delta is twice that minus "
    "1), or of seeds on the side claimed. Ours: medians, in brackets the interval that the tables "
    "give.",
    f"Accurate: at most {ACCURATE:.0%} of the zero predictor's MSE (u = u_x = u_xx = 0); no skill: "
    f"more than {NO_SKILL:.0%} of it; percentages are of that MSE.",
)


def check_claims(tables: Mapping[str, Table]) -> tuple[list[Claim], list[Finding]]:
    """Test every statement of the paper against the records of both tables.

    Returns:
        The paper's claims, and what the rows show besides.

    Raises:
        RecordError: a corrupt history or predictions file.
    """
    evidence = Evidence(tables)
    return judge(STATEMENTS, evidence), find(evidence)


def write_claims(tables: Mapping[str, Table], output: Path | str) -> tuple[list[Path], list[Claim]]:
    """Test the claims and write ``claims.md`` and ``claims.csv`` into ``output``.

    Returns:
        The paths written, and the paper's claims; raises as :func:`check_claims`.
    """
    claims, findings = check_claims(tables)
    page, table = to_markdown(claims, findings), to_frame(claims, findings).to_csv(index=False)
    paths = [
        write_text_atomically(Path(output) / "claims.md", page),
        write_text_atomically(Path(output) / "claims.csv", table),
    ]
    return paths, claims


def count_verdicts(claims: Iterable[Claim]) -> str:
    """``15 supported, 4 refuted, 2 undecided``, and which way those of one seed point."""
    claims = list(claims)
    count = Counter(claim.verdict for claim in claims)
    text = ", ".join(f"{count[verdict]} {verdict}" for verdict in get_args(Verdict))
    one = [claim for claim in claims if claim.verdict == "undecided" and claim.one_seed]
    if one:
        ways = Counter(claim.points for claim in one)
        text += (
            f" ({len(one)} of these with a row of one seed: {ways[True]} point for the claim, "
            f"{ways[False]} against it)"
        )
    return text


def claim_fields(claim: Claim) -> dict[str, str]:
    """What there is to say of a claim besides its text and verdict; nothing is left empty."""
    fields = {
        "Criterion": claim.statement.criterion,
        "Test": test_text(claim),
        "Missing": claim.missing,
        "Ours": figures_text(claim.outcomes),
    }
    return {name: text for name, text in fields.items() if text}


def to_markdown(claims: Sequence[Claim], findings: Sequence[Finding]) -> str:
    """The page: how the tests are to be read, the paper's claims, and what else the rows show."""
    lines = [
        "# The paper's claims against our records",
        "",
        f"{count_verdicts(claims)}.",
        "",
        how_to_read(),
        "",
        "## The paper's claims",
        "",
    ]
    for claim in claims:
        lines.append(
            f"- **{verdict_text(claim)}** ({claim.statement.source}): {claim.statement.text}"
        )
        lines += [f"  - {name}: {text}." for name, text in claim_fields(claim).items()]
    return "\n".join([*lines, "", f"## {FINDINGS_TITLE}", "", findings_markdown(findings), ""])


def how_to_read() -> str:
    """What the words of the page mean, in paragraphs."""
    return "\n\n".join(_HOW)


def findings_markdown(findings: Sequence[Finding]) -> str:
    """What the rows show that the paper denies or does not say: a table for each question."""
    lines = [
        "Each question was put to every row or pair that it can be put to. Listed are those whose "
        "medians, or values, point that way; survives: after correction for all candidates of the "
        "question.",
    ]
    for finding in findings:
        lines += ["", *_finding(finding)]
    return "\n".join(lines)


def _finding(finding: Finding) -> list[str]:
    question = finding.question
    head = (
        f"**{question.text[0].upper()}{question.text[1:]}**: {len(finding.claims)} of "
        f"{len(finding.candidates)} ({question.criterion})."
    )
    rows = []
    for claim in finding.claims:
        part = decisive(claim, claim.outcomes)
        rows.append(
            {
                "Verdict": verdict_text(claim),
                "Table": claim.statement.source.partition(".")[0].removeprefix("Table "),
                "What": claim.statement.text,
                "Ours": figures_text(claim.outcomes, grouped=False),
                "Effect": part.effect() or part.test,
                "p": p_text(claim),
                "Survives": survives_text(claim),
            }
        )
    if not rows:
        return [head]
    body = pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True)
    return [head, "", *str(body).splitlines()]


def to_frame(claims: Sequence[Claim], findings: Sequence[Finding]) -> pd.DataFrame:
    """One line per part of every claim, and of every candidate of the questions."""
    lines = [line for claim in claims for line in _lines("claim", claim, claim.statement.criterion)]
    for finding in findings:
        for claim in finding.candidates:
            lines += _lines(finding.question.text, claim, finding.question.criterion)
    return pd.DataFrame(lines)


def _lines(section: str, claim: Claim, criterion: str) -> list[dict[str, Any]]:
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
