"""How compiled kernels are called with tensors: only `call` passes pointers to C."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

# A kernel's floating-point type, as the compiler and as ctypes name it.
C_NAMES = {torch.float32: "float", torch.float64: "double"}
C_TYPES = {torch.float32: ctypes.c_float, torch.float64: ctypes.c_double}
# What C gets of a tensor: its name in errors, the tensor, and what the kernel was made for. Where C
# may get none, that is None. An integer is the `address` of one that was checked before, or the
# data of a new one, made with the dtype and shape of another that is checked.
Argument = tuple[str, Tensor | None, torch.dtype, tuple[int, ...]] | int | None
# With less to do, a second thread costs more than it gives.
_ELEMENTS_PER_THREAD = 2**15


def n_threads(n_elements: int) -> int:
    """How many threads, of those that torch may use, share so much work."""
    return max(1, min(torch.get_num_threads(), n_elements // _ELEMENTS_PER_THREAD))


def address(name: str, tensor: Tensor, dtype: torch.dtype, shape: tuple[int, ...]) -> int:
    """Where a tensor lies, checked as in `call`: of one that the caller keeps and nobody changes.

    Raises:
        ValueError: as `call`, and where its elements do not lie in order.
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
    """``kernel(&settings…, data of reads…, data of writes…)``; its return value.

    A kernel computes with the sizes that it is given, so that each tensor is compared with its
    argument's. A tensor whose elements do not lie in order is replaced by a copy; if it is written,
    the result is copied back.

    Raises:
        ValueError: a tensor of another dtype, shape or device, without memory, or written where
            another argument lies.
    """
    pointers: list[int | None] = []
    copies: list[tuple[Tensor, Tensor]] = []  # and what they are of: they outlive the call
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
    if len({*pointers}) + (pointers.count(None) or 1) <= len(pointers):  # None may come again
        _check_memory(pointers, len(reads), writes)
    if kernel.argtypes is None:  # from now on it takes so many pointers
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
    """Where a tensor lies, or a copy of it that is appended if its elements are not in order."""
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
