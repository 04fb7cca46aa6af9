"""The state and results of training, for one seed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class Outcome:
    """The loss and the errors of a field at the end of training.

    Attributes:
        loss: the loss over all points.
        metrics: the field's errors.
        predictions: the unknowns and derivatives at the evaluation's points, ``[K, N, C]``.
        estimate: the estimate of the relative error; see `ErrorEstimate`.
        warnings: why the estimate, or coefficients, may mean little; see
            `diffhash.training.diagnostics`.
    """

    loss: float
    metrics: Mapping[str, float]
    predictions: Tensor
    estimate: float
    warnings: Sequence[str] = ()


@dataclass
class Replica:
    """One of the seeds that train together, or the only one.

    Attributes:
        history: one row per evaluation: epoch, seconds, loss, the metrics, and ``loss_<name>``, the
            contribution of each term to ``loss``. The losses are computed with the parameters
            before the epoch's last step, over the points of that step. Optimizers that compute
            residuals themselves, such as Gauss–Newton, give the losses after the step. For terms
            whose weights change, ``weight_<name>`` is weight · mean of the points' weights in that
            step. For optimizers with a line search, ``evaluations`` is the number of evaluations of
            the loss.
        epochs_done: the number of completed epochs.
        diverged_epoch: the epoch whose loss was NaN or infinite, or None.
        outcome: the outcome, set when training ends, by itself or because a stop was requested.
    """

    history: list[dict[str, float]] = field(default_factory=list)
    epochs_done: int = 0
    diverged_epoch: int | None = None
    outcome: Outcome | None = None

    def record(
        self,
        losses: list[float],
        parts: dict[str, float],
        metrics: Mapping[str, float],
        parameters_are_finite: bool,
        seconds: float,
        others: Mapping[str, float],
    ) -> None:
        """Add a chunk: the loss of each of its epochs, and the evaluation after it.

        ``parts`` are the terms' shares of the last of ``losses``, by name; ``others`` are further
        columns.

        A replica that has diverged stays as it is.
        """
        if self.diverged_epoch is not None:
            return
        finite = [math.isfinite(loss) for loss in losses]
        first_epoch = self.epochs_done + 1
        self.epochs_done += len(losses)
        if not all(finite):
            self.diverged_epoch = first_epoch + finite.index(False)
            self.epochs_done = self.diverged_epoch
        elif not parameters_are_finite:  # the last step overflowed after a finite loss
            self.diverged_epoch = self.epochs_done
        row = {"epoch": self.epochs_done, "seconds": seconds, "loss": losses[-1]} | dict(metrics)
        row |= {f"loss_{name}": part for name, part in parts.items()}
        self.history.append(row | dict(others))

    def forget_row_between(self, chunk: int) -> None:
        """Drop the last row of a resumed run if its epoch is no multiple of ``chunk``: it was added
        where the earlier run ended, between two regular evaluations."""
        if self.diverged_epoch is None and self.history and self.history[-1]["epoch"] % chunk:
            self.history.pop()

    def finish(self, outcome: Outcome) -> None:
        """Set the outcome, at the end of training."""
        if self.diverged_epoch is None and not math.isfinite(outcome.loss):
            self.diverged_epoch = self.epochs_done
        self.outcome = outcome

    def state(self) -> dict[str, object]:
        """The history and the progress, for a checkpoint."""
        return {
            "history": self.history,
            "epochs_done": self.epochs_done,
            "diverged_epoch": self.diverged_epoch,
        }
