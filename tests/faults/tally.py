"""The numbers of points that were tried, and of those with faults."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field

BAD = ("lost", "half", "wrong", "crashes", "tracebacks")
_SECONDS_BETWEEN_LINES = 10.0


@dataclass
class Tally:
    """The results for one kind of disturbance.

    Among the faults are ``lost`` (a record or finished training), ``half`` (a record in part, or a
    file left over) and ``wrong`` (a number, or a setting that is not refused).

    Attributes:
        kind: the name of the kind.
        counts: the number of points with each fault of `BAD`.
        skipped: the reason why nothing was tried.
    """

    kind: str
    tried: int = 0
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(BAD, 0))
    skipped: str | None = None

    def add(self, where: str, faults: dict[str, list[str]]) -> None:
        """Count one point, and print the faults that were found there."""
        self.tried += 1
        for kind, sentences in faults.items():
            if sentences:
                self.counts[kind] += 1
                for sentence in sentences:
                    print(f"{where}: {kind}: {sentence}", flush=True)

    @property
    def good(self) -> bool:
        return not any(self.counts.values())


class Progress:
    """Occasional lines of progress on standard error."""

    def __init__(self, title: str, total: int) -> None:
        self._title, self._total, self._done = title, total, 0
        self._begun = self._next = time.monotonic()

    def step(self, bad: int) -> None:
        """Count one more point as done; ``bad`` is the number of points with faults so far."""
        self._done += 1
        now = time.monotonic()
        if now >= self._next or self._done == self._total:
            self._next = now + _SECONDS_BETWEEN_LINES
            print(
                f"{self._title}: {self._done}/{self._total}, {bad} bad, {now - self._begun:.0f} s",
                file=sys.stderr,
                flush=True,
            )


def table(tallies: list[Tally]) -> str:
    """A table with a line for each kind, and a sum."""
    width = max(len(tally.kind) for tally in tallies)
    lines = [f"{'kind':{width}}  {'tried':>6}" + "".join(f"{name:>12}" for name in BAD)]
    for tally in tallies:
        if tally.skipped:
            lines.append(f"{tally.kind:{width}}  skipped: {tally.skipped}")
            continue
        counts = "".join(f"{tally.counts[name]:>12}" for name in BAD)
        lines.append(f"{tally.kind:{width}}  {tally.tried:>6}{counts}")
    tried = sum(tally.tried for tally in tallies)
    sums = "".join(f"{sum(tally.counts[name] for tally in tallies):>12}" for name in BAD)
    return "\n".join([*lines, f"{'all':{width}}  {tried:>6}{sums}"])
