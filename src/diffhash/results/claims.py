"""The paper's qualitative claims (Sections III and IV), each checked against our records.

A claim is turned into a criterion on numbers, printed beside it. Scores are compared with those
of the zero predictor, u = u_x = u_xx = 0, computed from the exact solution in
``predictions.csv``: *accurate* is at most 1 % of its MSE, *no skill* is half of it or more.
Several seeds enter by their median; a row whose runs all diverged counts as an infinite error.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from diffhash.results import claims_discussion, claims_experiments
from diffhash.results.evidence import ACCURATE, NO_SKILL, Evidence, UndecidedError
from diffhash.results.paper import PAPER_DIRECTORY
from diffhash.results.record import write_text_atomically

CLAIMS_FILE = "claims.md"
Verdict = Literal["held", "not held", "undecided"]


@dataclass(frozen=True)
class Claim:
    """One claim with its criterion, the verdict and the figures it rests on."""

    source: str
    text: str
    criterion: str
    verdict: Verdict
    figures: str


def check_claims(runs: Path | str, paper: Path | str = PAPER_DIRECTORY) -> list[Claim]:
    """Check every claim against the records under ``runs``; missing records leave it undecided.

    Raises:
        RecordError: see :func:`diffhash.results.aggregate.row_records`; a corrupt history or
            predictions file.
    """
    evidence = Evidence(runs, paper)
    claims = []
    for statement in [*claims_experiments.CLAIMS, *claims_discussion.CLAIMS]:
        try:
            held, figures = statement.check(evidence)
            verdict: Verdict = "held" if held else "not held"
        except UndecidedError as reason:
            verdict, figures = "undecided", str(reason)
        claims.append(
            Claim(statement.source, statement.text, statement.criterion, verdict, figures)
        )
    return claims


def write_claims(
    runs: Path | str, output: Path | str, paper: Path | str = PAPER_DIRECTORY
) -> tuple[Path, list[Claim]]:
    """Check the claims and write ``output/claims.md``; raises as :func:`check_claims`."""
    claims = check_claims(runs, paper)
    return write_text_atomically(Path(output) / CLAIMS_FILE, to_markdown(claims)), claims


def to_markdown(claims: Iterable[Claim]) -> str:
    """A Markdown page of the claims with verdicts, and how the criteria are to be read."""
    claims = list(claims)
    lines = [
        "# The paper's claims against our records",
        "",
        f"{count_verdicts(claims)}.",
        "",
        f"Accurate: at most {ACCURATE:.0%} of the zero predictor's MSE (u = u_x = u_xx = 0); "
        f"no skill: {NO_SKILL:.0%} of it or more; percentages are of that MSE. "
        "Medians over seeds; a row whose runs all diverged counts as an infinite error.",
        "",
    ]
    for claim in claims:
        lines += [
            f"- **{claim.verdict}** ({claim.source}): {claim.text}",
            f"  - Criterion: {claim.criterion}.",
            f"  - {'Missing' if claim.verdict == 'undecided' else 'Ours'}: {claim.figures}.",
        ]
    return "\n".join([*lines, ""])


def count_verdicts(claims: Iterable[Claim]) -> str:
    """``15 held, 4 not held, 2 undecided``."""
    count = Counter(claim.verdict for claim in claims)
    return ", ".join(f"{count[verdict]} {verdict}" for verdict in get_args(Verdict))
