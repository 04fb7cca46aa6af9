"""The Jacobian J of residuals r: as a matrix in parts, and as products with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy import sparse
from torch import nn
from torch.autograd import forward_ad
from torch.func import functional_call

from diffhash.optim.dissection import gram
from diffhash.optim.layers import Layer


@dataclass(frozen=True)
class Jacobian:
    """J ``[M, P]``, in three parts: ``J = [table, *layers, rest]``, in the order of
    `Residuals.parameters`.

    Attributes:
        table: derivatives in the entries of a grid's table, ``[M, P_t]``; sparse.
        layers: derivatives in the parameters of each of the network's layers.
        rest: derivatives in the problem's coefficients, ``[M, P_r]``, after those in the network's
            parameters where there are no layers.
    """

    table: sparse.csr_array
    layers: Sequence[Layer]
    rest: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        """The numbers of rows and columns, M and P."""
        return len(self.rest), self.n_table + self.n_dense

    @property
    def n_table(self) -> int:
        """P_t, the number of the table's columns."""
        assert self.table.shape is not None
        return self.table.shape[1]

    @property
    def n_dense(self) -> int:
        """P - P_t, the number of columns besides the table's."""
        return sum(layer.n_columns for layer in self.layers) + self.rest.shape[1]

    @property
    def _ends(self) -> np.ndarray:
        """The first column after the table's columns, and after each layer's columns."""
        return np.cumsum([self.n_table, *(layer.n_columns for layer in self.layers)])

    @cached_property
    def dense(self) -> np.ndarray:
        """All columns besides the table's as a dense matrix, ``[M, P - P_t]``."""
        if not self.layers:
            return self.rest
        return np.hstack([*(layer.dense() for layer in self.layers), self.rest])

    def squares(self) -> np.ndarray:
        """The sum of the squares of each column, ``[P]``."""
        table = np.bincount(self.table.indices, np.square(self.table.data), self.n_table)
        rest = np.einsum("ij,ij->j", self.rest, self.rest)
        return np.concatenate([table, *(layer.squares() for layer in self.layers), rest])

    def gram(self) -> np.ndarray:
        """JJᵀ ``[M, M]``, on and above the diagonal."""
        out = gram(sparse.csr_array(self.table.T))
        for layer in self.layers:
            layer.add_gram(out)
        if self.rest.shape[1]:
            out += self.rest @ self.rest.T
        return out

    def __matmul__(self, v: np.ndarray) -> np.ndarray:
        """J v."""
        parts = np.split(v, self._ends)
        product = self.table @ parts[0] + self.rest @ parts[-1]
        for layer, part in zip(self.layers, parts[1:-1], strict=True):
            product += layer @ part
        return product

    def divided(self, lengths: np.ndarray) -> Jacobian:
        """Divide each column of J by its entry in ``lengths [P]``, which must be the same for all
        columns of a layer."""
        by_table, *by_layers, by_rest = np.split(lengths, self._ends)
        data = self.table.data / by_table[self.table.indices]
        scaled = (data, self.table.indices, self.table.indptr)
        layers = [layer.divided(own[0]) for layer, own in zip(self.layers, by_layers, strict=True)]
        table = sparse.csr_array(scaled, shape=self.table.shape)
        return Jacobian(table, layers, self.rest / by_rest)

    def transposed(self, w: np.ndarray) -> np.ndarray:
        """Jᵀ w."""
        by_layers = (layer.transposed(w) for layer in self.layers)
        return np.concatenate([self.table.T @ w, *by_layers, self.rest.T @ w])


class Products:
    """r, J v and Jᵀ w at the present parameters, without the matrix J.

    J v is a forward pass with a tangent, Jᵀ w a backward pass through the graph of r.

    Args:
        errors: r as a function of its parameters.
        trained: the parameters of the columns, in the order of the columns.
        first: the number of the table's columns, which come before the skipped parameters.
        n_skipped: the number of scalar parameters after the table's that have no column.

    Attributes:
        shape: M, P.
        value: r ``[M]``.
    """

    def __init__(
        self, errors: nn.Module, trained: Sequence[nn.Parameter], first: int, n_skipped: int
    ) -> None:
        self._errors_at, self._skipped = errors, slice(first, first + n_skipped)
        names = {id(p): name for name, p in errors.named_parameters()}
        # Copies, because the optimizer tries steps by changing the parameters in place.
        self._parameters = {names[id(p)]: p.detach().clone().requires_grad_(True) for p in trained}
        with torch.enable_grad():
            self._errors = functional_call(errors, self._parameters, ())
        self.value = self._errors.detach().double().numpy()
        self.shape = len(self.value), sum(p.numel() for p in trained) - n_skipped

    def __matmul__(self, v: np.ndarray) -> np.ndarray:
        """J v."""
        before, after = np.split(v, [self._skipped.start])
        none = np.zeros(self._skipped.stop - self._skipped.start)
        every = torch.from_numpy(np.concatenate([before, none, after]))
        parts = every.split([p.numel() for p in self._parameters.values()])
        with torch.no_grad(), forward_ad.dual_level():
            duals = {
                name: forward_ad.make_dual(p.detach(), part.to(p).reshape(p.shape))
                for (name, p), part in zip(self._parameters.items(), parts, strict=True)
            }
            errors = forward_ad.unpack_dual(functional_call(self._errors_at, duals, ()))
        if errors.tangent is None:  # nothing depends on these parameters
            return np.zeros(self.shape[0])
        return errors.tangent.double().numpy()

    def transposed(self, w: np.ndarray) -> np.ndarray:
        """Jᵀ w."""
        gradients = torch.autograd.grad(
            self._errors, [*self._parameters.values()], torch.from_numpy(w).to(self._errors),
            retain_graph=True, materialize_grads=True,
        )  # fmt: skip
        every = torch.cat([g.flatten() for g in gradients]).double().numpy()
        return np.delete(every, self._skipped)
