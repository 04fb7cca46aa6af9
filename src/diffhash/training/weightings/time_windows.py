"""Time windows: the domain grows with time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from diffhash.ops.sizes import check_sizes
from diffhash.optim import Objective
from diffhash.training.weightings.weighting import PointWeighting, Present, time_of, time_span

_MAX_WINDOWS, _MAX_EPOCHS = 2**20, 10**12


class TimeWindows(PointWeighting):
    """Weighs only points in the first windows of time; after every few epochs another window opens.

    The term is the mean over the points in open windows, or 0 if these have no points. The first
    window is open from the beginning, and the last after (windows - 1) · epochs epochs.

    >>> weighting = TimeWindows(windows=4, epochs=1000)

    Args:
        windows: the number of windows of equal length.
        epochs: the number of epochs after which the next window opens.
        axis: the name of the axis of time.
        conditions: the names of the conditions whose points are weighed; None for all equations in
            the domain.

    Raises:
        ValueError: a number is out of range. `start` raises it if the problem has no such axis.
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
        self.epochs_to_reach_all = (windows - 1) * epochs

    def start(self, objective: Objective) -> None:
        super().start(objective)
        self._span = time_span(objective, self.axis)

    def update(self, present: Present, rows: Mapping[str, Tensor] | None) -> None:
        end = (present.epoch // self.epochs + 1) / self.windows
        for index, term in enumerate(self.terms):
            is_open = (time_of(term, self.axis, *self._span) <= end).double()
            self.put(index, is_open * (len(term) / is_open.sum().clamp_min(1)))
