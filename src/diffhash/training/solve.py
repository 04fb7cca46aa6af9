"""Problem in, solution out."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from copy import deepcopy
from typing import Literal

import torch
from lightning.pytorch.callbacks import Callback

from diffhash._warnings import warn
from diffhash.networks import Field
from diffhash.ops.sizes import check_sizes
from diffhash.optim import LBFGS, GaussNewton, OptimizerSettings, SSBroyden, Task
from diffhash.problems import Problem
from diffhash.training.callbacks import GracefulStop, ProgressReport
from diffhash.training.evaluation import Evaluation
from diffhash.training.fields import like_field
from diffhash.training.fit import choose_accelerator, fit
from diffhash.training.guards import periodic_axes
from diffhash.training.module import FieldTraining, Schedule
from diffhash.training.samplers import Sampler
from diffhash.training.solution import Solution, check_problem, copy_problem, solution_of
from diffhash.training.weightings import Weighting
from diffhash.training.windowed import WindowedTraining, first_window
from diffhash.training.windows import WindowedField

OPTIMIZERS: dict[str, type[OptimizerSettings] | None] = {
    "adam": None,
    "lbfgs": LBFGS,
    "ssbroyden": SSBroyden,
    "gauss_newton": GaussNewton,
}
_is_terminated = False  # whether SIGTERM has arrived while training


@torch.enable_grad()
def solve(
    problem: Problem,
    field: Field | None = None,
    *,
    task: Task | None = None,
    epochs: int = 5000,
    learning_rate: float = 1e-2,
    betas: tuple[float, float] = (0.9, 0.9),
    schedule: Schedule = "cosine",
    chunk: int | None = None,
    batch_size: int | None = None,
    evaluation_points: int = 10_000,
    sampler: Sampler | None = None,
    weighting: Weighting | None = None,
    optimizer: OptimizerSettings | Literal["adam", "lbfgs", "ssbroyden", "gauss_newton"] = "adam",
    max_seconds: float | None = None,
    tolerance: float | None = None,
    windows: int | Sequence[float] = 1,
    seed: int = 0,
    accelerator: Literal["auto", "cpu", "gpu"] = "auto",
    callbacks: Sequence[Callback] = (),
    progress: bool = True,
) -> Solution:
    """Train a field to satisfy a problem's conditions; ``train.py`` does the same from a config.

    >>> from diffhash.problems import Poisson1D
    >>> solution = solve(Poisson1D(), epochs=20, evaluation_points=100, progress=False)
    >>> solution(torch.tensor([[0.25]])).shape
    torch.Size([1, 1])

    Args:
        problem: the problem, of which a copy is solved. The coefficients of the copy are trained as
            well: `Solution.problem` has the values that were found.
        field: the field that training begins with, of which a copy is trained; None for
            `default_field`.
        task: the numbers of points and the weights of the conditions; None for ``Task()``, with
            8192 points of each equation, 2048 of each condition on the boundary, and weights by the
            size of each residual.
        epochs: the number of passes over the points; with full batches each is one step.
        learning_rate: the learning rate at the start, of Adam and of other optimizers that need the
            gradient alone, whatever they would take by themselves.
        betas: β₁ and β₂ of Adam; see `diffhash.training.FieldTraining`.
        schedule: ``"cosine"``, which brings the learning rate to zero at the end, or
            ``"constant"``.
        chunk: the number of epochs between two evaluations; None for 100, and for 1 with
            `GaussNewton`.
        batch_size: the number of points of each condition that a step takes; None for all.
        evaluation_points: the number of points at which errors are computed.
        sampler: moves points while training; see `diffhash.training.samplers`. A copy of it is
            used, and likewise of ``weighting``.
        weighting: changes weights while training; see `diffhash.training.weightings`.
        optimizer: the settings of an optimizer, such as ``GaussNewton(adam_epochs=500)``, or its
            name. An optimizer of another package is ``FirstOrder(make_optimizer=…)``. L-BFGS,
            self-scaled Broyden and Gauss–Newton take few, costly epochs and end by themselves; they
            want a field in float64, which the default field then is.
        max_seconds: the seconds of training after which it stops; None for no limit.
        tolerance: training stops when the estimated relative error is below this number; None for
            no such limit. See `diffhash.training.ErrorEstimate`.
        windows: the number of windows of time of equal length that are solved one after the other,
            or the times between windows, such as ``[0.1, 0.5]`` for three of them. Each starts
            from the end of the one before, and has a field, ``epochs`` and ``max_seconds`` of its
            own; see `diffhash.training.windows`.
        seed: the seed of the default field and of minibatches.
        accelerator: ``"cpu"``, ``"gpu"``, or ``"auto"`` for a GPU where there is one and the
            optimizer needs the gradient alone: L-BFGS, self-scaled Broyden and Gauss–Newton compute
            on a CPU.
        callbacks: callbacks of Lightning.
        progress: whether progress is shown.

    Returns:
        The trained field with its history and errors. Where training diverged, or was interrupted
        by Ctrl-C or SIGTERM, a warning says so and the program goes on, so that it can save the
        solution: `Solution.interrupted` tells a loop of solutions to end. After SIGTERM the next
        call ends the program with the exit code 143 instead of training.

    Raises:
        ValueError: a setting is out of range or unknown, a condition cannot be evaluated, or an
            attribute of the problem cannot be copied.
        UntrainedError: no condition reads a coefficient, or no gradient reaches a parameter.
    """
    global _is_terminated
    if _is_terminated:
        _is_terminated = False
        print("terminated: no other training is started", file=sys.stderr)
        raise SystemExit(128 + signal.SIGTERM)
    check_problem(problem)
    if torch.is_inference_mode_enabled():
        raise ValueError(
            "solve: torch.inference_mode has no gradients to train by; call it outside"
        )
    if field is not None and not isinstance(field, Field):
        is_windowed = isinstance(field, WindowedField)
        advice = ", as solution.field.fields[-1], that of the last window" * is_windowed
        raise ValueError(f"field={type(field).__name__}: give a diffhash.Field{advice}")
    if not isinstance(task, Task | None):
        raise ValueError(f"task={task!r}: give a diffhash.optim.Task, as Task(n_residual=2000)")
    callbacks = [callbacks] if isinstance(callbacks, Callback) else list(callbacks)
    for callback in callbacks:
        if not isinstance(callback, Callback):
            raise ValueError(
                f"callbacks={callback!r}: give instances of lightning.pytorch.callbacks.Callback"
            )
    check_sizes(0, 2**63 - 1, seed=seed)
    settings = _optimizer(optimizer)
    if chunk is None:
        chunk = 1 if isinstance(settings, GaussNewton) else 100
    where = choose_accelerator(accelerator, settings)
    by_gradients = settings is None or settings.needs == "gradient"
    dtype = torch.float32 if by_gradients else torch.float64
    task = task or Task()

    def training_of(problem: Problem, field: Field) -> FieldTraining:
        return FieldTraining(
            field,
            task.objective(problem, periodic_axes(field)),
            Evaluation(problem, evaluation_points),
            epochs=epochs,
            learning_rate=learning_rate,
            betas=betas,
            schedule=schedule,
            chunk=chunk,
            batch_size=batch_size,
            seed=seed,
            sampler=deepcopy(sampler),
            weighting=deepcopy(weighting),
            optimizer=settings,
            max_seconds=max_seconds,
            tolerance=tolerance,
        )

    def run(training: FieldTraining, title: str) -> None:
        reports = [ProgressReport(title)] if progress else []
        fit(training, where, [*reports, *callbacks, stop])

    problem, field = copy_problem(problem, field)
    first, name = first_window(problem, windows), type(problem).__name__
    in_windows = first is not problem
    if field is None or in_windows:
        field = like_field(field, first, dtype, seed)
    training = training_of(first, field)
    if in_windows:
        evaluation = Evaluation(problem, evaluation_points)
        training = WindowedTraining(problem, windows, training, training_of, evaluation)
    with GracefulStop(training) as stop:
        if isinstance(training, FieldTraining):
            run(training, name)
        else:
            n = len(training.field.fields)
            training.fit(lambda one, k: run(one, f"{name}, window {k} of {n}"))
    _is_terminated = stop.is_terminated
    solution = solution_of(training)
    if solution.diverged_epoch is not None or solution.interrupted:
        warn(solution.title)
    elif progress:
        told = f", estimated {solution.estimate:.1e}" if problem.has_solution else ""
        print(f"{solution.title}{told}", file=sys.stderr)
    return solution


def _optimizer(given: OptimizerSettings | str) -> OptimizerSettings | None:
    if isinstance(given, OptimizerSettings):
        return given
    if not isinstance(given, str) or given not in OPTIMIZERS:
        name = getattr(given, "__name__", None)
        own = "GaussNewton() or FirstOrder(make_optimizer=torch.optim.RAdam)"
        if name is not None:  # a class, of ours or of any optimizer, or a function that makes one
            is_ours = isinstance(given, type) and issubclass(given, OptimizerSettings)
            own = f"{name}()" if is_ours else f"FirstOrder(make_optimizer={name})"
        raise ValueError(
            f"optimizer={name or repr(given)}: give one of {', '.join(OPTIMIZERS)}, or settings of "
            f"diffhash.optim, as {own}"
        )
    make = OPTIMIZERS[given]
    return None if make is None else make()
