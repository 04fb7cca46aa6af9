"""Jets through a whole network in C: a forward and a backward pass over the points, or both passes
in one.

Points go through all layers in blocks that stay in the processor's cache; the kernels
(`network.c`) are compiled for an activation and a type when they are first needed.
"""

from __future__ import annotations

import ctypes
import math
from functools import cache, lru_cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from diffhash.encodings.encoding import GridRows
from diffhash.jets import Activation, Row
from diffhash.jets.c_code import activation_code
from diffhash.native import (
    C_NAMES,
    C_TYPES,
    Argument,
    CompilerError,
    address,
    call,
    compiled,
    warn_slower,
)

# Rows that go through a layer at a time: enough to fill registers, few enough for the cache. Longer
# jets fill the cache sooner, because they store more states for the backward pass.
_MAX_ROWS, _MAX_ROWS_OF_LONG_JETS, _LONG, _MIN_BLOCK = 96, 48, 4, 4
# Threads process segments of points; each segment has weight gradients of its own.
_FEW_POINTS, _FEW_SEGMENTS, _MANY_SEGMENTS = 2**13, 8, 64
# The largest number of elements that a call allocates: sizes in bytes are 64-bit integers.
_MAX_ELEMENTS = 2**56
# Multiply-adds; with less work, starting another thread takes longer than it saves.
_WORK_PER_THREAD = 2**20


@cache
def library(activation: Activation, dtype: torch.dtype) -> ctypes.CDLL | None:
    """The compiled kernels of networks; None, with a warning, where they cannot be compiled."""
    if dtype not in C_NAMES:
        return None
    try:
        lib = compiled("network.c", REAL=C_NAMES[dtype])
        _activation_library(activation, ((0,),), dtype)
    except CompilerError as error:
        warn_slower("networks", "several times", error)
        return None
    lib.state_size.restype = ctypes.c_int64
    for kernel in (lib.forward, lib.backward, lib.least_squares):
        kernel.restype = ctypes.c_int64
    return lib


@cache
def _activation_library(
    activation: Activation, rows: tuple[Row, ...], dtype: torch.dtype
) -> tuple[ctypes.CDLL, Any]:
    """The kernels of an activation for jets of these rows, and the constants that are passed to
    them."""
    code, numbers = activation_code(activation, rows)
    bits = torch.finfo(dtype).bits
    lib = compiled("activation.c", code, REAL=C_NAMES[dtype], REAL_BITS=bits)
    return lib, (C_TYPES[dtype] * len(numbers))(*numbers)


