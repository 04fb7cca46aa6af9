"""How compiled kernels are called with tensors."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor

# A kernel's floating-point type, as the compiler and as ctypes name it.
C_NAMES = {torch.float32: "float", torch.float64: "double"}
C_TYPES = {torch.float32: ctypes.c_float, torch.float64: ctypes.c_double}
# With less to do, a second thread costs more than it gives.
_ELEMENTS_PER_THREAD = 2**15


def n_threads(n_elements: int) -> int:
    """How many threads, of those that torch may use, share so much work."""
    return max(1, min(torch.get_num_threads(), n_elements // _ELEMENTS_PER_THREAD))


def call(kernel: Any, arguments: ctypes.Structure, *tensors: Tensor | None) -> int:
    """``kernel(&arguments, data of every tensor or NULL)``; its return value."""
    pointers = (ctypes.c_void_p(None if t is None else t.data_ptr()) for t in tensors)
    return kernel(ctypes.byref(arguments), *pointers)
