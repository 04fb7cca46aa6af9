"""How a jet passes through a network.

With a pre-activation jet (z, z_j, z_jj) and an activation σ, Taylor mode (Faà di Bruno) gives

    σ(z),    ∂_j = σ'(z) z_j,    ∂_jj = σ'(z) z_jj + σ''(z) z_j².

A linear layer acts on every row of the jet alike, its bias on the value alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from diffhash.encodings.encoding import version
from diffhash.networks.activations import Activation
from diffhash.networks.native_jet import library, network_kernel


def network_jet(
    features: Tensor,
    params: Tensor,
    widths: tuple[int, ...],
    orders: tuple[int, ...],
    activation: Activation,
) -> Tensor:
    """The jet of a network at the jet ``features`` of its input.

    Differentiable once in features and parameters, as derivatives in x are in the jet.

    Args:
        features: ``[K, N, C_in]``, or ``[R, K, N, C_in]`` for replicas, which may share one.
        params: `Network.params`, ``[P]`` or ``[R, P]``.
        widths: of the layers, input and output included.
        orders: of the jet, per axis.
        activation: between the layers.

    Returns:
        ``[K, N, C_out]`` or ``[R, K, N, C_out]``.

    Raises:
        RuntimeError: from a backward pass with ``create_graph=True``.
    """
    native = features.device.type == "cpu" and not torch.compiler.is_compiling()
    if native and library(activation, features.dtype) is not None:
        return _NativeJet.apply(features, params, widths, orders, activation)
    return _torch_jet(features, params, widths, orders, activation, _TorchActivation.apply)


def network_jet_and_vjp(
    features: Tensor,
    params: Tensor,
    widths: tuple[int, ...],
    orders: tuple[int, ...],
    activation: Activation,
    with_features: bool,
) -> tuple[Tensor, Callable[[Tensor], tuple[Tensor, Tensor | None]]]:
    """`network_jet` outside of autograd, and its vjp.

    Args:
        with_features: whether gradients towards the features are wanted, too.

    Returns:
        The jet, and a function from a gradient of it to those of ``params`` and ``features``.
    """
    if features.device.type == "cpu" and library(activation, features.dtype) is not None:
        native = _NativePass(features, params, widths, orders, activation, True)
        return native.out, partial(native.backward, with_features=with_features)
    leaves = [params.detach().requires_grad_(True)]
    if with_features:
        features = features.detach().requires_grad_(True)
        leaves.append(features)
    with torch.enable_grad():
        out = network_jet(features, leaves[0], widths, orders, activation)

    def vjp(g: Tensor) -> tuple[Tensor, Tensor | None]:
        params_grad, *rest = torch.autograd.grad(out, leaves, g)
        return params_grad, rest[0] if rest else None

    return out.detach(), vjp


def network_jet_reference(
    features: Tensor,
    params: Tensor,
    widths: tuple[int, ...],
    orders: tuple[int, ...],
    activation: Activation,
) -> Tensor:
    """The readable truth of `network_jet`, differentiated by autograd."""
    return _torch_jet(features, params, widths, orders, activation, _activate)


def _torch_jet(
    features: Tensor,
    params: Tensor,
    widths: tuple[int, ...],
    orders: tuple[int, ...],
    activation: Activation,
    activate: Any,
) -> Tensor:
    data = features
    layers = split_layers(params, widths)
    for index, (weight, bias) in enumerate(layers):
        data = _add_bias(_linear(data, weight), bias)
        if index < len(layers) - 1:
            data = activate(data, orders, activation)
    return data


def _linear(x: Tensor, weight: Tensor) -> Tensor:
    """x Wᵀ, replica by replica: one product of all rows of the jet."""
    if weight.ndim == 2:
        return torch.nn.functional.linear(x, weight)
    return (x.flatten(-3, -2) @ weight.mT).unflatten(-2, x.shape[-3:-1])


def _add_bias(z: Tensor, bias: Tensor) -> Tensor:
    """z + bias in the value's row."""
    value = z[..., :1, :, :] + bias[..., None, None, :]
    return torch.cat([value, z[..., 1:, :, :]], dim=-3)


def _activate(z: Tensor, orders: tuple[int, ...], activation: Activation) -> Tensor:
    rows = list(z.unbind(-3))
    value = activation.value(rows[0])
    first, second, _ = activation.slopes(rows[0], value)
    out = [value]
    for order in orders:
        row = len(out)
        if order >= 1:
            out.append(first * rows[row])
        if order == 2:
            out.append(first * rows[row + 1] + second * rows[row] * rows[row])
    return torch.stack(out, dim=-3)


