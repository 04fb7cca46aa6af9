"""What a claim speaks of: a number that every seed of a row has its own of, or that is fixed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from diffhash.paper.claims.evidence import LABELS_END, Evidence, Region
from diffhash.paper.printed import TABLES
from diffhash.results.formats import format_decades, format_share, format_value
from diffhash.results.metrics import metric

ACCURATE = 0.01
"""At most this share of the zero predictor's MSE."""
NO_SKILL = 0.5
"""This share of it or more."""
COST_MARGIN = 0.1
"""Two costs nearer to each other than this share, or than the chunks of their timing, are equal."""

TASKS: dict[str, str] = dict(zip(TABLES, ("data-driven", "physics-informed"), strict=True))
_REGIONS: dict[Region, str] = {
    "everywhere": "",
    "labelled": f" for x <= {LABELS_END}",
    "unknown": f" for x > {LABELS_END}",
}


@dataclass(frozen=True)
class Sample(ABC):
    """A number of a row that differs from seed to seed."""

    table: str
    row: str

    @abstractmethod
    def values(self, evidence: Evidence) -> np.ndarray:
        """``[n]``, one a seed, infinite for a diverged run."""

    @abstractmethod
    def group(self, evidence: Evidence) -> str:
        """What it is, whichever row it is of."""

    def show(self, value: float) -> str:
        """One of the values as text."""
        return format_value("mse_u", value)


@dataclass(frozen=True)
class Error(Sample):
    """A metric at the end of training."""

    column: str = "mse_u"

    def values(self, evidence: Evidence) -> np.ndarray:
        return evidence.errors(self.table, self.row, self.column)

    def group(self, evidence: Evidence) -> str:
        return f"{TASKS[self.table]} {metric(self.column).quantity}"


@dataclass(frozen=True)
class Relative(Sample):
    """An MSE at the end as a fraction of that of predicting 0, in a region of the domain."""

    column: str = "mse_u"
    region: Region = "everywhere"

    def values(self, evidence: Evidence) -> np.ndarray:
        return evidence.relative(self.table, self.row, self.column, self.region)

    def group(self, evidence: Evidence) -> str:
        return f"{TASKS[self.table]} {metric(self.column).quantity}{_REGIONS[self.region]}"

    def show(self, value: float) -> str:
        return format_share(value)


@dataclass(frozen=True)
class OverPaper(Sample):
    """A metric at the end over what the paper prints, of the same row or of another."""

    column: str = "mse_u"
    paper_row: str = ""

    def values(self, evidence: Evidence) -> np.ndarray:
        printed = evidence.printed(self.table, self.paper_row or self.row, self.column)
        return evidence.errors(self.table, self.row, self.column) / printed

    def group(self, evidence: Evidence) -> str:
        return f"{TASKS[self.table]} {metric(self.column).quantity} from the printed number"

    def show(self, value: float) -> str:
        return "diverged" if np.isinf(value) else f"{format_decades(_log10(value))} decades"


@dataclass(frozen=True)
class ErrorAtBudgetOf(Sample):
    """MSE of u after as many epochs as another row trains for."""

    other: str

    def values(self, evidence: Evidence) -> np.ndarray:
        epoch = evidence.budget(self.table, self.other)
        return evidence.history(self.table, self.row, epoch=epoch)

    def group(self, evidence: Evidence) -> str:
        return f"{TASKS[self.table]} u after the epochs of {evidence.name(self.table, self.other)}"


@dataclass(frozen=True)
class ErrorInTimeOf(Sample):
    """MSE of u within a share of another row's train seconds."""

    other: str
    share: float = 1.0

    def values(self, evidence: Evidence) -> np.ndarray:
        seconds = self.share * evidence.seconds(self.table, self.other)
        return evidence.history(self.table, self.row, seconds=seconds)

    def group(self, evidence: Evidence) -> str:
        share = "" if self.share == 1 else f"{self.share:.0%} of "
        other = evidence.name(self.table, self.other)
        return f"{TASKS[self.table]} u within {share}the train seconds of {other}"


@dataclass(frozen=True)
class LossJump(Sample):
    """Largest factor between the losses of neighbouring evaluations, second half of training."""

    def values(self, evidence: Evidence) -> np.ndarray:
        return evidence.loss_jump(self.table, self.row)

    def group(self, evidence: Evidence) -> str:
        return f"{TASKS[self.table]} loss, largest factor between neighbours"

    def show(self, value: float) -> str:
        return "diverged" if np.isinf(value) else f"{value:.0f}"


@dataclass(frozen=True)
class Fixed(ABC):
    """A number that does not depend on the seed, of one row or of one over another."""

    table: str
    row: str

    @abstractmethod
    def ends(self, evidence: Evidence) -> tuple[float, float, float]:
        """Lower end, value and upper end: what lies between the ends is as good as equal."""

    @abstractmethod
    def group(self, evidence: Evidence) -> str:
        """What it is."""

    def show(self, value: float) -> str:
        """One of the three as text."""
        return f"{value:.2f}"


@dataclass(frozen=True)
class EpochsOver(Fixed):
    """Budget of a row over that of another of its table."""

    other: str

    def ends(self, evidence: Evidence) -> tuple[float, float, float]:
        value = evidence.budget(self.table, self.row) / evidence.budget(self.table, self.other)
        return value, value, value

    def group(self, evidence: Evidence) -> str:
        return f"{TASKS[self.table]} epochs over those of {evidence.name(self.table, self.other)}"


@dataclass(frozen=True)
class StepOver(Fixed):
    """Train seconds per epoch over those of another row, of any table.

    The ends are the most that the chunks of the two timings allow, or ``COST_MARGIN``.
    """

    other_table: str
    other: str

    def ends(self, evidence: Evidence) -> tuple[float, float, float]:
        a = evidence.step_seconds(self.table, self.row)
        b = evidence.step_seconds(self.other_table, self.other)
        with np.errstate(divide="ignore", invalid="ignore"):  # a clock that has not moved
            value = float(np.median(a) / np.median(b))
            low, high = float(a.min() / b.max()), float(a.max() / b.min())
        return min(low, value * (1 - COST_MARGIN)), value, max(high, value * (1 + COST_MARGIN))

    def group(self, evidence: Evidence) -> str:
        other = evidence.name(self.other_table, self.other)
        task = "" if self.other_table == self.table else f"{TASKS[self.other_table]} "
        return f"{TASKS[self.table]} cost of an epoch over that of {task}{other}"


@dataclass(frozen=True)
class PeakMemory(Fixed):
    """MB of the largest of a row's runs."""

    def ends(self, evidence: Evidence) -> tuple[float, float, float]:
        peak = evidence.peak_memory(self.table, self.row)
        return peak, peak, peak

    def group(self, evidence: Evidence) -> str:
        return f"{TASKS[self.table]} peak MB"

    def show(self, value: float) -> str:
        return f"{value:.0f}"


def _log10(value: float) -> float:
    with np.errstate(divide="ignore"):
        return float(np.log10(value))
