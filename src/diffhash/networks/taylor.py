"""How a jet passes through a network.

With a pre-activation jet (z, z_j, z_jj) and an activation σ, Taylor mode (Faà di Bruno) gives

    σ(z),    ∂_j = σ'(z) z_j,    ∂_jj = σ'(z) z_jj + σ''(z) z_j².

A linear layer acts on every row of the jet alike, its bias on the value alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

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
            out.append(first * rows[row + 1] + second * rows[row] ** 2)
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
                torch.mul(rows[row], rows[row], out=results[row + 1]).mul_(second)
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
                    bent = torch.addcmul(third * rows[row].square(), second, rows[row + 1])
                    results[0].addcmul_(bent, g[row + 1])
                    results[row].addcmul_(curved, g[row + 1], value=2)
                results[0].addcmul_(curved, g[row])
            row += order
        return grad, None, None


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
        features, params = features.contiguous(), params.contiguous()
        *_, n_rows, n_points, n_inputs = features.shape
        if n_inputs != widths[0]:
            raise ValueError(f"features have {n_inputs} channels, the network reads {widths[0]}")
        replicas = params.shape[:-1]
        kernel = network_kernel(
            widths,
            orders,
            n_points,
            replicas.numel(),
            features.ndim == 3,
            activation,
            features.dtype,
            torch.get_num_threads(),
        )
        out = features.new_empty(*replicas, n_rows, n_points, widths[-1])
        states = features.new_empty(kernel.state_size) if any(ctx.needs_input_grad) else None
        kernel.forward(features, params, states, out)
        ctx.kernel = kernel
        ctx.save_for_backward(features, params, states)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        _refuse_second_differentiation()
        features, params, states = ctx.saved_tensors
        params_grad = torch.empty_like(params)
        features_grad = None
        if ctx.needs_input_grad[0]:
            # Of one input that replicas share, each has a gradient.
            features_grad = features.new_empty(*params.shape[:-1], *features.shape[-3:])
        ctx.kernel.backward(
            features, params, states, grads[0].contiguous(), params_grad, features_grad
        )
        if features_grad is not None and features_grad.ndim > features.ndim:
            features_grad = features_grad.sum(dim=0)
        return features_grad, params_grad, None, None, None