class NetworkKernel:
    """The kernels for one network, one set of jets and one number of points; see `network_kernel`.

    Args:
        widths: the widths of the layers, input and output included.
        rows: the rows of the jets.
        n_points: N, the number of points.
        replicas: ``(R,)``, or ``()`` without a replica axis.
        shared_input: whether all replicas have the same input.
        activation: the activation between the layers.
        dtype: the type of all tensors.
        max_threads: the largest number of threads.

    Raises:
        ValueError: a size is beyond 64-bit integers.
    """

    def __init__(
        self,
        widths: tuple[int, ...],
        rows: tuple[Row, ...],
        n_points: int,
        replicas: tuple[int, ...],
        shared_input: bool,
        activation: Activation,
        dtype: torch.dtype,
        max_threads: int,
    ) -> None:
        kernels = library(activation, dtype)
        assert kernels is not None
        if len(widths) < 2 or min(widths) < 0:
            raise ValueError(f"widths={widths}: give at least those of the input and the output")
        self.library = kernels
        self.dtype = dtype
        n_replicas, n_rows = math.prod(replicas), len(rows)
        n_parameters = sum((a + 1) * b for a, b in pairwise(widths))
        jets = (*replicas, n_rows, n_points)
        self.features_shape = (*(() if shared_input else replicas), n_rows, n_points, widths[0])
        self._grad_shape = (*jets, widths[0])
        self.params_shape = (*replicas, n_parameters)
        self._out_shape = (*jets, widths[-1])
        self.replicas, self.n_outputs = replicas, widths[-1]
        at_once = _MAX_ROWS_OF_LONG_JETS if n_rows >= _LONG else _MAX_ROWS
        block = max(_MIN_BLOCK, 2 ** int(math.log2(max(1, at_once // n_rows))))
        n_segments = _FEW_SEGMENTS if n_points <= _FEW_POINTS else _MANY_SEGMENTS
        n_blocks = max(1, -(-n_points // (n_segments * block)))  # blocks of a segment
        work = n_replicas * n_rows * n_points * sum(a * b for a, b in pairwise(widths))
        largest = (n_replicas + 1) * (n_rows + 1) * (n_points + n_segments * block)
        if largest * (sum(widths) + 64 * len(widths)) + n_replicas * n_parameters > _MAX_ELEMENTS:
            raise ValueError(
                f"{n_points} points in jets of {n_rows} rows through widths {widths} are too many "
                "for memory"
            )
        hidden = rows if len(widths) > 2 else ((0,),)  # not called without hidden layers
        functions, self._numbers = _activation_library(activation, hidden, dtype)
        self._widths = (ctypes.c_int64 * len(widths))(*widths)
        self.shape = _shape_type(dtype)(
            n_points,
            n_rows,
            len(widths) - 1,
            n_replicas,
            block,
            n_blocks * block,
            max(1, min(max_threads, work // _WORK_PER_THREAD)),
            int(shared_input),
            int(activation.has_b),
            ctypes.addressof(self._widths),
            *(
                ctypes.cast(function, ctypes.c_void_p)
                for function in (
                    functions.activate,
                    functions.activate_again,
                    functions.activate_back,
                )
            ),
            ctypes.addressof(self._numbers),
            activation.parameter,
        )
        self.block = block  # points that go through all layers together
        self.state_size: int = self.library.state_size(ctypes.byref(self.shape))
        self._states_shape = (self.state_size,)

    def forward(
        self, features: Tensor, params: Tensor, keep_states: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Compute the jet and, with ``keep_states``, the states that `backward` needs."""
        dtype = self.dtype
        out = features.new_empty(self._out_shape)
        states = features.new_empty(self._states_shape) if keep_states else None
        self._call(
            "forward",
            [
                ("the features", features, dtype, self.features_shape),
                ("the network's params", params, dtype, self.params_shape),
            ],
            [
                ("the states", states, dtype, self._states_shape),
                ("the jet", out, dtype, self._out_shape),
            ],
        )
        return out, states

    def backward(
        self,
        features: Tensor,
        params: Tensor,
        states: Tensor,
        out_grad: Tensor,
        with_features: bool,
    ) -> tuple[Tensor, Tensor | None]:
        """Compute the gradients in the parameters and, with ``with_features``, in the features of
        every replica."""
        dtype = self.dtype
        params_grad = params.new_empty(self.params_shape)
        features_grad = features.new_empty(self._grad_shape) if with_features else None
        self._call(
            "backward",
            [
                ("the features", features, dtype, self.features_shape),
                ("the network's params", params, dtype, self.params_shape),
                ("the states", states, dtype, self._states_shape),
                ("the jet's gradient", out_grad, dtype, self._out_shape),
            ],
            [
                ("the parameters' gradient", params_grad, dtype, self.params_shape),
                ("the features' gradient", features_grad, dtype, self._grad_shape),
            ],
        )
        return params_grad, features_grad

    def least_squares(
        self, coefficients: Tensor, target: Tensor, kernel_input: Tensor | GridRows
    ) -> LeastSquaresKernel:
        """Make a kernel with fixed coefficients, target and input; see `LeastSquaresKernel`."""
        return LeastSquaresKernel(self, coefficients, target, kernel_input)

    def _call(self, name: str, reads: list[Argument], writes: list[Argument]) -> None:
        if call(getattr(self.library, name), [self.shape], reads, writes):
            raise MemoryError(f"the network's {name} pass needs more memory than there is")


class LeastSquaresKernel:
    """weight · mean(w (Σ_k c_k ∂_k u - target)²) and its gradients, at one input.

    Args:
        kernel: the kernel for the network and the shape of the input.
        coefficients: c ``[K, C, N, E]``. This and the other tensors are kept and not checked again;
            their values may be changed in place.
        target: the target ``[N, E]``.
        kernel_input: the network's input, or the rows and weights from which it is summed.

    Raises:
        ValueError: a tensor has a shape or type that the kernel was not made for.
    """

    def __init__(
        self,
        kernel: NetworkKernel,
        coefficients: Tensor,
        target: Tensor,
        kernel_input: Tensor | GridRows,
    ) -> None:
        self._kernel, self._kept = kernel, (coefficients, target, kernel_input)
        dtype, (*_, n_rows, n_points, n_inputs) = kernel.dtype, kernel.features_shape
        n_equations = target.shape[-1]
        self._equations = (
            address(
                *("coefficients", coefficients, dtype),
                (n_rows, kernel.n_outputs, n_points, n_equations),
            ),
            address("the target", target, dtype, (n_points, n_equations)),
        )
        n_levels = n_features = n_taps = 0
        self._table_shape: tuple[int, ...] = ()
        if isinstance(kernel_input, Tensor):
            features = address("features", kernel_input, dtype, kernel.features_shape)
            self._input: tuple[int | None, ...] = (features, None, None)
        else:
            _, n_levels, n_taps = kernel_input.rows.shape
            n_features = kernel_input.n_features
            if n_levels * n_features != n_inputs or not n_levels:
                raise ValueError(
                    f"the grid has {n_levels} levels of {n_features} features, the network reads "
                    f"{n_inputs} channels"
                )
            taps, weights = (n_points, n_levels, n_taps), (n_points, n_levels, n_rows, n_taps)
            self._input = (
                None,
                address("a plan's rows", kernel_input.rows, torch.int32, taps),
                address("a plan's weights", kernel_input.weights, dtype, weights),
            )
            self._table_shape = (*kernel.replicas, kernel_input.n_rows * n_features)
        table_size = self._table_shape[-1] if self._table_shape else 0
        self._sizes = (n_equations, n_levels, n_features, n_taps, table_size)
        self._losses = torch.empty(kernel.replicas, dtype=dtype)  # for its shape
        self.n_points, self.errors_shape = n_points, (*kernel.replicas, n_points, n_equations)

    def __call__(
        self,
        weight: float,
        params: Tensor,
        params_grad: Tensor,
        add_params: bool,
        table: Tensor | None,
        table_grad: Tensor | None,
        add_table: bool,
        point_weights: Tensor | None = None,
        errors: Tensor | None = None,
    ) -> Tensor:
        """Compute the loss, or the losses ``[R]`` of replicas, and set or add to gradients.

        Gradients that are set must be new tensors of the shapes of their parameters.

        Args:
            point_weights: w ``[N]``; None for 1.
            errors: a tensor ``[(R,) N, E]`` for the output Σ_k c_k ∂_k u - target; None for no
                output.
        """
        kernel, dtype, shape = self._kernel, self._kernel.dtype, self._table_shape
        losses = torch.empty_like(self._losses)
        failed = call(
            kernel.library.least_squares,
            [kernel.shape, _Loss(weight, *self._sizes, add_params, add_table)],
            [
                *self._equations,
                ("the network's params", params, dtype, kernel.params_shape),
                *self._input,
                ("the table", table, dtype, shape),
                point_weights
                if point_weights is None
                else ("the points' weights", point_weights, dtype, (self.n_points,)),
            ],
            [
                losses.data_ptr(),
                ("the network's gradient", params_grad, dtype, kernel.params_shape)
                if add_params
                else params_grad.data_ptr(),
                ("the table's gradient", table_grad, dtype, shape)
                if add_table or table_grad is None
                else table_grad.data_ptr(),
                errors if errors is None else ("the errors", errors, dtype, self.errors_shape),
            ],
        )
        if failed:
            raise MemoryError("a pass through the network needs more memory than there is")
        return losses


network_kernel = lru_cache(maxsize=256)(NetworkKernel)  # one per term of a loss, step after step


@cache
def _shape_type(dtype: torch.dtype) -> type[ctypes.Structure]:
    integers = (
        *("n_points", "n_rows", "n_layers", "n_replicas", "block", "segment", "n_threads"),
        *("shared_input", "has_b"),
    )

    pointers = ("widths", "activate", "activate_again", "activate_back", "c")

    class Shape(ctypes.Structure):
        _fields_ = [
            *((name, ctypes.c_int64) for name in integers),
            *((name, ctypes.c_void_p) for name in pointers),
            ("p", C_TYPES[dtype]),
        ]

    return Shape


class _Loss(ctypes.Structure):
    _fields_ = [
        ("weight", ctypes.c_double),
        *((name, ctypes.c_int64) for name in ("n_equations", "n_levels", "n_features", "n_taps")),
        *((name, ctypes.c_int64) for name in ("table_size", "add_network", "add_tables")),
    ]
