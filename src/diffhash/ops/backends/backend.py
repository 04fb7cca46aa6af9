"""The interface of backends: gather and scatter without autograd, and both at fixed points."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from diffhash.ops.layout import GridLayout

MultiIndex = tuple[int, ...]  # a derivative order per axis


def increment_order(alphas: tuple[MultiIndex, ...], axis: int) -> tuple[MultiIndex, ...]:
    """α + e_axis for every α."""
    return tuple(tuple(m + (j == axis) for j, m in enumerate(alpha)) for alpha in alphas)


class Backend(Protocol):
    """A module with these functions; `diffhash.ops.grid` makes them differentiable.

    R is the number of tables over the same points (replicas), A the number of multi-indices.
    """

    def check(self, layout: GridLayout, dtype: torch.dtype, device: torch.device | None) -> None:
        """Raise `ValueError`, which names an alternative, if the backend does not support the grid.

        ``device`` is None where it is not known yet.
        """
        ...

    def gather(
        self, x: Tensor, table: Tensor, layout: GridLayout, alphas: tuple[MultiIndex, ...]
    ) -> Tensor:
        """G_α(x)·θ for every α: ``x [N, d]``, ``table [R, n_rows, F]`` → ``[R, A, N, L·F]``.

        ``x`` may have another dtype than the table: the result has the table's.
        """
        ...

    def scatter(
        self, x: Tensor, g: Tensor, layout: GridLayout, alphas: tuple[MultiIndex, ...]
    ) -> Tensor:
        """S_α(x)·g, summed over points and α: ``g [R, A, N, L·F]`` → ``[R, n_rows, F]``."""
        ...

    def plan(
        self, x: Tensor, layout: GridLayout, alphas: tuple[MultiIndex, ...], dtype: torch.dtype
    ) -> BackendPlan:
        """Prepare both at fixed points; ``dtype`` is the table's, ``x`` may have another."""
        ...


class BackendPlan(Protocol):
    """Gather and scatter at fixed points."""

    @property
    def x(self) -> Tensor: ...
    @property
    def layout(self) -> GridLayout: ...
    @property
    def alphas(self) -> tuple[MultiIndex, ...]: ...
    @property
    def backend(self) -> str: ...

    def gather(self, table: Tensor) -> Tensor:
        """``[R, n_rows, F]`` → ``[R, A, N, L·F]``."""
        ...

    def scatter(self, g: Tensor) -> Tensor:
        """``[R, A, N, L·F]`` → ``[R, n_rows, F]``."""
        ...
