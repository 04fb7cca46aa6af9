"""Smooth activations, and how a jet passes through one.

With a pre-activation jet (z, z_j, z_jj) and an activation σ, Taylor mode (Faà di Bruno) gives

    σ(z),    ∂_j = σ'(z) z_j,    ∂_jj = σ'(z) z_jj + σ''(z) z_j².
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from diffhash.native import C_NAMES, C_TYPES, CompilerError, call, compiled, n_threads

_SOURCE = Path(__file__).with_name("activation_kernels.c")
_BLOCK = 64  # points, as in the C source


@dataclass(frozen=True)
class Activation:
    """σ and its derivatives.

    Attributes:
        value: σ(z).
        slopes: ``slopes(z, σ(z))`` → (σ', σ'', σ''').
        formulas: σ', σ'' and σ''' once more, as C expressions in ``a`` = σ(z), ``b`` and ``p``.
        auxiliary: b(z), if the expressions need it.
        parameter: p.
    """

    value: Callable[[Tensor], Tensor]
    slopes: Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
    formulas: tuple[str, str, str]
    auxiliary: Callable[[Tensor], Tensor] | None = None
    parameter: float = 1.0


def _tanh_slopes(_: Tensor, a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    square = a * a
    first = 1 - square
    return first, a * first * -2, (square * 6 - 2) * first


def tanh() -> Activation:
    """σ(z) = tanh z."""
    formulas = ("1-a*a", "-2*a*(1-a*a)", "(6*a*a-2)*(1-a*a)")
    return Activation(torch.tanh, _tanh_slopes, formulas)


def sine(omega_0: float) -> Activation:
    """σ(z) = sin(ω₀ z) (Sitzmann et al., NeurIPS 2020)."""

    def cosine(z: Tensor) -> Tensor:
        return (omega_0 * z).cos()

    def slopes(z: Tensor, a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        cos = cosine(z)
        return omega_0 * cos, -(omega_0**2) * a, -(omega_0**3) * cos

    def value(z: Tensor) -> Tensor:
        return torch.sin(omega_0 * z)

    return Activation(value, slopes, ("p*b", "-p*p*a", "-p*p*p*b"), cosine, omega_0)


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
    if torch.compiler.is_compiling() or z.device.type != "cpu":  # the compiler fuses on its own
        return _TorchActivateJet.apply(z, bias, orders, activation)
    if _library(activation.formulas, z.dtype) is None:
        return _TorchActivateJet.apply(z, bias, orders, activation)
    return _NativeActivateJet.apply(z, bias, orders, activation)


def _refuse_second_differentiation() -> None:
    # torch's once_differentiable raises only where its own node is visited: with inputs=, a
    # second differentiation along other paths would silently leave this one out.
    if torch.is_grad_enabled():
        raise RuntimeError(
            "the jet of a network is differentiable once: for gradients of its gradients "
            "(create_graph=True) take derivatives with diffhash.autograd_jet"
        )


class _TorchActivateJet(Function):
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
        _refuse_second_differentiation()
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


@cache
def _library(formulas: tuple[str, str, str], dtype: torch.dtype) -> ctypes.CDLL | None:
    """The kernels of an activation; None where they cannot be compiled."""
    if dtype not in C_NAMES:
        return None
    first, second, third = formulas
    try:
        return compiled(_SOURCE, REAL=C_NAMES[dtype], FIRST=first, SECOND=second, THIRD=third)
    except CompilerError:
        return None


class _NativeActivateJet(Function):
    """As `_TorchActivateJet`, each direction in one pass over memory."""

    @staticmethod
    def forward(
        ctx: Any, z: Tensor, bias: Tensor, orders: tuple[int, ...], activation: Activation
    ) -> Tensor:
        z = z.contiguous()
        out = torch.empty_like(z)
        z0 = torch.add(z[0], bias)
        out[0] = activation.value(z0)
        auxiliary = out if activation.auxiliary is None else activation.auxiliary(z0)
        ctx.call = _Call(z, orders, activation)
        ctx.call("forward", z, out, auxiliary, out)
        ctx.save_for_backward(z, out, auxiliary)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        _refuse_second_differentiation()
        z, out, auxiliary = ctx.saved_tensors
        _, n_points, width = z.shape
        grad = torch.empty_like(z)
        bias_grads = z.new_empty(-(-n_points // _BLOCK), width)
        ctx.call("backward", z, out, auxiliary, grads[0].contiguous(), grad, bias_grads)
        return grad, bias_grads.sum(dim=0), None, None


class _Call:
    """Calls of an activation's kernels at one shape of jets."""

    def __init__(self, z: Tensor, orders: tuple[int, ...], activation: Activation) -> None:
        _, n_points, width = z.shape
        self._orders = (ctypes.c_int64 * len(orders))(*orders)
        self._shape = _shape_type(z.dtype)(
            n_points,
            width,
            len(orders),
            n_threads(z.numel()),
            ctypes.addressof(self._orders),
            activation.parameter,
        )
        self._library = _library(activation.formulas, z.dtype)

    def __call__(self, name: str, *tensors: Tensor) -> None:
        call(getattr(self._library, name), self._shape, *tensors)


@cache
def _shape_type(dtype: torch.dtype) -> type[ctypes.Structure]:
    class Shape(ctypes.Structure):
        _fields_ = [
            *((name, ctypes.c_int64) for name in ("n_points", "width", "n_axes", "n_threads")),
            ("orders", ctypes.c_void_p),
            ("parameter", C_TYPES[dtype]),
        ]

    return Shape
