"""Records of runs of any problem, and statistics and figures that need nothing but records."""

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
