"""The least that a step must compute: its matrix products and its activations, and nothing else."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.case import Case
from benchmarks.sample import Sample, synchronised_time
from diffhash.encodings import GridEncoding

_STEPS = 10  # steps between two readings of the clock


class Floor:
    """The products and activations of each hidden layer, for r rows of all jets and v points:

        z [r, out] = x Wᵀ,    σ(z) of the v value rows alone,    ∂W = ∂zᵀ x,    ∂x = ∂z W.

    Results are written into memory that is already allocated. ∂x of the first layer is computed
    only where the encoding is trained. The encoding, the derivatives of σ, the last layer (one
    output), the loss and Adam are left out.
    """

    name = "floor"

    def __init__(self, case: Case) -> None:
        rows, self._n_values = case.n_rows, case.n_values
        hidden = [weight for weight, _ in case.layers[:-1]]
        generator = torch.Generator().manual_seed(0)

        def matrix(n_rows: int, n_columns: int) -> Tensor:
            values = torch.randn(n_rows, n_columns, generator=generator)
            return values.to(case.device, case.dtype)

        self._weights = [matrix(*w.shape) / w.shape[1] ** 0.5 for w in hidden]
        self._gradients = [torch.empty_like(w) for w in self._weights]
        self._x = [matrix(rows, w.shape[1]) for w in hidden]
        self._z = [*self._x[1:], matrix(rows, hidden[-1].shape[0])]
        self._dz = [matrix(rows, w.shape[0]) for w in hidden]
        self._dx = [torch.empty_like(self._x[0]), *self._dz[:-1]]
        self._first_with_dx = 0 if isinstance(case.encoding, GridEncoding) else 1
        self._activation = torch.tanh if case.omega is None else torch.sin
        self._device = case.device

    def step(self) -> None:
        """Compute one forward and one backward pass."""
        for w, x, z in zip(self._weights, self._x, self._z, strict=True):
            torch.mm(x, w.T, out=z)
            values = z[: self._n_values]
            self._activation(values, out=values)
        for index in reversed(range(len(self._weights))):
            torch.mm(self._dz[index].T, self._x[index], out=self._gradients[index])
            if index >= self._first_with_dx:
                torch.mm(self._dz[index], self._weights[index], out=self._dx[index])

    def sample(self, seconds: float) -> Sample:
        """Take steps for at least ``seconds``."""
        self.step()
        n_steps, start = 0, synchronised_time(self._device)
        while True:
            for _ in range(_STEPS):
                self.step()
            n_steps += _STEPS
            elapsed = synchronised_time(self._device) - start
            if elapsed >= seconds:
                return Sample(1e3 * elapsed / n_steps)
