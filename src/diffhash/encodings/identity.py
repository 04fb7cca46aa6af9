"""No encoding: the coordinates themselves (the paper's plain MLP and SIREN)."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from diffhash.encodings.encoding import ConstantPlan, Encoding, check_points
from diffhash.jets import Jet, Row, combined, expanded
from diffhash.ops.layout import periodic_axes, wrapped
from diffhash.ops.settings import integer


class Identity(Encoding):
    """y(x) = x, with (cos 2πx_j, sin 2πx_j) in the place of x_j on periodic axes.

    Args:
        n_input_dims: the number of axes of x; ``n_output_dims`` is one more for each periodic axis.
        dtype: the type of the output.
        periodic: the numbers of the axes along which y has period 1, such as (0,).

    Raises:
        ValueError: there is no axis, or x does not have an axis of ``periodic``.
    """

    _of_dtype: Tensor
    takes_replicas = True

    def __init__(
        self,
        n_input_dims: int,
        dtype: torch.dtype = torch.float32,
        periodic: Iterable[int] = (),
    ) -> None:
        super().__init__()
        self.n_input_dims = integer("n_input_dims", n_input_dims, 1)
        self.periodic = periodic_axes(periodic, self.n_input_dims)
        self.n_output_dims = self.n_input_dims + len(self.periodic)
        # An empty buffer that has the dtype, so that `double` and `to` change it.
        self.register_buffer("_of_dtype", torch.empty(0, dtype=dtype), persistent=False)

    @property
    def dtype(self) -> torch.dtype:
        """The type of the output."""
        return self._of_dtype.dtype

    def extra_repr(self) -> str:
        periodic = f", periodic={self.periodic}" if self.periodic else ""
        return f"n_input_dims={self.n_input_dims}{periodic}"

    def forward(self, x: Tensor) -> Tensor:
        check_points(x, self.n_input_dims)
        if not self.periodic:
            return x.to(self.dtype)
        columns = []
        for j, at in enumerate(wrapped(x, self.periodic).to(self.dtype).unbind(dim=1)):
            phase = 2 * math.pi * at
            columns += [phase.cos(), phase.sin()] if j in self.periodic else [at]
        return torch.stack(columns, dim=1)

    def _jet(self, x: Tensor, rows: tuple[Row, ...]) -> Jet:
        value = self(x)
        data = []
        for alpha in expanded(rows)[0]:
            row = torch.zeros_like(value)
            axes = [j for j, m in enumerate(alpha) if m]
            if len(axes) == 1:  # a column depends on one axis
                (j,) = axes
                first = j + sum(axis < j for axis in self.periodic)
                if j in self.periodic:
                    cos, sin = value[:, first], value[:, first + 1]
                    # The derivative of (cos, sin) is (-sin, cos).
                    turns = ((cos, sin), (-sin, cos), (-cos, -sin), (sin, -cos))[alpha[j] % 4]
                    row[:, first : first + 2] = torch.stack(turns, 1) * (2 * math.pi) ** alpha[j]
                elif alpha[j] == 1:
                    row[:, first] = 1
            data.append(row if axes else value)
        return Jet(combined(torch.stack(data), rows), rows)

    def _plan(self, x: Tensor, rows: tuple[Row, ...]) -> ConstantPlan:
        return ConstantPlan(self, x, rows)
