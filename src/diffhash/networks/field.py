"""The trainable solution: coordinates of a domain → encoding → network."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from copy import deepcopy
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from diffhash.encodings import Encoding, EncodingPlan
from diffhash.encodings.encoding import (
    GridRows,
    PartialPlan,
    UnplannedPart,
    Vjp,
    check_points,
    checked_vjp,
)
from diffhash.jets import Jet, Names, Row, Rows, Sum, default_names, jet_rows
from diffhash.networks.ansatz import Ansatz, AnsatzJet, ansatz_values
from diffhash.networks.jacobian import JacobianRows, spline_rows, table_rows
from diffhash.networks.least_squares import LinearLeastSquares, linear_least_squares
from diffhash.networks.network import Network
from diffhash.ops.constants import constant
from diffhash.ops.settings import ConfiguredModule, NoTorchScript


class Field(NoTorchScript, ConfiguredModule):
    """The unknowns u(x) = network(encoding((x - low) / (high - low))) on the box [low, high].

    Points may be float64 whatever the type of the parameters is, because float32 cannot resolve
    points far from 0. They are mapped to [0, 1] and then rounded to the type of the parameters, in
    which everything is computed: autocast changes neither values nor jets.

    >>> from diffhash import GridEncoding, Linear
    >>> encoding = GridEncoding(2, n_levels=3, base_resolution=4, interpolation="quintic")
    >>> field = Field(encoding, Linear(6, 2), [(-1, 1), (0, 5)], Names(("x", "t"), ("u", "v")))
    >>> x = torch.tensor([[0.0, 2.5], [0.5, 5.0]])
    >>> field(x).shape, field.jet(x, ["u_xx", "v_t"])["v_t"].shape
    (torch.Size([2, 2]), torch.Size([2]))

    Args:
        encoding: the encoding of coordinates in [0, 1].
        network: the network that maps the encoding's features to the unknowns: a
            `diffhash.networks.Network`, such as `MLP`, `SIREN` or `Linear`. Other modules of torch
            have no jets.
        domain: the pair (low, high) of each axis, such as ``problem.domain.bounds``.
        names: the names of the axes and of the unknowns, such as ``problem.names``; None for the
            axes x, y, z, t and the unknown u, or u0, u1 … for several.
        ansatz: a function of points ``[N, d]`` of the domain that returns g and φ, each ``[N]`` or
            ``[N, C]``; then u = g + φ · network(…), which is g exactly where φ = 0.

    Raises:
        ValueError: the encoding or the network is none, the domain has another number of axes than
            the encoding or an axis without a width, the network has another number of inputs or
            another dtype than the encoding, or the names are of another number of axes or of the
            network's outputs.
    """

    _low: Tensor
    _width: Tensor

    def __init__(
        self,
        encoding: Encoding,
        network: Network,
        domain: Sequence[Sequence[float]],
        names: Names | None = None,
        ansatz: Ansatz | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(encoding, Encoding):
            raise ValueError(
                f"encoding={type(encoding).__name__}: give an encoding of diffhash, such as "
                "GridEncoding or Identity, or an instance of a subclass of Encoding"
            )
        if not isinstance(network, Network):
            raise ValueError(
                f"network={type(network).__name__}: has no jets; give a network of diffhash, MLP, "
                "SIREN or Linear, or an instance of a subclass of Network"
            )
        axes = encoding.n_input_dims
        try:
            box = [(float(low), float(high)) for low, high in domain]
        except (TypeError, ValueError):
            box = []
        if len(box) != axes or not all(0 < high - low < math.inf for low, high in box):
            raise ValueError(
                f"domain={domain!r}: give (low, high) with finite low < high for each of the "
                f"{axes} axes, as problem.domain.bounds has"
            )
        if network.widths[0] != encoding.n_output_dims:
            raise ValueError(
                f"network: it has {network.widths[0]} inputs, the encoding "
                f"{encoding.n_output_dims} features: give it encoding.n_output_dims inputs"
            )
        for parameter in encoding.parameters():
            if parameter.dtype != network.params.dtype:
                raise ValueError(
                    f"network: it is {network.params.dtype}, the encoding {parameter.dtype}: give "
                    "both the same dtype"
                )
        self.encoding = encoding
        self.network = network
        n_outputs = network.widths[-1]
        names = names or default_names(axes, n_outputs)
        if not isinstance(names, Names):
            raise ValueError(
                f"names={names!r}: give problem.names, or Names(axes, unknowns) of diffhash.jets"
            )
        if (len(names.axes), len(names.unknowns)) != (axes, n_outputs):
            raise ValueError(
                f"names={names}: give names to {axes} axes and {n_outputs} unknown(s), the "
                "network's outputs"
            )
        self.domain = tuple(box)
        self.names = names
        self.ansatz = ansatz
        self._put_box(None)

    def _put_box(self, device: torch.device | None) -> None:
        """Set the bounds of the box as float64 tensors, whatever the type of the parameters is.

        They are tensors because compilers round Python's numbers to float32.
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
        settings: dict[str, Any] = {"domain": [list(axis) for axis in self.domain]}
        return settings if self.ansatz is None else settings | {"ansatz": True}

    @property
    def n_replicas(self) -> int | None:
        """The number R of fields in a stack (`stack_fields`), or None. All shapes below have a
        leading R for a stack."""
        return self.network.n_replicas

    def forward(self, x: Tensor) -> Tensor:
        """The unknowns ``[N, C]`` at ``x [N, d]``, differentiable by autograd to any order."""
        inner = self.network(self.encoding(self._rounded(x)))
        if self.ansatz is None:
            return inner
        g, phi = ansatz_values(self.ansatz, x, len(self.names.unknowns))
        return (g + phi * inner).to(inner.dtype)

    def jet(self, x: Tensor, rows: Rows = 2) -> Jet:
        """The unknowns and their derivatives in x, in one forward pass.

        Args:
            x: points ``[N, d]``.
            rows: the derivatives, such as ``("u_xx", "u_yy")``, as `diffhash.jets.jet_rows` takes
                them. The default is all derivatives of first and second order.

        Raises:
            ValueError: a name is no derivative's, an order is higher than the network's jets have,
                ``x`` has a wrong shape, or ``x`` requires a gradient and the field has an ansatz.
        """
        rows = jet_rows(rows, len(self.domain), self.names)
        ansatz = self._ansatz_jet(x, rows)
        inner = rows if ansatz is None else ansatz.inner_rows
        features = self.encoding.jet(self._rounded(x), self._in_box(inner))
        return self._finish(features, rows, inner, ansatz)

    def plan(self, x: Tensor, rows: Rows = 2, in_parts: bool = False) -> FieldPlan:
        """Prepare `jet` at fixed points, with what training does not change computed once.

        Args:
            x: points ``[N, d]``.
            rows: the derivatives, as in `jet`.
            in_parts: whether jets are computed only at some of the points at a time, by
                `FieldPlan.at`. Weights that take much memory are then not stored for all points.
        """
        rows = jet_rows(rows, len(self.domain), self.names)
        ansatz = self._ansatz_jet(x, rows)
        inner = rows if ansatz is None else ansatz.inner_rows
        x, encoding = self._normalise(x), self.encoding
        make = encoding.plan_in_parts if in_parts else encoding.plan
        return FieldPlan(self, make(x, self._in_box(inner)), rows, inner, ansatz, x)

    def _ansatz_jet(self, x: Tensor, rows: tuple[Row, ...]) -> AnsatzJet | None:
        if self.ansatz is None:
            return None
        check_points(x, len(self.domain))
        if x.requires_grad:
            raise ValueError(
                "x requires a gradient, which jets of a field with an ansatz do not have: "
                "differentiate field(x), or give more rows"
            )
        dtype = self.network.params.dtype
        return AnsatzJet(self.ansatz, x, rows, len(self.names.unknowns), dtype)

    def _rounded(self, x: Tensor) -> Tensor:
        return self._normalise(x).to(self.network.params.dtype)

    def _normalise(self, x: Tensor) -> Tensor:
        check_points(x, len(self.domain))
        if x.dtype != self.network.params.dtype:
            x = x.to(torch.promote_types(x.dtype, self.network.params.dtype))
        return (x - self._low.to(x.device, x.dtype)) / self._width.to(x.device, x.dtype)

    def _in_box(self, rows: tuple[Row, ...]) -> tuple[Row, ...]:
        """The rows of the jet in [0, 1] coordinates: the weights of sums include the factors of the
        chain rule."""
        if not isinstance(rows[-1], Sum) or self._is_unit:
            return rows
        return tuple(
            Sum(tuple((w * self._power(alpha), alpha) for w, alpha in row.terms))
            if isinstance(row, Sum)
            else row
            for row in rows
        )

    def _finish(
        self,
        features: Jet,
        rows: tuple[Row, ...],
        inner: tuple[Row, ...],
        ansatz: AnsatzJet | None,
    ) -> Jet:
        """u's jet of ``rows`` from the jet of the features, whose rows are ``inner``."""
        data = self.network.jet(features).data
        return Jet(_outward(data, self._factors(inner, data), ansatz), rows, self.names)

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
        """The chain rule's factors of the normalisation for each row of a jet: ``[K, 1, 1]``."""
        if self._is_unit:
            return None
        factors = tuple(1.0 if isinstance(row, Sum) else self._power(row) for row in rows)
        return constant(factors, like)[:, None, None]


