"""Records of runs of any problem, and what is made of them alone: statistics, figures."""

from __future__ import annotations

from diffhash.results.record import (
    RecordError,
    RunRecord,
    find_records,
    read_history,
    read_predictions,
    read_record,
    write_record,
)

__all__ = [
    "RecordError",
    "RunRecord",
    "find_records",
    "read_history",
    "read_predictions",
    "read_record",
    "write_record",
]
