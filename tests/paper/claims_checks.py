"""Claims in the form in which tests use them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pandas as pd

from diffhash.paper.claims.statements import STATEMENTS
from diffhash.paper.claims.verdicts import judge
from diffhash.paper.table import load_tables

DIVERGED = {"status": "diverged", "diverged_epoch": 3, "epochs": 3}


def each_claim(lines: pd.DataFrame) -> list[SimpleNamespace]:
    """The judgement of each claim by `judge`, with its comparisons as ``outcomes``."""
    claims = []
    for _, parts in lines.groupby("claim", sort=False):
        claim = parts.iloc[0].to_dict()
        survives = None if pd.isna(claim["survives_holm"]) else claim["survives_holm"]
        missing = "; ".join(dict.fromkeys(filter(None, parts["missing"])))
        outcomes = list(parts.itertuples())
        points = {"for": True, "against": False, "": None}[claim["points"]]
        known = {"survives": survives, "points": points, "missing": missing, "outcomes": outcomes}
        claims.append(SimpleNamespace(**claim | known))
    return claims


def find_claim(lines: pd.DataFrame, words: str) -> SimpleNamespace:
    (claim,) = [claim for claim in each_claim(lines) if words in claim.claim]
    return claim


def check_claim(runs: Path, words: str) -> SimpleNamespace:
    """The judgement of one statement of the paper alone."""
    [statement] = [statement for statement in STATEMENTS if words in statement.text]
    return find_claim(judge(load_tables(runs), [statement]), words)
