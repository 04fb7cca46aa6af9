"""The verdict on a claim, of the tests of its parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from diffhash.paper.claims.evidence import Evidence
from diffhash.paper.claims.parts import Outcome, Part, evaluate
from diffhash.results.statistics import ALPHA, holm

Verdict = Literal["supported", "refuted", "undecided"]


@dataclass(frozen=True)
class Statement:
    """A claim as data: where it stands, what it says, and the comparisons it is made of.

    Attributes:
        source: its place in the paper.
        text: what it says.
        criterion: what was made of it, in words.
        parts: the same as comparisons.
        combine: whether it says that all of them hold or that any does.
    """

    source: str
    text: str
    criterion: str
    parts: tuple[Part, ...]
    combine: Literal["all", "any"] = "all"


@dataclass(frozen=True)
class Claim:
    """A statement with its verdict.

    Attributes:
        p: of the direction of the smaller p-value; None if nothing in it is a test over seeds.
        p_holm: the same, adjusted for the number of claims it was judged with.
        points: whether medians and values point for it; None if something is missing.
        outcomes: of its parts.
    """

    statement: Statement
    verdict: Verdict
    p: float | None
    p_holm: float | None
    points: bool | None
    outcomes: tuple[Outcome, ...]

    @property
    def missing(self) -> str:
        """What of it has not been recorded."""
        return "; ".join(dict.fromkeys(o.missing for o in self.outcomes if o.missing))

    @property
    def one_seed(self) -> bool:
        """Whether a row of it has one seed alone, with which nothing over seeds is decided."""
        return any(o.random and min(o.n) == 1 for o in self.outcomes)

    @property
    def survives(self) -> bool | None:
        """Whether the verdict outlives the correction; None without a verdict by a test."""
        if self.verdict == "undecided" or self.p_holm is None:
            return None
        return self.p_holm < ALPHA


def judge(statements: Sequence[Statement], evidence: Evidence) -> list[Claim]:
    """Test each statement, and say which verdicts survive Holm's correction over all of them.

    All of several parts: an intersection-union test. The claim is supported if each part has
    p < 0.05 in its direction, so that the largest p is the claim's; it is refuted if some part has
    p < 0.05 in the opposite direction after Holm's correction over the parts. Any of several:
    the same with both directions exchanged. Else it is undecided. Parts by value have p 0 or 1.

    A claim or its opposite is true, not both, so a list of m claims holds m true null hypotheses
    whichever way each was decided: the correction is over m, of the smaller p of either direction.
    """
    claims = [_judge(statement, evidence) for statement in statements]
    tested = [i for i, claim in enumerate(claims) if claim.p is not None]
    adjusted = holm([claim.p for i in tested if (claim := claims[i]).p is not None])
    for i, p in zip(tested, adjusted, strict=True):
        claims[i] = replace(claims[i], p_holm=p)
    return claims


def _judge(statement: Statement, evidence: Evidence) -> Claim:
    outcomes = tuple(evaluate(part, evidence) for part in statement.parts)
    forward = [o.tested.p for o in outcomes]
    backward = [o.tested.p_opposite for o in outcomes]
    if statement.combine == "all":
        p, p_opposite = max(forward), min(_corrected(backward, outcomes))
    else:
        p, p_opposite = min(_corrected(forward, outcomes)), max(backward)
    verdict: Verdict = "undecided"
    if min(p, p_opposite) < ALPHA:
        verdict = "supported" if p < p_opposite else "refuted"
    by_test = any(o.random for o in outcomes)
    return Claim(
        statement, verdict, min(p, p_opposite) if by_test else None, None,
        _points(statement, outcomes), outcomes,
    )  # fmt: skip


def _corrected(p_values: Sequence[float], outcomes: Sequence[Outcome]) -> list[float]:
    """Holm's correction over the parts that are tests; those by value are certain."""
    tested = [i for i, outcome in enumerate(outcomes) if outcome.test != "value"]
    corrected = list(p_values)
    for i, p in zip(tested, holm([p_values[i] for i in tested]), strict=True):
        corrected[i] = p
    return corrected


def _points(statement: Statement, outcomes: Sequence[Outcome]) -> bool | None:
    directions = [outcome.points for outcome in outcomes]
    decisive = statement.combine == "any"  # one True, or one False, is enough
    if decisive in directions:
        return decisive
    return None if None in directions else not decisive
