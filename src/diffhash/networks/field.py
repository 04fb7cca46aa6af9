"""The trainable solution: coordinates of a domain → encoding → network."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn

from diffhash.encodings import Encoding, Plan
from diffhash.encodings.encoding import Vjp, check_points, checked_vjp
from diffhash.networks.network import Network
from diffhash.networks.squares import FieldSquares, field_squares
from diffhash.ops.jet import Jet, Order, jet_orders
from diffhash.ops.settings import ConfiguredModule, NoTorchScript


class Field(NoTorchScript, ConfiguredModule):
    """u(x) = network(encoding((x - low) / (high - low))) on the box [low, high].

    Points may be float64 whatever the parameters are: far from 0 float32 cannot tell them apart.
    They are rounded to the parameters' type once they are in [0, 1], and everything is computed in
    that type: autocast changes neither values nor jets.

    Args:
        encoding: of coordinates in [0, 1].
        network: of the encoding's features.
        domain: (low, high) of each axis.

    Raises:
        ValueError: a domain of another number of axes than the encoding, or without a width.
    """

    _low: Tensor
    _width: Tensor
    _powers: Tensor

    def __init__(
        self, encoding: Encoding, network: Network, domain: Sequence[Sequence[float]]
    ) -> None:
        super().__init__()
        axes = encoding.n_input_dims
        try:
            box = [(float(low), float(high)) for low, high in domain]
        except (TypeError, ValueError):
            box = []
        if len(box) != axes or not all(0 < high - low < math.inf for low, high in box):
            raise ValueError(
                f"domain={list(domain)}: give (low, high) with finite low < high for each of the "
                f"{axes} axes"
            )
        self.encoding = encoding
        self.network = network
        self.domain = tuple(box)
        self._put_box(None)

    def _put_box(self, device: torch.device | None) -> None:
        """The box in float64, whatever the parameters are: low, width, and 1/width^m.

        Tensors, since compilers round Python's numbers to float32.
        """
        widths = [high - low for low, high in self.domain]
        powers = [[float(Fraction(width) ** -m) for m in range(3)] for width in widths]
        values = {"_low": [low for low, _ in self.domain], "_width": widths, "_powers": powers}
        for name, value in values.items():
            tensor = torch.tensor(value, dtype=torch.float64, device=device)
            self.register_buffer(name, tensor, persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Field:
        super()._apply(fn, recurse)
        self._put_box(self._low.device)  # `fn` may have rounded it
        return self

    def _settings(self) -> dict[str, Any]:
        return {"domain": [list(axis) for axis in self.domain]}

    @property
    def n_replicas(self) -> int | None:
        """R of a stack of fields (`stack_fields`), which puts R in front of every shape below."""
        return self.network.n_replicas

    def forward(self, x: Tensor) -> Tensor:
        """u at ``x [N, d]``: ``[N, n_outputs]``; differentiable by autograd to any order."""
        return self.network(self.encoding(self._rounded(x)))

    def jet(self, x: Tensor, order: Order = 2) -> Jet:
        """u and its derivatives in x, in one forward pass.

        Raises:
            ValueError: an order above 2, or a wrong shape of ``x``.
        """
        orders = jet_orders(order, len(self.domain))
        return self._finish(self.encoding.jet(self._rounded(x), orders))

    def plan(self, x: Tensor, order: Order = 2) -> FieldPlan:
        """Prepare `jet` at fixed points: what training does not change is computed once."""
        orders = jet_orders(order, len(self.domain))
        return FieldPlan(self, self.encoding.plan(self._normalise(x), orders), orders)

    def _rounded(self, x: Tensor) -> Tensor:
        return self._normalise(x).to(self.network.params.dtype)

    def _normalise(self, x: Tensor) -> Tensor:
        check_points(x, len(self.domain))
        if x.dtype != self.network.params.dtype:
            x = x.to(torch.promote_types(x.dtype, self.network.params.dtype))
        return (x - self._low.to(x.device, x.dtype)) / self._width.to(x.device, x.dtype)

    def _finish(self, features: Jet) -> Jet:
        jet = self.network.jet(features)
        factors = self._factors(jet)
        return jet if factors is None else Jet(jet.data * factors, jet.orders)

    def _factors(self, jet: Jet) -> Tensor | None:
        """Chain rule of the normalisation: 1/width per derivative, for each row of a jet."""
        if all(high - low == 1 for low, high in self.domain):
            return None
        rows = [self._powers[0, :1]]
        rows += [self._powers[axis, 1 : order + 1] for axis, order in enumerate(jet.orders)]
        return torch.cat(rows).to(jet.data.device, jet.data.dtype)[:, None, None]


@torch.no_grad()
def stack_fields(fields: Sequence[Field]) -> Field:
    """R fields of one shape as one whose parameters have a leading axis R, to train together.

    Args:
        fields: as each seed alone would make it. The first becomes the stack.

    Raises:
        ValueError: an encoding that does not take replicas (`Encoding.takes_replicas`).
    """
    encoding = fields[0].encoding
    if not encoding.takes_replicas:
        raise ValueError(
            f"{type(encoding).__name__} does not take replicas (see Encoding.takes_replicas): "
            "train its seeds one by one"
        )
    modules = [list(field.modules()) for field in fields]
    for first, *others in zip(*modules, strict=True):
        for name, parameter in list(first.named_parameters(recurse=False)):
            parts = [parameter, *(getattr(other, name) for other in others)]
            setattr(first, name, nn.Parameter(torch.stack(parts)))
        for name, buffer in list(first.named_buffers(recurse=False)):
            if name in first._non_persistent_buffers_set:  # it follows from the settings
                continue
            setattr(first, name, torch.stack([buffer, *(getattr(o, name) for o in others)]))
    return fields[0]


class FieldPlan:
    """A field at fixed points, with its present parameters and network."""

    def __init__(self, field: Field, plan: Plan, orders: tuple[int, ...]) -> None:
        self._field, self._of_encoding, self._orders = field, plan, orders
        self._encoding = field.encoding

    @property
    def _plan(self) -> Plan:
        if self._field._modules["encoding"] is not self._encoding:
            raise ValueError("the field has another encoding than its plan: make a new plan")
        return self._of_encoding

    def jet(self) -> Jet:
        """u and its derivatives with the present parameters."""
        return self._field._finish(self._plan.jet())

    def jet_and_vjp(self) -> tuple[Jet, Vjp]:
        """The jet outside of autograd, and what a backward pass through it would do.

        ``vjp(g)``, for ``g`` of the shape of the jet's data, adds to ``grad`` of the field's
        parameters; hooks of theirs are not called. It raises `ValueError` for another shape or
        dtype, and `RuntimeError` if the parameters were changed since.
        """
        jet, vjp = self._field.network.jet_and_vjp(*self._plan.jet_and_vjp())
        factors = self._field._factors(jet)
        if factors is None:
            return jet, checked_vjp(vjp, jet)
        jet = Jet(jet.data * factors, jet.orders)
        return jet, checked_vjp(lambda g: vjp(g * factors), jet)

    def squares(self, coefficients: Tensor, target: Tensor) -> FieldSquares | None:
        """Mean squares of what is linear in u's jet, with their gradients, as one C kernel.

        Args:
            coefficients: ``[K, N, E]``: E equations Σ_k c_k ∂_k u = target at each point.
            target: ``[N, E]``.

        Returns:
            None where the kernel cannot be had: another device, an encoding that is not known to
            it, several components of u, or more weights of a grid than are kept.

        Raises:
            ValueError: coefficients or a target of another shape, or not of real numbers.
        """
        if not (coefficients.is_floating_point() and target.is_floating_point()):
            raise ValueError(
                f"coefficients of {coefficients.dtype} and a target of {target.dtype}: give "
                "floating-point numbers"
            )
        factors = self._field._factors(Jet(coefficients, self._orders))
        if factors is not None and coefficients.shape[:1] == factors.shape[:1]:
            coefficients = coefficients * factors
        return field_squares(
            lambda: self._field.network,
            lambda: self._plan.source(),
            self._orders,
            coefficients,
            target,
        )
