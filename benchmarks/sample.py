"""Samples of the time per step, which contenders take in turns."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import nan
from statistics import median
from typing import Any, Protocol

import pandas as pd
import torch


@dataclass(frozen=True)
class Sample:
    """Milliseconds per step.

    Attributes:
        ms: the whole time.
        train_ms: the time inside optimizer steps; NaN where it is not measured.
    """

    ms: float
    train_ms: float = nan


class Contender(Protocol):
    """One way to take training steps."""

    name: str

    def sample(self, seconds: float) -> Sample:
        """Train for at least ``seconds``, after a warm-up that does not count."""
        ...


def take_turns(
    contenders: Sequence[Contender], repetitions: int, seconds: float, n_threads: int
) -> dict[str, list[Sample]]:
    """Samples of each contender, in turns, so that the machine's state is the same for all."""
    samples: dict[str, list[Sample]] = {contender.name: [] for contender in contenders}
    for _ in range(repetitions):
        for contender in contenders:
            torch.set_num_threads(n_threads)  # the contender before may have changed it
            samples[contender.name].append(contender.sample(seconds))
    return samples


def compared(
    samples: Mapping[str, Sequence[Sample]], ours: str, whole: Collection[str] = ()
) -> Iterator[dict[str, Any]]:
    """A row for each contender: median and range of the milliseconds inside its steps, and the
    median of our ratio to it.

    Args:
        ours: the contender that the others are compared with.
        whole: the contenders whose whole time counts, for lack of any other.
    """
    times = {
        name: [s.ms if name in whole else s.train_ms for s in taken]
        for name, taken in samples.items()
    }
    for name, ms in times.items():
        yield {
            "contender": name,
            "ms": median(ms),
            "ms_min": min(ms),
            "ms_max": max(ms),
            "repetitions": len(ms),
            "ours_over_this": median(a / b for a, b in zip(times[ours], ms, strict=True)),
        }


def ratios(rows: pd.DataFrame, ours: str, link: str) -> str:
    """Our milliseconds in rows of `compared`, and our ratios to the others; ``link`` stands between
    a ratio and a contender's name."""
    others = rows[rows["contender"] != ours]
    named = zip(others["ours_over_this"], others["contender"], strict=True)
    ms = rows.loc[rows["contender"] == ours, "ms"].item()
    return ", ".join([f"{ms:.2f} ms", *(f"{ratio:.2f} {link} {name}" for ratio, name in named)])


def synchronised_time(device: torch.device) -> float:
    """The seconds on a clock, after all work of the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
