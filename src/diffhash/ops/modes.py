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
    """Whether operations are recorded as a graph, which a compiler differentiates."""
    return torch.compiler.is_compiling() or torch._C._is_tracing()


def transforms_are_active() -> bool:
    """Whether a transform of `torch.func` or forward mode is active."""
    if torch.compiler.is_compiling():
        return False
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def is_plain(x: Tensor) -> bool:
    """Whether the numbers of ``x`` can be read now, and are not those of a recorded graph, which
    would be called again with others."""
    if is_recorded() or _get_current_dispatch_mode() is not None:
        return False
    if forward_ad._current_level >= 0 and forward_ad.unpack_dual(x).tangent is not None:
        return False
    try:
        x.data_ptr()
    except RuntimeError:  # a fake tensor, or a batched tensor of vmap
        return False
    return True


def own_precision(x: Tensor) -> AbstractContextManager[object]:
    """A context without autocast. Encodings and networks compute in the dtype of their parameters,
    so that values and jets agree and derivatives keep their precision."""
    device = x.device.type
    if device != "meta" and torch.is_autocast_enabled(device):
        return torch.autocast(device, enabled=False)
    return nullcontext()


def cached_constant(function: Callable[P, T]) -> Callable[P, T]:
    """The same as `functools.cache`, but compilers call the function without tracing it, and treat
    the result as a constant."""
    cached = cache(function)

    def constant(*args: P.args, **kwargs: P.kwargs) -> T:
        return cached(*args, **kwargs)

    # The effect of torch.compiler.assume_constant_result, which would import the whole compiler.
    constant._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return constant
