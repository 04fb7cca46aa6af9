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
from diffhash.jets import Jet, Names, Row, Rows, Sum, default_names, jet_rows
from diffhash.networks.network import Network
from diffhash.networks.squares import FieldSquares, field_squares
from diffhash.ops.constants import constant
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
        names: of the axes and of the network's outputs; x, y, z, t and u (u0, u1 …) if None.

    Raises:
        ValueError: a domain of another number of axes than the encoding, or without a width; names
            of another number of axes or outputs.
    """

    _low: Tensor
    _width: Tensor

    def __init__(
        self,
        encoding: Encoding,
        network: Network,
        domain: Sequence[Sequence[float]],
        names: Names | None = None,
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
        n_outputs = network.widths[-1]
        names = names or default_names(axes, n_outputs)
        if (len(names.axes), len(names.unknowns)) != (axes, n_outputs):
            raise ValueError(
                f"names={names}: give names to {axes} axes and {n_outputs} unknown(s), the "
                "network's outputs"
            )
        self.domain = tuple(box)
        self.names = names
        self._put_box(None)

    def _put_box(self, device: torch.device | None) -> None:
        """The box in float64, whatever the parameters are.

        Tensors, since compilers round Python's numbers to float32.
        """
        lows = [low for low, _ in self.domain]
        widths = [high - low for low, high in self.domain]
        values = {"_low": lows, "_width": widths}
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

    def jet(self, x: Tensor, rows: Rows) -> Jet:
        """u and derivatives of it in x, in one forward pass.

        Args:
            rows: which, e.g. ``("u_xx", "u_yy")``; as in `diffhash.jets.jet_rows`.

        Raises:
            ValueError: what is no derivative, one of an order that the network does not carry, or
                a wrong shape of ``x``.
        """
        rows = jet_rows(rows, len(self.domain), self.names)
        return self._finish(self.encoding.jet(self._rounded(x), self._in_box(rows)), rows)

    def plan(self, x: Tensor, rows: Rows) -> FieldPlan:
        """Prepare `jet` at fixed points: what training does not change is computed once."""
        rows = jet_rows(rows, len(self.domain), self.names)
        return FieldPlan(self, self.encoding.plan(self._normalise(x), self._in_box(rows)), rows)

    def _rounded(self, x: Tensor) -> Tensor:
        return self._normalise(x).to(self.network.params.dtype)

    def _normalise(self, x: Tensor) -> Tensor:
        check_points(x, len(self.domain))
        if x.dtype != self.network.params.dtype:
            x = x.to(torch.promote_types(x.dtype, self.network.params.dtype))
        return (x - self._low.to(x.device, x.dtype)) / self._width.to(x.device, x.dtype)

    def _in_box(self, rows: tuple[Row, ...]) -> tuple[Row, ...]:
        """Rows of the jet in [0, 1] coordinates: sums have the chain rule in their weights."""
        if not isinstance(rows[-1], Sum) or self._is_unit:
            return rows
        return tuple(
            Sum(tuple((w * self._power(alpha), alpha) for w, alpha in row.terms))
            if isinstance(row, Sum)
            else row
            for row in rows
        )

    def _finish(self, features: Jet, rows: tuple[Row, ...]) -> Jet:
        data = self.network.jet(features).data
        factors = self._factors(rows, data)
        return Jet(data if factors is None else data * factors, rows, self.names)

    @property
    def _is_unit(self) -> bool:
        return all(high - low == 1 for low, high in self.domain)

    def _power(self, alpha: tuple[int, ...]) -> float:
        """Π_j width_j^(-α_j), rounded once."""
        exact = Fraction(1)
        for (low, high), m in zip(self.domain, alpha, strict=True):
            exact *= Fraction(high - low) ** -m
        return float(exact)

    def _factors(self, rows: tuple[Row, ...], like: Tensor) -> Tensor | None:
        """Chain rule of the normalisation, for each row of a jet: ``[K, 1, 1]``."""
        if self._is_unit:
            return None
        factors = tuple(1.0 if isinstance(row, Sum) else self._power(row) for row in rows)
        return constant(factors, like)[:, None, None]


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

    def __init__(self, field: Field, plan: Plan, rows: tuple[Row, ...]) -> None:
        self._field, self._of_encoding, self._rows = field, plan, rows
        self._encoding = field.encoding

    @property
    def _plan(self) -> Plan:
        if self._field._modules["encoding"] is not self._encoding:
            raise ValueError("the field has another encoding than its plan: make a new plan")
        return self._of_encoding

    def jet(self) -> Jet:
        """u and its derivatives with the present parameters."""
        return self._field._finish(self._plan.jet(), self._rows)

    def jet_and_vjp(self) -> tuple[Jet, Vjp]:
        """The jet outside of autograd, and what a backward pass through it would do.

        ``vjp(g)``, for ``g`` of the shape of the jet's data, adds to ``grad`` of the field's
        parameters; hooks of theirs are not called. It raises `ValueError` for another shape or
        dtype, and `RuntimeError` if the parameters were changed since.
        """
        features, vjp = self._field.network.jet_and_vjp(*self._plan.jet_and_vjp())
        factors = self._field._factors(self._rows, features.data)
        if factors is None:
            jet = Jet(features.data, self._rows, self._field.names)
            return jet, checked_vjp(vjp, jet)
        jet = Jet(features.data * factors, self._rows, self._field.names)
        return jet, checked_vjp(lambda g: vjp(g * factors), jet)

    def squares(self, coefficients: Tensor, target: Tensor) -> FieldSquares | None:
        """Mean squares of what is linear in u's jet, with their gradients, as one C kernel.

        Args:
            coefficients: a, ``[K, C, N, E]``: E equations Σ_kc a_kc ∂_k u_c = target at each point.
            target: ``[N, E]``.

        Returns:
            None where the kernel cannot be had: another device, an encoding that is not known to
            it, or more weights of a grid than are kept.

        Raises:
            ValueError: coefficients or a target of another shape, or not of real numbers.
        """
        if not (coefficients.is_floating_point() and target.is_floating_point()):
            raise ValueError(
                f"coefficients of {coefficients.dtype} and a target of {target.dtype}: give "
                "floating-point numbers"
            )
        field, rows = self._field, self._rows
        factors = field._factors(rows, coefficients)
        if factors is not None and coefficients.ndim == 4 and len(coefficients) == len(rows):
            coefficients = coefficients * factors[..., None]
        return field_squares(
            lambda: field.network,
            lambda: self._plan.source(),
            field._in_box(rows),
            coefficients,
            target,
        )
