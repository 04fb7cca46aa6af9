"""Smooth activations σ: their derivatives in torch, and as C for the fused network."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

Slopes = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Kernel:
    """σ in C, for `network_kernels.c`.

    Attributes:
        state: statements that set ``a`` (and ``b``) from the pre-activation ``z`` and ``p``.
        value: σ(z) as an expression in ``a``, ``b`` and ``p``.
        slopes: σ', σ'' and σ''' likewise.
        has_b: whether ``b`` is used.
    """

    state: str
    value: str
    slopes: tuple[str, str, str]
    has_b: bool = True


@dataclass(frozen=True)
class Activation:
    """σ and its first three derivatives, which jets of second order need when trained.

    Attributes:
        name: of σ.
        value: σ(z).
        slopes: ``slopes(z, σ(z))`` → (σ', σ'', σ''').
        kernel: the same in C.
        parameter: ``p`` in C.
    """

    name: str
    value: Callable[[Tensor], Tensor] = field(compare=False)
    slopes: Callable[[Tensor, Tensor], Slopes] = field(compare=False)
    kernel: Kernel
    parameter: float = 1.0


def _tanh_slopes(_: Tensor, a: Tensor) -> Slopes:
    square = a * a
    first = 1 - square
    return first, a * first * -2, (square * 6 - 2) * first


_TANH = Activation(
    "tanh",
    torch.tanh,
    _tanh_slopes,
    Kernel("a = tanh_(z)", "a", ("(1-a*a)", "(-2*a*(1-a*a))", "((6*a*a-2)*(1-a*a))"), has_b=False),
)


def _silu_slopes(z: Tensor, a: Tensor) -> Slopes:
    s = torch.sigmoid(z)
    s1 = s * (1 - s)
    s2 = s1 * (1 - 2 * s)
    s3 = s2 * (1 - 2 * s) - 2 * s1 * s1
    return s + z * s1, 2 * s1 + z * s2, 3 * s2 + z * s3


_SILU = Activation(
    "silu",
    F.silu,
    _silu_slopes,
    Kernel(
        "a = z; b = sigmoid_(z)",
        "(a*b)",
        (
            "(b+a*b*(1-b))",
            "(b*(1-b)*(2+a*(1-2*b)))",
            "(b*(1-b)*(3*(1-2*b)+a*(1-6*b+6*b*b)))",
        ),
    ),
)


def _gelu_slopes(z: Tensor, a: Tensor) -> Slopes:
    density = torch.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    cdf = torch.special.ndtr(z)
    return cdf + z * density, density * (2 - z * z), density * z * (z * z - 4)


_GELU = Activation(
    "gelu",
    F.gelu,
    _gelu_slopes,
    Kernel(
        "a = z; b = normal_cdf_(z)",
        "(a*b)",
        ("(b+a*normal_pdf_(a))", "(normal_pdf_(a)*(2-a*a))", "(normal_pdf_(a)*a*(a*a-4))"),
    ),
)


def _softplus_slopes(z: Tensor, _: Tensor) -> Slopes:
    s = torch.sigmoid(z)
    second = s * (1 - s)
    return s, second, second * (1 - 2 * s)


_SOFTPLUS = Activation(
    "softplus",
    lambda z: F.softplus(z, threshold=math.inf),
    _softplus_slopes,
    Kernel("a = softplus_(z); b = sigmoid_(z)", "a", ("b", "(b*(1-b))", "(b*(1-b)*(1-2*b))")),
)

_NAMED = {a.name: a for a in (_TANH, _SILU, _GELU, _SOFTPLUS)}


def named_activation(name: str) -> Activation:
    """tanh, silu (z·sigmoid z), gelu (z·Φ(z)) or softplus (log(1 + eᶻ)).

    Raises:
        ValueError: another name.
    """
    if name not in _NAMED:
        raise ValueError(f"activation={name!r} is unknown; choose one of {', '.join(_NAMED)}")
    return _NAMED[name]


def sine(omega_0: float) -> Activation:
    """σ(z) = sin(ω₀ z) (Sitzmann et al., NeurIPS 2020)."""

    def value(z: Tensor) -> Tensor:
        return torch.sin(omega_0 * z)

    def slopes(z: Tensor, a: Tensor) -> Slopes:
        cos = (omega_0 * z).cos()
        return omega_0 * cos, -(omega_0**2) * a, -(omega_0**3) * cos

    # The kernels keep sin and cos of p z.
    kernel = Kernel("", "a", ("(p*b)", "(-p*p*a)", "(-p*p*p*b)"))
    return Activation("sine", value, slopes, kernel, omega_0)
