"""Fields for a problem: with its domain, the names of its axes and unknowns, and its ansatz."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch

from diffhash.encodings import GridEncoding
from diffhash.networks import Field, Linear
from diffhash.problems import Problem


def problem_field(problem: Problem, encoding: Any, network: Any) -> Field:
    """Make a field of an encoding and a network with a problem's domain, names and ansatz."""
    return Field(encoding, network, problem.domain.bounds, problem.names, problem.ansatz)


def default_field(problem: Problem, dtype: torch.dtype = torch.float32, seed: int = 0) -> Field:
    """Make the field that `solve` uses if none is given, as ``recipe=pde`` does on a command line.

    It is a weighted sum of quintic B-splines on all levels of a grid that are dense, and is
    periodic along the problem's periodic axes. Its parameters start near 0, and at 0 where the
    problem has coefficients that are trained (`start_scale`).

    Args:
        problem: the problem that the field is for.
        dtype: the type of its parameters; float64 for optimizers other than Adam.
        seed: the seed of its first parameters.

    Raises:
        ValueError: the problem has no domain, or unknowns of the same name.
    """
    torch.manual_seed(seed)
    axes = problem.names.axes
    encoding = GridEncoding(
        problem.n_dims,
        n_levels=None,
        n_features_per_level=4,
        log2_hashmap_size=13,
        base_resolution=12,
        interpolation="quintic",
        periodic=[axes.index(axis) for axis in problem.periodic],
        init_scale=start_scale(problem),
        dtype=dtype,
    )
    network = Linear(encoding.n_output_dims, len(problem.unknowns), dtype=dtype)
    return problem_field(problem, encoding, network)


def start_scale(problem: Problem) -> float:
    """The ``init_scale`` of a grid for a problem: 0 where it has coefficients that are trained, and
    1e-3 elsewhere. From random values, first steps would fit coefficients to these instead of the
    data."""
    return 0.0 if any(p.requires_grad for p in problem.parameters()) else 1e-3


def like_field(field: Field | None, problem: Problem, dtype: torch.dtype, seed: int = 0) -> Field:
    """A field of the problem with the encoding and the network of another, or the default one."""
    if field is None:
        return default_field(problem, dtype, seed)
    return problem_field(problem, *map(deepcopy, (field.encoding, field.network)))