def split_layers(params: Tensor, widths: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
    """Views of ``params [.., P]``: each layer's weight ``[.., C_out, C_in]``, bias ``[.., C_out]``.

    They lie one after the other, the weight row by row and then the bias.
    """
    layers, start = [], 0
    for n_inputs, n_outputs in pairwise(widths):
        middle, end = start + n_outputs * n_inputs, start + n_outputs * (n_inputs + 1)
        weight = params[..., start:middle].unflatten(-1, (n_outputs, n_inputs))
        layers.append((weight, params[..., middle:end]))
        start = end
    return layers


def _refuse_second_differentiation() -> None:
    # torch's once_differentiable raises only where its own node is visited: with inputs=, a
    # second differentiation along other paths would silently leave this one out.
    if torch.is_grad_enabled():
        raise RuntimeError(
            "the jet of a network is differentiable once: for gradients of its gradients "
            "(create_graph=True) take derivatives with diffhash.autograd_jet"
        )


class _TorchActivation(Function):
    """As `_activate`, with less memory traffic."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, orders: tuple[int, ...], activation: Activation) -> Tensor:
        out = torch.empty_like(z)
        rows, results = z.unbind(-3), out.unbind(-3)
        results[0].copy_(activation.value(rows[0]))
        slopes = activation.slopes(rows[0], results[0])
        first, second, _ = slopes
        row = 1
        for order in orders:
            if order >= 1:
                torch.mul(first, rows[row], out=results[row])
            if order == 2:
                torch.mul(second, rows[row], out=results[row + 1]).mul_(rows[row])
                results[row + 1].addcmul_(first, rows[row + 1])
            row += order
        ctx.save_for_backward(z, *slopes)
        ctx.orders = orders
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        _refuse_second_differentiation()
        z, first, second, third = ctx.saved_tensors
        grad = grads[0] * first.unsqueeze(-3)
        rows, g, results = z.unbind(-3), grads[0].unbind(-3), grad.unbind(-3)
        row = 1
        for order in ctx.orders:
            if order >= 1:
                curved = second * rows[row]
                if order == 2:
                    bent = torch.addcmul(third * rows[row] * rows[row], second, rows[row + 1])
                    results[0].addcmul_(bent, g[row + 1])
                    results[row].addcmul_(curved, g[row + 1], value=2)
                results[0].addcmul_(curved, g[row])
            row += order
        return grad, None, None


class _NativePass:
    """The kernels' way forward, and, if ``states`` are kept for it, back."""

    def __init__(
        self,
        features: Tensor,
        params: Tensor,
        widths: tuple[int, ...],
        orders: tuple[int, ...],
        activation: Activation,
        keep_states: bool,
    ) -> None:
        if features.ndim < 3 or params.ndim < 1:
            raise ValueError(
                f"features of shape {list(features.shape)} and params of shape "
                f"{list(params.shape)}: give [(R,) K, N, C] and [(R,) P]"
            )
        # Without their graph, and as they are now: their data may be replaced.
        self._features, self._params = features.detach(), params.detach()
        self._versions = version(features), version(params)
        n_inputs = features.shape[-1]
        if n_inputs != widths[0]:
            raise ValueError(f"features have {n_inputs} channels, the network reads {widths[0]}")
        self._kernel = network_kernel(
            widths,
            orders,
            features.shape[-2],
            params.shape[:-1],
            features.ndim == 3,
            activation,
            features.dtype,
            torch.get_num_threads(),
        )
        self.out, self._states = self._kernel.forward(features, params, keep_states)

    def backward(self, g: Tensor, with_features: bool) -> tuple[Tensor, Tensor | None]:
        """Gradients of the parameters, and of the features if wanted."""
        features, params = self._features, self._params
        assert self._states is not None
        if (version(features), version(params)) != self._versions:
            raise RuntimeError(
                "the network's params or features were modified by an inplace operation after "
                "the jet: take the jet anew, or its gradient before"
            )
        params_grad, features_grad = self._kernel.backward(
            features, params, self._states, g, with_features
        )
        if features_grad is not None and features_grad.ndim > features.ndim:
            features_grad = features_grad.sum(dim=0)
        return params_grad, features_grad


class _NativeJet(Function):
    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        params: Tensor,
        widths: tuple[int, ...],
        orders: tuple[int, ...],
        activation: Activation,
    ) -> Tensor:
        needed = any(ctx.needs_input_grad)
        native = _NativePass(features, params, widths, orders, activation, needed)
        out = native.out
        if needed:
            del native.out  # the node owns it: keeping it here would be a cycle
            ctx.native = native
            ctx.save_for_backward(features, params)  # to notice changes in place
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        _refuse_second_differentiation()
        _ = ctx.saved_tensors
        params_grad, features_grad = ctx.native.backward(grads[0], ctx.needs_input_grad[0])
        return features_grad, params_grad, None, None, None
