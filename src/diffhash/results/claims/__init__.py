"""The paper's statements as tests over seeds, and what our rows show besides."""

from __future__ import annotations

from diffhash.results.claims.engine import Claim, judge
from diffhash.results.claims.page import check_claims, count_verdicts, write_claims

__all__ = ["Claim", "check_claims", "count_verdicts", "judge", "write_claims"]
