"""The comparisons that claims are made of, and how one is tested.

Seeds of two rows share nothing but the data, so two rows are compared as two independent samples
(Mann-Whitney, exact); a row is compared with a number by counting its seeds on either side (exact
binomial test, the sign test of the median); what does not depend on the seed, by value.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from diffhash.paper.claims.evidence import Evidence, MissingError
from diffhash.paper.claims.quantities import Fixed, Sample
from diffhash.results.formats import format_decades, format_share
from diffhash.results.statistics import Tested, median_interval, rank_test, sign_test, superiority

_RANKS, _SIGNS, _VALUE = "Mann-Whitney", "binomial", "value"
_UNTESTED = Tested(1.0, 1.0)


@dataclass(frozen=True)
class Lower:
    """``factor`` times the values of ``a`` tend to be below those of ``b``."""

    a: Sample
    b: Sample
    factor: float = 1.0


@dataclass(frozen=True)
class AtMost:
    """More than a ``share`` of the seeds is at or below a bound; a fixed number is."""

    of: Sample | Fixed
    bound: float
    share: float = 0.5


@dataclass(frozen=True)
class Above:
    """More than a ``share`` of the seeds is above a bound; a fixed number is."""

    of: Sample | Fixed
    bound: float
    share: float = 0.5


Part = Lower | AtMost | Above


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

    def effect(self) -> str:
        """Its size as text."""
        if self.test == _VALUE or not self.test:
            return ""
        what = "of pairs" if self.test == _RANKS else "of seeds"
        n = " and ".join(map(str, self.n))
        return f"{format_decades(self.decades)} decades, {100 * self.share:.0f} % {what}, n = {n}"


def evaluate(part: Part, evidence: Evidence) -> Outcome:
    """Test a part; what it lacks is told in the outcome."""
    text = ""
    try:
        text = describe(part, evidence)
        if isinstance(part, Lower):
            return _two_samples(part, evidence, text)
        if isinstance(part.of, Fixed):
            return _fixed(part, part.of, evidence, text)
        return _one_sample(part, part.of, evidence, text)
    except MissingError as error:
        return Outcome(text, missing=str(error))


def describe(part: Part, evidence: Evidence) -> str:
    """What a part compares, as text.

    Raises:
        MissingError: it names a row there is no record of.
    """
    if isinstance(part, Lower):
        a, b = _name(evidence, part.a), _name(evidence, part.b)
        factor = "" if part.factor == 1 else f"{part.factor:g} × "
        group, of_b = part.a.group(evidence), part.b.group(evidence)
        other = "" if of_b == group else f" ({of_b})"
        return f"{group}: {factor}{a} < {b}{other}"
    of, sign = part.of, "<=" if isinstance(part, AtMost) else ">"
    text = f"{of.group(evidence)}: {_name(evidence, of)} {sign} {of.show(part.bound)}"
    return text if part.share == 0.5 else f"{text} on more than {format_share(part.share)} of seeds"


def _two_samples(part: Lower, evidence: Evidence, text: str) -> Outcome:
    a, b = part.a.values(evidence), part.b.values(evidence)
    scaled = part.factor * a
    return Outcome(
        text, _RANKS, (len(a), len(b)),
        decades=_decades(float(np.median(a)), float(np.median(b))),
        share=superiority(scaled, b),
        tested=rank_test(scaled, b),
        points=bool(np.median(scaled) < np.median(b)),
        figures=(_figure(part.a, a, evidence), _figure(part.b, b, evidence)),
    )  # fmt: skip


def _one_sample(part: AtMost | Above, of: Sample, evidence: Evidence, text: str) -> Outcome:
    values = of.values(evidence)
    below = int(np.sum(values <= part.bound))
    n_on_side = below if isinstance(part, AtMost) else len(values) - below
    middle = float(np.median(values))
    points = n_on_side > part.share * len(values)
    if part.share == 0.5:  # of an even number half may lie on either side
        points = (middle <= part.bound) == isinstance(part, AtMost)
    return Outcome(
        text, _SIGNS, (len(values),),
        decades=_decades(middle, part.bound),
        share=n_on_side / len(values),
        tested=sign_test(n_on_side, len(values), part.share),
        points=points,
        figures=(_figure(of, values, evidence),),
    )  # fmt: skip


def _fixed(part: AtMost | Above, of: Fixed, evidence: Evidence, text: str) -> Outcome:
    low, value, high = of.ends(evidence)
    claimed = isinstance(part, AtMost)
    if high <= part.bound or low > part.bound:
        holds = (high <= part.bound) == claimed
        tested = Tested(float(not holds), float(holds))
    else:
        tested = _UNTESTED
    shown = of.show(value)
    if (of.show(low), of.show(high)) != (shown, shown):
        shown += f" [{of.show(low)}, {of.show(high)}]"
    return Outcome(
        text, _VALUE,
        decades=_decades(value, part.bound),
        tested=tested,
        points=(value <= part.bound) == claimed,
        figures=((of.group(evidence), _name(evidence, of), shown),),
    )  # fmt: skip


def _figure(of: Sample, values: np.ndarray, evidence: Evidence) -> tuple[str, str, str]:
    middle, low, high = (float(end) for end in median_interval(values))
    shown = of.show(middle)
    if not math.isnan(low):
        shown += f" [{of.show(low)}, {of.show(high)}]"
    return of.group(evidence), _name(evidence, of), shown


def _name(evidence: Evidence, of: Sample | Fixed) -> str:
    return evidence.name(of.table, of.row)


def _decades(value: float, other: float) -> float:
    if math.isinf(value) and math.isinf(other):
        return math.nan
    with np.errstate(divide="ignore"):
        return float(np.log10(value) - np.log10(other))
