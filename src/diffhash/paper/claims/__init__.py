"""The paper's statements as tests over seeds, and what our rows show besides."""

from __future__ import annotations

from diffhash.paper.claims.engine import Claim, judge
from diffhash.paper.claims.findings import Finding
from diffhash.paper.claims.page import (
    FINDINGS_TITLE,
    check_claims,
    claim_fields,
    count_verdicts,
    findings_markdown,
    how_to_read,
    to_markdown,
    write_claims,
)
from diffhash.paper.claims.wording import verdict_text

__all__ = [
    "FINDINGS_TITLE",
    "Claim",
    "Finding",
    "check_claims",
    "claim_fields",
    "count_verdicts",
    "findings_markdown",
    "how_to_read",
    "judge",
    "to_markdown",
    "verdict_text",
    "write_claims",
]
