"""Fully connected networks that map values, and jets, of features to those of the solution."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffhash.encodings.encoding import Vjp, add_gradient
from diffhash.jets import MAX_ORDER, Activation, Jet, Row, named_activation, row_order, sine
from diffhash.networks.jacobian import LayerRows, Pullback, layer_rows, network_jet_and_rows
from diffhash.networks.taylor import linear, network_jet, network_jet_and_vjp, split_layers
from diffhash.ops.modes import own_precision
from diffhash.ops.settings import ConfiguredModule, NoTorchScript
from diffhash.ops.sizes import check_sizes


def _keep(layers: list[nn.Linear]) -> None:
    pass


def _xavier(layers: list[nn.Linear]) -> None:
    for layer in layers:
        nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(layer.bias)


_MAX_WIDTH, _MAX_DEPTH, _MAX_PARAMETERS = 2**20, 1000, 2**31
_INITS = {"torch": _keep, "xavier": _xavier}


class Network(NoTorchScript, ConfiguredModule):
    """Linear layers with an activation between them: the base class of `MLP`, `SIREN` and `Linear`.

    Attributes:
        params: a flat ``nn.Parameter [P]`` with the weight ``[C_out, C_in]`` and then the bias of
            each layer, and after the layers the weight and the bias of the skip connection;
            `layers` and `skip` are views of it. ``[R, P]`` are the parameters of R networks
            (replicas), which map ``[R, N, n_inputs]``, or the same ``[N, n_inputs]`` for all, to
            ``[R, N, n_outputs]``.
        widths: the widths of the layers, input and output included.
        activation: the activation between the layers.
        has_skip: whether there is a skip connection.
    """

    def __init__(
        self,
        n_inputs: int,
        n_outputs: int,
        width: int,
        depth: int,
        activation: Activation,
        initialise: Callable[[list[nn.Linear]], None],
        dtype: torch.dtype,
        has_skip: bool = False,
    ) -> None:
        super().__init__()
        check_sizes(1, _MAX_WIDTH, n_inputs=n_inputs, n_outputs=n_outputs, width=width)
        check_sizes(0, _MAX_DEPTH, depth=depth)
        n_inputs, n_outputs, width, depth = map(int, (n_inputs, n_outputs, width, depth))
        widths = (n_inputs, *[width] * depth, n_outputs)
        self._n_of_layers = n_parameters = sum((a + 1) * b for a, b in pairwise(widths))
        if has_skip:
            n_parameters += (n_inputs + 1) * n_outputs
        if n_parameters > _MAX_PARAMETERS:
            raise ValueError(
                f"width={width}, depth={depth}: {n_parameters:.1e} parameters, allowed are 2^31"
            )
        self.widths = widths
        self.activation = activation
        self.has_skip = has_skip
        layers = [nn.Linear(a, b, dtype=dtype) for a, b in pairwise(self.widths)]
        initialise(layers)
        if has_skip:
            skip = nn.Linear(n_inputs, n_outputs, dtype=dtype)
            nn.init.orthogonal_(skip.weight)
            for zero in (skip.bias, *layers[-1].parameters()):
                nn.init.zeros_(zero)
            layers.append(skip)
        parts = [p.detach().flatten() for layer in layers for p in layer.parameters()]
        params = parts[0].new_empty(n_parameters)  # `cat` on the meta device imports a compiler
        for view, part in zip(params.split([len(part) for part in parts]), parts, strict=True):
            view.copy_(part)
        self.params = nn.Parameter(params)

    @property
    def layers(self) -> list[tuple[Tensor, Tensor]]:
        """The pair (weight, bias) of each layer, as differentiable views of `params`."""
        return split_layers(self._of_layers(self.params), self.widths)

    @property
    def skip(self) -> tuple[Tensor, Tensor] | None:
        """The pair (weight, bias) of the skip connection, as differentiable views of `params`."""
        return self._of_skip(self.params)

    def _of_layers(self, params: Tensor) -> Tensor:
        """The parameters of the layers, contiguous in memory, as the kernels require."""
        return params[..., : self._n_of_layers].contiguous() if self.has_skip else params

    def _of_skip(self, params: Tensor) -> tuple[Tensor, Tensor] | None:
        if not self.has_skip:
            return None
        ends = self.widths[0], self.widths[-1]
        (layer,) = split_layers(params[..., self._n_of_layers :], ends)
        return layer

    def matrices(self, params: Tensor) -> list[Tensor]:
        """Views of ``params [P]``: the weight and the bias of each layer and of the skip."""
        layers = split_layers(params, self.widths)
        if (skip := self._of_skip(params)) is not None:
            layers.append(skip)
        return [part for layer in layers for part in layer]

    @property
    def n_replicas(self) -> int | None:
        """R, or None without a replica axis."""
        return None if self.params.ndim == 1 else len(self.params)

    def _settings(self) -> dict[str, Any]:
        settings: dict[str, Any] = {
            "widths": list(self.widths),
            "activation": self.activation.name,
            "skip": self.has_skip,
        }
        if self.activation.name == "sine":
            settings["omega_0"] = self.activation.parameter
        return settings

    def forward(self, features: Tensor) -> Tensor:
        """``[N, n_inputs] → [N, n_outputs]``; differentiable by autograd to any order."""
        *hidden, last = self.layers
        skip = self.skip
        with own_precision(features):
            y = features
            for layer in hidden:
                y = self.activation.value(_linear(y, *layer))
            out = _linear(y, *last)
            return out if skip is None else out + _linear(features, *skip)

    def jet(self, features: Jet) -> Jet:
        """The jet of the network's output from the jet of its features, in one pass of Taylor mode.

        It is differentiable in features and parameters to any order.

        Raises:
            ValueError: a derivative of an order above 4, where there are hidden layers.
        """
        rows = self.checked(features.rows)
        own = self._of_layers(self.params)
        data = network_jet(features.data, own, self.widths, rows, self.activation)
        if (skip := self.skip) is not None:
            with own_precision(features.data):
                data = data + linear(features.data, *skip)
        return Jet(data, rows, features.names)

    def jet_and_vjp(self, features: Jet, features_vjp: Vjp | None) -> tuple[Jet, Vjp]:
        """`jet` outside of autograd, and its vjp, which calls ``features_vjp``; see
        `EncodingPlan.jet_and_vjp`."""
        params, rows = self.params, self.checked(features.rows)
        data, backward = network_jet_and_vjp(
            *(features.data, self._of_layers(params), self.widths, rows, self.activation),
            with_features=features_vjp is not None,
        )
        skip, y = self._of_skip(params.detach()), features.data.detach()
        if skip is not None:
            data = data + linear(y, *skip)

        def vjp(g: Tensor) -> None:
            params_grad, features_grad = backward(g)
            if skip is not None:
                by_weight = g.flatten(-3, -2).mT @ y.flatten(-3, -2)
                by_skip = torch.cat([by_weight.flatten(-2), g[..., 0, :, :].sum(dim=-2)], dim=-1)
                params_grad = torch.cat([params_grad, by_skip], dim=-1)
            if skip is not None and features_grad is not None:
                weight = skip[0] if skip[0].ndim == 2 else skip[0][:, None]
                by_features = g @ weight
                shared = by_features.ndim > y.ndim  # one input of all replicas
                features_grad = features_grad + (by_features.sum(dim=0) if shared else by_features)
            if params.requires_grad:
                add_gradient(params, params_grad)
            if features_vjp is not None and features_grad is not None:
                features_vjp(features_grad)

        return Jet(data, rows, features.names), vjp

    def jet_and_rows(self, features: Jet) -> tuple[Tensor, Pullback]:
        """The jet's data outside of autograd, and a function that differentiates it point by point;
        see `network_jet_and_rows`. The rows of the skip connection are the last."""
        data, pullback = network_jet_and_rows(
            *(features.data, self._of_layers(self.params), self.widths),
            *(self.checked(features.rows), self.activation),
        )
        skip, y = self._of_skip(self.params.detach()), features.data.detach()
        if skip is None:
            return data, pullback

        def with_skip(g: Tensor) -> tuple[tuple[LayerRows, ...], Tensor]:
            found, by_features = pullback(g)
            return (*found, layer_rows(y, g)), by_features + g @ skip[0]

        return data + linear(y, *skip), with_skip

    def checked(self, rows: tuple[Row, ...]) -> tuple[Row, ...]:
        """Return ``rows`` if the jets of the network can have them.

        Raises:
            ValueError: a derivative of an order above 4, where there are hidden layers.
        """
        if len(self.widths) > 2 and (order := max(map(row_order, rows))) > MAX_ORDER:
            raise ValueError(
                f"a derivative of order {order}: networks with hidden layers carry orders up to "
                f"{MAX_ORDER}"
            )
        return rows


def _linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    if weight.ndim == 2:
        return F.linear(x, weight, bias)
    return x @ weight.mT + bias[:, None]


class MLP(Network):
    """A fully connected network, y ← σ(W y + b) in each hidden layer and W y + b in the last.

    The paper's network has ``width=64, depth=3`` and tanh.

    With a skip connection, S y + s of the features y is added to the output of the last layer. At
    the start S is orthogonal and the last layer is 0, so that u is a weighted sum of the features,
    as in PirateNets (Wang et al., arXiv:2402.00326); training adds the nonlinear part.

    >>> MLP(12, 1, width=32, depth=2)(torch.zeros(5, 12)).shape
    torch.Size([5, 1])

    Args:
        n_inputs: the number of features of a point.
        n_outputs: the number of components of u.
        width: the number of units of each hidden layer.
        depth: the number of hidden layers.
        activation: σ: ``"tanh"``, ``"silu"``, ``"gelu"`` or ``"softplus"``.
        init: ``"torch"``, the initialisation of `nn.Linear`, or ``"xavier"``, uniform weights of
            Glorot and zero biases.
        skip: whether there is a skip connection.
        dtype: the type of the parameters.

    Raises:
        ValueError: a size is out of range, ``activation`` or ``init`` is unknown, or ``skip`` is
            neither True nor False.
    """

    def __init__(
        self,
        n_inputs: int,
        n_outputs: int = 1,
        width: int = 64,
        depth: int = 3,
        activation: str = "tanh",
        init: str = "torch",
        skip: bool = False,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        check_sizes(1, _MAX_DEPTH, depth=depth)
        if not isinstance(skip, bool):
            raise ValueError(f"skip={skip!r}: give True or False")
        if init not in _INITS:
            raise ValueError(f"init={init!r} is unknown; choose one of {', '.join(_INITS)}")
        super().__init__(
            *(n_inputs, n_outputs, width, depth),
            named_activation(activation),
            _INITS[init],
            dtype,
            has_skip=skip,
        )


class SIREN(Network):
    """A network with the activation sin(ω₀ ·) and an initialisation of its own (Sitzmann et al.,
    NeurIPS 2020).

    In a layer with n inputs, weights are drawn from U(-1/n, 1/n) if it is the first, and otherwise
    from U(-√(6/n)/ω₀, √(6/n)/ω₀). Biases are drawn as `nn.Linear` draws them.

    >>> SIREN(2, 1, width=32, depth=2)(torch.zeros(5, 2)).shape
    torch.Size([5, 1])

    Args:
        n_inputs: the number of features of a point.
        n_outputs: the number of components of u.
        width: the number of units of each hidden layer.
        depth: the number of hidden layers.
        omega_0: ω₀.
        dtype: the type of the parameters.

    Raises:
        ValueError: a size is out of range, or ω₀ is not positive and finite.
    """

    def __init__(
        self,
        n_inputs: int,
        n_outputs: int = 1,
        width: int = 64,
        depth: int = 3,
        omega_0: float = 30.0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        omega_0 = float(omega_0)
        check_sizes(1, _MAX_DEPTH, depth=depth)
        if not (omega_0 > 0 and math.isfinite(omega_0)):
            raise ValueError(f"omega_0={omega_0}: give a positive number")

        def initialise(layers: list[nn.Linear]) -> None:
            for index, layer in enumerate(layers):
                n = layer.in_features
                bound = 1 / n if index == 0 else math.sqrt(6 / n) / omega_0
                nn.init.uniform_(layer.weight, -bound, bound)

        super().__init__(n_inputs, n_outputs, width, depth, sine(omega_0), initialise, dtype)


class Linear(Network):
    """A weighted sum of the features and a constant, W y + b: with a spline grid, splines alone.

    Weights are drawn from U(-1/√n, 1/√n) for n features, and the constant is 0. Its jets have
    derivatives of every order that the features have.

    >>> Linear(12, 1)(torch.zeros(5, 12)).shape
    torch.Size([5, 1])

    Args:
        n_inputs: n, the number of features of a point.
        n_outputs: the number of components of u.
        dtype: the type of the parameters.

    Raises:
        ValueError: a size is out of range.
    """

    def __init__(
        self, n_inputs: int, n_outputs: int = 1, dtype: torch.dtype = torch.float32
    ) -> None:
        def initialise(layers: list[nn.Linear]) -> None:
            nn.init.zeros_(layers[0].bias)

        super().__init__(n_inputs, n_outputs, 1, 0, named_activation("tanh"), initialise, dtype)
