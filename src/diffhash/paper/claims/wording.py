"""How a tested claim is put into words."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from diffhash.paper.claims.engine import Claim
from diffhash.paper.claims.parts import Outcome
from diffhash.results.formats import format_p


def verdict_text(claim: Claim) -> str:
    """The verdict, and of an undecided one the reason if it is plain."""
    if claim.verdict != "undecided":
        return claim.verdict
    if claim.missing:
        return "undecided (missing)"
    return "undecided (one seed)" if claim.one_seed else "undecided"


def direction_text(points: bool | None) -> str:
    """Which way medians point: ``for``, ``against`` or nothing."""
    return {True: "for", False: "against", None: ""}[points]


def p_text(claim: Claim) -> str:
    """The p-value; empty if there is none, or none but that of one seed."""
    if claim.p is None or (claim.one_seed and claim.verdict == "undecided"):
        return ""
    return format_p(claim.p)


def survives_text(claim: Claim) -> str:
    """Whether the verdict outlives the correction: ``yes``, ``no``, or nothing."""
    return {True: "yes", False: "no", None: ""}[claim.survives]


def test_text(claim: Claim) -> str:
    """What was tested, the part that decides, and what came out."""
    outcomes = [outcome for outcome in claim.outcomes if outcome.test]
    several = len(claim.outcomes) > 1
    texts = [f"{len(claim.outcomes)} comparisons"] if several else []
    if outcomes:
        part = decisive(claim, outcomes)
        effect = f", {part.effect()}" if part.effect() else ""
        texts.append(f"{'deciding: ' if several else ''}{part.text} ({part.test}{effect})")
    if claim.verdict == "undecided":
        texts.append(f"points {direction_text(claim.points) or 'neither way'}")
    if p := p_text(claim):
        texts.append(f"p = {p}")
    if survives := survives_text(claim):
        texts.append(f"survives: {survives}")
    return "; ".join(texts)


def figures_text(outcomes: Iterable[Outcome], *, grouped: bool = True) -> str:
    """Every sample once, by what it is of."""
    groups: dict[str, dict[str, str]] = {}
    for outcome in outcomes:
        for group, row, text in outcome.figures:
            groups.setdefault(group, {})[row] = text
    return "; ".join(
        (f"{group}: " if grouped else "") + ", ".join(f"{row} {text}" for row, text in rows.items())
        for group, rows in groups.items()
    )


def decisive(claim: Claim, outcomes: Sequence[Outcome]) -> Outcome:
    """The part that the verdict hangs on, or without one the direction.

    That is the weakest where all parts must hold together, the strongest where one is enough.
    """
    holds = claim.verdict == "supported" or (claim.verdict == "undecided" and claim.points)
    keys = [
        (o.tested.p if holds else o.tested.p_opposite, -_distance(o), i)
        for i, o in enumerate(outcomes)
    ]
    together = (claim.statement.combine == "all") == bool(holds)
    return outcomes[(max(keys) if together else min(keys))[-1]]


def _distance(outcome: Outcome) -> float:
    return 0.0 if math.isnan(outcome.decades) else abs(outcome.decades)
