"""Records of runs, and the tables, claims and figures made of them alone."""

from __future__ import annotations

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
from diffhash.results.table import Table, load_table, load_tables
from diffhash.results.tables import write_tables

__all__ = [
    "RecordError",
    "RunRecord",
    "Table",
    "check_claims",
    "find_records",
    "load_paper_table",
    "load_table",
    "load_tables",
    "read_history",
    "read_predictions",
    "read_record",
    "write_claims",
    "write_record",
    "write_tables",
]
