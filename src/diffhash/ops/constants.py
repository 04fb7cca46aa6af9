"""Small constant tensors, made once per device and dtype."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter


def constant(values: tuple[Any, ...], like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """``values`` as a tensor on the device of ``like``, and of its dtype unless one is given.

    It is cached, because making it at every call would stall a GPU, and could not be captured in a
    CUDA graph.
    """
    dtype = like.dtype if dtype is None else dtype
    # The tensor is then a constant of the graph, or of a subclass such as a fake tensor, and must
    # not be cached for other calls.
    if torch.compiler.is_compiling() or type(like) not in (Tensor, Parameter):
        return torch.tensor(values, dtype=dtype, device=like.device)
    made = _made(values, dtype, like.device)
    if type(made) is not Tensor:  # a mode has made a subclass, which is of no use outside it
        _made.cache_clear()
    return made


@lru_cache(maxsize=1024)
def _made(values: tuple[Any, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.no_grad(), torch.inference_mode(False):
        return torch.tensor(values, dtype=dtype, device=device)
