"""What is timed: contenders give samples, in turns."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from math import nan
from typing import Protocol

import torch


@dataclass(frozen=True)
class Sample:
    """Milliseconds per step.

    Attributes:
        ms: all of it.
        train_ms: inside optimizer steps, where that is told apart.
    """

    ms: float
    train_ms: float = nan


class Contender(Protocol):
    """One way to take training steps."""

    name: str

    def sample(self, seconds: float) -> Sample:
        """Train for at least so long, after a warm-up that does not count."""
        ...


def take_turns(
    contenders: Sequence[Contender], repetitions: int, seconds: float, n_threads: int
) -> dict[str, list[Sample]]:
    """Samples of each contender, in turns, so that all see the same state of the machine."""
    samples: dict[str, list[Sample]] = {contender.name: [] for contender in contenders}
    for _ in range(repetitions):
        for contender in contenders:
            torch.set_num_threads(n_threads)  # whatever the one before it has set
            samples[contender.name].append(contender.sample(seconds))
    return samples


def synchronised_time(device: torch.device) -> float:
    """Seconds of a clock, when all that was asked of the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
