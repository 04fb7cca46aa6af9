"""Training a field with Lightning: one Lightning batch is a chunk of many optimizer steps.

A full-batch run is thousands of tiny steps, so the framework around a step must not cost more than
the step. To Lightning one chunk is one "epoch"; inside a chunk a bare loop runs. An epoch of this
package is the paper's: one pass over the points, which for full batches is one optimizer step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.data import DataLoader, TensorDataset

from diffhash.jets import Jet, Row, autograd_jet
from diffhash.networks import Field, FieldPlan
from diffhash.optim import Objective, OptimizerSettings
from diffhash.problems import Coefficient, Problem
from diffhash.training.adam import LeanAdam
from diffhash.training.checks import (
    Schedule,
    check_devices_of_moving,
    check_epochs_of_moving,
    check_made,
    check_moving,
    check_optimizer,
    check_points_of_sampler,
    check_settings,
    check_starts,
)
from diffhash.training.diagnostics import diagnosed
from diffhash.training.estimate import ErrorEstimate
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
    Backward,
    ClosureStep,
    CompiledStep,
    EagerStep,
    Execution,
    GradientStep,
    GraphedStep,
    ResidualStep,
    Rows,
    autograd,
)
from diffhash.training.weightings import Weighting

Derivatives = Literal["taylor", "autograd"]
EndedBy = Literal["tolerance", "max_seconds", "optimizer"]
_ADAM_CHUNK = 100  # the least number of epochs of Adam between evaluations before another optimizer
Step = EagerStep | GradientStep | ClosureStep | ResidualStep


class FieldTraining(L.LightningModule):
    """Minimise a task's loss over a field's parameters, with Adam or another optimizer.

    A field of R replicas (`diffhash.networks.stack_fields`) trains as one program, each replica
    with its own loss, as it would train alone. A replica that diverges is recorded and does not
    stop the others. Several processes (DDP of Lightning) divide the points of every term.

    Args:
        field: the field that is trained.
        objective: the loss; the coefficients of its problem are trained as well.
        evaluation: the errors of the field, which are computed after every chunk.
        epochs: the number of passes over the points.
        learning_rate: the learning rate of Adam.
        betas: β₁ and β₂ of Adam, the shares of the moving averages of the gradient and of its
            square that stay at each step.
        chunk: the number of epochs between two evaluations.
        batch_size: the largest number of points of a term in a step of one process; None for all.
        schedule: ``constant`` (the paper's) or ``cosine``, which lets the rate fall to zero as
            learning_rate · (1 + cos(π·epoch/epochs))/2; with ``max_seconds``, by the part of the
            time where that is larger, so that it is zero at either end (but not in several
            processes, whose clocks differ). A resumed run follows its own ``epochs`` and
            ``learning_rate``, and ``betas``, whatever they were before.
        derivatives: ``taylor`` for jets, or ``autograd`` for nested reverse mode, which is slow and
            checks them.
        execution: how a step is computed; see `diffhash.training.steps`.
        seed: the seed by which minibatches are shuffled; they are the same for all replicas.
        sampler: moves points while training; None leaves them where they are.
        weighting: changes the weights of terms or points; None leaves them as they are.
        optimizer: the settings of an optimizer (`diffhash.optim.OptimizerSettings`); None for Adam.
            For an optimizer that needs more than a gradient, an epoch is one step and the learning
            rate is not read.
        max_seconds: the seconds of training after which it stops; None for no limit.
        tolerance: training stops when `ErrorEstimate`, computed after every chunk, is at most this
            number for every replica; None for no limit.
        origin: the configuration from which the field was built. It is stored in checkpoints, so
            that those of other fields can be refused.

    Attributes:
        replicas: the state and the results of each seed: one, or R.
        solver: the settings of the optimizer; None for Adam.
        epochs_done: the number of completed epochs.
        train_seconds: synchronised seconds inside optimizer steps (the paper's "Train Cost").
        warmup_seconds: seconds of preparing plans and compiling before the first step.
        evaluation_seconds: seconds of evaluating.
        ended_by: why training stopped before all epochs were done: ``tolerance``, ``max_seconds``
            or ``optimizer``, which means that further steps would not lower the loss; else None.

    Raises:
        ValueError: a number is out of range, settings do not go together, a residual has a wrong
            shape, no condition reads an unknown, or something requires a gradient that is neither a
            parameter of the field nor a coefficient of the problem.
        UntrainedError: no condition reads a coefficient. The first step raises it for a parameter
            of the field that no gradient reaches.
    """

    def __init__(
        self,
        field: Field,
        objective: Objective,
        evaluation: Evaluation,
        *,
        epochs: int,
        learning_rate: float,
        betas: tuple[float, float] = (0.9, 0.999),
        chunk: int = 100,
        batch_size: int | None = None,
        schedule: Schedule = "constant",
        derivatives: Derivatives = "taylor",
        execution: Execution = "eager",
        seed: int = 0,
        origin: Mapping[str, Any] | None = None,
        sampler: Sampler | None = None,
        weighting: Weighting | None = None,
        optimizer: OptimizerSettings | None = None,
        max_seconds: float | None = None,
        tolerance: float | None = None,
    ) -> None:
        super().__init__()
        check_settings(
            epochs, learning_rate, betas, chunk, batch_size, max_seconds, tolerance, schedule
        )
        evaluation.check(field)
        columns = {"epoch", "seconds", "loss", *(f"loss_{term.name}" for term in objective.terms)}
        if taken := sorted(columns.intersection(evaluation.names)):
            raise ValueError(
                f"{taken[0]}: a coefficient cannot have the name of a column of the history"
            )
        check_nothing_else_is_trainable(field, objective.problem, objective=objective)
        check_objective(objective, field)
        check_moving(sampler, weighting, batch_size, field.n_replicas)
        if execution != "eager" and (batch_size is not None or derivatives != "taylor"):
            raise ValueError(
                f"execution={execution}: needs no batch_size, and derivatives=taylor, got "
                f"batch_size={batch_size} and derivatives={derivatives}; use eager"
            )
        self._estimate = ErrorEstimate(objective)  # before the coefficients get a replica axis
        if (replicas := field.n_replicas) is not None:
            for name, coefficient in objective.problem.named_parameters():
                if coefficient.ndim == 0:  # a number for each replica, which broadcasts over points
                    coefficient.data = coefficient.data.expand(replicas, 1).clone()
                elif not isinstance(coefficient, Coefficient) or len(coefficient) != replicas:
                    raise ValueError(
                        f"problem.{name}: of the shape {list(coefficient.shape)}; several seeds "
                        "train only coefficients of one number as one program: train them one by "
                        "one"
                    )
        if optimizer is not None:
            check_optimizer(
                optimizer, field, batch_size=batch_size, derivatives=derivatives,
                execution=execution, sampler=sampler, weighting=weighting,
            )  # fmt: skip
        check_starts(objective.problem, optimizer)
        check_epochs_of_moving(sampler, weighting, epochs)
        self.automatic_optimization = False
        self.solver = optimizer
        self.field = field
        self.objective = objective
        self.evaluation = evaluation
        self.epochs: int = epochs
        self.learning_rate, self.betas = learning_rate, betas
        self.chunk = chunk
        self.batch_size = batch_size
        self.schedule = schedule
        self.derivatives = derivatives
        self.execution: Execution = execution
        self.origin = dict(origin or {})
        self.replicas = [Replica() for _ in range(field.n_replicas or 1)]
        self.epochs_done: int = 0
        self.stop_requested = False
        self.max_seconds, self.tolerance = max_seconds, tolerance
        self.ended_by: EndedBy | None = None
        self.train_seconds = self.warmup_seconds = self.evaluation_seconds = 0.0
        self._chunk_start = 0.0
        self._shuffle = torch.Generator().manual_seed(seed)
        self._n_processes = 1
        self._moving: Moving | None = None
        if sampler is not None or weighting is not None:
            self._moving = Moving(objective, sampler, weighting, self._trained, self._jet)
            self._check_graphs_see_points()
        self._sampler, self._weighting = sampler, weighting
        self._share = objective  # the share of this process; checkpoints contain this name
        self._plans: list[FieldPlan] = []
        self._planned: PlannedBackward | None = None
        self._eager: Step
        self._step: Step | GraphedStep
        self._steps_are_adams = False

    def configure_optimizers(self) -> list[Optimizer]:
        adam = LeanAdam(self._trained(), self.execution == "cudagraph", self.betas)
        if self.solver is None:
            return [adam]
        solver = self.solver.make(self.field, self.objective.problem, self._residuals)
        check_made(self.solver, solver)
        return [adam, solver] if self.solver.adam_epochs else [solver]

    @property
    def problem(self) -> Problem:
        """The problem, with its coefficients."""
        return self.objective.problem

    @property
    def points(self) -> dict[str, Tensor]:
        """A copy of the present points ``[N, d]`` of each condition, by the condition's name."""
        return {term.name: term.x.detach().cpu().clone() for term in self.objective.terms}

    def _residuals(self, of_entries: bool) -> Any:
        from diffhash.optim.residuals import Residuals  # importing SciPy is slow

        return Residuals(self.objective, self.field, self._plans, of_entries)

    @property
    def _present_chunk(self) -> int:
        """The number of epochs between two evaluations; at least `_ADAM_CHUNK` in epochs of Adam
        before another optimizer."""
        before_another = self.solver is not None and self.epochs_done < self._adam_epochs
        return max(self.chunk, _ADAM_CHUNK) if before_another else self.chunk

    @property
    def _adam_epochs(self) -> int:
        return self.epochs if self.solver is None else self.solver.adam_epochs

    def _trained(self) -> list[torch.nn.Parameter]:
        return [*self.field.parameters(), *self.objective.problem.parameters()]

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        # The points are in the objective; Lightning only counts chunks.
        return DataLoader(TensorDataset(torch.zeros(1)))

    def on_train_start(self) -> None:
        start = time.perf_counter()
        self._n_processes = self.trainer.world_size
        check_devices_of_moving(self._sampler, self._weighting, self._n_processes)
        params = self.field.network.params
        if self._moving is not None:
            self._moving.prepare(params.shape[:-1], params.dtype, self.epochs_done)
        if self._n_processes > 1:
            self._share = self.objective.shard(self.global_rank, self._n_processes)
        if self.derivatives == "taylor":
            in_parts = self.batch_size is not None
            self._plans = [
                self.field.plan(term.x, term.rows, in_parts) for term in self._share.terms
            ]
        for term in self._share.terms:
            term.in_dtype(params.dtype)  # convert once, before the step is compiled
        self.evaluation.prepare(self.field, self.device)
        if self._has_ended():  # a resumed run without further epochs is only evaluated
            self.trainer.should_stop = True
        else:
            self._prepare_steps()
        self.warmup_seconds += self._seconds_since(start)

    def _prepare_steps(self) -> None:
        """Make the step of Adam, or of the optimizer after it."""
        self._steps_are_adams = self.epochs_done < self._adam_epochs
        optimizer = self._optimizer().optimizer
        if self._steps_are_adams:
            self._prepare_adam(optimizer)
            return
        assert self.solver is not None
        if self.solver.needs == "residuals":
            step: Step = ResidualStep(optimizer, self.field.network.params.dtype)
        elif self.solver.needs == "closure":
            step = ClosureStep(self._backward(), optimizer, self._parts)
            rows = self.replicas[0].history  # has rows in a resumed run
            step.evaluations = int(rows[-1].get("evaluations", 0)) if rows else 0
        else:
            step = GradientStep(self._backward(), optimizer, self._reduce)
            if self._moving is not None:
                self._moving.begin()
        self._eager = self._step = step

    def _prepare_adam(self, optimizer: Optimizer) -> None:
        assert isinstance(optimizer, LeanAdam)
        optimizer.set_captured(self.execution == "cudagraph")
        if self._moving is not None:
            self._moving.begin()
        eager = EagerStep(self._backward(), optimizer, self._reduce)
        self._eager = self._step = eager
        if self.execution != "eager":  # an eager execution makes this check in its first step
            eager.backward()
            optimizer.forget_gradients()
        match self.execution:
            case "compile":
                self._step = CompiledStep(self._loss, optimizer, self._reduce)
            case "cudagraph":
                self._step = GraphedStep(self._loss, optimizer)
        if self._step is not eager:
            self._step.prepare()

    def _backward(self) -> Backward:
        backward = autograd(self._loss)
        if self._plans:
            backward = self._planned = PlannedBackward(self._share, self._plans)
        return checked_once(backward, self)

    @property
    def _reduce(self) -> Callable[[Tensor], None] | None:
        return self._sum_over_processes if self._n_processes > 1 else None

    def training_step(self, batch: Tensor, batch_idx: int) -> None:
        """Run one chunk of epochs, then evaluate."""
        if self._steps_are_adams and self.epochs_done >= self._adam_epochs:
            self._prepare_steps()
        optimizer = self._optimizer()
        end, chunk = self.epochs, self._present_chunk
        if self._steps_are_adams:
            end = min(end, self._adam_epochs)
        # After an interruption inside a chunk, the next evaluation is at the end of that chunk, as
        # without the interruption.
        n_epochs = min(chunk - self.epochs_done % chunk, end - self.epochs_done)
        losses: list[Tensor] = []
        weights: dict[str, float] = {}
        start = self._chunk_start = time.perf_counter()
        alone = self._n_processes == 1  # several processes stop together, later
        # Conditions that are the same for all steps are evaluated once: small steps take 0.5 ms.
        is_timed = alone and self.max_seconds is not None
        solver = self._step if isinstance(self._step, ClosureStep | ResidualStep) else None
        for index in range(n_epochs):
            if self._moving is not None:
                self._moving.before_epoch(self.epochs_done + index, self._move)
            rate = self.rate(self.epochs_done + index)
            if is_timed and self._time_spent >= 1:
                self.ended_by = "max_seconds"
            asked = alone and (self.stop_requested or self.ended_by is not None)
            last = index == n_epochs - 1 or asked
            for rows in self._batches():
                # The last step is eager, because only an eager step gives the loss of each term.
                # Lightning's wrapper around it, which counts chunks, costs as much as a small step.
                loss = self._eager(rate, rows, optimizer.step) if last else self._step(rate, rows)
                if self._moving is not None:
                    weights = self._moving.weights() if last else {}
                    self._moving.after_step(rows)
            losses.append(loss)
            if solver is not None and solver.has_ended:
                self.ended_by = "optimizer"
            asked = self.stop_requested or self.ended_by is not None
            if last or (alone and asked and self._step is self._eager):
                break
        values = torch.stack(losses).reshape(len(losses), -1).T.tolist()
        self.train_seconds += self._seconds_since(start)
        others = {f"weight_{name}": weight for name, weight in weights.items()}
        if isinstance(self._step, ClosureStep):
            others["evaluations"] = self._step.evaluations
        self._record(values, others)
        self._look_at_limits()
        if self._has_ended() or self._asked_to_stop():
            self.trainer.should_stop = True

    def on_train_end(self) -> None:
        # Here and not after fit: Lightning moves the module off its device when it tears down.
        start = time.perf_counter()
        with torch.no_grad():
            loss = self._loss(None)
        if self._n_processes > 1:
            torch.distributed.all_reduce(loss)
        results = zip(
            loss.reshape(-1).tolist(),
            self.evaluation.metrics(),
            self.evaluation.jets(),
            self._estimate.values(self.field, self._jet),
            strict=True,
        )
        outcomes = diagnosed(
            *(self._estimate, self.field, self._jet),
            *([Outcome(*values) for values in results], self._undetermined),
            self._has_ended_by_itself,
        )
        for replica, outcome in zip(self.replicas, outcomes, strict=True):
            replica.finish(outcome)
        self.evaluation_seconds += self._seconds_since(start)

    def _undetermined(self) -> Sequence[str]:
        """The names of what the conditions do not determine, of an optimizer that knows them."""
        find = getattr(self._optimizer().optimizer, "undetermined", None)
        if find is None:
            return []
        x = torch.cat([term.x for term in self._estimate.terms()])
        return find(x, lambda: self._estimate.errors(self._jet))

    @property
    def _has_ended_by_itself(self) -> bool | None:
        """Whether the optimizer has ended by itself before its epochs or seconds were over; None if
        it never does, or was stopped otherwise."""
        if self.solver is None or self.solver.needs != "residuals":
            return None
        if self.ended_by == "optimizer":
            return True
        is_over = self.ended_by is None and self.epochs_done >= self.epochs
        return False if is_over or self.ended_by == "max_seconds" else None

    def _has_ended(self) -> bool:
        everything_diverged = all(r.diverged_epoch is not None for r in self.replicas)
        ended = self.epochs_done >= self.epochs or everything_diverged
        return ended or self.ended_by is not None

    @property
    def _time_spent(self) -> float:
        """The elapsed fraction of `max_seconds`."""
        assert self.max_seconds is not None
        seconds = self.train_seconds + time.perf_counter() - self._chunk_start
        return seconds / self.max_seconds

    def _look_at_limits(self) -> None:
        """After a chunk, end training if the error is small enough or the time is over."""
        if self.tolerance is not None and self.ended_by is None:
            start = time.perf_counter()
            estimates = self._estimate.values(self.field, self._jet)
            self.evaluation_seconds += self._seconds_since(start)
            if max(estimates) <= self.tolerance:
                self.ended_by = "tolerance"
        if self.max_seconds is not None and self.ended_by is None:
            late = torch.tensor(float(self.train_seconds >= self.max_seconds), device=self.device)
            if self._n_processes > 1:
                torch.distributed.all_reduce(late)
            if late.item():
                self.ended_by = "max_seconds"

    def _record(self, losses: list[list[float]], others: Mapping[str, float]) -> None:
        """Evaluate after a chunk, and add a row to each history. ``losses`` has for each replica
        the loss of every epoch; ``others`` has further columns."""
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
                *(self.train_seconds, others),
            )
        if len(self.replicas) == 1:
            self.epochs_done = self.replicas[0].epochs_done

    def _latest_parts(self) -> list[dict[str, float]]:
        """The contribution of each term to the loss of the latest step, for each replica."""
        step = self._step
        parts = step.parts if isinstance(step, ClosureStep | ResidualStep) else self._parts()
        values = torch.stack([part.reshape(-1) for part in parts], dim=1)
        if self._n_processes > 1:
            torch.distributed.all_reduce(values)
        names = [term.name for term in self.objective.terms]
        return [dict(zip(names, row, strict=True)) for row in values.tolist()]

    def _parts(self) -> list[Tensor]:
        """The contribution of each term to the latest loss that was computed with gradients."""
        return (self._planned or self._share).parts

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
        """Refuse points that move where a compiled or captured step would read the old points."""
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
        """Move a term to other points, and update everything that is computed from its points."""
        term = self.objective.terms[index]
        check_points_of_sampler(self._sampler, term.name, x, term.x.shape)
        term.move(x)
        term = self._share.terms[index]
        term.update_shard()
        if self._plans:
            self._plans[index].move(term.x)
        if self._planned is not None:
            self._planned.update(index)

    def _batches(self) -> Sequence[Rows]:
        """Rows of every term for each optimizer step of an epoch; [None] for one full batch."""
        if self.batch_size is None:
            return [None]
        largest = max(len(term) for term in self.objective.terms)
        n_steps = -(-largest // (self.batch_size * self._n_processes))
        per_term = [self._shuffled(len(term), n_steps) for term in self._share.terms]
        return [list(rows) for rows in zip(*per_term, strict=True)]

    def _shuffled(self, n_points: int, n_steps: int) -> tuple[Tensor, ...]:
        """Divide the shuffled points of a term over the steps of an epoch, each point once. If
        there are fewer points than steps, points are shuffled again and reused, so that every step
        has a point."""
        rounds = -(-n_steps // n_points)
        rows = [torch.randperm(n_points, generator=self._shuffle) for _ in range(rounds)]
        return torch.cat(rows).to(self.device).tensor_split(n_steps)

    def rate(self, epoch: int) -> float:
        """The learning rate of the epoch after ``epoch`` epochs, read as that epoch begins."""
        by_rate = self.solver is None or self.solver.needs == "gradient"
        end = self.epochs if by_rate else self._adam_epochs
        if self.schedule == "constant" or epoch >= end:
            return self.learning_rate
        if self.max_seconds is None or self._n_processes > 1 or not by_rate:
            return cosine(self.learning_rate, epoch, end)
        return cosine(self.learning_rate, min(1.0, max(epoch / end, self._time_spent)), 1)

    def _sum_over_processes(self, loss: Tensor) -> None:
        """Sum gradients and losses over processes; each process has a part of every term's mean."""
        gradients = [p.grad for p in self._trained() if p.grad is not None]
        for tensor in (*gradients, loss):
            torch.distributed.all_reduce(tensor)

    def _asked_to_stop(self) -> bool:
        """Whether a stop was requested in any process."""
        if self._n_processes == 1:
            return self.stop_requested
        asked = torch.tensor(float(self.stop_requested), device=self.device)
        torch.distributed.all_reduce(asked)
        self.stop_requested = asked.item() > 0
        return self.stop_requested

    def _optimizer(self) -> LightningOptimizer:
        optimizers = self.optimizers()
        optimizer = optimizers
        if isinstance(optimizers, list):
            optimizer = optimizers[0 if self._steps_are_adams else -1]
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
        if self.epochs_done < self.epochs and self.epochs_done != self._adam_epochs:
            for replica in self.replicas:
                replica.forget_row_between(self._present_chunk)


def cosine(learning_rate: float, epoch: float, epochs: int) -> float:
    """The rate after ``epoch`` of ``epochs``: learning_rate · (1 + cos(π·epoch/epochs))/2."""
    return learning_rate * (1 + math.cos(math.pi * epoch / epochs)) / 2
