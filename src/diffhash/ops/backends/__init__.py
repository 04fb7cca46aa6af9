"""Implementations of gather and scatter, and the choice of one for a grid."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import cast

import torch

from diffhash.native import CompilerError, warn_slower
from diffhash.ops.backends import native_backend, torch_backend
from diffhash.ops.backends.backend import Backend, BackendPlan, MultiIndex, increment_order
from diffhash.ops.layout import GridLayout

__all__ = [
    "NAMES",
    "Backend",
    "BackendPlan",
    "MultiIndex",
    "increment_order",
    "load_backend",
    "select_backend",
]

_PACKAGES = {"triton": "triton", "tcnn": "tinycudann"}
LOADED: dict[str, Backend] = {  # the others are imported when they are first needed
    "torch": cast(Backend, torch_backend),
    "native": cast(Backend, native_backend),
}
NAMES = ("auto", *LOADED, *_PACKAGES)


def select_backend(name: str, layout: GridLayout, dtype: torch.dtype, device_type: str) -> str:
    """The name of the backend for a grid on a type of device, ``"cuda"`` or ``"cpu"``.

    ``"auto"`` is triton on CUDA devices and native on CPUs where these are available, else torch.

    Raises:
        ValueError: the name is unknown, or the backend does not support the grid or the dtype.
        ModuleNotFoundError: the package that the backend needs is not installed.
        CompilerError: the backend is ``"native"`` and there is no C compiler.
    """
    if name not in NAMES:
        raise ValueError(f"backend={name!r} is unknown; choose one of {', '.join(NAMES)}")
    if name == "auto":
        torch_backend.check(layout, dtype, None)
        try:
            fast = "triton" if device_type == "cuda" else "native"
            return select_backend(fast, layout, dtype, device_type)
        except (ValueError, ModuleNotFoundError):
            return "torch"
        except CompilerError as error:
            warn_slower("grids", "several times", error)
            return "torch"
    load_backend(name).check(layout, dtype, None)
    if name == "native":
        native_backend.prepare(layout, dtype)
    return name


def load_backend(name: str) -> Backend:
    """Import the backend's module.

    Raises:
        ModuleNotFoundError: the package that the backend needs is not installed.
    """
    if name not in LOADED:
        package = _PACKAGES[name]
        if find_spec(package) is None:
            raise ModuleNotFoundError(
                f"backend={name!r} needs the package {package}, which is not installed here; "
                "backend='torch' runs everywhere",
                name=package,
            )
        LOADED[name] = cast(Backend, import_module(f"{__name__}.{name}_backend"))
    return LOADED[name]
