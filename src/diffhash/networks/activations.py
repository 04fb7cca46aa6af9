"""Smooth activations σ: their derivatives in torch, and as C for the fused network."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

Slopes = tuple[Tensor, Tensor, Tensor]
# From there on silu and gelu are 0 or z to any precision, and what their formulas make of infinity
# (0 · inf) is not: in C it is `within`.
_STRAIGHT_BEYOND = 1024.0


@dataclass(frozen=True)
class Kernel:
    """σ in C, for `network.c`.

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

    def __reduce__(self) -> tuple[Any, ...]:
        return find_activation, (self.name, self.parameter)  # what is pickled is its name


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


def _straight_beyond(function: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """A function that tends to 0 and to z; at infinity, too, and with it all its derivatives."""
    return torch.where(z > _STRAIGHT_BEYOND, z, function(_within(z)))


def _within(z: Tensor) -> Tensor:
    beyond = _STRAIGHT_BEYOND * z.detach().sign()
    return torch.where(z.abs() > _STRAIGHT_BEYOND, beyond, z)  # a clamp would lose NaN's gradient


def _silu_slopes(z: Tensor, a: Tensor) -> Slopes:
    z = _within(z)
    s = torch.sigmoid(z)
    s1 = s * (1 - s)
    s2 = s1 * (1 - 2 * s)
    s3 = s2 * (1 - 2 * s) - 2 * s1 * s1
    return s + z * s1, 2 * s1 + z * s2, 3 * s2 + z * s3


_SILU = Activation(
    "silu",
    partial(_straight_beyond, F.silu),
    _silu_slopes,
    Kernel(
        "a = not_below(z); b = sigmoid_(z)",
        "(a*b)",
        (
            "(b+within(a)*b*(1-b))",
            "(b*(1-b)*(2+within(a)*(1-2*b)))",
            "(b*(1-b)*(3*(1-2*b)+within(a)*(1-6*b+6*b*b)))",
        ),
    ),
)


def _gelu_slopes(z: Tensor, a: Tensor) -> Slopes:
    z = _within(z)
    density = torch.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    cdf = torch.special.ndtr(z)
    return cdf + z * density, density * (2 - z * z), density * z * (z * z - 4)


_GELU = Activation(
    "gelu",
    partial(_straight_beyond, F.gelu),
    _gelu_slopes,
    Kernel(
        "a = not_below(z); b = normal_cdf_(z)",
        "(a*b)",
        (
            "(b+within(a)*normal_pdf_(within(a)))",
            "(normal_pdf_(within(a))*(2-within(a)*within(a)))",
            "(normal_pdf_(within(a))*within(a)*(within(a)*within(a)-4))",
        ),
    ),
)


def _softplus_slopes(z: Tensor, _: Tensor) -> Slopes:
    s = torch.sigmoid(z)
    second = s * (1 - s)
    return s, second, second * (1 - 2 * s)


_SOFTPLUS = Activation(
    "softplus",
    partial(F.softplus, threshold=40.0),  # e⁻⁴⁰ is nothing beside 40, and e⁴⁰ still finite
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


def _sine(omega_0: float, z: Tensor) -> Tensor:
    return torch.sin(omega_0 * z)


def _sine_slopes(omega_0: float, z: Tensor, a: Tensor) -> Slopes:
    cos = (omega_0 * z).cos()
    return omega_0 * cos, -(omega_0**2) * a, -(omega_0**3) * cos


def sine(omega_0: float) -> Activation:
    """σ(z) = sin(ω₀ z) (Sitzmann et al., NeurIPS 2020)."""
    # The kernels keep sin and cos of p z.
    kernel = Kernel("", "a", ("(p*b)", "(-p*p*a)", "(-p*p*p*b)"))
    value, slopes = partial(_sine, omega_0), partial(_sine_slopes, omega_0)
    return Activation("sine", value, slopes, kernel, omega_0)


def find_activation(name: str, parameter: float) -> Activation:
    """The activation of that `Activation.name` and `Activation.parameter`."""
    return sine(parameter) if name == "sine" else named_activation(name)
