"""Time windows: the domain grows with time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from diffhash.ops.sizes import check_sizes
from diffhash.optim import Objective
from diffhash.training.weightings.weighting import PointWeighting, Present, time_of, time_span

_MAX_WINDOWS, _MAX_EPOCHS = 2**20, 10**12


class TimeWindows(PointWeighting):
    """Only points in the first windows of time count; every so many epochs another window opens.

    The term is the mean over the points in open windows; the first has points that count from the
    beginning, and 0 without any.

    Args:
        windows: how many equal ones time is cut into.
        epochs: between two openings.
        axis: of time.
        conditions: names of those whose points are weighed; null for all of the kind residual.

    Raises:
        ValueError: a number out of range; from `start`, a problem without that axis.
    """

    reads_errors = False

    def __init__(
        self,
        windows: int = 5,
        epochs: int = 1000,
        axis: str = "t",
        conditions: Sequence[str] | None = None,
    ) -> None:
        super().__init__(conditions)
        check_sizes(1, _MAX_WINDOWS, windows=windows)
        check_sizes(1, _MAX_EPOCHS, epochs=epochs)
        self.windows, self.epochs, self.axis = windows, epochs, axis

    def start(self, objective: Objective) -> None:
        super().start(objective)
        self._span = time_span(objective, self.axis)

    def update(self, present: Present, rows: Mapping[str, Tensor] | None) -> None:
        end = (present.epoch // self.epochs + 1) / self.windows
        for index, term in enumerate(self.terms):
            is_open = (time_of(term, self.axis, *self._span) <= end).double()
            self.put(index, is_open * (len(term) / is_open.sum().clamp_min(1)))
