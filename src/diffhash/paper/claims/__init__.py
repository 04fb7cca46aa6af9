"""The paper's statements as tests over seeds, and what our rows show besides."""

from __future__ import annotations

from diffhash.paper.claims.page import (
    FINDINGS_TITLE,
    HOW_TO_READ,
    check_claims,
    findings_markdown,
    to_markdown,
    write_claims,
)
from diffhash.paper.claims.verdicts import Claim, claim_fields, count_verdicts, verdict_text

__all__ = [
    "FINDINGS_TITLE",
    "HOW_TO_READ",
    "Claim",
    "check_claims",
    "claim_fields",
    "count_verdicts",
    "findings_markdown",
    "to_markdown",
    "verdict_text",
    "write_claims",
]
