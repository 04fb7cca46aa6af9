"""The columns of a Jacobian for the parameters of a dense layer, stored as factors of its rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from diffhash.networks.jacobian import LayerRows

_BLOCK = 512  # rows y and g that are multiplied at a time, so few that they stay in a cache
_SLOWER = 1.5  # the time of an operation, relative to its time in one large matrix product


class Layer:
    """J ``[M, P]`` in the parameters of a layer with I inputs and O outputs, P = O (I + 1).

    A row of J is Σ_k g_k y_kᵀ (see `LayerRows`), stored as its factors g_k and y_k. With matrices
    Y_k and G_k of all rows,

        J v = Σ_k (Y_k Vᵀ ∘ G_k) 1,   Jᵀ w = Σ_k G_kᵀ diag(w) Y_k,   JJᵀ = Σ_kl G_k G_lᵀ ∘ Y_k Y_lᵀ.

    The last takes M² K² (I + O) operations instead of M² I O.

    Args:
        parts: the factors of J's rows, in the order of the rows; K may differ between parts.
    """

    def __init__(self, parts: Sequence[LayerRows]) -> None:
        self._parts = [LayerRows(*(factor.double() for factor in part)) for part in parts]

    @property
    def n_columns(self) -> int:
        """P, the number of columns."""
        return self._parts[0].n_columns

    @property
    def cost(self) -> float:
        """The number of operations for an entry of JJᵀ."""
        return min(self.n_columns, self._factored_cost)

    @property
    def _factored_cost(self) -> float:
        terms = [part.inputs.shape[:2] for part in self._parts]
        n_terms = sum(k * n for k, n in terms) / sum(n for _, n in terms)
        n_factors = sum(factor.shape[-1] for factor in self._parts[0])
        return _SLOWER * n_terms**2 * n_factors

    def dense(self) -> np.ndarray:
        """J as a matrix ``[M, P]``."""
        return torch.cat([part.dense() for part in self._parts]).numpy()

    def divided(self, number: float) -> Layer:
        """J, divided by a number."""
        return Layer([part._replace(gradients=part.gradients / number) for part in self._parts])

    def __matmul__(self, v: np.ndarray) -> np.ndarray:
        """J v."""
        n_outputs = self._parts[0].gradients.shape[-1]
        weights, biases = torch.from_numpy(v).split([len(v) - n_outputs, n_outputs])
        both = torch.cat([weights.view(n_outputs, -1), biases[:, None]], dim=1)
        parts = [((part.inputs @ both.mT) * part.gradients).sum(dim=(0, 2)) for part in self._parts]
        return torch.cat(parts).numpy()

    def transposed(self, w: np.ndarray) -> np.ndarray:
        """Jᵀ w."""
        sizes = [part.inputs.shape[1] for part in self._parts]
        found = [
            (part.gradients * own[:, None]).flatten(0, 1).mT @ part.inputs.flatten(0, 1)
            for part, own in zip(self._parts, torch.from_numpy(w).split(sizes), strict=True)
        ]
        return _vector(torch.stack(found).sum(dim=0))

    def squares(self) -> np.ndarray:
        """The sum of the squares of each column, ``[P]``."""
        total = torch.zeros(())
        for inputs, gradients in self._parts:
            for k in range(len(inputs)):
                for m in range(k + 1):
                    pair = (gradients[k] * gradients[m]).mT @ (inputs[k] * inputs[m])
                    total = total + (pair if m == k else 2 * pair)
        return _vector(total.clamp(min=0))

    def add_gram(self, out: np.ndarray) -> None:
        """Add JJᵀ to ``out [M, M]``, at least on and above the diagonal."""
        if self._factored_cost >= self.n_columns:
            rows = self.dense()
            out += rows @ rows.T
            return
        whole, blocks, first = torch.from_numpy(out), [], 0
        for part in self._parts:
            size = max(1, _BLOCK // len(part.inputs))
            for few in zip(*(factor.split(size, dim=1) for factor in part), strict=True):
                k, n, _ = few[0].shape
                factors = [factor.flatten(0, 1) for factor in few]
                blocks.append((slice(first, first + n), (k, n), factors))
                first += n
        for index, (rows, size, (y, g)) in enumerate(blocks):
            for columns, other_size, (z, h) in blocks[index:]:
                products = (y @ z.mT).mul_(g @ h.mT).view(*size, *other_size)
                own = whole[rows, columns]
                for by_row in products:
                    for product in by_row.unbind(dim=1):
                        own += product


def _vector(matrix: Tensor) -> np.ndarray:
    """Numbers ``[O, I + 1]`` for weights and biases, in the order of the layer's parameters."""
    return torch.cat([matrix[:, :-1].flatten(), matrix[:, -1]]).numpy()
