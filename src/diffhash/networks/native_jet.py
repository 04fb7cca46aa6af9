"""Jets through a whole network in C: one pass over the points each way, or both in one.

Points go through all layers in blocks that stay in the processor's cache; the kernels
(`network_kernels.c`) are compiled for an activation and a type when they are first needed.
"""

from __future__ import annotations

import ctypes
import math
from functools import cache, lru_cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from diffhash.encodings.encoding import GridRows
from diffhash.native import (
    C_NAMES,
    C_TYPES,
    Argument,
    CompilerError,
    call,
    compiled,
    warn_slower,
)
from diffhash.networks.activations import Activation
from diffhash.ops.jet import MAX_ORDER

_SOURCE = Path(__file__).with_name("network_kernels.c")
# Rows that go through a layer at a time: enough to fill registers, few enough for the cache.
_MAX_ROWS, _MIN_BLOCK = 96, 8
# Segments are shared out to threads; each keeps weight gradients of its own.
_FEW_POINTS, _FEW_SEGMENTS, _MANY_SEGMENTS = 2**13, 8, 64
# Of everything that a call allocates: sizes in bytes are 64-bit integers.
_MAX_ELEMENTS = 2**56
# Multiply-adds; with less to do, another thread costs more than it gives.
_WORK_PER_THREAD = 2**20


@cache
def library(activation: Activation, dtype: torch.dtype) -> ctypes.CDLL | None:
    """The kernels of an activation; None, with a warning, where they cannot be compiled."""
    if dtype not in C_NAMES:
        return None
    code = activation.kernel
    first, second, third = code.slopes
    constants: dict[str, str | int] = {
        "REAL": C_NAMES[dtype],
        "REAL_BITS": torch.finfo(dtype).bits,
        "STATE": code.state,
        "VALUE": code.value,
        "FIRST": first,
        "SECOND": second,
        "THIRD": third,
        "HAS_B": int(code.has_b),
    }
    if activation.name == "sine":
        constants["SINES"] = 1
    try:
        lib = compiled(_SOURCE, **constants)
    except CompilerError as error:
        warn_slower("networks", "several times", error)
        return None
    lib.state_size.restype = ctypes.c_int64
    for kernel in (lib.forward, lib.backward, lib.squares):
        kernel.restype = ctypes.c_int64
    return lib


class Gradient(NamedTuple):
    """Memory for a gradient, and whether it is added to what is there or put in its place."""

    data: Tensor
    add: bool


