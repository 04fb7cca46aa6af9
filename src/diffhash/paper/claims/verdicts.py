"""The tests of the comparisons that statements are made of, and their verdicts.

Seeds of two rows share nothing but the data, so two rows are compared as two independent samples
(Mann-Whitney, exact); a row is compared with a number by counting its seeds on either side (exact
binomial test, the sign test of the median); what does not depend on the seed, by value.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from diffhash.paper.claims.evidence import MissingError, Part, Quantity, Tables
from diffhash.paper.claims.statements import STATEMENTS, Statement
from diffhash.results.statistics import (
    ALPHA,
    holm,
    median_interval,
    rank_test,
    sign_test,
    superiority,
)

_VERDICTS = ("supported", "refuted", "undecided")
_RANKS, _SIGNS, _VALUE = "Mann-Whitney", "binomial", "value"
_WAYS = ("against", "for")  # the claim: which way medians point


def judge(tables: Tables, statements: Sequence[Statement] = STATEMENTS) -> pd.DataFrame:
    """Test each statement, and say which verdicts survive Holm's correction over all of them.

    All of several parts: an intersection-union test. The claim is supported if each part has
    p < 0.05 in its direction, so that the largest p is the claim's; it is refuted if some part has
    p < 0.05 in the opposite direction after Holm's correction over the parts. Any of several:
    the same with both directions exchanged. Else it is undecided. Parts by value have p 0 or 1.

    A claim or its opposite is true, not both, so a list of m claims holds m true null hypotheses
    whichever way each was decided: the correction is over m, of the smaller p of either direction.

    Returns:
        A line for each part, with what became of the claim that it is of:

        - ``source``, ``claim``, ``criterion``, ``combine``: of the statement;
        - ``verdict``: ``supported``, ``refuted`` or ``undecided``;
        - ``points``: which way medians and values point, ``for`` the claim or ``against`` it; empty
          if something is missing;
        - ``p_claim``: of the direction of the smaller p-value; NaN if no part is a test over seeds;
        - ``p_claim_holm``: the same, adjusted for the number of claims;
        - ``survives_holm``: whether the verdict outlives that; NaN without a verdict by a test;
        - ``one_seed``: whether a row of it has one seed alone, with which nothing is decided;

        and of the part:

        - ``comparison``: what is compared, as text;
        - ``test``: its name; empty where something is missing;
        - ``n``: seeds of each sample; empty for what is fixed;
        - ``decades``: log10 between the medians, or from the bound to the median;
        - ``share``: of pairs (two samples, ties count half) or of seeds on the side claimed;
        - ``p``, ``p_opposite``: of the comparison and of its opposite;
        - ``holds``: the same of its medians or its value;
        - ``figures``: ``(group, row, text)`` of each sample;
        - ``missing``: what has not been recorded.
    """
    lines = pd.DataFrame([line for each in statements for line in _judge(each, tables)])
    tested = lines.dropna(subset="p_claim").drop_duplicates("claim")
    corrected = dict(zip(tested["claim"], holm(tested["p_claim"].tolist()), strict=True))
    lines["p_claim_holm"] = lines["claim"].map(corrected.get)
    decided = (lines["verdict"] != "undecided") & lines["p_claim"].notna()
    lines["survives_holm"] = (lines["p_claim_holm"] < ALPHA).astype(object).where(decided)
    return lines


def _judge(statement: Statement, tables: Tables) -> list[dict[str, Any]]:
    outcomes = [compare(part, tables) for part in statement.parts]
    all_of = statement.combine == "all"
    forward, backward = ([outcome[p] for outcome in outcomes] for p in ("p", "p_opposite"))
    weakest, strongest = (forward, backward) if all_of else (backward, forward)
    tested = [i for i, outcome in enumerate(outcomes) if outcome["test"] != _VALUE]
    for i, p in zip(tested, holm([strongest[i] for i in tested]), strict=True):
        strongest[i] = p
    p, p_opposite = (max(weakest), min(strongest)) if all_of else (min(strongest), max(weakest))
    verdict = "undecided"
    if min(p, p_opposite) < ALPHA:
        verdict = "supported" if p < p_opposite else "refuted"
    ways = [outcome["holds"] for outcome in outcomes]
    points = "" if "" in ways else _WAYS[all_of]
    if _WAYS[not all_of] in ways:  # one against all, or one for any, is enough
        points = _WAYS[not all_of]
    n_seeds = [n for outcome in outcomes for n in outcome["n"]]
    claim = {
        "source": statement.source,
        "claim": statement.text,
        "criterion": statement.criterion,
        "verdict": verdict,
        "points": points,
        "p_claim": min(p, p_opposite) if n_seeds else math.nan,
        "combine": statement.combine,
        "one_seed": 1 in n_seeds,
    }
    return [claim | outcome for outcome in outcomes]


def compare(part: Part, tables: Tables) -> dict[str, Any]:
    """Test a part, see `judge`; what it lacks is told there."""
    outcome = {
        "comparison": "", "test": "", "n": (), "decades": math.nan, "share": math.nan,
        "p": 1.0, "p_opposite": 1.0, "holds": "", "figures": (), "missing": "",
    }  # fmt: skip
    of, than = part.of, part.than
    try:
        name, group = of.label(tables), of.what(tables)
        factor = "" if of.factor == 1 else f"{of.factor:g} × "
        outcome["comparison"] = f"{group}: {factor}{name} {part.sign} "
        if not isinstance(than, Quantity):
            outcome["comparison"] += of.show(than)
            return outcome | _against_bound(of, than, part.sign == "<=", tables)
        other = than.what(tables)
        outcome["comparison"] += than.label(tables) + f" ({other})" * (other != group)
        return outcome | _two_samples(of, than, tables)
    except MissingError as error:
        return outcome | {"missing": str(error)}


def _two_samples(of: Quantity, than: Quantity, tables: Tables) -> dict[str, Any]:
    (a, middle, one), (b, other, two) = _sample(of, tables), _sample(than, tables)
    return {
        "test": _RANKS,
        "n": (len(a), len(b)),
        "decades": _decades(middle, other),
        "share": superiority(of.factor * a, b),
        "holds": _WAYS[of.factor * middle < other],
        "figures": (one, two),
    } | rank_test(of.factor * a, b)._asdict()


def _against_bound(of: Quantity, bound: float, is_below: bool, tables: Tables) -> dict[str, Any]:
    values, middle, figure = _sample(of, tables)
    n, share = len(values), float(np.mean((values <= bound) == is_below))
    outcome = {"decades": _decades(middle, bound), "holds": _WAYS[(middle <= bound) == is_below]}
    outcome["figures"] = (figure,)
    if of.fixed:  # all of its interval, or none of it
        return outcome | {"test": _VALUE, "p": float(share < 1), "p_opposite": float(share > 0)}
    tested = sign_test(round(share * n), n)._asdict()
    return outcome | {"test": _SIGNS, "n": (n,), "share": share} | tested


def _sample(of: Quantity, tables: Tables) -> tuple[np.ndarray, float, tuple[str, str, str]]:
    """The values of a quantity, their median, and the two with its interval as a figure."""
    values = of.sample(tables)
    low, middle, high = values if of.fixed else np.array(median_interval(values))[[1, 0, 2]]
    shown, ends = of.show(middle), f"[{of.show(low)}, {of.show(high)}]"
    if not math.isnan(low) and not (of.fixed and ends == f"[{shown}, {shown}]"):
        shown = f"{shown} {ends}"
    return values, float(middle), (of.what(tables), of.label(tables), shown)


def _decades(value: float, other: float) -> float:
    if math.isinf(value) and math.isinf(other):
        return math.nan
    with np.errstate(divide="ignore"):
        return float(np.log10(value) - np.log10(other))


def count_verdicts(lines: pd.DataFrame) -> str:
    """``15 supported, 4 refuted, 2 undecided``, and which way those of one seed point."""
    claims = lines.drop_duplicates("claim")
    text = ", ".join(f"{(claims['verdict'] == verdict).sum()} {verdict}" for verdict in _VERDICTS)
    one = claims.loc[(claims["verdict"] == "undecided") & claims["one_seed"], "points"]
    if len(one):
        against, of_it = ((one == way).sum() for way in _WAYS)
        text += (
            f" ({len(one)} of these with a row of one seed: {of_it} point for the claim, "
            f"{against} against it)"
        )
    return text
