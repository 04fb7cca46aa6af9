"""Short training with every kind of kernel; any output of a sanitizer meanwhile is a fault."""

from __future__ import annotations

import itertools
from typing import Any

import torch

from diffhash import MLP, SIREN, Field, FourierFeatures, GridEncoding, Identity
from diffhash.encodings import Encoding
from diffhash.geometry import Box, Interval
from diffhash.networks import stack_fields
from diffhash.optim import Task
from diffhash.problems import Condition, Problem
from diffhash.training.adam import LeanAdam
from diffhash.training.planned import PlannedBackward

ENCODERS = ("identity", "fourier", "linear", "s2", "cubic", "quintic")
ACTIVATIONS = ("tanh", "silu", "gelu", "softplus", "sine")


def _encoding(name: str, d: int, dtype: torch.dtype, seed: int) -> Encoding:
    if name == "identity":
        return Identity(d, dtype=dtype)
    if name == "fourier":
        return FourierFeatures(d, 3, dtype=dtype, seed=seed)
    features = {"linear": 2, "s2": 1, "cubic": 4, "quintic": 3}[name]
    sizes = {"n_levels": 3, "log2_hashmap_size": 4, "base_resolution": 3}
    return GridEncoding(d, **sizes, n_features_per_level=features, interpolation=name, seed=seed)


def _field(encoder: str, d: int, activation: str, dtype: torch.dtype, seed: int) -> Field:
    torch.manual_seed(seed)
    encoding = _encoding(encoder, d, dtype, seed).to(dtype)
    n = encoding.n_output_dims
    if activation == "sine":
        network = SIREN(n, width=11, depth=2, dtype=dtype)
    else:
        network = MLP(n, width=11, depth=2, activation=activation, dtype=dtype)
    return Field(encoding, network, [(0.0, 2.0)] * d, _Mixed(d).names)


class _Mixed(Problem):
    """One condition that is linear in u and one that is not, of mixed derivatives in 2-D."""

    def __init__(self, n_dims: int) -> None:
        super().__init__()
        self.domain = Box(x=(0, 2), y=(0, 2)) if n_dims == 2 else Interval(x=(0, 2))

    def conditions(self) -> list[Condition]:
        return [
            Condition("linear", self.domain, self._linear, 1.0),
            Condition("other", self.domain, lambda x, d: d.u**3 + d.u_xx, 1.0),
        ]

    def _linear(self, x: torch.Tensor, d: Any) -> torch.Tensor:
        first = d.u + d.u_x + d.u_xx
        return first if x.shape[1] == 1 else first + d.u_xxy + d.u_xy + 0.3 * d.u_yyy


def train(field: Field, d: int, n_points: int) -> torch.Tensor:
    """Take three steps over a term in one kernel and a term through jets; then a jet alone."""
    objective = Task(n_residual=n_points).objective(_Mixed(d))
    plans = [field.plan(term.x, term.rows) for term in objective.terms]
    backward = PlannedBackward(objective, plans)
    x, rows = objective.terms[0].x, objective.terms[0].rows
    optimizer = LeanAdam(list(field.parameters()), captured=False)
    optimizer.set_rate(1e-3)
    for _ in range(3):
        optimizer.forget_gradients()
        loss = backward()
        optimizer.lean_step()
    jet = field.jet(x.to(field.network.params.dtype), rows).data
    jet.square().sum().backward()
    return torch.cat([loss.flatten(), jet.detach().flatten()])


if __name__ == "__main__":
    torch.use_deterministic_algorithms(True, warn_only=True)  # fills new memory with NaN
    n_runs = 0
    for encoder, d, dtype in itertools.product(ENCODERS, (1, 2), (torch.float32, torch.float64)):
        if d == 2 and encoder == "quintic" and dtype == torch.float64:
            continue  # large to compile; its code is that of the others
        for activation in ACTIVATIONS if encoder == "identity" else ("tanh",):
            for threads, n_points, n_replicas in ((1, 1, 1), (3, 1300, 1), (2, 45, 3)):
                torch.set_num_threads(threads)
                fields = [_field(encoder, d, activation, dtype, s) for s in range(n_replicas)]
                field = fields[0] if n_replicas == 1 else stack_fields(fields)
                assert train(field, d, n_points).isfinite().all(), (encoder, d, activation)
                n_runs += 1
    print(f"{n_runs} short trainings")