def _outward(data: Tensor, factors: Tensor | None, ansatz: AnsatzJet | None) -> Tensor:
    """The jet of u from the network's jet in [0, 1], by the chain rule's factors and the ansatz."""
    data = data if factors is None else data * factors
    return data if ansatz is None else ansatz.apply(data)


def _inward(g: Tensor, factors: Tensor | None, ansatz: AnsatzJet | None) -> Tensor:
    """The transpose of `_outward`: gradients in the network's jet from gradients in u's jet."""
    g = g if ansatz is None else ansatz.transposed(g)
    return g if factors is None else g * factors


@torch.no_grad()
def stack_fields(fields: Sequence[Field]) -> Field:
    """Join R fields of one shape into one field whose parameters have a leading axis R.

    Args:
        fields: the field of each seed, as it would train alone. The first becomes the stack.

    Raises:
        ValueError: the encoding does not take replicas (`Encoding.takes_replicas`).
    """
    encoding = fields[0].encoding
    if not encoding.takes_replicas:
        raise ValueError(
            f"{type(encoding).__name__} does not take replicas (see Encoding.takes_replicas): "
            "train its seeds one by one"
        )
    states = [field.state_dict(keep_vars=True) for field in fields]
    for name, tensor in states[0].items():  # without buffers computed from the settings
        tensor.data = torch.stack([state[name] for state in states])
    return fields[0]


