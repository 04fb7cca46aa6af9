"""What an epoch of a run costs where nothing else runs.

Runs of a reproduction share their machine. Afterwards each row is timed alone: a short run of the
same config, whose record lies in ``<runs>/timing/<table>/<row>/<key>``. The key is of the config
that was timed, so that no other run takes the timing for its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diffhash.results.record import RunRecord, read_history, read_record

TIMINGS = "timing"
"""Folder of all timings, among the records of all rows."""


@dataclass(frozen=True)
class Timing:
    """A short run that had the machine to itself, and what an epoch took.

    Attributes:
        record: of that run.
        chunks: seconds per epoch in each chunk between evaluations; the first, which warms up,
            does not count unless it is the only one.
    """

    record: RunRecord
    chunks: tuple[float, ...]

    @property
    def seconds_per_epoch(self) -> float:
        """Median over the chunks."""
        return float(np.median(self.chunks))


def timing_directory(runs: Path | str, run: RunRecord) -> Path:
    """Where the timing of a table row's run belongs; ``runs`` is the folder of all records."""
    return Path(runs) / TIMINGS / str(run.experiment) / run.config_hash[:12]


def find_timing(runs: Path | str, run: RunRecord) -> Timing | None:
    """The timing of a table row's run; None if there is no completed one.

    Raises:
        RecordError: its record or history is corrupt.
        FileNotFoundError: it has no history.
    """
    directory = timing_directory(runs, run)
    try:
        record = read_record(directory)
    except FileNotFoundError:
        return None
    if record.status != "completed":
        return None
    history = read_history(directory)
    epochs, seconds = history["epoch"].to_numpy(), history["seconds"].to_numpy()
    if len(epochs) > 1:
        epochs, seconds = np.diff(epochs), np.diff(seconds)
    return Timing(record, tuple((seconds / epochs).tolist()))
