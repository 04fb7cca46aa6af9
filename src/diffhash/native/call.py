"""Calls of compiled kernels with tensors: only `call` passes pointers to C."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

# A kernel's floating-point types by their names in C, and in ctypes.
C_NAMES = {torch.float32: "float", torch.float64: "double"}
C_TYPES = {torch.float32: ctypes.c_float, torch.float64: ctypes.c_double}
# A tensor argument of a kernel: the name in errors, the tensor or None for a null pointer, and the
# dtype and shape that the kernel expects. An integer is the `address` of a tensor that was checked
# before, or of a new tensor with the dtype and shape of a checked one; None is a null pointer.
Argument = tuple[str, Tensor | None, torch.dtype, tuple[int, ...]] | int | None
# With less work, starting a second thread takes longer than it saves.
_ELEMENTS_PER_THREAD = 2**15


def n_threads(n_elements: int) -> int:
    """The number of threads for work on ``n_elements``, at most torch's number of threads."""
    return max(1, min(torch.get_num_threads(), n_elements // _ELEMENTS_PER_THREAD))


def address(name: str, tensor: Tensor, dtype: torch.dtype, shape: tuple[int, ...]) -> int:
    """The address of a tensor's data, with the checks of `call`. The caller must keep the tensor,
    and its memory must not be replaced.

    Raises:
        ValueError: as for `call`, or the tensor is not contiguous.
    """
    if tensor.dtype is not dtype or tensor.shape != shape or not tensor.is_cpu:
        raise _mismatch(name, tensor, dtype, shape)
    copies: list[tuple[Tensor, Tensor]] = []
    pointer = _dense(name, tensor, copies)
    if copies:
        raise ValueError(f"the elements of {name} do not lie in order")
    return pointer


def call(
    kernel: Any,
    settings: Sequence[ctypes.Structure],
    reads: Sequence[Argument],
    writes: Sequence[Argument],
) -> int:
    """Call ``kernel(&settings…, data of reads…, data of writes…)``, and return its value.

    A kernel computes with the sizes in its settings, so each tensor is compared with the dtype and
    shape of its argument. A tensor that is not contiguous is replaced by a copy; if it is written,
    the result is copied back.

    Raises:
        ValueError: a tensor has another dtype, shape or device, or no memory, or a written tensor
            shares memory with another argument.
    """
    pointers: list[int | None] = []
    copies: list[tuple[Tensor, Tensor]] = []  # (copy, tensor), until the call has ended
    for argument in (*reads, *writes):
        if type(argument) is tuple:
            name, tensor, dtype, shape = argument
            if tensor is None:
                pointers.append(None)
                continue
            if tensor.dtype is not dtype or tensor.shape != shape or not tensor.is_cpu:
                raise _mismatch(name, tensor, dtype, shape)
            pointer = tensor.data_ptr()
            if not pointer or pointer & 7 or not tensor.is_contiguous() or tensor.is_neg():
                pointer = _dense(name, tensor, copies)
            pointers.append(pointer)
        else:
            pointers.append(argument)  # type: ignore[arg-type]
    if len({*pointers}) + (pointers.count(None) or 1) <= len(pointers):  # None may be repeated
        _check_memory(pointers, len(reads), writes)
    if kernel.argtypes is None:  # all later calls have the same number of pointers
        kernel.argtypes = [ctypes.c_void_p] * (len(settings) + len(pointers))
    result = kernel(*map(ctypes.byref, settings), *pointers)
    if copies:
        targets = {id(argument[1]) for argument in writes if isinstance(argument, tuple)}
        for copy, tensor in copies:
            if id(tensor) in targets:
                tensor.detach().copy_(copy)
    return result


def _check_memory(pointers: list[int | None], n_reads: int, writes: Sequence[Argument]) -> None:
    for argument, pointer in zip(writes, pointers[n_reads:], strict=True):
        if pointer and pointers.count(pointer) > 1 and isinstance(argument, tuple):
            raise ValueError(f"{argument[0]} shares its memory with another tensor of the call")


def _dense(name: str, tensor: Tensor, copies: list[tuple[Tensor, Tensor]]) -> int:
    """The address of a tensor's data, or of a contiguous copy, which is appended to ``copies``."""
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
