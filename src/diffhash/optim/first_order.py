"""Optimizers that make a step from the gradient, from torch or any other package."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.autograd.graph import increment_version
from torch.optim import Optimizer

from diffhash.encodings import GridEncoding
from diffhash.networks import Field
from diffhash.optim.settings import Needs, OptimizerSettings, check_positive
from diffhash.problems import Problem

PARTS = ("encoding", "network", "problem")


@dataclass(frozen=True)
class FirstOrder(OptimizerSettings):
    """An optimizer of torch, or one with the interface of torch's, in place of Adam.

    It needs the gradient alone, and takes groups of parameters with matrices and vectors in them:
    ``torch.optim.Muon`` takes matrices alone, `LBFGS` is torch's L-BFGS. The parameters are passed
    to it as separate matrices and vectors, which some optimizers treat differently: a grid's table
    with a row for each vertex, the weights and the biases of each layer, and the coefficients of
    the problem.

    >>> settings = FirstOrder(make_optimizer=torch.optim.RAdam, rates={"network": 0.5})

    Args:
        make_optimizer: a class such as ``torch.optim.RAdam``, or a function, that makes the
            optimizer from a list of groups of parameters. Each group holds ``params``, the
            ``factor`` of its learning rate and ``use_muon``, which is true for matrices of weights.
            Training sets the learning rate before each step, from its own setting and schedule.
        rates: factors of the learning rate for ``"encoding"``, ``"network"`` and ``"problem"``; 1
            for each that is not named.
        adam_epochs: the number of epochs of Adam before the first step of this optimizer.

    Raises:
        ValueError: `make_optimizer` cannot be called or sets ``lr``, a part is unknown, or a factor
            is out of range. `make` raises it if `make_optimizer` does not take groups of
            parameters.
    """

    needs: ClassVar[Needs] = "gradient"
    make_optimizer: Callable[..., Optimizer] = torch.optim.AdamW
    rates: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not callable(self.make_optimizer):
            raise ValueError(
                f"optimizer: make_optimizer={self.make_optimizer!r}: give a class of optimizers, "
                "as torch.optim.RAdam, on the command line "
                "optimizer.make_optimizer._target_=torch.optim.RAdam"
            )
        lr = getattr(self.make_optimizer, "keywords", {}).get("lr")  # of functools.partial
        if lr is not None:
            raise ValueError(
                f"optimizer: make_optimizer: lr={lr}: training sets the learning rate at each "
                "step; give learning_rate, on the command line trainer.learning_rate"
            )
        if not isinstance(self.rates, Mapping):
            raise ValueError(
                f"optimizer: rates={self.rates!r}: give a factor for each part by name"
            )
        for name, value in self.rates.items():
            if name not in PARTS:
                raise ValueError(f"optimizer: rates.{name}: give one of {', '.join(PARTS)}")
            check_positive(**{f"rates.{name}": value})

    @property
    def name(self) -> str:
        """The name of the class or the function that makes the optimizer."""
        make: Any = self.make_optimizer
        make = make.func if isinstance(make, functools.partial) else make
        return getattr(make, "__name__", "FirstOrder")

    def make(self, field: Field, problem: Problem, residuals: object) -> Optimizer:
        """Make the optimizer, of views of the parameters; see `Views`."""
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
                    # Muon takes matrices of weights only, which `use_muon` marks.
                    own = {"use_muon": is_matrix and name == "network"}
                    groups.append({"params": chosen, "factor": self.rates.get(name, 1.0)} | own)
        try:
            return self.make_optimizer(groups)
        except (TypeError, ValueError) as error:
            advice = "; L-BFGS is optimizer=lbfgs" if self.name == "LBFGS" else ""
            raise ValueError(f"optimizer: {self.name} cannot be made: {error}{advice}") from error


def _views(parameter: nn.Parameter, field: Field) -> list[nn.Parameter]:
    """Views of the matrices and vectors within a parameter, as parameters of their own."""
    data, encoding = parameter.data, field.encoding
    parts = [data]
    if parameter is field.network.params:
        parts = field.network.matrices(data)
    elif isinstance(encoding, GridEncoding) and parameter is encoding.params:
        parts = [data.view(-1, encoding.n_features_per_level)]
    views = [nn.Parameter(part) for part in parts]
    for view in views:
        view.of = parameter  # type: ignore[attr-defined]
    return views


class Views:
    """Connects the parameters with the views of them that an optimizer of `FirstOrder` steps.

    Args:
        optimizer: an optimizer that `FirstOrder.make` has made, or one of the parameters.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self._groups = optimizer.param_groups
        views: dict[nn.Parameter, list[nn.Parameter]] = {}
        for group in self._groups:
            for view in group["params"]:
                views.setdefault(getattr(view, "of", view), []).append(view)
        # In the order of memory, which is that of the parameter.
        self._views = {p: sorted(parts, key=Tensor.data_ptr) for p, parts in views.items()}

    def forget_gradients(self) -> None:
        """Set ``grad`` of the parameters to None."""
        for parameter in self._views:
            parameter.grad = None

    def hand_on_gradients(self) -> None:
        """Set ``grad`` of the views to the part of their parameters' ``grad``."""
        for parameter, views in self._views.items():
            if parameter.grad is not None:
                pieces = parameter.grad.flatten().split([view.numel() for view in views])
                for view, piece in zip(views, pieces, strict=True):
                    view.grad = piece.view(view.shape)

    def tell_changes(self) -> None:
        """Mark the parameters as changed by a step, for autograd."""
        increment_version([*self._views])

    def set_rate(self, rate: float) -> None:
        """Set the learning rate of the next step."""
        for group in self._groups:
            group["lr"] = rate * group.get("factor", 1.0)
