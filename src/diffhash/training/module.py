"""Training a field with Lightning: one Lightning batch is a chunk of many optimizer steps.

A full-batch run is thousands of tiny steps, so the framework around the step must not cost more
than the step. Lightning sees chunks (its "epoch" is one chunk); inside a chunk runs a bare loop.
What this package calls an epoch is the paper's: one pass over the points, which for full batches
is one optimizer step.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.data import DataLoader, TensorDataset

from diffhash.jets import Jet, Row, autograd_jet
from diffhash.networks import Field, FieldPlan
from diffhash.ops.sizes import MAX_POINTS, check_sizes
from diffhash.optim import GaussNewton, Objective
from diffhash.problems import Coefficient
from diffhash.training.adam import LeanAdam
from diffhash.training.evaluation import Evaluation
from diffhash.training.guards import (
    check_nothing_else_is_trainable,
    check_objective,
    checked_once,
)
from diffhash.training.moving import Moving
from diffhash.training.planned import PlannedBackward
from diffhash.training.replica import Outcome, Replica
from diffhash.training.samplers import Sampler
from diffhash.training.steps import (
    CompiledStep,
    EagerStep,
    Execution,
    GraphedStep,
    Rows,
    SolverStep,
    autograd,
)
from diffhash.training.weightings import Weighting

Derivatives = Literal["taylor", "autograd"]
Schedule = Literal["constant", "cosine"]
_MAX_EPOCHS = 10**12
_MAX_CHUNK = 10**6  # whose losses are kept until it ends


class FieldTraining(L.LightningModule):
    """Minimise a task's loss over a field's parameters with Adam.

    A field of R replicas (`diffhash.networks.stack_fields`) trains as one program: each replica
    on its own loss, as it would alone. One that diverges is recorded and does not stop the others.
    Several processes (Lightning's DDP) share out the points of every term.

    Args:
        field: what is trained.
        objective: its loss; the problem's coefficients are trained with it.
        evaluation: its errors, computed after every chunk.
        epochs: passes over the points.
        learning_rate: Adam's.
        chunk: epochs between two evaluations.
        batch_size: at most so many points per optimizer step, term and process; None for all at
            once.
        schedule: ``constant`` (the paper's) or ``cosine``, which lets the rate fall to zero as
            learning_rate · (1 + cos(π·epoch/epochs))/2. A resumed run follows its own ``epochs``
            and ``learning_rate``, whatever they were before.
        derivatives: ``taylor`` (jets) or ``autograd`` (nested reverse mode, the slow oracle).
        execution: of a step, see `diffhash.training.steps`.
        seed: of the shuffling of minibatches, which are the same ones for all replicas.
        sampler: moves points while training; None leaves them where they are.
        weighting: changes the weights of terms or points; None leaves them as they are.
        optimizer: `GaussNewton`; None for Adam. An epoch is then one of its steps, and the learning
            rate is not read.
        origin: what the field was built from; kept in checkpoints, so that they can be told apart.

    Attributes:
        replicas: what training has come to: one, or R.
        epochs_done: completed epochs.
        train_seconds: synchronised seconds inside optimizer steps (the paper's "Train Cost").
        warmup_seconds: seconds preparing plans and compiling before the first step.
        evaluation_seconds: seconds evaluating.

    Raises:
        ValueError: a number out of range, or settings that do not go together; a field of several
            components; errors of a wrong shape; or something that requires a gradient and is not a
            parameter of the field, which nothing would train.
    """

    def __init__(
        self,
        field: Field,
        objective: Objective,
        evaluation: Evaluation,
        *,
        epochs: int,
        learning_rate: float,
        chunk: int = 100,
        batch_size: int | None = None,
        schedule: Schedule = "constant",
        derivatives: Derivatives = "taylor",
        execution: Execution = "eager",
        seed: int = 0,
        origin: Mapping[str, Any] | None = None,
        sampler: Sampler | None = None,
        weighting: Weighting | None = None,
        optimizer: GaussNewton | None = None,
    ) -> None:
        super().__init__()
        _check_settings(epochs, learning_rate, chunk, batch_size)
        evaluation.check(field)
        check_nothing_else_is_trainable(field, objective.problem, objective=objective)
        check_objective(objective, field)
        columns = {"epoch", "seconds", "loss", *(f"loss_{term.name}" for term in objective.terms)}
        if taken := sorted(columns.intersection(evaluation.names)):
            raise ValueError(
                f"{taken[0]}: a coefficient cannot have the name of a column of the history"
            )
        _check_moving(sampler, weighting, batch_size, field.n_replicas)
        if execution != "eager" and (batch_size is not None or derivatives != "taylor"):
            raise ValueError(
                f"execution={execution}: needs batch_size=null and derivatives=taylor, got "
                f"batch_size={batch_size} and derivatives={derivatives}; use eager"
            )
        if (replicas := field.n_replicas) is not None:
            for name, coefficient in objective.problem.named_parameters():
                if coefficient.ndim == 0:  # one for each replica, beside its points
                    coefficient.data = coefficient.data.expand(replicas, 1).clone()
                elif not isinstance(coefficient, Coefficient) or len(coefficient) != replicas:
                    raise ValueError(
                        f"problem.{name}: of the shape {list(coefficient.shape)}; several seeds "
                        "train only coefficients of one number as one program: train them one by "
                        "one"
                    )
        if optimizer is not None:
            name = f"optimizer={type(optimizer).__name__}"
            _check_solver(name, field, batch_size, derivatives, execution, sampler, weighting)
        self.automatic_optimization = False
        self._solver = optimizer
        self.field = field
        self.objective = objective
        self.evaluation = evaluation
        self.epochs: int = epochs
        self.learning_rate = learning_rate
        self.chunk = chunk
        self.batch_size = batch_size
        self.schedule = schedule
        self.derivatives = derivatives
        self.execution: Execution = execution
        self.origin = dict(origin or {})
        self.replicas = [Replica() for _ in range(field.n_replicas or 1)]
        self.epochs_done: int = 0
        self.stop_requested = False
        self.train_seconds = self.warmup_seconds = self.evaluation_seconds = 0.0
        self._shuffle = torch.Generator().manual_seed(seed)
        self._n_processes = 1
        self._moving: Moving | None = None
        if sampler is not None or weighting is not None:
            self._moving = Moving(objective, sampler, weighting, self._trained, self._jet)
            self._check_graphs_see_points()
        self._sampler, self._weighting = sampler, weighting
        self._share = objective  # of this process
        self._plans: list[FieldPlan] = []
        self._planned: PlannedBackward | None = None
        self._eager: EagerStep | SolverStep
        self._step: EagerStep | SolverStep | GraphedStep

    def configure_optimizers(self) -> Optimizer:
        if self._solver is not None:
            return self._solver.optimizer(self._trained(), self.objective, self.field)
        return LeanAdam(self._trained(), self.execution == "cudagraph")

    def _trained(self) -> list[torch.nn.Parameter]:
        return [*self.field.parameters(), *self.objective.problem.parameters()]

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        # The points live in the objective; Lightning only counts chunks.
        return DataLoader(TensorDataset(torch.zeros(1)))

    def on_train_start(self) -> None:
        start = time.perf_counter()
        self._n_processes = self.trainer.world_size
        check_devices_of_moving(self._sampler, self._weighting, self._n_processes)
        params = self.field.network.params
        if self._moving is not None:
            self._moving.prepare(params.shape[:-1], params.dtype, self.epochs_done)
        if self._n_processes > 1:
            self._share = self.objective.share(self.global_rank, self._n_processes)
        if self.derivatives == "taylor":
            in_parts = self.batch_size is not None
            self._plans = [
                self.field.plan(term.x, term.rows, in_parts) for term in self._share.terms
            ]
        for term in self._share.terms:
            term.in_dtype(params.dtype)  # once, and not while it is compiled
        self.evaluation.prepare(self.field, self.device)
        if self._has_ended():  # resumed, to evaluate what is there
            self.trainer.should_stop = True
        else:
            self._prepare_steps()
        self.warmup_seconds += self._seconds_since(start)

    def _prepare_steps(self) -> None:
        optimizer = self._optimizer().optimizer
        if self._solver is not None:
            self._eager = self._step = SolverStep(optimizer, self.field.network.params.dtype)
            return
        assert isinstance(optimizer, LeanAdam)
        optimizer.follow(self.execution == "cudagraph")
        if self._moving is not None:
            self._moving.begin()
        reduce = self._sum_over_processes if self._n_processes > 1 else None
        backward = autograd(self._loss)
        if self._plans:
            backward = self._planned = PlannedBackward(self._share, self._plans)
        backward = checked_once(backward, self)
        self._eager = EagerStep(backward, optimizer, reduce)
        if self.execution != "eager":  # whose first step checks it
            self._eager.backward()
            optimizer.forget_gradients()
        match self.execution:
            case "eager":
                self._step = self._eager
            case "compile":
                self._step = CompiledStep(self._loss, optimizer, reduce)
            case "cudagraph":
                self._step = GraphedStep(self._loss, optimizer)
        self._step.prepare()

    def training_step(self, batch: Tensor, batch_idx: int) -> None:
        """Run one chunk of epochs, then evaluate."""
        optimizer = self._optimizer()
        # A run that was interrupted inside a chunk meets the next evaluation where it would have.
        until_evaluation = self.chunk - self.epochs_done % self.chunk
        n_epochs = min(until_evaluation, self.epochs - self.epochs_done)
        losses: list[Tensor] = []
        weights: dict[str, float] = {}
        start = time.perf_counter()
        alone = self._n_processes == 1  # several processes stop together, later
        for index in range(n_epochs):
            if self._moving is not None:
                self._moving.before_epoch(self.epochs_done + index, self._move)
            rate = self._rate(self.epochs_done + index)
            last = index == n_epochs - 1 or (alone and self.stop_requested)
            for rows in self._batches():
                # The last is eager, because that tells the terms apart. Lightning's wrapper, which
                # counts chunks, costs as much as a small step.
                loss = self._eager(rate, rows, optimizer.step) if last else self._step(rate, rows)
                if self._moving is not None:
                    weights = self._moving.weights() if last else {}
                    self._moving.after_step(rows)
            losses.append(loss)
            if last or (alone and self.stop_requested and self._step is self._eager):
                break
            if self.is_solved:
                break
        values = torch.stack(losses).reshape(len(losses), -1).T.tolist()
        self.train_seconds += self._seconds_since(start)
        self._record(values, weights)
        if self._has_ended() or self._asked_to_stop():
            self.trainer.should_stop = True

    def on_train_end(self) -> None:
        # Here and not after fit: Lightning moves the module off its device when it tears down.
        start = time.perf_counter()
        with torch.no_grad():
            loss = self._loss(None)
        if self._n_processes > 1:
            torch.distributed.all_reduce(loss)
        outcomes = zip(
            loss.reshape(-1).tolist(),
            self.evaluation.metrics(),
            self.evaluation.jets(),
            strict=True,
        )
        for replica, outcome in zip(self.replicas, outcomes, strict=True):
            replica.finish(Outcome(*outcome))
        self.evaluation_seconds += self._seconds_since(start)

    def _has_ended(self) -> bool:
        everything_diverged = all(r.diverged_epoch is not None for r in self.replicas)
        return self.epochs_done >= self.epochs or everything_diverged or self.is_solved

    @property
    def is_solved(self) -> bool:
        """Whether a solver has said that further steps lead nowhere."""
        step = getattr(self, "_step", None)
        return isinstance(step, SolverStep) and step.has_ended

    def _record(self, losses: list[list[float]], weights: Mapping[str, float]) -> None:
        """Evaluate after a chunk; ``losses`` of each replica, epoch by epoch, and the terms'
        weights that move."""
        self.epochs_done += len(losses[0])
        start = time.perf_counter()
        metrics = self.evaluation.metrics()
        parts = self._latest_parts()
        self.evaluation_seconds += self._seconds_since(start)
        finite = torch.stack(
            [p.isfinite().reshape(len(self.replicas), -1).all(dim=1) for p in self._trained()]
        ).all(dim=0)
        for index, replica in enumerate(self.replicas):
            replica.record(
                *(losses[index], parts[index], metrics[index], bool(finite[index])),
                *(self.train_seconds, weights),
            )
        if len(self.replicas) == 1:
            self.epochs_done = self.replicas[0].epochs_done

    def _latest_parts(self) -> list[dict[str, float]]:
        """What each term added to the loss of the latest step, of each replica."""
        step = self._step
        parts = step.parts if isinstance(step, SolverStep) else (self._planned or self._share).parts
        values = torch.stack([part.reshape(-1) for part in parts], dim=1)
        if self._n_processes > 1:
            torch.distributed.all_reduce(values)
        names = [term.name for term in self.objective.terms]
        return [dict(zip(names, row, strict=True)) for row in values.tolist()]

    def _loss(self, rows: Rows) -> Tensor:
        return self._share.loss(self._jets(rows), rows)

    def _jets(self, rows: Rows) -> list[Jet]:
        if rows is None and self._plans:
            return [plan.jet() for plan in self._plans]
        return [
            self._jet(term.points(None if rows is None else rows[index]), term.rows)
            for index, term in enumerate(self._share.terms)
        ]

    def _jet(self, x: Tensor, rows: tuple[Row, ...]) -> Jet:
        if self.derivatives == "taylor":
            return self.field.jet(x, rows)
        jet = autograd_jet(self.field, x, rows)
        return Jet(jet.data, jet.rows, self.field.names)

    def _check_graphs_see_points(self) -> None:
        """Refuse points that move where what was compiled or captured would not see them."""
        assert self._moving is not None
        if self.execution == "eager":
            return
        for index in self._moving.moved:
            term = self.objective.terms[index]
            few = term.points(torch.zeros(1, dtype=torch.int64, device=term.x.device))
            if not self.field.plan(few, term.rows).move(few):
                raise ValueError(
                    f"execution={self.execution}: points of {term.name} move, and plans of "
                    f"{type(self.field.encoding).__name__} cannot in place; use eager"
                )

    def _move(self, index: int, x: Tensor) -> None:
        """Bring a term to other points, and all that was made of the present ones."""
        self.objective.terms[index].move(x)
        term = self._share.terms[index]
        term.follow()
        if self._plans:
            self._plans[index].move(term.x)
        if self._planned is not None:
            self._planned.follow(index)

    def _batches(self) -> Sequence[Rows]:
        """Rows of every term for each optimizer step of an epoch; [None] for one full batch."""
        if self.batch_size is None:
            return [None]
        largest = max(len(term) for term in self.objective.terms)
        n_steps = -(-largest // (self.batch_size * self._n_processes))
        per_term = [self._shuffled(len(term), n_steps) for term in self._share.terms]
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
        return cosine(self.learning_rate, epoch, self.epochs)

    def _sum_over_processes(self, loss: Tensor) -> None:
        """Gradients and losses, each process having its share of every term's mean."""
        gradients = [p.grad for p in self._trained() if p.grad is not None]
        for tensor in (*gradients, loss):
            torch.distributed.all_reduce(tensor)

    def _asked_to_stop(self) -> bool:
        """Whether any process was."""
        if self._n_processes == 1:
            return self.stop_requested
        asked = torch.tensor(float(self.stop_requested), device=self.device)
        torch.distributed.all_reduce(asked)
        self.stop_requested = asked.item() > 0
        return self.stop_requested

    def _optimizer(self) -> LightningOptimizer:
        optimizer = self.optimizers()
        assert isinstance(optimizer, LightningOptimizer)
        return optimizer

    def _seconds_since(self, start: float) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter() - start

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["diffhash"] = {
            "replicas": [replica.state() for replica in self.replicas],
            "epochs_done": self.epochs_done,
            "seconds": (self.train_seconds, self.warmup_seconds, self.evaluation_seconds),
            "shuffle": self._shuffle.get_state(),
            "origin": self.origin,
            "schedule": (self.schedule, self.learning_rate, self.epochs),
        }
        if self._moving is not None:
            checkpoint["diffhash"]["moving"] = self._moving.state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        state = checkpoint["diffhash"]
        self.replicas = [Replica(**replica) for replica in state["replicas"]]
        self.epochs_done = state["epochs_done"]
        self.train_seconds, self.warmup_seconds, self.evaluation_seconds = state["seconds"]
        self._shuffle.set_state(state["shuffle"].cpu())
        if self._moving is not None:
            self._moving.load_state(state.get("moving"))
        if self.epochs_done < self.epochs:
            for replica in self.replicas:
                replica.forget_row_between(self.chunk)


def cosine(learning_rate: float, epoch: int, epochs: int) -> float:
    """The rate after ``epoch`` of ``epochs``: learning_rate · (1 + cos(π·epoch/epochs))/2."""
    return learning_rate * (1 + math.cos(math.pi * epoch / epochs)) / 2


def _check_moving(
    sampler: Sampler | None,
    weighting: Weighting | None,
    batch_size: int | None,
    replicas: int | None,
) -> None:
    """Refuse what follows the errors of one field where there are several, or of some points where
    all are needed."""
    if weighting is not None and batch_size is not None and not weighting.takes_minibatches:
        raise ValueError(
            f"weighting={type(weighting).__name__}: needs the errors of all points at every step, "
            f"batch_size={batch_size} has those of some; use null"
        )
    if replicas is not None and (name := _of_one_field(sampler, weighting)):
        raise ValueError(
            f"{name}: follows the errors of one field, {replicas} seeds have several; train them "
            "one by one"
        )


def _check_solver(
    name: str,
    field: Field,
    batch_size: int | None,
    derivatives: str,
    execution: str,
    sampler: Sampler | None,
    weighting: Weighting | None,
) -> None:
    """Refuse what a solver over all points of one field cannot have."""
    given = {
        "batch_size": (batch_size, None),
        "derivatives": (derivatives, "taylor"),
        "execution": (execution, "eager"),
        "sampler": (sampler and type(sampler).__name__, None),
        "weighting": (weighting and type(weighting).__name__, None),
    }
    for setting, (value, allowed) in given.items():
        if value != allowed:
            shown = "null" if allowed is None else allowed
            raise ValueError(f"{setting}={value}: {name} needs {setting}={shown}")
    if field.n_replicas is not None:
        raise ValueError(f"{name}: solves for one field; give seed, and run several one by one")
    if field.network.params.device.type != "cpu":
        raise ValueError(f"{name}: solves on a CPU; give accelerator=cpu")
    if field.network.params.dtype != torch.float64:
        warnings.warn(
            f"{name}: in float32 its steps stop early, at the round-off of the residuals; give "
            "precision=float64",
            stacklevel=3,
        )


def _of_one_field(sampler: Sampler | None, weighting: Weighting | None) -> str | None:
    """The setting that follows the errors of one field, over all its points."""
    if weighting is not None:
        return f"weighting={type(weighting).__name__}"
    if sampler is not None and sampler.reads_errors:
        return f"sampler={type(sampler).__name__}"
    return None


def check_devices_of_moving(
    sampler: Sampler | None, weighting: Weighting | None, n_processes: int
) -> None:
    """Raise `ValueError` for what several processes, which share out the points, cannot have."""
    if n_processes > 1 and (name := _of_one_field(sampler, weighting)):
        raise ValueError(
            f"{name}: follows the errors at all points, devices={n_processes} share them out; use 1"
        )


def _check_settings(epochs: int, learning_rate: float, chunk: int, batch_size: int | None) -> None:
    check_sizes(1, _MAX_EPOCHS, epochs=epochs)
    check_sizes(1, _MAX_CHUNK, chunk=chunk)
    if batch_size is not None:
        check_sizes(1, MAX_POINTS, batch_size=batch_size)
    if not (learning_rate > 0 and math.isfinite(learning_rate)):
        raise ValueError(f"learning_rate={learning_rate}: give a positive number")
