"""Claims as tests ask for them."""

from __future__ import annotations

from pathlib import Path

from diffhash.paper.claims.evidence import Evidence
from diffhash.paper.claims.statements import STATEMENTS
from diffhash.paper.claims.verdicts import Claim, judge
from diffhash.paper.table import load_tables

DIVERGED = {"status": "diverged", "diverged_epoch": 3, "epochs": 3}


def find_claim(claims: list[Claim], words: str) -> Claim:
    (claim,) = [claim for claim in claims if words in claim.statement.text]
    return claim


def check_claim(runs: Path, paper: Path, words: str) -> Claim:
    """One statement of the paper, tested by itself."""
    [statement] = [statement for statement in STATEMENTS if words in statement.text]
    return judge([statement], Evidence(load_tables(runs, paper)))[0]
