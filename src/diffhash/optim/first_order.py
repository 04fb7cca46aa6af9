"""Optimizers that make a step from the gradient, from torch or any other package."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.autograd.graph import increment_version
from torch.optim import Optimizer

from diffhash.encodings import GridEncoding
from diffhash.networks import Field
from diffhash.networks.taylor import split_layers
from diffhash.optim.settings import Needs, OptimizerSettings, check_positive
from diffhash.problems import Problem

PARTS = ("encoding", "network", "problem")


@dataclass(frozen=True)
class FirstOrder(OptimizerSettings):
    """Any of torch's optimizers, or one with its interface, in place of Adam.

    It gets the matrices and vectors that the parameters consist of, which some optimizers treat
    differently: a grid's table with a row for each vertex, the weights and the biases of each
    layer, coefficients.

    Args:
        make_optimizer: makes it from groups of parameters, as ``torch.optim.RAdam`` does.
        rates: for ``encoding``, ``network`` or ``problem``, what their learning rate is multiplied
            by; 1 for those that are not named.
        adam_epochs: epochs of Adam before.

    Raises:
        ValueError: an unknown part, or a factor out of range.
    """

    needs: ClassVar[Needs] = "gradient"
    make_optimizer: Callable[..., Optimizer] = torch.optim.AdamW
    rates: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, value in self.rates.items():
            if name not in PARTS:
                raise ValueError(f"optimizer: rates.{name}: give one of {', '.join(PARTS)}")
            check_positive(**{f"rates.{name}": value})

    def make(self, field: Field, problem: Problem, residuals: object) -> Optimizer:
        """The optimizer, of views of the parameters; see `Views`."""
        parts = {
            "encoding": [*field.encoding.parameters()],
            "network": [field.network.params],
            "problem": [*problem.parameters()],
        }
        groups = []
        for name, parameters in parts.items():
            views = [view for p in parameters for view in _views(p, field)]
            for is_matrix in (True, False):
                chosen = [view for view in views if (view.ndim == 2) == is_matrix]
                if chosen:
                    # Muon takes matrices of weights only, and must be told which they are.
                    own = {"use_muon": is_matrix and name == "network"}
                    groups.append({"params": chosen, "factor": self.rates.get(name, 1.0)} | own)
        return self.make_optimizer(groups)


def _views(parameter: nn.Parameter, field: Field) -> list[nn.Parameter]:
    """The matrices and vectors that lie in a parameter, as parameters of their own."""
    data, encoding = parameter.data, field.encoding
    parts = [data]
    if parameter is field.network.params:
        parts = [part for layer in split_layers(data, field.network.widths) for part in layer]
    elif isinstance(encoding, GridEncoding) and parameter is encoding.params:
        parts = [data.view(-1, encoding.n_features_per_level)]
    views = [nn.Parameter(part) for part in parts]
    for view in views:
        view.of = parameter  # type: ignore[attr-defined]
    return views


class Views:
    """The parameters that the views of what `FirstOrder` has made lie in."""

    def __init__(self, optimizer: Optimizer) -> None:
        self._groups = optimizer.param_groups
        views: dict[nn.Parameter, list[nn.Parameter]] = {}
        for group in self._groups:
            for view in group["params"]:
                views.setdefault(view.of, []).append(view)
        # As they lie in it.
        self._views = {p: sorted(parts, key=Tensor.data_ptr) for p, parts in views.items()}

    def forget_gradients(self) -> None:
        """Of the parameters."""
        for parameter in self._views:
            parameter.grad = None

    def hand_on_gradients(self) -> None:
        """Give the views the ``grad`` of their parameters."""
        for parameter, views in self._views.items():
            if parameter.grad is not None:
                pieces = parameter.grad.flatten().split([view.numel() for view in views])
                for view, piece in zip(views, pieces, strict=True):
                    view.grad = piece.view(view.shape)

    def tell_changes(self) -> None:
        """Mark the parameters as changed by a step, for autograd."""
        increment_version([*self._views])

    def set_rate(self, rate: float) -> None:
        """The learning rate of the next step."""
        for group in self._groups:
            group["lr"] = rate * group["factor"]
