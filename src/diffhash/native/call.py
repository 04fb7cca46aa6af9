"""How compiled kernels are called with tensors: no pointer reaches C but through `call`."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

# A kernel's floating-point type, as the compiler and as ctypes name it.
C_NAMES = {torch.float32: "float", torch.float64: "double"}
C_TYPES = {torch.float32: ctypes.c_float, torch.float64: ctypes.c_double}
# What C gets of a tensor: its name in errors, the tensor, and what the kernel was made for. A
# tensor that may be left out is None.
Argument = tuple[str, Tensor | None, torch.dtype, tuple[int, ...]]
# With less to do, a second thread costs more than it gives.
_ELEMENTS_PER_THREAD = 2**15


def n_threads(n_elements: int) -> int:
    """How many threads, of those that torch may use, share so much work."""
    return max(1, min(torch.get_num_threads(), n_elements // _ELEMENTS_PER_THREAD))


def call(
    kernel: Any,
    settings: Sequence[ctypes.Structure],
    reads: Sequence[Argument],
    writes: Sequence[Argument],
) -> int:
    """``kernel(&settings…, data of reads…, data of writes…)``; its return value.

    C reads and writes what it was told of the tensors' sizes: each is compared with what its
    argument says. One whose elements do not lie in order is replaced by a copy; if it is written,
    the result is copied back.

    Raises:
        ValueError: a tensor of another dtype, shape or device, without memory, or written where
            another argument lies.
    """
    pointers: list[int | None] = []
    copies: list[tuple[Tensor, Tensor]] = []  # and what they are of: they outlive the call
    for name, tensor, dtype, shape in (*reads, *writes):
        if tensor is None:
            pointers.append(None)
            continue
        if tensor.dtype is not dtype or tensor.shape != shape or not tensor.is_cpu:
            raise _mismatch(name, tensor, dtype, shape)
        if tensor.is_contiguous() and not tensor.is_neg():
            pointer = tensor.data_ptr()
            if pointer and not pointer & 7:
                pointers.append(pointer)
                continue
        pointers.append(_copied(name, tensor, copies))
    for index, (name, *_) in enumerate(writes, len(reads)):
        if pointers[index] and pointers.count(pointers[index]) > 1:
            raise ValueError(f"{name} shares its memory with another tensor of the same call")
    if kernel.argtypes is None:  # from now on it takes so many pointers
        kernel.argtypes = [ctypes.c_void_p] * (len(settings) + len(pointers))
    result = kernel(*map(ctypes.byref, settings), *pointers)
    if copies:
        written = {id(tensor) for _, tensor, _, _ in writes}
        for copy, tensor in copies:
            if id(tensor) in written:
                tensor.detach().copy_(copy)
    return result


def _copied(name: str, tensor: Tensor, copies: list[tuple[Tensor, Tensor]]) -> int:
    """Where a copy lies whose elements are in order; or the tensor, if it has none or is so."""
    if not tensor.numel():
        return 0
    if tensor.is_contiguous() and not tensor.is_neg():
        pointer = tensor.data_ptr()
        if not pointer:
            raise ValueError(f"{name} has no memory, e.g. because its storage was resized")
        if not pointer % tensor.dtype.itemsize:
            return pointer
    copy = torch.empty(tensor.shape, dtype=tensor.dtype)
    copy.copy_(tensor.detach())
    copies.append((copy, tensor))
    return copy.data_ptr()


def _mismatch(name: str, tensor: Tensor, dtype: torch.dtype, shape: tuple[int, ...]) -> ValueError:
    return ValueError(
        f"{name} must have the same dtype, shape and device as what it is used with: "
        f"expected {dtype} of shape {list(shape)} on cpu, "
        f"got {tensor.dtype} of shape {list(tensor.shape)} on {tensor.device}"
    )