class NetworkKernel:
    """The kernels for one network, one set of jets and one number of points; see `network_kernel`.

    Args:
        widths: of the layers, input and output included.
        orders: of the jets, per axis.
        n_points: N.
        replicas: ``(R,)``, or ``()`` without a replica axis.
        shared_input: whether all replicas read one input.
        activation: between the layers.
        dtype: of everything.
        max_threads: that may share the work.

    Raises:
        ValueError: an order that jets do not carry, or sizes beyond 64-bit integers.
    """

    def __init__(
        self,
        widths: tuple[int, ...],
        orders: tuple[int, ...],
        n_points: int,
        replicas: tuple[int, ...],
        shared_input: bool,
        activation: Activation,
        dtype: torch.dtype,
        max_threads: int,
    ) -> None:
        kernels = library(activation, dtype)
        assert kernels is not None
        if any(order not in range(MAX_ORDER + 1) for order in orders):
            raise ValueError(f"orders={orders}: jets carry orders of 0 to {MAX_ORDER}")
        if len(widths) < 2 or min(widths) < 0:
            raise ValueError(f"widths={widths}: give at least those of the input and the output")
        self._library = kernels
        self._dtype = dtype
        self._n_points = n_points
        n_replicas, n_rows = math.prod(replicas), 1 + sum(orders)
        n_parameters = sum((a + 1) * b for a, b in pairwise(widths))
        jets = (*replicas, n_rows, n_points)
        self._features = (*(() if shared_input else replicas), n_rows, n_points, widths[0])
        self._features_grad = (*jets, widths[0])
        self._params = (*replicas, n_parameters)
        self._out = (*jets, widths[-1])
        self._replicas = replicas
        block = max(_MIN_BLOCK, 2 ** int(math.log2(max(1, _MAX_ROWS // n_rows))))
        n_segments = _FEW_SEGMENTS if n_points <= _FEW_POINTS else _MANY_SEGMENTS
        n_blocks = max(1, -(-n_points // (n_segments * block)))  # of a segment
        work = n_replicas * n_rows * n_points * sum(a * b for a, b in pairwise(widths))
        largest = (n_replicas + 1) * (n_rows + 1) * (n_points + n_segments * block)
        if largest * (sum(widths) + 64 * len(widths)) + n_replicas * n_parameters > _MAX_ELEMENTS:
            raise ValueError(
                f"{n_points} points in jets of {n_rows} rows through widths {widths} are too many "
                "for memory"
            )
        self._orders = (ctypes.c_int64 * len(orders))(*orders)
        self._widths = (ctypes.c_int64 * len(widths))(*widths)
        self._shape = _shape_type(dtype)(
            n_points,
            n_rows,
            len(orders),
            len(widths) - 1,
            n_replicas,
            block,
            n_blocks * block,
            max(1, min(max_threads, work // _WORK_PER_THREAD)),
            int(shared_input),
            ctypes.addressof(self._orders),
            ctypes.addressof(self._widths),
            activation.parameter,
        )
        self._states = (self._library.state_size(ctypes.byref(self._shape)),)

    def forward(
        self, features: Tensor, params: Tensor, keep_states: bool
    ) -> tuple[Tensor, Tensor | None]:
        """The jet, and what `backward` needs if it is to be kept."""
        dtype = self._dtype
        out = features.new_empty(self._out)
        states = features.new_empty(self._states) if keep_states else None
        self._call(
            "forward",
            [
                ("the features", features, dtype, self._features),
                ("the network's params", params, dtype, self._params),
            ],
            [
                ("the states", states, dtype, self._states),
                ("the jet", out, dtype, self._out),
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
        """Gradients of the parameters, and of the features of every replica if wanted."""
        dtype = self._dtype
        params_grad = params.new_empty(self._params)
        features_grad = features.new_empty(self._features_grad) if with_features else None
        self._call(
            "backward",
            [
                ("the features", features, dtype, self._features),
                ("the network's params", params, dtype, self._params),
                ("the states", states, dtype, self._states),
                ("the jet's gradient", out_grad, dtype, self._out),
            ],
            [
                ("the parameters' gradient", params_grad, dtype, self._params),
                ("the features' gradient", features_grad, dtype, self._features_grad),
            ],
        )
        return params_grad, features_grad

    def squares(
        self,
        weight: float,
        coefficients: Tensor,
        target: Tensor,
        source: Tensor | GridRows,
        params: Tensor,
        params_grad: Gradient,
        tables_grad: Gradient | None,
    ) -> Tensor:
        """Losses weight · mean((Σ_k c_k ∂_k u - target)²), of each replica; gradients are filled.

        Args:
            weight: of the loss.
            coefficients: c, ``[K, N, E]``.
            target: ``[N, E]``.
            source: the network's input, or what it is summed from.
            params: of the network.
            params_grad: of ``params``.
            tables_grad: of the table of ``source``, if it is wanted.
        """
        dtype, replicas, n_points = self._dtype, self._replicas, self._n_points
        n_rows, n_equations = self._features[-3], target.shape[-1]
        features = rows = weights = tables = None
        n_levels = n_features = n_taps = table_size = 0
        if isinstance(source, Tensor):
            features = source
        else:
            tables, rows, weights, n_features, table_rows = source
            _, n_levels, n_taps = rows.shape
            table_size = table_rows * n_features
            if n_levels * n_features != self._features[-1] or not n_levels:
                raise ValueError(
                    f"the grid has {n_levels} levels of {n_features} features, the network reads "
                    f"{self._features[-1]} channels"
                )
        add_tables = tables_grad is not None and tables_grad.add
        sizes = n_levels, n_features, n_taps, table_size
        losses = params.new_empty(replicas)
        failed = call(
            self._library.squares,
            [self._shape, _Loss(n_equations, weight, *sizes, params_grad.add, add_tables)],
            [
                ("the coefficients", coefficients, dtype, (n_rows, n_points, n_equations)),
                ("the target", target, dtype, (n_points, n_equations)),
                ("the network's params", params, dtype, self._params),
                ("the features", features, dtype, self._features),
                ("a plan's rows", rows, torch.int32, (n_points, n_levels, n_taps)),
                ("a plan's weights", weights, dtype, (n_points, n_levels, n_rows, n_taps)),
                ("the table", tables, dtype, (*replicas, table_size)),
            ],
            [
                ("the losses", losses, dtype, replicas),
                ("the network's gradient", params_grad.data, dtype, self._params),
                (
                    "the table's gradient",
                    None if tables_grad is None else tables_grad.data,
                    dtype,
                    (*replicas, table_size),
                ),
            ],
        )
        if failed:
            raise MemoryError("a pass through the network needs more memory than there is")
        return losses

    def _call(self, name: str, reads: list[Argument], writes: list[Argument]) -> None:
        if call(getattr(self._library, name), [self._shape], reads, writes):
            raise MemoryError(f"the network's {name} pass needs more memory than there is")


network_kernel = lru_cache(maxsize=256)(NetworkKernel)  # one per term of a loss, step after step


@cache
def _shape_type(dtype: torch.dtype) -> type[ctypes.Structure]:
    integers = (
        *("n_points", "n_rows", "n_axes", "n_layers", "n_replicas", "block", "segment"),
        *("n_threads", "shared_input"),
    )

    class Shape(ctypes.Structure):
        _fields_ = [
            *((name, ctypes.c_int64) for name in integers),
            ("orders", ctypes.c_void_p),
            ("widths", ctypes.c_void_p),
            ("parameter", C_TYPES[dtype]),
        ]

    return Shape


class _Loss(ctypes.Structure):
    _fields_ = [
        ("n_equations", ctypes.c_int64),
        ("weight", ctypes.c_double),
        *((name, ctypes.c_int64) for name in ("n_levels", "n_features", "n_taps", "table_size")),
        *((name, ctypes.c_int64) for name in ("add_network", "add_tables")),
    ]
