"""Implementations of gather and scatter, and which one serves a grid."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import cast

import torch

from diffhash.ops.backends import torch_backend
from diffhash.ops.backends.backend import Backend, BackendPlan, MultiIndex
from diffhash.ops.layout import GridLayout

__all__ = ["NAMES", "Backend", "BackendPlan", "MultiIndex", "load_backend", "select_backend"]

_PACKAGES = {"torch": "torch", "triton": "triton", "tcnn": "tinycudann"}
_LOADED: dict[str, Backend] = {"torch": cast(Backend, torch_backend)}
NAMES = ("auto", *_PACKAGES)


def select_backend(name: str, layout: GridLayout, dtype: torch.dtype) -> dict[str, str]:
    """The backend of each device type for a grid: its name under ``"cuda"`` and ``"cpu"``.

    ``"auto"`` is Triton on CUDA devices where it is installed and can serve the grid, else torch.

    Raises:
        ValueError: an unknown name, or a grid or dtype that the backend cannot serve.
        ModuleNotFoundError: the package it needs is not installed.
    """
    if name not in NAMES:
        raise ValueError(f"backend={name!r} is unknown; choose one of {', '.join(NAMES)}")
    if name != "auto":
        load_backend(name).check(layout, dtype, None)
        return {"cuda": name, "cpu": name}
    try:
        return select_backend("triton", layout, dtype) | {"cpu": "torch"}
    except (ValueError, ModuleNotFoundError):
        return {"cuda": "torch", "cpu": "torch"}


def load_backend(name: str) -> Backend:
    """The backend's module.

    Raises:
        ModuleNotFoundError: the package it needs is not installed.
    """
    if name not in _LOADED:
        package = _PACKAGES[name]
        if find_spec(package) is None:
            raise ModuleNotFoundError(
                f"backend={name!r} needs the package {package}, which is not installed here; "
                "backend='torch' runs everywhere",
                name=package,
            )
        _LOADED[name] = cast(Backend, import_module(f"{__name__}.{name}_backend"))
    return _LOADED[name]
