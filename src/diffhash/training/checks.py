"""Checks before training that settings are allowed and go together."""

from __future__ import annotations

import math
from collections.abc import Iterable
from numbers import Real
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.optim import Optimizer

from diffhash._warnings import warn
from diffhash.networks import Field
from diffhash.ops.sizes import MAX_POINTS, check_sizes
from diffhash.optim import OptimizerSettings
from diffhash.optim.settings import MAX_EPOCHS, Needs
from diffhash.problems import Coefficient, Problem
from diffhash.training.samplers import Sampler
from diffhash.training.weightings import Weighting

Schedule = Literal["constant", "cosine"]
_READ: dict[Needs, tuple[str, ...]] = {  # attributes of optimizers, by what they need
    "gradient": (),
    "closure": ("has_ended",),
    "residuals": ("has_ended", "loss", "parts"),
}
_NEAR_1 = 1e-3, 1e3  # sizes of coefficients that steps of the learning rate's size can find
_MAX_CHUNK = 10**6  # epochs, whose losses are in memory until the chunk ends


def check_moving(
    sampler: Sampler | None,
    weighting: Weighting | None,
    batch_size: int | None,
    replicas: int | None,
) -> None:
    """Refuse a sampler or weighting that needs the errors of a single field where there are several
    fields, or the errors of all points where a step has a minibatch."""
    for name, value, kind, example in (
        ("sampler", sampler, Sampler, "Resample(every=100)"),
        ("weighting", weighting, Weighting, "GradientNorm()"),
    ):
        if value is not None and not isinstance(value, kind):
            raise ValueError(
                f"{name}={value!r}: give an instance of diffhash.training.{name}s, as {example}"
            )
    if weighting is not None and batch_size is not None and not weighting.takes_minibatches:
        raise ValueError(
            f"weighting={type(weighting).__name__}: needs the errors of all points at every step, "
            f"batch_size={batch_size} has those of some; leave batch_size out"
        )
    if replicas is not None and (name := _of_one_field(sampler, weighting)):
        raise ValueError(
            f"{name}: follows the errors of one field, {replicas} seeds have several; train them "
            "one by one"
        )


def check_epochs_of_moving(
    sampler: Sampler | None, weighting: Weighting | None, epochs: int
) -> None:
    """Warn if there are too few epochs for points to move, or for all points to be weighed."""
    if sampler is not None and sampler.every >= epochs:
        warn(
            f"sampler={type(sampler).__name__}: with every={sampler.every} and epochs={epochs} the "
            "points stay where they are; give fewer epochs between draws, or more in all"
        )
    if weighting is not None and weighting.epochs_to_reach_all >= epochs:
        warn(
            f"weighting={type(weighting).__name__}: all points are weighed only after "
            f"{weighting.epochs_to_reach_all} epochs, and there are epochs={epochs}, so that some "
            "are never trained on; let it come to all of them sooner, or give more epochs in all"
        )


def check_points_of_sampler(sampler: object, name: str, x: object, shape: torch.Size) -> None:
    """Raise `ValueError` if what a sampler returns for the condition ``name`` is not as many points
    in float64; ``shape`` is that of the present ones."""
    if isinstance(x, Tensor) and x.dtype == torch.float64 and x.shape == shape:
        return
    got = f"{x.dtype} of shape {list(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
    raise ValueError(
        f"sampler={type(sampler).__name__}: its new points of {name} are {got}; give a tensor as "
        f"term.x is, torch.float64 of shape {list(shape)}"
    )


def check_optimizer(
    optimizer: OptimizerSettings,
    field: Field,
    *,
    batch_size: int | None,
    derivatives: str,
    execution: str,
    sampler: Sampler | None,
    weighting: Weighting | None,
) -> None:
    """Refuse settings that only Adam takes."""
    name, needs = f"optimizer={type(optimizer).__name__}", optimizer.needs
    given: dict[str, tuple[object, str | None]] = {"execution": (execution, "eager")}
    if needs != "gradient":  # other optimizers need the same points and weights at every step
        given |= {
            "batch_size": (batch_size, None),
            "sampler": (sampler and type(sampler).__name__, None),
            "weighting": (weighting and type(weighting).__name__, None),
        }
    if needs == "residuals":
        given["derivatives"] = derivatives, "taylor"
    for setting, (value, allowed) in given.items():
        if value != allowed:
            advice = f"needs {setting}={allowed}"
            if allowed is None:
                advice = f"needs the same points and weights at every step; leave {setting} out"
            raise ValueError(f"{setting}={value}: {name} {advice}")
    if field.n_replicas is not None:
        raise ValueError(f"{name}: trains one field; give seed, and run several one by one")
    if needs != "gradient" and field.network.params.device.type != "cpu":
        raise ValueError(f"{name}: solves on a CPU; give accelerator=cpu")
    if needs != "gradient" and field.network.params.dtype != torch.float64:
        warn(
            f"{name}: in float32 its steps stop early, at the round-off of the loss; make the "
            "field with dtype=torch.float64, on the command line with trainer.precision=float64"
        )


