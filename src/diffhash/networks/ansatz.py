"""Output transforms that satisfy conditions exactly: u = g + φ · N with the network's output N."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from functools import cache
from itertools import product
from math import comb, prod

import torch
from torch import Tensor

from diffhash.jets import Names, Row, Sum, autograd_jet, expanded, jet_rows, varies
from diffhash.ops.backends import MultiIndex

# A function of points [N, d] that returns g and φ, each [N] for all components, or [N, C].
Ansatz = Callable[[Tensor], tuple[Tensor, Tensor]]
_TORCH = "compute it by torch operations, without numpy and detach()"
_SAMPLE = 16  # points at which periods are checked
_ALIKE = 1e-6  # the largest difference across a period, relative to 1 + the largest value


def ansatz_values(ansatz: Ansatz, x: Tensor, n_components: int) -> tuple[Tensor, Tensor]:
    """The values g and φ of an ansatz at points ``x [N, d]``, each ``[N, C]``.

    Raises:
        ValueError: the ansatz cannot be computed, or does not return a pair, or one of these
            shapes.
    """
    try:
        values = ansatz(x)
    except RuntimeError as error:  # torch raises it for a tensor given to numpy
        raise ValueError(
            f"ansatz cannot be computed at {len(x)} points: {error}; {_TORCH}"
        ) from error
    if not (isinstance(values, tuple) and len(values) == 2):
        raise ValueError(f"ansatz: gives {type(values).__name__}; give the pair (g, φ)")
    shape, found = (len(x), n_components), []
    for name, value in zip(("g", "φ"), values, strict=True):
        value = torch.as_tensor(value, dtype=x.dtype, device=x.device)
        if value.ndim < 2:
            value = value.reshape(-1, 1)
        try:
            found.append(value.expand(shape))
        except RuntimeError:
            raise ValueError(
                f"ansatz: its {name} has the shape {list(value.shape)} at {len(x)} points; give "
                f"{[len(x)]}, or {list(shape)} for each unknown"
            ) from None
    return found[0], found[1]


def _ansatz_jet(ansatz: Ansatz, x: Tensor, rows: tuple[Row, ...], n_components: int) -> Tensor:
    """The jets of g and φ side by side, ``[K, N, 2C]``. A g or φ that varies with x but has no
    graph is refused, because its derivatives would be 0."""

    def both(x: Tensor) -> Tensor:
        values = ansatz_values(ansatz, x, n_components)
        for index, (name, value) in enumerate(zip("gφ", values, strict=True)):
            if not value.requires_grad and varies(
                lambda x, i=index: ansatz_values(ansatz, x, n_components)[i], x, value
            ):
                raise ValueError(
                    f"ansatz: its {name} varies with x where autograd cannot see it; {_TORCH}"
                )
        return torch.cat(values, dim=-1)

    return autograd_jet(both, x.double(), rows).only(rows).data.detach()


def check_periods(
    ansatz: Ansatz, domain: Sequence[tuple[float, float]], periodic: Sequence[int], names: Names
) -> None:
    """Check that an ansatz has the periods of a field.

    Args:
        ansatz: the function that returns g and φ.
        domain: (low, high) of each axis.
        periodic: the numbers of the axes along which the field is periodic.
        names: the names of axes and unknowns.

    Raises:
        ValueError: g or φ, or a first derivative, differs between the two sides across such an
            axis.
    """
    n_dims, n_components = len(domain), len(names.unknowns)
    low, high = torch.tensor(domain, dtype=torch.float64).T
    unit = torch.rand(_SAMPLE, n_dims, generator=torch.Generator().manual_seed(0))
    rows = jet_rows(1, n_dims)
    for axis in periodic:
        ends = torch.zeros(2, 1, n_dims)
        ends[1, 0, axis] = 1
        at_low = unit.index_fill(1, torch.tensor([axis]), 0)
        x = low + (high - low) * (at_low + ends).flatten(0, 1)
        first, second = _ansatz_jet(ansatz, x, rows, n_components).split(_SAMPLE, 1)
        # Outside a domain that is no box a function may be NaN.
        gap, size = (first - second).nan_to_num().abs(), first.nan_to_num().abs()
        if (gap.amax(dim=(1, 2)) > _ALIKE * (1 + size.amax(dim=(1, 2)))).any():
            raise ValueError(
                "ansatz: g, φ or a derivative of them differs between the two sides across "
                f"{names.axes[axis]}, along which the field is periodic: give functions with that "
                "period, or a field without it"
            )


def ansatz_rows(rows: tuple[Row, ...]) -> tuple[Row, ...]:
    """The rows of N from which the rows of u are computed. Sums are split into their terms, because
    φ varies."""
    if not any(isinstance(row, Sum) for row in rows):
        return rows
    alphas, _ = expanded(rows)
    return jet_rows(frozenset(alphas), len(alphas[0]))


class AnsatzJet:
    """The jet of u = g + φN from that of N at fixed points, by Leibniz' rule:

        ∂^α u = ∂^α g + Σ_{β ≤ α} (α over β) ∂^{α-β} φ ∂^β N.

    Args:
        ansatz: the function that returns g and φ.
        x: points ``[N, d]``.
        rows: the rows of u's jet.
        n_components: C.
        dtype: the type of the jets.

    Raises:
        ValueError: the ansatz does not return g and φ, one of them is not computed by operations
            that autograd can differentiate, or a number is not finite.
    """

    def __init__(
        self,
        ansatz: Ansatz,
        x: Tensor,
        rows: tuple[Row, ...],
        n_components: int,
        dtype: torch.dtype,
    ) -> None:
        self._rows = rows
        self._made_of = ansatz, n_components, dtype
        self.inner_rows = ansatz_rows(rows)
        jet = _ansatz_jet(ansatz, x, self.inner_rows, n_components)
        if not jet.isfinite().all():
            raise ValueError("ansatz: g, φ or a derivative of them is not finite at a point")
        g, phi = jet.to(dtype).chunk(2, dim=-1)
        self._g, self._phi = _summed(g, rows, self.inner_rows), phi

    def move(self, x: Tensor) -> None:
        """Move to other points, of the same number, in place."""
        ansatz, n_components, dtype = self._made_of
        moved = AnsatzJet(ansatz, x, self._rows, n_components, dtype)
        self._g.copy_(moved._g)
        self._phi.copy_(moved._phi)

    def at(self, index: Tensor) -> AnsatzJet:
        """The ansatz at some of the points, by their indices."""
        part = copy(self)
        part._g, part._phi = self._g[:, index], self._phi[:, index]
        return part

    def apply(self, data: Tensor) -> Tensor:
        """The jet of u, ``[.., K, N, C]``, from the jet of N, ``[.., K', N, C]``."""
        lines = []
        for terms in _leibniz(self._rows, self.inner_rows):
            parts = [c * self._phi[i] * data[..., k, :, :] for c, i, k in terms]
            lines.append(sum(parts[1:], parts[0]))
        return torch.stack(lines, dim=-3) + self._g

    def transposed(self, gradient: Tensor) -> Tensor:
        """The gradient in the jet of N from the gradient in the jet of u."""
        shape = (*gradient.shape[:-3], len(self.inner_rows), *gradient.shape[-2:])
        result = gradient.new_zeros(shape)
        for row, terms in enumerate(_leibniz(self._rows, self.inner_rows)):
            for c, i, k in terms:
                result[..., k, :, :] += c * self._phi[i] * gradient[..., row, :, :]
        return result

    def linear_form(self, coefficients: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Coefficients and target for the jet of N, from the coefficients ``[K, C, N, E]`` and the
        target ``[N, E]`` for the jet of u."""
        by_equation = coefficients.permute(3, 0, 2, 1)  # [E, K, N, C]
        inner = self.transposed(by_equation).permute(1, 3, 2, 0).contiguous()
        known = (by_equation * self._g).sum(dim=(1, 3)).mT  # [N, E]
        return inner, target - known


def _summed(g: Tensor, rows: tuple[Row, ...], inner: tuple[Row, ...]) -> Tensor:
    lines = []
    for row in rows:
        parts = row.terms if isinstance(row, Sum) else ((1.0, row),)
        lines.append(sum((w * g[inner.index(alpha)] for w, alpha in parts), torch.zeros_like(g[0])))
    return torch.stack(lines)


@cache
def _leibniz(
    rows: tuple[Row, ...], inner: tuple[Row, ...]
) -> tuple[tuple[tuple[float, int, int], ...], ...]:
    """For each row of u, its terms: (coefficient, row of φ, row of N)."""
    table = []
    for row in rows:
        terms = []
        for weight, alpha in row.terms if isinstance(row, Sum) else ((1.0, row),):
            for beta in product(*(range(m + 1) for m in alpha)):
                rest: MultiIndex = tuple(a - b for a, b in zip(alpha, beta, strict=True))
                binomial = prod(comb(a, b) for a, b in zip(alpha, beta, strict=True))
                terms.append((weight * binomial, inner.index(rest), inner.index(beta)))
        table.append(tuple(terms))
    return tuple(table)
