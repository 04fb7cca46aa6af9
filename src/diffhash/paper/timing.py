"""The cost of an epoch of a run that is alone on the machine.

Runs of a reproduction share their machine. Afterwards each row is timed alone, by a short run of
the same config, whose record is in ``<runs>/timing/<table>/<row>/<key>``. The key depends on the
timed config, so that the timing is not used for a run with another config.
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
    """A short run that was alone on the machine, with the seconds of an epoch.

    Attributes:
        record: the record of that run.
        chunks: the seconds per epoch in each chunk between evaluations, without the first chunk,
            which is a warm-up, unless it is the only one.
    """

    record: RunRecord
    chunks: tuple[float, ...]

    @property
    def seconds_per_epoch(self) -> float:
        """The median over the chunks."""
        return float(np.median(self.chunks))


def timing_directory(runs: Path | str, run: RunRecord) -> Path:
    """The folder for the timing of a table row's run; ``runs`` is the folder of all records."""
    return Path(runs) / TIMINGS / str(run.experiment) / run.config_hash[:12]


def find_timing(runs: Path | str, run: RunRecord) -> Timing | None:
    """The timing of a table row's run; None if there is no completed timing.

    Raises:
        RecordError: the record or history of the timing is corrupt.
        FileNotFoundError: the timing has no history.
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
