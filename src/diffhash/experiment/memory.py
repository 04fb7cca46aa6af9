"""The memory that a run needs, estimated before it is allocated."""

from __future__ import annotations

import torch
from omegaconf import DictConfig

from diffhash.encodings import Encoding, GridEncoding
from diffhash.experiment import checks
from diffhash.experiment.checks import ConfigError
from diffhash.networks import Field
from diffhash.optim import Objective
from diffhash.training.windows import n_windows

_BYTES_PER_COORDINATE = 256  # of points, targets, and tensors for their derivatives
_LOWER = {  # the settings on which each part depends
    "parameters": "log2_hashmap_size, n_levels, n_features_per_level, width, seeds or windows",
    "the points of the task": "the numbers of points in task",
    "plans of points": "the numbers of points in task, evaluation_points or n_levels",
    "states of the network": "the numbers of points in task, width, depth or batch_size",
    "the evaluation": "evaluation_points or seeds",
}


def check_points(setting: str, n_points: int, n_dims: int, accelerator: str) -> None:
    """Refuse more points than memory can hold, at 256 bytes for each coordinate.

    Raises:
        ConfigError: there are too many points; the message names the setting and the largest
            number.
    """
    needed = _BYTES_PER_COORDINATE * n_dims * n_points
    memory, where = checks.memory_of(accelerator)
    if needed > memory:
        most = memory // (_BYTES_PER_COORDINATE * n_dims)
        raise ConfigError(
            f"{setting}={n_points}: needs more memory than there is, at least {_gib(needed)} of "
            f"{_gib(memory)} that {where} has: allowed are up to {most}"
        )


def check_run(cfg: DictConfig, field: Field, objective: Objective, accelerator: str) -> None:
    """Refuse a run that needs more memory than there is.

    With s bytes a number, R seeds of P parameters each, W windows, terms of N points whose jets
    have K rows, a grid of L levels with T taps to a point, and layers of C_i units, it needs at
    least, in bytes:

    - parameters of all windows, with gradients and Adam's moments for one: (3 + W) s R P;
    - points of the terms: 8 Σ N (d + 1 + K);
    - plans, if a grid stores its weights: Σ N L T (4 + s K), over the evaluation and the terms
      (min(N, batch_size) of their points);
    - states of the network: s R Σ min(N, batch_size) K Σ C_i, over the terms that are not linear
      in u, or not in a kernel;
    - evaluation: N K R (s C_0 + 8).

    Raises:
        ConfigError: the message names the settings on which the largest part depends.
    """
    trainer, n_dims, widths = cfg.trainer, field.encoding.n_input_dims, field.network.widths
    replicas, batch_size = field.n_replicas or 1, trainer.batch_size
    n_parameters = sum(p.numel() for p in field.parameters())
    s = torch.finfo(field.network.params.dtype).bits // 8
    terms = [(len(term.x), len(term.rows), term.coefficients) for term in objective.terms]
    n_evaluation, k_evaluation = trainer.evaluation_points, len(objective.problem.rows)
    planned = [(n_evaluation, k_evaluation)]
    is_planned = trainer.derivatives.value == "taylor"
    if is_planned:
        planned += [(min(n, batch_size or n), k) for n, k, _ in terms]
    in_kernel = is_planned and accelerator == "cpu" and not field.network.has_skip
    states = sum(
        min(n, batch_size or n) * k * sum(widths)
        for n, k, coefficients in terms
        if coefficients is None or not in_kernel
    )
    parts = {
        "parameters": (3 + n_windows(trainer.windows)) * s * n_parameters,
        "the points of the task": 8 * sum(n * (n_dims + 1 + k) for n, k, _ in terms),
        "plans of points": sum(_kept(field.encoding, n, k) for n, k in planned),
        "states of the network": s * replicas * states,
        "the evaluation": replicas * n_evaluation * k_evaluation * (s * widths[0] + 8),
    }
    needed, (memory, where) = sum(parts.values()), checks.memory_of(accelerator)
    if needed > memory:
        largest = max(parts, key=lambda name: parts[name])
        sizes = {f"task.{k}": v for k, v in cfg.task.items() if isinstance(v, int)}
        sizes["trainer.evaluation_points"] = n_evaluation
        raise ConfigError(
            f"{', '.join(f'{k}={v}' for k, v in sizes.items())}: training needs at least "
            f"{_gib(needed)}, {_gib(parts[largest])} of it for {largest}; {where} has "
            f"{_gib(memory)}: lower {_LOWER[largest]}"
        )


def _kept(encoding: Encoding, n_points: int, n_rows: int) -> int:
    """The bytes that a plan of a grid stores; those of other backends are not counted."""
    return encoding.planned_bytes(n_points, n_rows) if isinstance(encoding, GridEncoding) else 0


def _gib(n_bytes: int) -> str:
    return f"{n_bytes / 2**30:.1f} GiB"
