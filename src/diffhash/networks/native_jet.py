"""Jets through a whole network in C: one pass over the points each way, or both in one.

Points go through all layers in blocks that stay in the processor's cache; the kernels
(`network_kernels.c`) are compiled for an activation and a type when they are first needed.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from functools import cache, lru_cache
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from diffhash.native import C_NAMES, C_TYPES, CompilerError, call, compiled
from diffhash.networks.activations import Activation

_SOURCE = Path(__file__).with_name("network_kernels.c")
# Rows that go through a layer at a time: enough to fill registers, few enough for the cache.
_MAX_ROWS, _MIN_BLOCK = 96, 8
# Segments are shared out to threads; each keeps weight gradients of its own.
_FEW_POINTS, _FEW_SEGMENTS, _MANY_SEGMENTS = 2**13, 8, 64
# Multiply-adds; with less to do, another thread costs more than it gives.
_WORK_PER_THREAD = 2**20


@cache
def library(activation: Activation, dtype: torch.dtype) -> ctypes.CDLL | None:
    """The kernels of an activation; None where they cannot be compiled."""
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
    except CompilerError:
        return None
    lib.state_size.restype = ctypes.c_int64
    for kernel in (lib.forward, lib.backward, lib.squares):
        kernel.restype = ctypes.c_int64
    return lib


class NetworkKernel:
    """The kernels for one network, one set of jets and one number of points; see `network_kernel`.

    Args:
        widths: of the layers, input and output included.
        orders: of the jets, per axis.
        n_points: N.
        n_replicas: R.
        shared_input: whether all replicas read one input.
        activation: between the layers.
        dtype: of everything.
        max_threads: that may share the work.
    """

    def __init__(
        self,
        widths: Sequence[int],
        orders: tuple[int, ...],
        n_points: int,
        n_replicas: int,
        shared_input: bool,
        activation: Activation,
        dtype: torch.dtype,
        max_threads: int,
    ) -> None:
        kernels = library(activation, dtype)
        assert kernels is not None
        self._library = kernels
        n_rows = 1 + sum(orders)
        block = max(_MIN_BLOCK, 2 ** int(math.log2(max(1, _MAX_ROWS // n_rows))))
        n_segments = _FEW_SEGMENTS if n_points <= _FEW_POINTS else _MANY_SEGMENTS
        n_blocks = max(1, -(-n_points // (n_segments * block)))  # of a segment
        work = n_replicas * n_rows * n_points * sum(a * b for a, b in pairwise(widths))
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
        self.state_size: int = self._library.state_size(ctypes.byref(self._shape))

    def forward(self, features: Tensor, params: Tensor, states: Tensor | None, out: Tensor) -> None:
        """Fill ``out``, and ``states`` (`state_size` elements) if there will be a way back."""
        self._call("forward", features, params, states, out)

    def backward(
        self,
        features: Tensor,
        params: Tensor,
        states: Tensor,
        out_grad: Tensor,
        params_grad: Tensor,
        features_grad: Tensor | None,
    ) -> None:
        """Fill the gradients, that of the features unless it is None."""
        self._call("backward", features, params, states, out_grad, params_grad, features_grad)

    def squares(
        self,
        squares: Squares,
        grid: Grid | None,
        gradients: Gradients,
        features: Tensor | None,
        params: Tensor,
        losses: Tensor,
    ) -> None:
        """Fill the losses of `Squares`, and their `Gradients`.

        The input is that of a `Grid`, or ``features``.
        """
        structures = (squares, grid, gradients)
        pointers = [None if one is None else ctypes.byref(one) for one in structures]
        tensors = (features, params, losses)
        pointers += [ctypes.c_void_p(None if t is None else t.data_ptr()) for t in tensors]
        if self._library.squares(ctypes.byref(self._shape), *pointers):
            raise MemoryError("a pass through the network needs more memory than there is")

    def _call(self, name: str, *tensors: Tensor | None) -> None:
        if call(getattr(self._library, name), self._shape, *tensors):
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


class Squares(ctypes.Structure):
    """weight · mean((Σ_k c_k ∂_k u - target)²): coefficients ``[K, N, E]``, target ``[N, E]``."""

    _fields_ = [
        ("n_equations", ctypes.c_int64),
        ("weight", ctypes.c_double),
        ("coefficients", ctypes.c_void_p),
        ("target", ctypes.c_void_p),
    ]


class Grid(ctypes.Structure):
    """Rows ``[N, L, T]`` and weights ``[N, L, K, T]`` of the jets of tables ``[R, rows · F]``."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("n_levels", "n_features", "n_taps", "table_size")),
        *((name, ctypes.c_void_p) for name in ("rows", "weights", "tables")),
    ]


class Gradients(ctypes.Structure):
    """Where gradients go: of a network's parameters, and of tables or None.

    They are put there, or added to what is there.
    """

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("network", "tables")),
        *((name, ctypes.c_int64) for name in ("add_network", "add_tables")),
    ]
