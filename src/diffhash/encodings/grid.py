"""Multiresolution grid encodings: linear, smoothstep and spline, dense or hashed."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from diffhash.encodings.encoding import Encoding, check_points
from diffhash.ops.grid import GridPlan, gather, grid_plan
from diffhash.ops.interpolation import interpolation as find_interpolation
from diffhash.ops.jet import Jet, jet_indices
from diffhash.ops.layout import grid_layout

_LIMITS = {
    "n_input_dims": (1, 4),
    "n_levels": (1, 64),
    "n_features_per_level": (1, 64),
    "log2_hashmap_size": (3, 30),
    "base_resolution": (1, 2**20),
}
_MAX_RESOLUTION = 2**24  # beyond it float32 coordinates cannot tell the cells apart


class GridEncoding(Encoding):
    """Multiresolution (hash) grid with exact derivatives of every order.

    y_l(x) = Σ_k Π_j B_{k_j}(t_j) · θ[row_l(cell + k)], levels concatenated (Eqs. 1–13 of the
    paper; Müller et al., 2022). Layout and conventions: `diffhash.ops.layout`. Keys are
    tiny-cuda-nn's, and with ``interpolation="linear"`` (or ``"s1"``, its Smoothstep) in two or
    more dimensions so are the numbers.

    Coordinates belong in [0, 1]^d. Outside, the polynomial of the nearest edge cell continues
    (values grow, nothing wraps and all derivatives stay exact); NaN gives NaN.

    Args:
        n_input_dims: axes of x, 1 to 4.
        n_levels: L.
        n_features_per_level: F; ``n_output_dims = L·F``.
        log2_hashmap_size: a level keeps at most 2^this rows and hashes beyond.
        base_resolution: vertices per axis of level 0.
        per_level_scale: growth of the resolution from level to level.
        interpolation: linear, s1, s2, s3 (smoothstep of Eq. 9, per axis), quadratic, cubic,
            quintic (uniform B-splines), catmull_rom.
        level_offset: shift level l by l/L of a cell, so that levels do not share their
            vertices (bottom of Fig. 2).
        init_scale: θ ~ U(-init_scale, init_scale).
        dtype: of the table and the output.
        seed: of the table; None takes torch's global generator.

    Attributes:
        params: flat ``nn.Parameter``; row r, feature f at ``r·F + f``, levels one after another.

    Raises:
        ValueError: a setting outside its limits, or a table too large to address.
    """

    def __init__(
        self,
        n_input_dims: int,
        n_levels: int = 16,
        n_features_per_level: int = 2,
        log2_hashmap_size: int = 19,
        base_resolution: int = 16,
        per_level_scale: float = 2.0,
        interpolation: str = "linear",
        level_offset: bool = False,
        init_scale: float = 1e-4,
        dtype: torch.dtype = torch.float32,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        values = locals()
        for name, (low, high) in _LIMITS.items():
            if not (isinstance(values[name], int) and low <= values[name] <= high):
                raise ValueError(
                    f"{name}={values[name]}: allowed are integers from {low} to {high}"
                )
        if not (per_level_scale >= 1 and math.isfinite(per_level_scale)):
            raise ValueError(f"per_level_scale={per_level_scale}: give a number of at least 1")
        if not (init_scale >= 0 and math.isfinite(init_scale)):
            raise ValueError(f"init_scale={init_scale}: give a number of at least 0")
        finest = math.log2(base_resolution) + (n_levels - 1) * math.log2(per_level_scale)
        if finest > math.log2(_MAX_RESOLUTION):
            raise ValueError(
                f"the finest level would have 2^{finest:.1f} vertices per axis, more than "
                f"2^{math.log2(_MAX_RESOLUTION):.0f}: lower n_levels ({n_levels}), "
                f"per_level_scale ({per_level_scale}) or base_resolution ({base_resolution})"
            )
        self.layout = grid_layout(
            n_input_dims,
            find_interpolation(interpolation),
            n_levels,
            log2_hashmap_size,
            base_resolution,
            per_level_scale,
            level_offset,
        )
        self.n_input_dims = n_input_dims
        self.n_features_per_level = n_features_per_level
        self.n_output_dims = n_levels * n_features_per_level
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        size = self.layout.n_rows * n_features_per_level
        table = torch.rand(size, dtype=dtype, generator=generator)
        self.params = nn.Parameter(table.mul_(2).sub_(1).mul_(init_scale))

    def forward(self, x: Tensor) -> Tensor:
        self._check(x)
        return gather(x, self.params, self.layout, ((0,) * self.n_input_dims,))[0]

    def _jet(self, x: Tensor, orders: tuple[int, ...]) -> Jet:
        self._check(x)
        return Jet(gather(x, self.params, self.layout, jet_indices(orders)), orders)

    def _plan(self, x: Tensor, orders: tuple[int, ...]) -> _GridEncodingPlan:
        check_points(x, self.n_input_dims)
        self._check_device(x)
        plan = grid_plan(x, self.layout, jet_indices(orders), self.params.dtype)
        return _GridEncodingPlan(self, plan, orders)

    def _check(self, x: Tensor) -> None:
        check_points(x, self.n_input_dims)
        self._check_device(x)
        if x.dtype != self.params.dtype:
            raise ValueError(
                f"points are {x.dtype}, the table is {self.params.dtype}: "
                "bring them together with .to()"
            )

    def _check_device(self, x: Tensor) -> None:
        if x.device != self.params.device:
            raise ValueError(
                f"points are on {x.device}, the table is on {self.params.device}: "
                "bring them together with .to()"
            )


class _GridEncodingPlan:
    def __init__(self, encoding: GridEncoding, plan: GridPlan, orders: tuple[int, ...]) -> None:
        self._encoding, self._plan, self._orders = encoding, plan, orders

    def jet(self) -> Jet:
        return Jet(self._plan.gather(self._encoding.params), self._orders)
