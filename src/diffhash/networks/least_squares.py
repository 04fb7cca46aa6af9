"""Linear least squares of a field at fixed points, forwards and backwards in one C kernel.

Where the error is linear in the jet of u, its gradient at a point depends on that point alone: a
block of points goes through encoding, network, loss and backward pass while it is in the cache.
This avoids most of a step's memory traffic and the overhead of autograd.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from diffhash.encodings.encoding import GridRows, add_gradient
from diffhash.jets import Jet, Row
from diffhash.networks.native_jet import LeastSquaresKernel, library, network_kernel
from diffhash.networks.network import Network

Transform = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # coefficients, target


class LinearLeastSquares:
    """weight · mean(w (Σ_kc a_kc ∂_k u_c - target)²) over points and equations, with a weight w for
    each point; `FieldPlan.least_squares` makes it.

    Args:
        network: a function that returns the present network.
        kernel_input: a function that returns the network's present input.
        rows: the rows of the jets.
        transform: a function that transforms the coefficients and targets given to `put`.
        coefficients: a ``[K, C, N, E]``, transformed.
        target: the target ``[N, E]``, transformed.

    Attributes:
        dtype: the type of the parameters.
    """

    def __init__(
        self,
        network: Callable[[], Network],
        kernel_input: Callable[[], Jet | GridRows | None],
        rows: tuple[Row, ...],
        transform: Transform,
        coefficients: Tensor,
        target: Tensor,
    ) -> None:
        self._network, self._kernel_input, self._rows = network, kernel_input, rows
        self._transform = transform
        self.dtype = network().params.dtype
        self._coefficients, self._target = (
            t.detach().to(self.dtype, copy=True, memory_format=torch.contiguous_format)
            for t in (coefficients, target)
        )
        self._bound_to: tuple[object, ...] = ()

    def put(self, coefficients: Tensor, target: Tensor) -> None:
        """Put other coefficients and another target, of the same shapes, into the same memory."""
        coefficients, target = self._transform(coefficients, target)
        self._coefficients.copy_(coefficients)
        self._target.copy_(target)

    def __call__(
        self,
        weight: float,
        point_weights: Tensor | None = None,
        errors: Tensor | None = None,
    ) -> Tensor:
        """Compute the loss, or the losses ``[R]`` of replicas, and add the gradients to ``grad``.

        Args:
            weight: the weight.
            point_weights: w ``[N]``, of the parameters' type; None for 1.
            errors: a tensor ``[(R,) N, E]`` for the output Σ_kc a_kc ∂_k u_c - target; None for no
                output.

        Raises:
            ValueError: the field has changed so that the kernel cannot be used any more, or a
                tensor has another dtype or shape.
        """
        network, kernel_input = self._network(), self._kernel_input()
        params, table, table_grad, add_table = network.params, None, None, False
        if isinstance(kernel_input, Jet):
            fixed = kernel_input.data
        elif kernel_input is None:
            raise ValueError("the encoding is no longer one that C can read: make a new plan")
        else:
            table, fixed = kernel_input.params, kernel_input.rows
            if table.requires_grad:
                table_grad, add_table = _gradient(table)
        # The kernel checks dtypes and shapes itself.
        now = network.activation, network.widths, id(fixed), torch.get_num_threads()
        if now != self._bound_to:
            self._kernel_call = self._bind(network, kernel_input)
            self._bound_to = now
        params_grad, add_params = _gradient(params)
        losses = self._kernel_call(
            *(weight, params, params_grad, add_params, table, table_grad, add_table),
            *(point_weights, errors),
        )
        if params.requires_grad and not add_params:
            add_gradient(params, params_grad)
        if table is not None and table_grad is not None and not add_table:
            add_gradient(table, table_grad)
        return losses

    def _bind(self, network: Network, kernel_input: Jet | GridRows) -> LeastSquaresKernel:
        params = network.params
        made_of = kernel_input.data if isinstance(kernel_input, Jet) else kernel_input
        if library(network.activation, params.dtype) is None:
            raise ValueError(f"the field is of {params.dtype} now: make a new plan")
        kernel = network_kernel(
            network.widths,
            self._rows,
            len(self._target),
            params.shape[:-1],
            isinstance(made_of, Tensor) and made_of.ndim == 3,
            network.activation,
            params.dtype,
            torch.get_num_threads(),
        )
        return kernel.least_squares(self._coefficients, self._target, made_of)


def _gradient(parameter: Tensor) -> tuple[Tensor, bool]:
    """Memory for a gradient, and whether the kernel adds to the gradient that is there.

    torch's own addition would start threads that then keep a core busy.
    """
    if parameter.requires_grad and parameter.is_leaf and parameter.grad is not None:
        return parameter.grad, True
    if parameter.is_contiguous():
        return torch.empty_like(parameter), False  # the fastest allocation
    return parameter.new_empty(parameter.shape), False


def linear_least_squares(
    network: Callable[[], Network],
    kernel_input: Callable[[], Jet | GridRows | None],
    rows: tuple[Row, ...],
    transform: Transform,
    coefficients: Tensor,
    target: Tensor,
) -> LinearLeastSquares | None:
    """Make a `LinearLeastSquares`, with its arguments, or return None where the kernel does not
    support them.

    Raises:
        ValueError: the shapes of the coefficients, the target and the jet do not fit.
    """
    coefficients, target = transform(coefficients, target)
    now, present = kernel_input(), network()
    params = present.params
    if now is None or params.device.type != "cpu" or present.has_skip:
        return None
    if library(present.activation, params.dtype) is None:
        return None
    n_points = now.data.shape[-2] if isinstance(now, Jet) else len(now.rows)
    jet = (len(rows), present.widths[-1], n_points)
    if coefficients.ndim != 4 or coefficients.shape[:3] != jet:
        raise ValueError(
            f"coefficients of shape {list(coefficients.shape)}: jets of {jet[0]} rows of {jet[1]} "
            f"components at {n_points} points need [{', '.join(map(str, jet))}, equations]"
        )
    if target.shape != coefficients.shape[2:]:
        raise ValueError(
            f"a target of shape {list(target.shape)}: coefficients of shape "
            f"{list(coefficients.shape)} need {list(coefficients.shape[2:])}"
        )
    return LinearLeastSquares(network, kernel_input, rows, transform, coefficients, target)
