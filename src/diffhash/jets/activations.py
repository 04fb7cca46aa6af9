"""Smooth activations σ: each given by its value and a differential equation.

An activation has a few functions of z (for tanh: a = tanh z and d = 1 - a²); σ is an expression in
these functions, and their derivatives are polynomials in them (a' = d, d' = -2 a d). By the product
rule all derivatives of σ are such polynomials, too. They are expressed once, as text that is valid
both in Python for tensors and in C (`Activation.slope_texts`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

Monomial = tuple[str, ...]  # the sorted names of its factors
Polynomial = Mapping[Monomial, int]
MAX_ORDER = 4  # the highest order of derivatives of an activation's jet
# The functions' names in the order of factors: p first, factors common to most terms last.
_NAMES = "pxasbdqf"
# Beyond this |z| silu and gelu are 0 or z to any precision, but their formulas give NaN at infinity
# (0 · inf). The function in C is `within`.
_STRAIGHT_BEYOND = 1024.0


@dataclass(frozen=True)
class Activation:
    """σ, and the functions of z in which its derivatives are polynomials.

    Attributes:
        name: the name of σ.
        value: σ(z) in torch.
        functions: a torch function of z that returns the functions by name.
        first: σ' as a polynomial in the functions.
        derivatives: the derivative of each function, as a polynomial.
        squares: the squares of some functions, each as a polynomial that replaces it.
        state: C statements that set the stored states ``a`` (and ``b``) from ``z`` and ``p``.
        in_state: C expressions in ``a``, ``b`` and ``p`` for the functions that are not among them.
        c_value: the C expression for σ in these.
        has_b: whether ``b`` is used.
        parameter: the value of ``p``.
    """

    name: str
    value: Callable[[Tensor], Tensor] = field(compare=False)
    functions: Callable[[Tensor], dict[str, Any]] = field(compare=False)
    first: Polynomial = field(compare=False)
    derivatives: Mapping[str, Polynomial] = field(compare=False)
    squares: Mapping[str, Polynomial] = field(compare=False, default_factory=dict)
    state: str = field(compare=False, default="")
    in_state: Mapping[str, str] = field(compare=False, default_factory=dict)
    c_value: str = field(compare=False, default="a")
    has_b: bool = field(compare=False, default=True)
    parameter: float = 1.0
    _slopes: tuple[Callable[..., Tensor], ...] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        # The expressions are compiled here, before torch traces them.
        names = ", ".join(f"{name}=None" for name in _NAMES)
        texts = self.slope_texts(MAX_ORDER + 1)
        object.__setattr__(self, "_slopes", tuple(eval(f"lambda {names}: {t}") for t in texts))

    def __reduce__(self) -> tuple[Any, ...]:
        return find_activation, (self.name, self.parameter)  # pickled by name

    def slopes(self, z: Tensor, orders: int) -> list[Tensor]:
        """[σ(z), σ'(z), …, σ^(orders)(z)] up to `MAX_ORDER` + 1, differentiable to any order."""
        functions = self.functions(z)
        return [self.value(z), *(slope(**functions) for slope in self._slopes[:orders])]

    def slope_texts(self, orders: int) -> list[str]:
        """σ', …, σ^(orders) as expressions in the functions and ``p``, valid in Python and C."""
        polynomial, texts = dict(self.first), []
        for _ in range(orders):
            texts.append(_text(polynomial))
            polynomial = self._differentiate(polynomial)
        return texts

    def _differentiate(self, polynomial: Polynomial) -> dict[Monomial, int]:
        result: dict[Monomial, int] = {}
        for monomial, coefficient in polynomial.items():
            for i, name in enumerate(monomial):
                for factor, c in self.derivatives.get(name, {}).items():
                    rest = (*_without(monomial, i), *factor)
                    self._add(result, rest, coefficient * c)
        return {monomial: c for monomial, c in result.items() if c}

    def _add(self, result: dict[Monomial, int], monomial: Monomial, coefficient: int) -> None:
        for name, square in self.squares.items():
            if monomial.count(name) > 1:
                rest = list(monomial)
                rest.remove(name)
                rest.remove(name)
                for factor, c in square.items():
                    self._add(result, (*rest, *factor), coefficient * c)
                return
        monomial = tuple(sorted(monomial, key=_rank))
        result[monomial] = result.get(monomial, 0) + coefficient


def _rank(name: str) -> int:
    return _NAMES.index(name)


def _text(polynomial: Polynomial) -> str:
    """A polynomial as text, with the common last factors of all terms factored out, such as
    ``(6*a*a-2)*d``."""
    terms = sorted(polynomial.items(), key=lambda term: (-len(term[0]), term[0]))
    common: list[str] = []
    while len(terms) > 1 and all(monomial for monomial, _ in terms):
        last = {monomial[-1] for monomial, _ in terms}
        if len(last) > 1:
            break
        common.insert(0, last.pop())
        terms = [(monomial[:-1], c) for monomial, c in terms]
    counts = {name: sum(name in monomial for monomial, _ in terms) for name in _NAMES}
    most = max(counts, key=counts.__getitem__)
    if len(terms) > 2 and counts[most] > 1:  # Horner's scheme
        inner, rest = {}, {}
        for monomial, c in terms:
            at = monomial.index(most) if most in monomial else None
            part, left = (rest, monomial) if at is None else (inner, _without(monomial, at))
            part[left] = c
        text = f"{most}*({_text(inner)})" + (f"+{_text(rest)}" if rest else "")
    else:
        text = "+".join(_term(monomial, c) for monomial, c in terms)
    text = text.replace("+-", "-")
    return "*".join([f"({text})", *common]) if common else text


def _without(monomial: Monomial, index: int) -> Monomial:
    return (*monomial[:index], *monomial[index + 1 :])


def _term(monomial: Monomial, coefficient: int) -> str:
    if not monomial:
        return str(coefficient)
    product = "*".join(monomial)
    return {1: product, -1: f"-{product}"}.get(coefficient, f"{coefficient}*{product}")


def _tanh_functions(z: Tensor) -> dict[str, Tensor]:
    a = torch.tanh(z)
    return {"a": a, "d": 1 - a * a}


_TANH = Activation(
    "tanh",
    torch.tanh,
    _tanh_functions,
    first={("d",): 1},
    derivatives={"a": {("d",): 1}, "d": {("a", "d"): -2}},
    squares={"d": {("d",): 1, ("a", "a", "d"): -1}},
    state="a = tanh_(z)",
    in_state={"d": "1-a*a"},
    has_b=False,
)


def _straight_beyond(function: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """A function that tends to 0 and to z, and all its derivatives, without NaN at infinity."""
    return torch.where(z > _STRAIGHT_BEYOND, z, function(_within(z)))


def _within(z: Tensor) -> Tensor:
    beyond = _STRAIGHT_BEYOND * z.detach().sign()
    return torch.where(z.abs() > _STRAIGHT_BEYOND, beyond, z)  # a clamp would lose NaN's gradient


# s = sigmoid z and q = s' = s (1 - s).
_SIGMOID: dict[str, Polynomial] = {"s": {("q",): 1}, "q": {("q",): 1, ("s", "q"): -2}}
_SIGMOID_SQUARES: dict[str, Polynomial] = {"q": {("s", "q"): 1, ("s", "s", "q"): -1}}


def _silu_functions(z: Tensor) -> dict[str, Tensor]:
    x = _within(z)
    s = torch.sigmoid(x)
    return {"x": x, "s": s, "q": s * (1 - s)}


_SILU = Activation(
    "silu",
    partial(_straight_beyond, F.silu),
    _silu_functions,
    first={("s",): 1, ("x", "q"): 1},
    derivatives={"x": {(): 1}, **_SIGMOID},
    squares=_SIGMOID_SQUARES,
    state="a = not_below(z); b = sigmoid_(z)",
    in_state={"x": "within(a)", "s": "b", "q": "b*(1-b)"},
    c_value="(a*b)",
)


def _gelu_functions(z: Tensor) -> dict[str, Tensor]:
    x = _within(z)
    density = torch.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    return {"x": x, "b": torch.special.ndtr(x), "f": density}


_GELU = Activation(
    "gelu",
    partial(_straight_beyond, F.gelu),
    _gelu_functions,
    first={("b",): 1, ("x", "f"): 1},
    derivatives={"x": {(): 1}, "b": {("f",): 1}, "f": {("x", "f"): -1}},
    state="a = not_below(z); b = normal_cdf_(z)",
    in_state={"x": "within(a)", "f": "normal_pdf_(within(a))"},
    c_value="(a*b)",
)


def _softplus_functions(z: Tensor) -> dict[str, Tensor]:
    s = torch.sigmoid(z)
    return {"s": s, "q": s * (1 - s)}


_SOFTPLUS = Activation(
    "softplus",
    partial(F.softplus, threshold=40.0),  # e⁻⁴⁰ is below the precision of 40, and e⁴⁰ is finite
    _softplus_functions,
    first={("s",): 1},
    derivatives=_SIGMOID,
    squares=_SIGMOID_SQUARES,
    state="a = softplus_(z); b = sigmoid_(z)",
    in_state={"s": "b", "q": "b*(1-b)"},
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


def _sine_functions(omega_0: float, z: Tensor) -> dict[str, Any]:
    return {"p": omega_0, "a": torch.sin(omega_0 * z), "b": torch.cos(omega_0 * z)}


def sine(omega_0: float) -> Activation:
    """σ(z) = sin(ω₀ z) (Sitzmann et al., NeurIPS 2020)."""
    return Activation(
        "sine",
        partial(_sine, omega_0),
        partial(_sine_functions, omega_0),
        first={("p", "b"): 1},
        derivatives={"a": {("p", "b"): 1}, "b": {("p", "a"): -1}},
        parameter=omega_0,
    )  # the kernels store sin and cos of p z


def find_activation(name: str, parameter: float) -> Activation:
    """The activation of that `Activation.name` and `Activation.parameter`."""
    return sine(parameter) if name == "sine" else named_activation(name)
