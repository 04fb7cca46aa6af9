"""Which of torch's modes and transforms are active, for code that torch cannot trace."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils._python_dispatch import _get_current_dispatch_mode

P = ParamSpec("P")
T = TypeVar("T")


def is_recorded() -> bool:
    """Whether operations become a graph, whose derivatives a compiler takes."""
    return torch.compiler.is_compiling() or torch._C._is_tracing()


def transforms_are_active() -> bool:
    """Whether `torch.func` transforms what is computed, or forward mode differentiates it."""
    if torch.compiler.is_compiling():
        return False
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def is_plain(x: Tensor) -> bool:
    """Whether ``x`` has numbers now, which no later call of the same code would see changed."""
    if is_recorded() or _get_current_dispatch_mode() is not None:
        return False
    if forward_ad._current_level >= 0 and forward_ad.unpack_dual(x).tangent is not None:
        return False
    try:
        x.data_ptr()
    except RuntimeError:  # it is fake, or one of a batch
        return False
    return True


def own_precision(x: Tensor) -> AbstractContextManager[object]:
    """Autocast is off: encodings and networks compute in the dtype of their parameters, so that
    values and jets agree, and derivatives keep their digits."""
    device = x.device.type
    if device != "meta" and torch.is_autocast_enabled(device):
        return torch.autocast(device, enabled=False)
    return nullcontext()


def cached_constant(function: Callable[P, T]) -> Callable[P, T]:
    """As `functools.cache`; compilers call it and take the result for a constant, untraced."""
    cached = cache(function)

    def constant(*args: P.args, **kwargs: P.kwargs) -> T:
        return cached(*args, **kwargs)

    # As torch.compiler.assume_constant_result does, which imports the whole compiler, for seconds.
    constant._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return constant
