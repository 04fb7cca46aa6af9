"""Smooth activations, and how a jet passes through one.

With a pre-activation jet (z, z_j, z_jj) and an activation σ, Taylor mode (Faà di Bruno) gives

    σ(z),    ∂_j = σ'(z) z_j,    ∂_jj = σ'(z) z_jj + σ''(z) z_j².
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function


@dataclass(frozen=True)
class Activation:
    """σ and its derivatives.

    Attributes:
        value: σ(z).
        slopes: ``slopes(z, σ(z))`` → (σ', σ'', σ''').
    """

    value: Callable[[Tensor], Tensor]
    slopes: Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]


def _tanh_slopes(_: Tensor, a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    square = a * a
    first = 1 - square
    return first, a * first * -2, (square * 6 - 2) * first


def tanh() -> Activation:
    """σ(z) = tanh z."""
    return Activation(torch.tanh, _tanh_slopes)


def sine(omega_0: float) -> Activation:
    """σ(z) = sin(ω₀ z) (Sitzmann et al., NeurIPS 2020)."""

    def slopes(z: Tensor, a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        cos = (omega_0 * z).cos()
        return omega_0 * cos, -(omega_0**2) * a, -(omega_0**3) * cos

    return Activation(lambda z: torch.sin(omega_0 * z), slopes)


def activate_jet_reference(
    z: Tensor, bias: Tensor, orders: tuple[int, ...], activation: Activation
) -> Tensor:
    """The readable truth of `activate_jet`, differentiated by autograd."""
    z0 = z[0] + bias
    value = activation.value(z0)
    first, second, _ = activation.slopes(z0, value)
    rows = [value]
    row = 1
    for order in orders:
        if order >= 1:
            rows.append(first * z[row])
        if order == 2:
            rows.append(first * z[row + 1] + second * z[row] ** 2)
        row += order
    return torch.stack(rows)


def activate_jet(
    z: Tensor, bias: Tensor, orders: tuple[int, ...], activation: Activation
) -> Tensor:
    """The jet of σ(z + bias): ``z [K, N, C]``, ``bias [C]`` → ``[K, N, C]``.

    Differentiable once, as derivatives in x are in the jet.

    Raises:
        RuntimeError: from a backward pass with ``create_graph=True``.
    """
    if len(z) == 1:
        return activation.value(z + bias)
    return _ActivateJet.apply(z, bias, orders, activation)


class _ActivateJet(Function):
    @staticmethod
    def forward(
        ctx: Any, z: Tensor, bias: Tensor, orders: tuple[int, ...], activation: Activation
    ) -> Tensor:
        z0 = z[0] + bias
        out = torch.empty_like(z)
        value = out[0]
        value.copy_(activation.value(z0))
        slopes = activation.slopes(z0, value)
        first, second, _ = slopes
        row = 1
        for order in orders:
            if order >= 1:
                torch.mul(first, z[row], out=out[row])
            if order == 2:
                torch.mul(z[row], z[row], out=out[row + 1]).mul_(second)
                out[row + 1].addcmul_(first, z[row + 1])
            row += order
        ctx.save_for_backward(z, *slopes)
        ctx.orders = orders
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        # torch's once_differentiable raises only where its own node is visited: with inputs=, a
        # second differentiation along other paths would silently leave this one out.
        if torch.is_grad_enabled():
            raise RuntimeError(
                "the jet of a network is differentiable once: for gradients of its gradients "
                "(create_graph=True) take derivatives with diffhash.autograd_jet"
            )
        (g,) = grads
        z, first, second, third = ctx.saved_tensors
        grad = g * first
        row = 1
        for order in ctx.orders:
            if order >= 1:
                curved = second * z[row]
                if order == 2:
                    grad[0].addcmul_(
                        torch.addcmul(third * z[row].square(), second, z[row + 1]), g[row + 1]
                    )
                    grad[row].addcmul_(curved, g[row + 1], value=2)
                grad[0].addcmul_(curved, g[row])
            row += order
        return grad, grad[0].sum(dim=0), None, None
