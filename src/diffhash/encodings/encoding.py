"""What every encoding offers: values, jets, and jets at fixed points."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from diffhash.ops.jet import Jet, jet_orders


@dataclass(frozen=True)
class GridRows:
    """What a planned jet of a table is summed from.

    Attributes:
        params: the table, ``[rows · F]`` or ``[R, rows · F]``.
        rows: of the table, ``[N, L, T]``, 32-bit.
        weights: of those rows in each of the jet's, ``[N, L, K, T]``.
        n_features: F.
    """

    params: Tensor
    rows: Tensor
    weights: Tensor
    n_features: int


Vjp = Callable[[Tensor], None]  # adds to the parameters' grad, for a gradient of a jet's data


class Plan(ABC):
    """Everything about fixed points that training does not change, computed once."""

    @abstractmethod
    def jet(self) -> Jet:
        """The encoding's jet at the points, with its present parameters."""

    def jet_and_vjp(self) -> tuple[Jet, Vjp | None]:
        """The jet outside of autograd, and what a backward pass through it would do.

        ``vjp(g)``, for ``g`` of the shape of the jet's data, adds to ``grad`` of the parameters;
        None where there are none to train. A step of training saves the graph that way.
        """
        with torch.enable_grad():
            jet = self.jet()
        vjp = jet.data.backward if jet.data.requires_grad else None
        return Jet(jet.data.detach(), jet.orders), vjp

    def source(self) -> Jet | GridRows | None:
        """What the jet is made of, for kernels that make it themselves: a constant jet, or rows of
        a table. None where that is not to be had."""
        return None


class Encoding(nn.Module, ABC):
    """A map ``[N, n_input_dims] → [N, n_output_dims]`` of coordinates in [0, 1].

    Attributes:
        takes_replicas: whether it also works with a leading axis R in its parameters and buffers
            (`diffhash.networks.stack_fields`), which then leads its outputs, too.
    """

    n_input_dims: int
    n_output_dims: int
    takes_replicas = False

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Features ``[N, n_output_dims]``; differentiable by autograd in x and the parameters."""

    def jet(self, x: Tensor, order: int | tuple[int, ...] = 2) -> Jet:
        """Features and their derivatives along each axis at ``x [N, d]``, in one pass.

        Args:
            order: highest order along every axis, or one per axis; at most 2.

        Raises:
            ValueError: an order that jets do not carry, or a wrong shape of ``x``.
        """
        return self._jet(x, jet_orders(order, self.n_input_dims))

    def plan(self, x: Tensor, order: int | tuple[int, ...] = 2) -> Plan:
        """Prepare `jet` at fixed points. Coordinates may be float64 whatever the parameters are.

        Raises:
            ValueError: as `jet`; or ``x`` requires a gradient, which fixed points cannot have.
        """
        if x.requires_grad:
            raise ValueError("x requires a gradient, a plan's points are fixed: use jet(x) instead")
        return self._plan(x, jet_orders(order, self.n_input_dims))

    @abstractmethod
    def _jet(self, x: Tensor, orders: tuple[int, ...]) -> Jet: ...

    @abstractmethod
    def _plan(self, x: Tensor, orders: tuple[int, ...]) -> Plan: ...


class ConstantPlan(Plan):
    """The plan of an encoding without parameters: its jet."""

    def __init__(self, jet: Jet) -> None:
        self._jet = jet

    def jet(self) -> Jet:
        """The jet, computed when the plan was made."""
        return self._jet

    def jet_and_vjp(self) -> tuple[Jet, Vjp | None]:
        return self._jet, None

    def source(self) -> Jet | GridRows | None:
        return self._jet


def add_gradient(parameter: Tensor, gradient: Tensor) -> None:
    """Add to ``parameter.grad``, as a backward pass does."""
    if parameter.grad is None:
        parameter.grad = gradient
    else:
        parameter.grad.add_(gradient)


def check_points(x: Tensor, n_input_dims: int) -> None:
    """Raise `ValueError` unless ``x`` is a floating-point ``[N, n_input_dims]``."""
    if x.ndim != 2 or x.shape[1] != n_input_dims or not x.is_floating_point():
        raise ValueError(
            f"points must be a floating-point tensor of shape [N, {n_input_dims}], "
            f"got {x.dtype} of shape {list(x.shape)}"
        )
