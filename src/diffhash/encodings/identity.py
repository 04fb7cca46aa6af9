"""No encoding: the coordinates themselves (the paper's plain MLP and SIREN)."""

from __future__ import annotations

import torch
from torch import Tensor

from diffhash.encodings.encoding import ConstantPlan, Encoding, check_points
from diffhash.jets import Jet, Row, combined, expanded
from diffhash.ops.settings import integer


class Identity(Encoding):
    """y(x) = x. ``n_output_dims = n_input_dims``.

    Raises:
        ValueError: no axes.
    """

    _of_dtype: Tensor
    takes_replicas = True

    def __init__(self, n_input_dims: int, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.n_input_dims = self.n_output_dims = integer("n_input_dims", n_input_dims, 1)
        # No elements, but the dtype: `double` and `to` change it with the rest of a module.
        self.register_buffer("_of_dtype", torch.empty(0, dtype=dtype), persistent=False)

    @property
    def dtype(self) -> torch.dtype:
        """Of the output."""
        return self._of_dtype.dtype

    def extra_repr(self) -> str:
        return f"n_input_dims={self.n_input_dims}"

    def forward(self, x: Tensor) -> Tensor:
        check_points(x, self.n_input_dims)
        return x.to(self.dtype)

    def _jet(self, x: Tensor, rows: tuple[Row, ...]) -> Jet:
        value = self(x)
        data = []
        for alpha in expanded(rows)[0]:
            row = torch.zeros_like(value)
            if sum(alpha) == 1:
                row[:, alpha.index(1)] = 1
            data.append(row if any(alpha) else value)
        return Jet(combined(torch.stack(data), rows), rows)

    def _plan(self, x: Tensor, rows: tuple[Row, ...]) -> ConstantPlan:
        return ConstantPlan(self, x, rows)
