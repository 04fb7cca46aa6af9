"""Records of runs, and the tables, claims and figures made of them alone."""

from __future__ import annotations

from diffhash.results.aggregate import aggregate
from diffhash.results.claims import check_claims, write_claims
from diffhash.results.paper import load_paper_table
from diffhash.results.record import (
    RecordError,
    RunRecord,
    find_records,
    read_history,
    read_predictions,
    read_record,
    write_record,
)
from diffhash.results.tables import write_tables

__all__ = [
    "RecordError",
    "RunRecord",
    "aggregate",
    "check_claims",
    "find_records",
    "load_paper_table",
    "read_history",
    "read_predictions",
    "read_record",
    "write_claims",
    "write_record",
    "write_tables",
]
