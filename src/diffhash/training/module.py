"""Training a field with Lightning: one Lightning batch is a chunk of many optimizer steps.

A full-batch run is thousands of tiny steps, so the framework around the step must not cost more
than the step. Lightning sees chunks (its "epoch" is one chunk); inside a chunk runs a bare loop.
What this package calls an epoch is the paper's: one pass over the points, which for full batches
is one optimizer step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import lightning as L
import torch
from torch import Tensor
from torch.optim import Adam
from torch.utils.data import DataLoader, TensorDataset

from diffhash.networks import Field, FieldPlan
from diffhash.ops.jet import Jet, autograd_jet
from diffhash.tasks import Task
from diffhash.training.evaluation import Evaluation, Metrics

Derivatives = Literal["taylor", "autograd"]
Schedule = Literal["constant", "cosine"]


@dataclass(frozen=True)
class Outcome:
    """Where training ended.

    Attributes:
        loss: the task's, over all points.
        metrics: the field's errors.
        predictions: u and its derivatives at the evaluation's points, ``[1 + 2d, N, 1]``.
    """

    loss: float
    metrics: Metrics
    predictions: Tensor


class FieldTraining(L.LightningModule):
    """Minimise a task's loss over a field's parameters with Adam.

    Args:
        field: what is trained.
        task: its loss.
        evaluation: its errors, computed after every chunk.
        epochs: passes over the points.
        learning_rate: Adam's.
        chunk: epochs between two evaluations.
        batch_size: at most so many points per optimizer step and term; None for all at once.
        schedule: ``constant`` (the paper's) or ``cosine``, which lets the rate fall to zero as
            learning_rate · (1 + cos(π·epoch/epochs))/2. A resumed run follows its own ``epochs``
            and ``learning_rate``, whatever they were before.
        derivatives: ``taylor`` (jets) or ``autograd`` (nested reverse mode, the slow oracle).
        seed: of the shuffling of minibatches.
        origin: what the field was built from; kept in checkpoints, so that they can be told apart.

    Attributes:
        history: one row per evaluation: epoch, seconds, loss, mse_u, mse_ux, mse_uxx.
        epochs_done: completed epochs.
        diverged_epoch: the epoch whose loss was NaN or infinite, or None.
        train_seconds: synchronised seconds inside optimizer steps (the paper's "Train Cost").
        warmup_seconds: seconds preparing plans before the first step.
        evaluation_seconds: seconds evaluating.
        outcome: set when training ends, by itself or because it was asked to stop.
    """

    def __init__(
        self,
        field: Field,
        task: Task,
        evaluation: Evaluation,
        *,
        epochs: int,
        learning_rate: float,
        chunk: int = 100,
        batch_size: int | None = None,
        schedule: Schedule = "constant",
        derivatives: Derivatives = "taylor",
        seed: int = 0,
        origin: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        _check_settings(epochs, learning_rate, chunk, batch_size)
        self.automatic_optimization = False
        self.field = field
        self.task = task
        self.evaluation = evaluation
        self.epochs: int = epochs
        self.learning_rate = learning_rate
        self.chunk = chunk
        self.batch_size = batch_size
        self.schedule = schedule
        self.derivatives = derivatives
        self.origin = dict(origin or {})
        self.history: list[dict[str, float]] = []
        self.epochs_done: int = 0
        self.diverged_epoch: int | None = None
        self.stop_requested = False
        self.outcome: Outcome | None = None
        self.train_seconds = self.warmup_seconds = self.evaluation_seconds = 0.0
        self._shuffle = torch.Generator().manual_seed(seed)
        self._plans: list[FieldPlan] = []

    def configure_optimizers(self) -> Adam:
        return Adam(self.field.parameters(), lr=self.learning_rate, fused=True)

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        # The points live in the task; Lightning only counts chunks.
        return DataLoader(TensorDataset(torch.zeros(1)))

    def on_train_start(self) -> None:
        start = time.perf_counter()
        if self.batch_size is None and self.derivatives == "taylor":
            self._plans = [self.field.plan(term.x, term.orders) for term in self.task.terms]
        self.evaluation.prepare(self.field, self.device)
        self.warmup_seconds += self._seconds_since(start)

    def training_step(self, batch: Tensor, batch_idx: int) -> None:
        """Run one chunk of epochs, then evaluate."""
        optimizer = self.optimizers()
        assert not isinstance(optimizer, list)
        bare = optimizer.optimizer
        # A run that was interrupted inside a chunk meets the next evaluation where it would have.
        until_evaluation = self.chunk - self.epochs_done % self.chunk
        n_epochs = min(until_evaluation, self.epochs - self.epochs_done)
        losses: list[Tensor] = []
        start = time.perf_counter()
        for index in range(n_epochs):
            for group in bare.param_groups:
                group["lr"] = self._rate(self.epochs_done + index)
            for rows in self._batches():
                loss = self.task.loss(self._jets(rows), rows)
                bare.zero_grad(set_to_none=True)
                loss.backward()
                last = index == n_epochs - 1 or self.stop_requested
                # Lightning's wrapper costs as much as a small step; it counts chunks, not steps.
                optimizer.step() if last else bare.step()
            losses.append(loss.detach())
            if self.stop_requested:
                break
        finite = torch.stack(losses).isfinite().tolist()
        self.train_seconds += self._seconds_since(start)
        self._record(finite, losses[-1].item())
        if self.epochs_done >= self.epochs or self.diverged_epoch or self.stop_requested:
            self.trainer.should_stop = True

    def on_train_end(self) -> None:
        # Here and not after fit: Lightning moves the module off its device when it tears down.
        start = time.perf_counter()
        loss = self.task.loss(self._jets(None)).item()
        if self.diverged_epoch is None and not math.isfinite(loss):
            self.diverged_epoch = self.epochs_done
        self.outcome = Outcome(loss, self.evaluation.metrics(), self.evaluation.jet())
        self.evaluation_seconds += self._seconds_since(start)

    def _record(self, finite: list[bool], loss: float) -> None:
        first_epoch = self.epochs_done + 1
        self.epochs_done += len(finite)
        if not all(finite):
            self.diverged_epoch = first_epoch + finite.index(False)
            self.epochs_done = self.diverged_epoch
        start = time.perf_counter()
        metrics = self.evaluation.metrics()
        self.evaluation_seconds += self._seconds_since(start)
        # The last step itself may have overflowed, after a finite loss.
        parameters_finite = all(p.isfinite().all() for p in self.field.parameters())
        if self.diverged_epoch is None and not parameters_finite:
            self.diverged_epoch = self.epochs_done
        self.history.append(
            {"epoch": self.epochs_done, "seconds": self.train_seconds, "loss": loss}
            | asdict(metrics)
        )

    def _batches(self) -> list[list[Tensor] | None]:
        """Rows of every term for each optimizer step of an epoch; [None] for one full batch."""
        if self.batch_size is None:
            return [None]
        n_steps = max(-(-len(term) // self.batch_size) for term in self.task.terms)
        per_term = [self._shuffled(len(term), n_steps) for term in self.task.terms]
        return [list(rows) for rows in zip(*per_term, strict=True)]

    def _shuffled(self, n_points: int, n_steps: int) -> tuple[Tensor, ...]:
        """Every point once; a term with fewer points than steps goes round again until it has
        one for every step."""
        rounds = -(-n_steps // n_points)
        rows = [torch.randperm(n_points, generator=self._shuffle) for _ in range(rounds)]
        return torch.cat(rows).to(self.device).tensor_split(n_steps)

    def _rate(self, epoch: int) -> float:
        """Learning rate of the epoch after ``epoch`` epochs."""
        if self.schedule == "constant":
            return self.learning_rate
        return self.learning_rate * (1 + math.cos(math.pi * epoch / self.epochs)) / 2

    def _jets(self, rows: list[Tensor] | None) -> list[Jet]:
        if rows is None and self._plans:
            return [plan.jet() for plan in self._plans]
        jets = []
        for index, term in enumerate(self.task.terms):
            x = term.x if rows is None else term.x[rows[index]]
            x = x.to(next(self.field.parameters()).dtype)
            if self.derivatives == "taylor":
                jets.append(self.field.jet(x, term.orders))
            else:
                jets.append(autograd_jet(self.field, x, term.orders))
        return jets

    def _seconds_since(self, start: float) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter() - start

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["diffhash"] = {
            "history": self.history,
            "epochs_done": self.epochs_done,
            "seconds": (self.train_seconds, self.warmup_seconds, self.evaluation_seconds),
            "shuffle": self._shuffle.get_state(),
            "origin": self.origin,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        state = checkpoint["diffhash"]
        self.history = state["history"]
        self.epochs_done = state["epochs_done"]
        self.train_seconds, self.warmup_seconds, self.evaluation_seconds = state["seconds"]
        self._shuffle.set_state(state["shuffle"].cpu())


def _check_settings(epochs: int, learning_rate: float, chunk: int, batch_size: int | None) -> None:
    for name, value in {"epochs": epochs, "chunk": chunk, "batch_size": batch_size}.items():
        if value is not None and value < 1:
            raise ValueError(f"{name}={value}: give at least 1")
    if not (learning_rate > 0 and math.isfinite(learning_rate)):
        raise ValueError(f"learning_rate={learning_rate}: give a positive number")