@torch.no_grad()
def unstack_field(stack: Field, index: int) -> Field:
    """Copy one of the fields of a stack, which `stack_fields` has made."""
    field = deepcopy(stack)
    for tensor in field.state_dict(keep_vars=True).values():
        tensor.data = tensor[index].clone()
    return field


class FieldPlan:
    """A field at fixed points, with its present parameters; `Field.plan` makes it.

    Args:
        field: the field.
        plan: the plan of the field's encoding at the points.
        rows: the rows of the jets.
        inner: the rows of the network's jets, which differ where there is an ansatz.
        ansatz: the ansatz at the points.
        x: the points in [0, 1].
        whole: the plan of all points, if this is a plan of some of them.
    """

    def __init__(
        self,
        field: Field,
        plan: EncodingPlan,
        rows: tuple[Row, ...],
        inner: tuple[Row, ...],
        ansatz: AnsatzJet | None,
        x: Tensor,
        whole: FieldPlan | None = None,
    ) -> None:
        self._field, self._of_encoding, self._rows = field, plan, rows
        self._inner, self._ansatz, self._x, self._whole = inner, ansatz, x, whole
        self._encoding = field.encoding

    @property
    def _plan(self) -> EncodingPlan:
        if self._field._modules["encoding"] is not self._encoding:
            raise ValueError("the field has another encoding than its plan: make a new plan")
        return self._of_encoding

    def move(self, x: Tensor) -> bool:
        """Move to other points, of the same number, and return whether that was in place.

        The points and all that is computed from them keep their memory, so that kernels and CUDA
        graphs that read it stay valid. A plan of an encoding that cannot (`EncodingPlan.move`) is
        made anew.

        Raises:
            ValueError: the number of points or axes differs, or `at` has made the plan.
        """
        field, plan = self._field, self._plan
        if self._whole is not None:
            raise ValueError("move(x): this plan is of some points of another one; move that one")
        inside = field._normalise(x)
        if inside.shape != self._x.shape:
            raise ValueError(
                f"points of shape {list(x.shape)}: the plan has those of shape "
                f"{list(self._x.shape)}, and goes to as many; make a new plan"
            )
        if self._ansatz is not None:
            self._ansatz.move(x)
        self._x, in_place = inside, plan.move(inside)
        if not in_place:
            self._of_encoding = self._encoding.plan(inside, field._in_box(self._inner))
        return in_place

    def at(self, index: Tensor) -> FieldPlan:
        """A plan of some of the points, by their indices ``[n]``; `take` moves it to others."""
        field, inner = self._field, self._inner
        part = self._plan.at(index)
        if part is None:

            def points(index: Tensor) -> Tensor:
                return self._x[index].to(field.network.params.dtype)

            part = UnplannedPart(self._encoding, points, index, field._in_box(inner))
        ansatz = None if self._ansatz is None else self._ansatz.at(index)
        return FieldPlan(field, part, self._rows, inner, ansatz, self._x[:0], self)

    def take(self, index: Tensor) -> None:
        """Move a plan that `at` has made to others of the points, of the same number, in place.

        Raises:
            ValueError: `at` has not made the plan.
        """
        plan, whole = self._plan, self._whole
        if not isinstance(plan, PartialPlan) or whole is None:
            raise ValueError("take(index): this plan is of all its points; plan.at(index) takes")
        plan.take(index)
        if whole._ansatz is not None:
            self._ansatz = whole._ansatz.at(index)

    def jet(self) -> Jet:
        """The unknowns and their derivatives with the present parameters."""
        return self._field._finish(self._plan.jet(), self._rows, self._inner, self._ansatz)

    def jet_and_vjp(self) -> tuple[Jet, Vjp]:
        """The jet outside of autograd, and a function that is its backward pass.

        ``vjp(g)``, for ``g`` of the shape of the jet's data, adds to ``grad`` of the field's
        parameters, without calling hooks. It raises `ValueError` for another shape or dtype, and
        `RuntimeError` if the parameters have changed since.
        """
        field, ansatz = self._field, self._ansatz
        features, vjp = field.network.jet_and_vjp(*self._plan.jet_and_vjp())
        factors = field._factors(self._inner, features.data)
        jet = Jet(_outward(features.data, factors, ansatz), self._rows, field.names)
        if factors is None and ansatz is None:
            return jet, checked_vjp(vjp, jet)

        def inner_vjp(g: Tensor) -> None:
            vjp(_inward(g, factors, ansatz))

        return jet, checked_vjp(inner_vjp, jet)

    def jet_and_rows(self, of_splines: bool = False) -> tuple[Jet, Callable[..., JacobianRows]]:
        """The jet outside of autograd, and a function that returns rows of a Jacobian.

        For one number at each point, with the gradients ``g [K, N, C]`` in the jet there,
        ``rows(g)`` holds the derivatives of those numbers in the parameters.

        Args:
            of_splines: whether derivatives are in the coefficients of u's splines instead of in the
                table, for a grid under a `Linear` network. There are C of them for each row of the
                table, which the network computes from the row's features.

        Raises:
            ValueError: the field has a replica axis, or its encoding does not offer derivatives in
                its parameters.
        """
        field, ansatz = self._field, self._ansatz
        network = field.network
        if network.n_replicas is not None:
            raise ValueError("a Jacobian is of one field: this one has a replica axis")
        entries = self._plan.kernel_input()
        if not isinstance(entries, GridRows):
            entries = None
            if any(p.requires_grad for p in self._encoding.parameters()):
                raise ValueError(
                    f"{type(self._encoding).__name__}: a Jacobian in its parameters needs the "
                    "native backend, and no more points than a plan keeps weights of"
                )
        with torch.no_grad():
            features = self._plan.jet()
            data, pullback = network.jet_and_rows(features)
            factors = field._factors(self._inner, data)
            data = _outward(data, factors, ansatz)

        def rows(g: Tensor) -> JacobianRows:
            with torch.no_grad():
                g = _inward(g, factors, ansatz)
                by_network, by_features = pullback(g)
                if entries is None:
                    return JacobianRows(by_network)
                if of_splines:
                    return JacobianRows(by_network, *spline_rows(entries, g))
                return JacobianRows(by_network, *table_rows(entries, by_features))

        return Jet(data, self._rows, field.names), rows

    def least_squares(self, coefficients: Tensor, target: Tensor) -> LinearLeastSquares | None:
        """Linear least squares of u's jet, with their gradients, as one C kernel.

        Args:
            coefficients: a ``[K, C, N, E]`` of the E equations Σ_kc a_kc ∂_k u_c = target at each
                point.
            target: the right-hand sides, ``[N, E]``.

        Returns:
            The kernel; None on another device than the CPU, for an encoding that the kernel does
            not support, or for a grid with more weights than are kept.

        Raises:
            ValueError: coefficients or target have another shape, or are not real numbers.
        """
        if not (coefficients.is_floating_point() and target.is_floating_point()):
            raise ValueError(
                f"coefficients of {coefficients.dtype} and a target of {target.dtype}: give "
                "floating-point numbers"
            )
        field = self._field
        return linear_least_squares(
            self._network,
            lambda: self._plan.kernel_input(),
            field._in_box(self._inner),
            self._inner_form,
            coefficients,
            target,
        )

    def _network(self) -> Network:
        """The present network, without the overhead of a module's attribute access."""
        network = self._field._modules["network"]
        assert isinstance(network, Network)
        return network

    def _inner_form(self, coefficients: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """The coefficients and target for the network's jet in [0, 1], from those for u's jet."""
        if self._ansatz is not None:
            coefficients, target = self._ansatz.linear_form(coefficients, target)
        factors = self._field._factors(self._inner, coefficients)
        if factors is not None and coefficients.ndim == 4 and len(coefficients) == len(factors):
            coefficients = coefficients * factors[..., None]
        return coefficients, target