def check_starts(problem: Problem, optimizer: OptimizerSettings | None) -> None:
    """Warn of a coefficient whose start is so large or small that steps as large as the learning
    rate, those of Adam and other optimizers by the gradient alone, cannot find it."""
    if optimizer is not None and optimizer.needs != "gradient" and not optimizer.adam_epochs:
        return
    for name, p in problem.named_parameters():
        if not isinstance(p, Coefficient) or not p.requires_grad or p.start == 0:
            continue
        if not _NEAR_1[0] <= abs(p.start) <= _NEAR_1[1]:
            warn(
                f"{name} starts at {p.start:g}, but Adam and other optimizers by the gradient "
                "change it by about the learning rate at each step, whatever its size: write it as "
                f"a multiple, {p.start:g} * self.{name} in the residuals with self.{name} = "
                "Coefficient(1.0)"
            )


def check_made(settings: OptimizerSettings, made: object) -> None:
    """Raise `ValueError` if ``made`` is no optimizer or lacks an attribute that its steps read."""
    name, kind = f"optimizer={type(settings).__name__}", type(made).__name__
    if not isinstance(made, Optimizer):
        raise ValueError(f"{name}: its method make returns {kind}; give a torch.optim.Optimizer")
    if missing := [read for read in _READ[settings.needs] if not hasattr(made, read)]:
        raise ValueError(
            f"{name}: with needs={settings.needs!r} training reads {', '.join(missing)}, which the "
            f"{kind} that it makes has not; give it such attributes"
        )


def _of_one_field(sampler: Sampler | None, weighting: Weighting | None) -> str | None:
    """The name of a setting that needs the errors of a single field at all points, or None."""
    if weighting is not None:
        return f"weighting={type(weighting).__name__}"
    if sampler is not None and sampler.reads_errors:
        return f"sampler={type(sampler).__name__}"
    return None


def check_devices_of_moving(
    sampler: Sampler | None, weighting: Weighting | None, n_processes: int
) -> None:
    """Raise `ValueError` for a sampler or weighting that cannot run in several processes, which
    divide the points."""
    if n_processes > 1 and (name := _of_one_field(sampler, weighting)):
        raise ValueError(
            f"{name}: follows the errors at all points, devices={n_processes} share them out; use 1"
        )


def check_settings(
    epochs: int,
    learning_rate: float,
    betas: tuple[float, float],
    chunk: int,
    batch_size: int | None,
    max_seconds: float | None,
    tolerance: float | None,
    schedule: str,
) -> None:
    """Refuse numbers out of range, and a schedule that does not exist."""
    pair = list(betas) if isinstance(betas, Iterable) else []
    if len(pair) != 2 or not all(isinstance(beta, Real) and 0 <= beta < 1 for beta in pair):
        raise ValueError(
            f"betas={pair or betas}: give two numbers of at least 0 and below 1, as [0.9, 0.999]"
        )
    check_sizes(1, MAX_EPOCHS, epochs=epochs)
    check_sizes(1, _MAX_CHUNK, chunk=chunk)
    if batch_size is not None:
        check_sizes(1, MAX_POINTS, batch_size=batch_size)
    if schedule not in get_args(Schedule):
        raise ValueError(f"schedule={schedule!r}: give {' or '.join(get_args(Schedule))}")
    for name, value in {
        "learning_rate": learning_rate,
        "max_seconds": max_seconds,
        "tolerance": tolerance,
    }.items():
        if value is not None and not (isinstance(value, Real) and 0 < float(value) < math.inf):
            raise ValueError(f"{name}={value!r}: give a positive number")
