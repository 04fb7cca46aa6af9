"""The tests of the statements' comparisons, and their verdicts.

Seeds of two rows share nothing but the data, so two rows are compared as two independent samples
(Mann-Whitney, exact). A row is compared with a number by counting its seeds on either side (exact
binomial test, the sign test of the median). Quantities that do not depend on the seed are compared
by value.
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
_WAYS = ("against", "for")  # whether medians are against or for the claim


def judge(tables: Tables, statements: Sequence[Statement] = STATEMENTS) -> pd.DataFrame:
    """Test each statement, and apply Holm's correction over all statements.

    If all parts must hold, this is an intersection-union test. The claim is supported if each part
    has p < 0.05 in its direction, so that the largest p is the claim's; it is refuted if some part
    has p < 0.05 in the opposite direction after Holm's correction over the parts. If any part is
    enough, the test is the same with both directions exchanged. Otherwise the claim is undecided.
    Parts that are compared by value have p 0 or 1.

    Either a claim or its opposite is true, so a list of m claims has m true null hypotheses
    whatever the verdicts are: the correction is over m, for the smaller p of the two directions.

    Returns:
        A line for each part, with the result for its claim:

        - ``source``, ``claim``, ``criterion``, ``combine``: those of the statement;
        - ``verdict``: ``supported``, ``refuted`` or ``undecided``;
        - ``points``: whether medians and values are ``for`` the claim or ``against`` it; empty
          if a quantity is missing;
        - ``p_claim``: the smaller p-value of the two directions; NaN if no part is a test over
          seeds;
        - ``p_claim_holm``: the same, adjusted for the number of claims;
        - ``survives_holm``: whether the verdict holds with it; NaN without a verdict by a test;
        - ``one_seed``: whether a row has one seed alone, with which nothing can be decided;

        and the result for the part:

        - ``comparison``: the comparison as text;
        - ``test``: the name of the test; empty if a quantity is missing;
        - ``n``: the number of seeds of each sample; empty for a fixed quantity;
        - ``decades``: log10 between the medians, or from the bound to the median;
        - ``share``: the share of pairs (two samples, ties count half) or of seeds on the claimed
          side;
        - ``p``, ``p_opposite``: the p-values of the comparison and of its opposite;
        - ``holds``: whether medians or values are ``for`` the comparison or ``against`` it;
        - ``figures``: ``(group, row, text)`` of each sample;
        - ``missing``: the quantities that have not been recorded.
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
    if _WAYS[not all_of] in ways:  # one part is enough: against "all", or for "any"
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
    """Test a part; the columns of the result are described in `judge`."""
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
    if of.fixed:  # the whole interval must be on one side
        return outcome | {"test": _VALUE, "p": float(share < 1), "p_opposite": float(share > 0)}
    tested = sign_test(round(share * n), n)._asdict()
    return outcome | {"test": _SIGNS, "n": (n,), "share": share} | tested


def _sample(of: Quantity, tables: Tables) -> tuple[np.ndarray, float, tuple[str, str, str]]:
    """The values of a quantity, their median, and a figure with the median and its interval."""
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
    """The numbers of verdicts, ``15 supported, 4 refuted, 2 undecided``, and the directions of
    claims with one seed."""
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
