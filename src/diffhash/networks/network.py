"""Fully connected networks that map values, and jets, of features to those of the solution."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffhash.networks.activations import Activation, activate_jet, sine, tanh
from diffhash.ops.jet import Jet

_INITS = ("torch", "xavier")


class Network(nn.Module):
    """Linear layers with one activation between them; the base of `MLP` and `SIREN`."""

    def __init__(
        self, n_inputs: int, n_outputs: int, width: int, depth: int, dtype: torch.dtype
    ) -> None:
        super().__init__()
        for name, size in {"width": width, "depth": depth}.items():
            if size < 1:
                raise ValueError(f"{name}={size}: give at least 1")
        sizes = [n_inputs, *[width] * depth, n_outputs]
        self.layers = nn.ModuleList(nn.Linear(a, b, dtype=dtype) for a, b in pairwise(sizes))
        self._activation: Activation

    def forward(self, features: Tensor) -> Tensor:
        """``[N, n_inputs] → [N, n_outputs]``."""
        *hidden, last = self._linears()
        for layer in hidden:
            features = self._activation.value(layer(features))
        return last(features)

    def jet(self, features: Jet) -> Jet:
        """The jet of the composition, by Taylor mode; one matrix product a layer.

        Differentiable once in features and parameters.
        """
        *hidden, last = self._linears()
        data = features.data
        for layer in hidden:
            data = activate_jet(
                F.linear(data, layer.weight), layer.bias, features.orders, self._activation
            )
        data = F.linear(data, last.weight)
        # The bias belongs to the value alone.
        return Jet(torch.cat([data[:1] + last.bias, data[1:]]), features.orders)

    def _linears(self) -> list[nn.Linear]:
        return [layer for layer in self.layers if isinstance(layer, nn.Linear)]


class MLP(Network):
    """tanh network; the paper's backbone is ``width=64, depth=3``.

    Args:
        n_inputs: features per point.
        n_outputs: components of u.
        width: units per hidden layer.
        depth: hidden layers.
        init: ``torch`` (`nn.Linear`'s own) or ``xavier`` (Glorot uniform weights, zero biases).
        dtype: of the parameters.

    Raises:
        ValueError: a size below 1 or an unknown ``init``.
    """

    def __init__(
        self,
        n_inputs: int,
        n_outputs: int = 1,
        width: int = 64,
        depth: int = 3,
        init: str = "torch",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(n_inputs, n_outputs, width, depth, dtype)
        self._activation = tanh()
        if init not in _INITS:
            raise ValueError(f"init={init!r} is unknown; choose one of {', '.join(_INITS)}")
        if init == "xavier":
            for layer in self._linears():
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)


class SIREN(Network):
    """sin(ω₀ ·) network with its own initialisation (Sitzmann et al., NeurIPS 2020).

    Weights are U(-1/n, 1/n) in the first layer and U(-√(6/n)/ω₀, √(6/n)/ω₀) after it, n being
    the layer's inputs; biases are `nn.Linear`'s.

    Args:
        n_inputs: features per point.
        n_outputs: components of u.
        width: units per hidden layer.
        depth: hidden layers.
        omega_0: ω₀.
        dtype: of the parameters.

    Raises:
        ValueError: a size below 1 or ω₀ that is not positive.
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
        super().__init__(n_inputs, n_outputs, width, depth, dtype)
        if not (omega_0 > 0 and math.isfinite(omega_0)):
            raise ValueError(f"omega_0={omega_0}: give a positive number")
        self._activation = sine(omega_0)
        for index, layer in enumerate(self._linears()):
            n = layer.in_features
            bound = 1 / n if index == 0 else math.sqrt(6 / n) / omega_0
            nn.init.uniform_(layer.weight, -bound, bound)
