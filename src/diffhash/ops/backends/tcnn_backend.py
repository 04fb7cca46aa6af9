"""Gather and scatter by tiny-cuda-nn: linear and s1 in float32, where its derivatives are exact.

Its native module computes, besides values, products with the Jacobian J = ∂y/∂x:

    G_0 θ = y                        fwd
    S_0 g = (∂y/∂θ)ᵀ g               bwd
    G_{e_j} θ = J e_j                bwd_bwd_input, towards the output gradient
    S_{e_j} g = ∂⟨g, J e_j⟩/∂θ       bwd_bwd_input, towards the parameters

Derivatives of linear interpolation are zero from the second order along an axis on. Other
multi-indices are an error, because tiny-cuda-nn's double backward pass cannot be differentiated
again; so are the derivatives that autograd would compute from them.

If ``x`` has fewer axes than the grid, the other axes are constant at 0: a 2-D grid thus takes
points of one coordinate.
Outside [0, 1] tiny-cuda-nn wraps around, where this library's own backends continue the edge
cell's polynomial.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from diffhash.ops.backends.backend import MultiIndex
from diffhash.ops.layout import GridLayout

_INTERPOLATIONS = {"linear": "Linear", "s1": "Smoothstep"}
_FEATURES = (1, 2, 4, 8)
DEVICE_TYPE = "cuda"  # the only device of the package


def check(layout: GridLayout, dtype: torch.dtype, device: torch.device | None) -> None:
    """See `Backend.check`."""
    name = layout.interpolation.name
    if name not in _INTERPOLATIONS:
        raise ValueError(
            f"interpolation={name!r}: backend='tcnn' has linear and s1; use backend='triton' or "
            "'torch'"
        )
    if not 2 <= layout.n_input_dims <= 4:
        raise ValueError(
            f"n_input_dims={layout.n_input_dims}: tiny-cuda-nn has grids of 2 to 4 axes; use "
            "backend='triton' or 'torch'"
        )
    if not layout.tcnn:
        *_, offset, _, axes = layout.settings
        named = "level_offset=True" if offset else f"periodic={axes}" if axes else "layout='nested'"
        raise ValueError(
            f"{named}: tiny-cuda-nn shifts every level alike, and has its own layout; use "
            "backend='triton' or 'torch'"
        )
    if dtype != torch.float32:
        raise ValueError(f"dtype={dtype}: backend='tcnn' computes in float32; use backend='torch'")
    if device is not None and device.type != DEVICE_TYPE:
        raise ValueError(
            f"device={str(device)!r}: backend='tcnn' needs CUDA tensors; use backend='torch'"
        )


def gather(x: Tensor, table: Tensor, layout: GridLayout, alphas: tuple[MultiIndex, ...]) -> Tensor:
    """See `Backend.gather`.

    Raises:
        NotImplementedError: tiny-cuda-nn does not compute a derivative exactly.
        ValueError: tiny-cuda-nn does not support the number of features per level.
        RuntimeError: tinycudann cannot be imported, or its layout of the grid differs.
    """
    n_features = table.shape[2]
    _check_exact(layout, alphas, n_features)
    n_columns = len(layout.levels) * n_features
    orders = [sum(alpha) for alpha in alphas]
    if not len(x) or min(orders) >= 2:
        return _zeros(x, n_columns).repeat(len(table), len(alphas), 1, 1)
    grid = native_grid(layout, n_features)
    points = grid.pad(x, layout.n_input_dims)
    # The forward pass prepares J if its points require a gradient.
    forward_points = points.detach().requires_grad_(1 in orders)
    replicas = []
    for params in table.detach().flatten(1).contiguous():
        context, y = grid.native.fwd(forward_points, params)
        rows = []
        for alpha, order in zip(alphas, orders, strict=True):
            if order == 0:
                row = y
            elif order == 1:
                # The gradient in the output gradient is computed, whose value does not matter.
                g = torch.zeros_like(y).requires_grad_(True)
                v = _direction(points, alpha)
                row, _, _ = grid.native.bwd_bwd_input(context, points, params, v, g)
            else:
                row = _zeros(x, n_columns)
            rows.append(row[: len(x), :n_columns])
        replicas.append(_stack(rows))
    return _stack(replicas)


def scatter(x: Tensor, g: Tensor, layout: GridLayout, alphas: tuple[MultiIndex, ...]) -> Tensor:
    """See `Backend.scatter`.

    Raises:
        NotImplementedError, ValueError, RuntimeError: as `gather`.
    """
    n_features = g.shape[3] // len(layout.levels)
    _check_exact(layout, alphas, n_features)
    if not len(x) or all(sum(alpha) >= 2 for alpha in alphas):
        return g.new_zeros(len(g), layout.n_rows, n_features)
    grid = native_grid(layout, n_features)
    points = grid.pad(x, layout.n_input_dims)
    # Only a forward pass makes a context. Neither the context nor S_α depends on the table.
    params = points.new_zeros(layout.n_rows * n_features).requires_grad_(True)
    context, y = grid.native.fwd(points, params)
    replicas = []
    for rows in g:
        gradients = []
        for alpha, row in zip(alphas, rows, strict=True):
            if sum(alpha) >= 2:
                continue
            dy = grid.pad(row, y.shape[1])
            if sum(alpha) == 0:
                _, gradient = grid.native.bwd(context, points, params, y, dy)
            else:
                v = _direction(points, alpha)
                _, gradient, _ = grid.native.bwd_bwd_input(context, points, params, v, dy)
            gradients.append(gradient)
        replicas.append(sum(gradients[1:], gradients[0]))
    return _stack(replicas).unflatten(1, (layout.n_rows, n_features))


@dataclass(frozen=True)
class TcnnPlan:
    """Fixed points in float32; tiny-cuda-nn prepares nothing else for them."""

    x: Tensor
    layout: GridLayout
    alphas: tuple[MultiIndex, ...]
    backend: str = "tcnn"

    def gather(self, table: Tensor) -> Tensor:
        """See `BackendPlan.gather`."""
        return gather(self.x, table, self.layout, self.alphas)

    def scatter(self, g: Tensor) -> Tensor:
        """See `BackendPlan.scatter`."""
        return scatter(self.x, g, self.layout, self.alphas)


def plan(
    x: Tensor, layout: GridLayout, alphas: tuple[MultiIndex, ...], dtype: torch.dtype
) -> TcnnPlan:
    """See `Backend.plan`.

    Raises:
        NotImplementedError: tiny-cuda-nn does not compute a derivative exactly.
    """
    _check_exact(layout, alphas)
    return TcnnPlan(x.to(dtype), layout, alphas)


@dataclass(frozen=True)
class _Grid:
    """tiny-cuda-nn's object for a layout and F, and the number of which batch sizes are
    multiples."""

    native: Any
    granularity: int

    def pad(self, rows: Tensor, width: int) -> Tensor:
        """A float32 copy with zeros below and to the right: ``[N, ≤ width]`` → ``[N', width]``."""
        length = -(-len(rows) // self.granularity) * self.granularity
        padded = rows.new_zeros(length, width, dtype=torch.float32)
        padded[: len(rows), : rows.shape[1]] = rows.detach()
        return padded


@cache
def native_grid(layout: GridLayout, n_features: int) -> _Grid:
    """The package's grid of this layout; see `gather` for the errors."""
    try:
        tinycudann: Any = import_module("tinycudann")
    except (ImportError, OSError) as error:  # the package raises EnvironmentError without a GPU
        raise RuntimeError(
            f"backend='tcnn' cannot import tinycudann ({error}); backend='torch' runs everywhere"
        ) from error
    d, name, n_levels, log2_hashmap_size, base_resolution, per_level_scale, *_ = layout.settings
    config = {
        "otype": "Grid",
        "type": "Hash",
        "n_levels": n_levels,
        "n_features_per_level": n_features,
        "log2_hashmap_size": log2_hashmap_size,
        "base_resolution": base_resolution,
        "per_level_scale": per_level_scale,
        "interpolation": _INTERPOLATIONS[name],
    }
    # Only the native module is used; the encoding's random parameters are discarded.
    native = tinycudann.Encoding(d, config, dtype=torch.float32).native_tcnn_module
    expected = layout.n_rows * n_features
    if native.n_params() != expected:
        raise RuntimeError(
            f"tiny-cuda-nn has {native.n_params()} parameters for {config}, expected {expected}: "
            "this version lays grids out differently; use backend='triton' or 'torch'"
        )
    return _Grid(native, int(tinycudann.modules._C.batch_size_granularity()))


def _check_exact(
    layout: GridLayout, alphas: tuple[MultiIndex, ...], n_features: int | None = None
) -> None:
    """Raise an error for a multi-index that tiny-cuda-nn does not compute exactly. Accepted
    multi-indices of order 2 or more have derivatives that are exactly zero."""
    if n_features is not None and n_features not in _FEATURES:
        raise ValueError(
            f"n_features_per_level={n_features}: tiny-cuda-nn has 1, 2, 4 and 8; use "
            "backend='triton' or 'torch'"
        )
    name = layout.interpolation.name
    for alpha in alphas:
        if sum(alpha) < 2 or (name == "linear" and max(alpha) >= 2):
            continue
        axes = " ".join(f"∂x{j}" + f"^{m}" * (m > 1) for j, m in enumerate(alpha) if m)
        raise NotImplementedError(
            f"backend='tcnn' has no ∂^{sum(alpha)}/{axes} of interpolation={name!r}: "
            "tiny-cuda-nn's own double backward drops terms here; use backend='triton' or 'torch'"
        )


def _direction(points: Tensor, alpha: MultiIndex) -> Tensor:
    """The vector e_j of a first derivative, at every point."""
    v = torch.zeros_like(points)
    v[:, alpha.index(1)] = 1
    return v


def _zeros(x: Tensor, n_columns: int) -> Tensor:
    """Zeros ``[N, n_columns]``, or NaN where the point is NaN."""
    return (x.detach().float() * 0).sum(dim=1, keepdim=True).repeat(1, n_columns)


def _stack(tensors: list[Tensor]) -> Tensor:
    """`torch.stack`, without a copy of a single tensor."""
    return tensors[0][None] if len(tensors) == 1 else torch.stack(tensors)
