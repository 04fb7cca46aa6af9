"""The composition of a jet with σ as C code, from the same table and activation as in torch.

``native/csrc/activation.c`` is compiled with this code: for each element of a block of jets, the
statements of the forward pass and of the backward pass.
"""

from __future__ import annotations

from functools import cache

from diffhash.jets.activations import Activation
from diffhash.jets.composition import Term, composition
from diffhash.jets.rows import Row


@cache
def activation_code(activation: Activation, rows: tuple[Row, ...]) -> tuple[str, tuple[float, ...]]:
    """Macros for ``activation.c``, and the numbers of the array ``c`` in them.

    ``z0``, ``z1`` … are the rows of the jet at an element, ``g0``, ``g1`` … the gradients in the
    rows of the result, and ``s1``, ``s2`` … the derivatives of σ.
    """
    table = composition(rows)
    numbers: list[float] = []
    highest = max(term.slope for terms in table for term in terms)
    later = range(1, len(rows))
    used = {factor for terms in table[1:] for term in terms for factor in term.factors}
    forward = [
        *(f"const REAL z{row} = z[{row} * plane + i];" for row in later if row in used),
        f"out[i] = {activation.c_value};",
    ]
    backward = [
        *(f"const REAL z{row} = z[{row} * plane + i];" for row in later if row in used),
        *(f"const REAL g{row} = g[{row} * plane + i];" for row in later),
    ]
    own = []  # each row's contribution to the gradient in the value
    towards: list[list[str]] = [[] for _ in rows]
    for row, terms in enumerate(table[1:], start=1):
        texts = [
            _times(_number(term, numbers), _product(term.slope, term.factors)) for term in terms
        ]
        forward.append(f"out[{row} * plane + i] = {_sum(texts)};")
        raised = [
            _times(_number(term, numbers), _product(term.slope + 1, term.factors))
            for term in reversed(terms)
        ]
        own.append(f"g{row}*({_sum(raised)})")
        for term in terms:
            for factor in dict.fromkeys(term.factors):
                rest = list(term.factors)
                rest.remove(factor)
                several = Term(
                    term.coefficient * term.factors.count(factor), term.slope, tuple(rest)
                )
                product = _product(term.slope, several.factors)
                product = f"g{row}*({product})" if rest else f"g{row}*{product}"
                towards[factor].append(_times(_number(several, numbers), product))
    if own:
        backward.append(f"g[i] = g[i] + ({_sum(own)});")
    backward += [f"g[{row} * plane + i] = {_sum(towards[row]) or '0'};" for row in later]
    slopes = activation.slope_texts(highest + 1)
    functions = [f"const REAL {name} = {c};" for name, c in activation.in_state.items()]
    functions += [f"const REAL s1 = {slopes[0]};"]
    macros = {
        "STATE": activation.state,
        "SINES": int(not activation.state),
        "HAS_B": int(activation.has_b),
        "N_ROWS": len(rows),
        "FUNCTIONS": " ".join(functions),
        "FORWARD_SLOPES": _slopes(slopes, highest),
        "BACKWARD_SLOPES": _slopes(slopes, highest + 1),
        "FORWARD": " ".join(forward),
        "BACKWARD": " ".join(backward),
    }
    text = "".join(f"#define {name} {value}\n" for name, value in macros.items())
    return text, tuple(numbers)


def _slopes(slopes: list[str], order: int) -> str:
    return " ".join(f"const REAL s{k} = {slopes[k - 1]};" for k in range(2, order + 1))


def _number(term: Term, numbers: list[float]) -> str:
    """The term's coefficient in C: a small integer as a literal, another number from ``c``."""
    if term.coefficient == int(term.coefficient) and abs(term.coefficient) < 2**20:
        return str(int(term.coefficient))
    if term.coefficient not in numbers:
        numbers.append(term.coefficient)
    return f"c[{numbers.index(term.coefficient)}]"


def _product(slope: int, factors: tuple[int, ...]) -> str:
    return "*".join([f"s{slope}", *(f"z{factor}" for factor in factors)])


def _times(number: str, product: str) -> str:
    return {"1": product, "-1": f"-{product}"}.get(number, f"{number}*{product}")


def _sum(texts: list[str]) -> str:
    return "+".join(texts)
