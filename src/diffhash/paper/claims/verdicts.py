"""Statements as data, the tests of the comparisons that they are made of, and their verdicts.

Seeds of two rows share nothing but the data, so two rows are compared as two independent samples
(Mann-Whitney, exact); a row is compared with a number by counting its seeds on either side (exact
binomial test, the sign test of the median); what does not depend on the seed, by value.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple, get_args

import numpy as np

from diffhash.paper.claims.evidence import Evidence, MissingError, Quantity
from diffhash.results.formats import format_decades, format_p
from diffhash.results.statistics import (
    ALPHA,
    Tested,
    holm,
    median_interval,
    rank_test,
    sign_test,
    superiority,
)

Verdict = Literal["supported", "refuted", "undecided"]
_RANKS, _SIGNS, _VALUE = "Mann-Whitney", "binomial", "value"
_UNTESTED = Tested(1.0, 1.0)
DIRECTIONS = {True: "for", False: "against", None: ""}
"""Which way medians point."""


@dataclass(frozen=True)
class Part:
    """A comparison: ``factor`` times a quantity tends to be on a side of another one or of a bound.

    Of a bound that means that more than half of the seeds is on that side.
    """

    of: Quantity
    sign: Literal["<", "<=", ">"]
    than: Quantity | float
    factor: float = 1.0


def lower(a: Quantity, b: Quantity, factor: float = 1.0) -> Part:
    """``factor`` times the values of ``a`` tend to be below those of ``b``."""
    return Part(a, "<", b, factor)


def at_most(of: Quantity, bound: float) -> Part:
    """More than half of the seeds is at or below a bound; a fixed number is."""
    return Part(of, "<=", bound)


def above(of: Quantity, bound: float) -> Part:
    """More than half of the seeds is above a bound; a fixed number is."""
    return Part(of, ">", bound)


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
class Outcome:
    """A part of a claim, tested.

    Attributes:
        text: what is compared.
        test: its name; empty where something is missing.
        n: seeds of each sample; empty for what is fixed.
        decades: log10 between the medians, or from the bound to the median.
        share: of pairs (two samples, ties count half) or of seeds on the side claimed.
        tested: p-values.
        points: whether medians, or the value, point in the direction claimed.
        figures: ``(group, row, text)`` of each sample.
        missing: what has not been recorded.
    """

    text: str
    test: str = ""
    n: tuple[int, ...] = ()
    decades: float = math.nan
    share: float = math.nan
    tested: Tested = _UNTESTED
    points: bool | None = None
    figures: tuple[tuple[str, str, str], ...] = field(default=(), repr=False)
    missing: str = ""

    @property
    def random(self) -> bool:
        """Whether it rests on a test over seeds."""
        return self.test in (_RANKS, _SIGNS)

    @property
    def effect(self) -> str:
        """The test and what came out, as text."""
        what, n = "pairs" if self.test == _RANKS else "seeds", " and ".join(map(str, self.n))
        size = f", {format_decades(self.decades)} decades, {100 * self.share:.0f} % of {what}"
        return self.test + (f"{size}, n = {n}" if self.random else "")


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

    @property
    def verdict_text(self) -> str:
        """The verdict, and of an undecided one the reason if it is plain."""
        reason = " (missing)" if self.missing else " (one seed)" if self.one_seed else ""
        return self.verdict + (reason if self.verdict == "undecided" else "")

    @property
    def fields(self) -> dict[str, str]:
        """What there is to say of it besides its text and verdict; nothing is left empty."""
        figures: dict[str, dict[str, str]] = {}  # every sample once, by what it is of
        for group, row, text in (figure for o in self.outcomes for figure in o.figures):
            figures.setdefault(group, {})[row] = text
        ours = [
            f"{group}: " + ", ".join(f"{row} {text}" for row, text in rows.items())
            for group, rows in figures.items()
        ]
        fields = {
            "Criterion": self.statement.criterion,
            "Test": "; ".join(self._tested()),
            "Missing": self.missing,
            "Ours": "; ".join(ours),
        }
        return {name: text for name, text in fields.items() if text}

    def _tested(self) -> list[str]:
        """What was tested, the part that decides, and what came out."""
        several = len(self.outcomes) > 1
        texts = [f"{len(self.outcomes)} comparisons"] if several else []
        if (part := self._decisive()) is not None:
            texts.append(f"{'deciding: ' if several else ''}{part.text} ({part.effect})")
        if self.verdict == "undecided":
            texts.append(f"points {DIRECTIONS[self.points] or 'neither way'}")
        if self.p is not None and not (self.one_seed and self.verdict == "undecided"):
            texts.append(f"p = {format_p(self.p)}")
        if self.survives is not None:
            texts.append(f"survives: {'yes' if self.survives else 'no'}")
        return texts

    def _decisive(self) -> Outcome | None:
        """The part that the verdict hangs on, or without one the direction.

        That is the weakest where all parts must hold together, the strongest where one is enough.
        """
        outcomes = [outcome for outcome in self.outcomes if outcome.test]
        holds = self.verdict == "supported" or (self.verdict == "undecided" and self.points)
        together = (self.statement.combine == "all") == bool(holds)
        pick = max if together else min

        def strength(i: int) -> tuple[float, float, int]:
            tested, decades = outcomes[i].tested, outcomes[i].decades
            p = tested.p if holds else tested.p_opposite
            return p, -np.nanmax([0.0, abs(decades)]), i

        return outcomes[pick(range(len(outcomes)), key=strength)] if outcomes else None


def judge(statements: Sequence[Statement], evidence: Evidence) -> list[Claim]:
    """Test each statement, and say which verdicts survive Holm's correction over all of them.

    All of several parts: an intersection-union test. The claim is supported if each part has
    p < 0.05 in its direction, so that the largest p is the claim's; it is refuted if some part has
    p < 0.05 in the opposite direction after Holm's correction over the parts. Any of several:
    the same with both directions exchanged. Else it is undecided. Parts by value have p 0 or 1.

    A claim or its opposite is true, not both, so a list of m claims holds m true null hypotheses
    whichever way each was decided: the correction is over m, of the smaller p of either direction.

    Raises:
        RecordError: a corrupt history or predictions file.
    """
    claims = [_judge(statement, evidence) for statement in statements]
    p_values = {i: claim.p for i, claim in enumerate(claims) if claim.p is not None}
    for i, p in zip(p_values, holm(list(p_values.values())), strict=True):
        claims[i] = replace(claims[i], p_holm=p)
    return claims


def _judge(statement: Statement, evidence: Evidence) -> Claim:
    outcomes = tuple(evaluate(part, evidence) for part in statement.parts)
    all_of = statement.combine == "all"
    forward = [o.tested.p for o in outcomes]
    backward = [o.tested.p_opposite for o in outcomes]
    weakest, strongest = (forward, backward) if all_of else (backward, forward)
    tested = [i for i, outcome in enumerate(outcomes) if outcome.test != _VALUE]
    for i, p in zip(tested, holm([strongest[i] for i in tested]), strict=True):
        strongest[i] = p
    p, p_opposite = (max(weakest), min(strongest)) if all_of else (min(strongest), max(weakest))
    verdict: Verdict = "undecided"
    if min(p, p_opposite) < ALPHA:
        verdict = "supported" if p < p_opposite else "refuted"
    directions = [outcome.points for outcome in outcomes]
    points = None if None in directions else all_of
    if (not all_of) in directions:  # one False of all, or one True of any, is enough
        points = not all_of
    smaller = min(p, p_opposite) if any(o.random for o in outcomes) else None
    return Claim(statement, verdict, smaller, None, points, outcomes)


def evaluate(part: Part, evidence: Evidence) -> Outcome:
    """Test a part; what it lacks is told in the outcome."""
    text, of, than = "", part.of, part.than
    try:
        name, group = of.label(evidence), of.what(evidence)
        factor = "" if part.factor == 1 else f"{part.factor:g} × "
        text = f"{group}: {factor}{name} {part.sign} "
        if not isinstance(than, Quantity):
            text += of.show(than)
            return _against_bound(part, than, _sample(of, evidence), text)
        other = than.what(evidence)
        text += than.label(evidence) + f" ({other})" * (other != group)
        return _two_samples(part, _sample(of, evidence), _sample(than, evidence), text)
    except MissingError as error:
        return Outcome(text, missing=str(error))


class _Sample(NamedTuple):
    """The values of a quantity, their median, and the two with its interval as a figure."""

    values: np.ndarray
    median: float
    figure: tuple[str, str, str]


def _sample(of: Quantity, evidence: Evidence) -> _Sample:
    values = of.values(evidence)
    low, middle, high = values if of.fixed else np.array(median_interval(values))[[1, 0, 2]]
    shown, ends = of.show(middle), f"[{of.show(low)}, {of.show(high)}]"
    if not math.isnan(low) and not (of.fixed and ends == f"[{shown}, {shown}]"):
        shown = f"{shown} {ends}"
    return _Sample(values, float(middle), (of.what(evidence), of.label(evidence), shown))


def _two_samples(part: Part, a: _Sample, b: _Sample, text: str) -> Outcome:
    scaled = part.factor * a.values
    return Outcome(
        text, _RANKS, (len(scaled), len(b.values)),
        decades=_decades(a.median, b.median),
        share=superiority(scaled, b.values),
        tested=rank_test(scaled, b.values),
        points=part.factor * a.median < b.median,
        figures=(a.figure, b.figure),
    )  # fmt: skip


def _against_bound(part: Part, bound: float, a: _Sample, text: str) -> Outcome:
    claimed, n = part.sign == "<=", len(a.values)
    share = float(np.mean((a.values <= bound) == claimed))
    outcome = Outcome(
        text, _SIGNS, (n,),
        decades=_decades(a.median, bound),
        share=share,
        tested=sign_test(round(share * n), n),
        points=(a.median <= bound) == claimed,
        figures=(a.figure,),
    )  # fmt: skip
    if not part.of.fixed:
        return outcome
    tested = Tested(float(share < 1), float(share > 0))  # all of its interval, or none of it
    return replace(outcome, test=_VALUE, n=(), share=math.nan, tested=tested)


def _decades(value: float, other: float) -> float:
    if math.isinf(value) and math.isinf(other):
        return math.nan
    with np.errstate(divide="ignore"):
        return float(np.log10(value) - np.log10(other))


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
