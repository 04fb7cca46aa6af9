"""Training in windows of time: a field for each window, from the end of the previous window."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise
from statistics import mean
from typing import Any

import torch
from torch import Tensor, nn

from diffhash.networks import Field
from diffhash.problems import Problem
from diffhash.training.diagnostics import warned_of_solution
from diffhash.training.evaluation import Evaluation
from diffhash.training.module import EndedBy, FieldTraining
from diffhash.training.replica import Outcome, Replica
from diffhash.training.windows import Window, WindowedField, Windows, times

_ENDS: tuple[EndedBy, ...] = ("max_seconds", "tolerance", "optimizer")  # by precedence


def first_window(problem: Problem, windows: Windows) -> Problem:
    """The first of several windows of a problem, or the problem itself if there is one window.

    Raises:
        ValueError: the problem cannot be divided; see `Window`.
    """
    if type(windows) is int and windows == 1:  # True is none
        return problem
    ends = times(problem.domain, windows)
    window = Window(problem, (ends[0], ends[1]))
    window.checked_conditions()
    return window


class WindowedTraining(nn.Module):
    """Train the fields of consecutive windows of time, one after the other.

    Each field begins with the parameters of the previous field. The numbers of epochs and seconds
    and the tolerance hold for each window. If a window diverges, or a stop is requested, the fields
    of later windows keep their initial parameters.

    Args:
        problem: the whole problem.
        windows: the number of windows of equal length, or the times between windows.
        first: the training of the first window; see `first_window`.
        training_of: a function that makes the training of a window from its problem and its field.
        evaluation: the errors over the whole domain.

    Attributes:
        problem: the whole problem.
        solver: the settings of the optimizer; None for Adam.
        field: the fields of all windows as one.
        replicas: a single `Replica`. Its history has a column ``window``, and epochs and seconds
            are counted from the first window on. Its loss is the mean of the windows' losses; its
            estimate is the largest of the windows' estimates, or NaN if a window is not trained.
        points: the points ``[N, d]`` of each condition in all windows, by the condition's name.
        epochs: the number of epochs of all windows.
        ended_by: why a window's training stopped before its epochs were done; None also where a
            stop was requested.
    """

    def __init__(
        self,
        problem: Problem,
        windows: Windows,
        first: FieldTraining,
        training_of: Callable[[Problem, Field], FieldTraining],
        evaluation: Evaluation,
    ) -> None:
        super().__init__()
        self.problem, self.solver = problem, first.solver
        self._window = partial(Window, problem)
        self._training_of = training_of
        self._present = (first,)  # in a tuple, so that it is no submodule
        self._number, self._stop_requested = 1, False
        ends = times(problem.domain, windows)
        fields = [first.field]
        for pair in list(pairwise(ends))[1:]:
            layers = copy.deepcopy((first.field.encoding, first.field.network))
            fields.append(Field(*layers, self._window(pair).domain.bounds, problem.names))
        self.field = WindowedField(fields, ends)
        self.evaluation = evaluation
        self.replicas = [Replica()]
        self.points: dict[str, Tensor] = {}
        self.epochs, self.learning_rate = len(fields) * first.epochs, first.learning_rate
        self.execution, self.origin = first.execution, first.origin
        self.train_seconds = self.warmup_seconds = self.evaluation_seconds = 0.0
        self.ended_by: EndedBy | None = None

    @property
    def stop_requested(self) -> bool:
        """Whether training ends after the present epoch."""
        return self._stop_requested

    @stop_requested.setter
    def stop_requested(self, value: bool) -> None:
        self._stop_requested = self._present[0].stop_requested = value

    def fit(self, fit_window: Callable[[FieldTraining, int], None]) -> None:
        """Train all windows.

        Args:
            fit_window: a function that runs the training of the window of this number, from 1 on.
        """
        fields = [field for field in self.field.fields if isinstance(field, Field)]
        outcomes: list[Outcome] = []
        ended: list[EndedBy | None] = []
        size = 0.0
        for index, pair in enumerate(pairwise(self.field.times)):
            if index:
                before, own = fields[index - 1], fields[index]
                with torch.no_grad():
                    for p, q in zip(own.parameters(), before.parameters(), strict=True):
                        p.copy_(q)
                size = max(size, _size(self._present[0]))
                self._present = (self._training_of(self._window(pair, before, size), own),)
                self.stop_requested = self._stop_requested
            self._number = index + 1
            (training,) = self._present
            fit_window(training, self._number)
            (replica,) = training.replicas
            if replica.outcome is None:  # training ended before its first step
                return
            outcomes.append(replica.outcome)
            self._add(training, replica)
            if replica.diverged_epoch is not None:
                break
            if training.ended_by is None and replica.epochs_done < training.epochs:
                break
            ended.append(training.ended_by)
            if self._stop_requested:
                break
        is_whole = len(ended) == len(fields)
        if is_whole:
            self.ended_by = next((end for end in _ENDS if end in ended), None)
        estimates = [outcome.estimate for outcome in outcomes]
        is_known = is_whole and not any(map(math.isnan, estimates))
        self.evaluation.prepare(self.field, self.field.network.params.device)
        metrics, estimate = self.evaluation.metrics()[0], max(estimates) if is_known else math.nan
        warnings = [text for outcome in outcomes for text in outcome.warnings]
        self.replicas[0].outcome = Outcome(
            mean(outcome.loss for outcome in outcomes),
            *(metrics, self.evaluation.jets()[0], estimate),
            warnings + warned_of_solution(self.problem, metrics, estimate),
        )

    def checkpoint(self) -> dict[str, Any]:
        """A checkpoint of the fields and of the configuration that they are built from. It can be
        evaluated, but training cannot be resumed from it."""
        state = {"origin": self.origin, "epochs_done": self.replicas[0].epochs_done}
        return {"state_dict": self.state_dict(), "diffhash": state}

    def _add(self, training: FieldTraining, replica: Replica) -> None:
        """Add the results of the training of a window."""
        (whole,) = self.replicas
        whole.history += [self.row(row) for row in replica.history]
        whole.epochs_done += replica.epochs_done
        if replica.diverged_epoch is not None:
            whole.diverged_epoch = whole.epochs_done
        for name, x in training.points.items():
            self.points[name] = torch.cat([self.points[name], x]) if name in self.points else x
        self.train_seconds += training.train_seconds
        self.warmup_seconds += training.warmup_seconds
        self.evaluation_seconds += training.evaluation_seconds

    def row(self, row: Mapping[str, float]) -> dict[str, float]:
        """Convert a row of the present window's history to a row of the history of all windows."""
        since = {"epoch": self.replicas[0].epochs_done, "seconds": self.train_seconds}
        moved = {key: row[key] + value for key, value in since.items()}
        return {"window": self._number, **row, **moved}


def _size(training: FieldTraining) -> float:
    """The root mean square of u at the points of training."""
    with torch.no_grad():
        x = torch.cat([*training.points.values()])
        u = training.field(x.to(training.field.network.params.device))
    return float(u.double().square().mean().sqrt())
