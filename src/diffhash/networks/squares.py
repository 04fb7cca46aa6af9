"""Least squares of a field at fixed points, forwards and backwards in one C kernel.

Where the error is linear in the jet of u, its gradient needs nothing but the point itself: a block
of points goes through encoding, network, loss and all the way back while it is in the cache. That
leaves out most of the memory traffic of a step, and all of its bookkeeping.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffhash.encodings.encoding import GridRows
from diffhash.networks.native_jet import Gradients, Grid, Squares, library, network_kernel
from diffhash.networks.network import Network
from diffhash.ops.jet import Jet


class FieldSquares:
    """weight · mean((Σ_k c_k ∂_k u - target)²) over points and equations; see `FieldPlan.squares`.

    Args:
        network: of one output.
        source: of its input.
        orders: of the jets, per axis.
        coefficients: c, ``[K, N, E]``.
        target: ``[N, E]``.
    """

    def __init__(
        self,
        network: Network,
        source: Jet | GridRows,
        orders: tuple[int, ...],
        coefficients: Tensor,
        target: Tensor,
    ) -> None:
        self._network, self._source, self._orders = network, source, orders
        self._coefficients, self._target = coefficients.contiguous(), target.contiguous()
        self._squares = Squares(
            target.shape[1], 0.0, self._coefficients.data_ptr(), self._target.data_ptr()
        )

    def __call__(self, weight: float) -> Tensor:
        """The loss, or those of the replicas ``[R]``.

        Its gradients are added to ``grad`` of the field's parameters.
        """
        params = self._network.params
        source, grid, features, table_grad = self._source, None, None, None
        params_grad, add_params = _gradient(params)
        gradients = Gradients(network=params_grad.data_ptr(), add_network=add_params)
        if isinstance(source, Jet):
            features = source.data
        else:
            grid = self._grid(source)
            if source.params.requires_grad:
                table_grad, gradients.add_tables = _gradient(source.params)
                gradients.tables = table_grad.data_ptr()
        kernel = network_kernel(
            self._network.widths,
            self._orders,
            len(self._target),
            params.shape[:-1].numel(),
            features is not None and features.ndim == 3,
            self._network.activation,
            params.dtype,
            torch.get_num_threads(),
        )
        self._squares.weight = weight
        losses = params.new_empty(params.shape[:-1])
        kernel.squares(self._squares, grid, gradients, features, params, losses)
        if params.requires_grad:
            params.grad = params_grad
        if isinstance(source, GridRows) and table_grad is not None:
            source.params.grad = table_grad
        return losses

    def _grid(self, source: GridRows) -> Grid:
        _, n_levels, n_taps = source.rows.shape
        return Grid(
            n_levels,
            source.n_features,
            n_taps,
            source.params.shape[-1],
            source.rows.data_ptr(),
            source.weights.data_ptr(),
            source.params.data_ptr(),
        )


def _gradient(parameter: Tensor) -> tuple[Tensor, bool]:
    """Memory for a gradient, and whether it is to be added to what is there.

    Not by torch: its addition wakes threads that then keep a core busy.
    """
    if parameter.requires_grad and parameter.grad is not None:
        return parameter.grad.contiguous(), True
    return torch.empty_like(parameter), False


def field_squares(
    network: Network,
    source: Jet | GridRows | None,
    orders: tuple[int, ...],
    coefficients: Tensor,
    target: Tensor,
) -> FieldSquares | None:
    """`FieldSquares`, or None where the kernel cannot be had."""
    params = network.params
    if source is None or params.device.type != "cpu" or network.widths[-1] != 1:
        return None
    if library(network.activation, params.dtype) is None:
        return None
    if isinstance(source, Jet):
        source = Jet(source.data.contiguous(), source.orders)
    dtype = params.dtype
    return FieldSquares(network, source, orders, coefficients.to(dtype), target.to(dtype))
