"""Multiresolution grid encodings: linear, smoothstep and spline, dense or hashed."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from diffhash.encodings.encoding import (
    Encoding,
    EncodingPlan,
    GridRows,
    PartialPlan,
    Unplanned,
    Vjp,
    add_gradient,
    checked_vjp,
    selected,
)
from diffhash.jets import Jet, Row, Rows, combined, expanded, jet_rows
from diffhash.jets.jet import combined_gradient
from diffhash.ops.backends import MultiIndex, select_backend
from diffhash.ops.backends.native_backend import keeps_weights
from diffhash.ops.grid import GridPlan, gather, grid_plan
from diffhash.ops.interpolation import interpolation as find_interpolation
from diffhash.ops.layout import base_resolutions, grid_layout
from diffhash.ops.settings import ConfiguredModule, Seed, integer, seeds

_FINEST_DENSE = 256  # the most cells per axis of the default levels; in 1-D more would fit a table
_LIMITS = {
    "n_input_dims": (1, 4),
    "n_levels": (1, 64),
    "n_features_per_level": (1, 64),
    "log2_hashmap_size": (3, 30),
}
PARTS_BYTES = 2**30  # the largest plan whose weights are stored and copied for minibatches
_MAX_RESOLUTION = 2**24  # float32 coordinates cannot resolve more cells


class GridEncoding(ConfiguredModule, Encoding):
    """Multiresolution (hash) grid with exact derivatives of every order.

    y_l(x) = Σ_k Π_j B_{k_j}(t_j) · θ[row_l(cell + k)], levels concatenated (Eqs. 1–13 of the
    paper; Müller et al., 2022). Layout and conventions: `diffhash.ops.layout`. The names of the
    settings are tiny-cuda-nn's. With ``interpolation="linear"`` (or ``"s1"``, its Smoothstep) in
    two or more dimensions the outputs are tiny-cuda-nn's as well, unless ``layout="nested"``.

    Coordinates are in [0, 1]^d. Outside, periodic axes wrap; on others the polynomial of the
    nearest edge cell continues (values grow, and all derivatives stay exact). NaN gives NaN.

    >>> encoding = GridEncoding(2, n_levels=4, base_resolution=4, interpolation="cubic", seed=0)
    >>> x = torch.rand(100, 2)
    >>> encoding(x).shape, encoding.jet(x, ["u_xx", "u_xy"])[1, 1].shape
    (torch.Size([100, 8]), torch.Size([100, 8]))

    Args:
        n_input_dims: the number d of axes of x, 1 to 4.
        n_levels: the number L of levels; None for all levels that are dense (with at most
            2^log2_hashmap_size vertices) and have at most 256 cells per axis, but at least one.
        n_features_per_level: F; ``n_output_dims = L·F``.
        log2_hashmap_size: a level with more than 2^log2_hashmap_size vertices is hashed to as many.
        base_resolution: the number of cells of level 0 along an axis (of vertices in the layout
            tcnn): one number for all axes, or, in the layout nested, one for each, as (64, 8).
        per_level_scale: the growth of the resolution from level to level.
        interpolation: linear; s1, s2, s3 (smoothstep of Eq. 9, per axis); quadratic, cubic,
            quartic, quintic, sextic, septic, octic, nonic, also bspline_2 to bspline_9 (uniform
            B-splines, C^(degree - 1)); catmull_rom (C¹); hermite (C¹: u and its mixed first
            derivatives at each vertex, 2^d rows of the table); or s1_product, s2_product,
            s3_product, exactly the paper's Eq. 10, whose weights in two or more dimensions neither
            add up to one nor are smooth. With a B-spline a point reads (degree + 1)^d rows a level.
        level_offset: whether level l is shifted by l/L of a cell, so that levels do not share their
            vertices (bottom of Fig. 2).
        layout: the positions of vertices. "nested" is the paper's, at 0, 1/N_l, … 1 on every level;
            "tcnn" is tiny-cuda-nn's, for linear, s1, s2, s3 and hermite in two or more
            dimensions; "auto" is tcnn for linear and s1 where tcnn is possible, else nested.
        periodic: the numbers of the axes along which the field has period 1, as (0,). The table
            wraps along these axes, so that u and all its derivatives are the same at x and x + 1. A
            level has floor(base_resolution · per_level_scale^l) vertices along such an axis.
        init_scale: θ ~ U(-init_scale, init_scale).
        dtype: the type of the table and the output.
        seed: the seed of the table; None for torch's global generator. A sequence or array of R
            seeds makes R tables (replicas), each the same as with its seed alone: ``params`` and
            every output have a leading axis R, and all share one evaluation of the points.
        backend: the implementation.

            - "torch" runs everywhere;
            - "native" is C for CPUs, compiled on this machine at the first use (a second);
            - "triton" is for CUDA devices;
            - "tcnn" is tiny-cuda-nn for linear and s1 in float32; derivatives that it does not
              compute exactly are an error. In one dimension it has a constant second axis, and the
              table of a 2-D grid. Outside [0, 1] it wraps around;
            - "auto" is triton on CUDA devices and native on CPUs, or torch if they are unavailable.

    Attributes:
        params: a flat ``nn.Parameter``, level after level, with row r, feature f at ``r·F + f``.

    Raises:
        ValueError: a setting is outside its limits, the table is too large to address, or the
            backend does not support the grid.
        ModuleNotFoundError: the backend's package is not installed.
        RuntimeError: the backend is ``"native"`` and there is no C compiler.
    """

    takes_replicas = True

    def __init__(
        self,
        n_input_dims: int,
        n_levels: int | None = 16,
        n_features_per_level: int = 2,
        log2_hashmap_size: int = 19,
        base_resolution: int | Iterable[int] = 16,
        per_level_scale: float = 2.0,
        interpolation: str = "linear",
        level_offset: bool = False,
        layout: str = "auto",
        periodic: Iterable[int] = (),
        init_scale: float = 1e-4,
        dtype: torch.dtype = torch.float32,
        seed: Seed | None = None,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        given = locals() | ({} if n_levels is not None else {"n_levels": 1})  # counted below
        wants_dense = n_levels is None
        n_input_dims, n_levels, n_features_per_level, log2_hashmap_size = (
            integer(name, given[name], *limits) for name, limits in _LIMITS.items()
        )
        base = base_resolutions(base_resolution, n_input_dims)
        per_level_scale, init_scale = float(per_level_scale), float(init_scale)
        if not 1 <= per_level_scale <= _MAX_RESOLUTION:
            raise ValueError(
                f"per_level_scale={per_level_scale}: give a number of at least 1, and at most "
                f"2^{math.log2(_MAX_RESOLUTION):.0f}"
            )
        if not (init_scale >= 0 and math.isfinite(init_scale)):
            raise ValueError(f"init_scale={init_scale}: give a number of at least 0")
        if wants_dense:
            taps = find_interpolation(interpolation).taps
            while (
                n_levels < _LIMITS["n_levels"][1]
                and math.prod(n * per_level_scale**n_levels - 1 + taps for n in base)
                <= 2**log2_hashmap_size
                and max(base) * per_level_scale**n_levels <= _FINEST_DENSE
            ):
                n_levels += 1
        finest = math.log2(max(base)) + (n_levels - 1) * math.log2(per_level_scale)
        if finest > math.log2(_MAX_RESOLUTION):
            raise ValueError(
                f"the finest level would have 2^{finest:.1f} vertices per axis, more than "
                f"2^{math.log2(_MAX_RESOLUTION):.0f}: lower n_levels ({n_levels}), "
                f"per_level_scale ({per_level_scale}) or base_resolution ({max(base)})"
            )
        # tiny-cuda-nn has no 1-D grids: its backend holds a second axis constant at 0.
        n_axes = 2 if backend == "tcnn" and n_input_dims == 1 else n_input_dims
        self.layout = grid_layout(
            n_axes,
            interpolation,
            n_levels,
            log2_hashmap_size,
            base * (n_axes // n_input_dims),
            per_level_scale,
            level_offset,
            layout,
            periodic,
        )
        self.n_input_dims = n_input_dims
        self.n_features_per_level = n_features_per_level
        self.n_output_dims = n_levels * n_features_per_level
        # Without CUDA, Triton is not imported, which takes time.
        device_types = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
        self._backend = backend
        self._backends = {
            kind: select_backend(backend, self.layout, dtype, kind) for kind in device_types
        }
        size = self.layout.n_rows * n_features_per_level
        one_or_many = seeds(seed)
        if isinstance(one_or_many, list):
            tables = torch.stack([_uniform(size, dtype, one) for one in one_or_many])
        else:
            tables = _uniform(size, dtype, one_or_many)
        self.params = nn.Parameter(tables.mul_(init_scale))

    @property
    def periodic(self) -> tuple[int, ...]:
        """The numbers of the periodic axes."""
        return self.layout.periodic_axes

    @property
    def n_replicas(self) -> int | None:
        return None if self.params.ndim == 1 else len(self.params)

    def _settings(self) -> dict[str, Any]:
        _, interpolation, n_levels, log2_size, base, growth, offset, layout, periodic = (
            self.layout.settings
        )
        return {
            "n_input_dims": self.n_input_dims,
            "n_levels": n_levels,
            "n_features_per_level": self.n_features_per_level,
            "log2_hashmap_size": log2_size,
            "base_resolution": base,
            "per_level_scale": growth,
            "interpolation": interpolation,
            "level_offset": offset,
            "layout": layout,
            "periodic": periodic,
        }

    def forward(self, x: Tensor) -> Tensor:
        self._check(x)
        return self._gather(x, ((0,) * self.n_input_dims,)).squeeze(-3)

    def _jet(self, x: Tensor, rows: tuple[Row, ...]) -> Jet:
        return Jet(combined(self._gather(x, expanded(rows)[0]), rows), rows)

    def _plan(self, x: Tensor, rows: tuple[Row, ...]) -> _GridEncodingPlan:
        alphas, _ = expanded(rows)
        plan = grid_plan(x, self.layout, alphas, self.params.dtype, self.backend)
        return _GridEncodingPlan(self, plan, rows)

    def plan_in_parts(self, x: Tensor, rows: Rows) -> EncodingPlan:
        rows = jet_rows(rows, self.n_input_dims)
        if self.backend == "native" and self.planned_bytes(len(x), len(rows)) <= PARTS_BYTES:
            return self.plan(x, rows)
        self._check_fixed(x)
        return _GridInParts(self, x.detach().clone(), rows)

    def planned_bytes(self, n_points: int, n_rows: int) -> int:
        """The bytes of the rows and weights that a plan stores on a CPU: N L T (4 + s K)."""
        layout = self.layout
        on_cpu = self.backend_on(torch.device("cpu"))
        if on_cpu != "native" or not keeps_weights(n_points, layout, n_rows):
            return 0
        size = 4 + self.params.element_size() * n_rows
        return n_points * len(layout.levels) * layout.n_taps * size

    def _gather(self, x: Tensor, alphas: tuple[MultiIndex, ...]) -> Tensor:
        return gather(x, self._table(), self.layout, alphas, self.backend)

    def _table(self) -> Tensor:
        """The present `params`, which may have been replaced.

        Raises:
            ValueError: their shape is not ``[(R,) n_rows·F]``.
        """
        params, size = self.params, self.layout.n_rows * self.n_features_per_level
        if params.ndim not in (1, 2) or params.shape[-1] != size:
            raise ValueError(
                f"params have the shape {list(params.shape)}: this grid's are [{size}], or "
                f"[R, {size}] for R replicas"
            )
        return params

    @property
    def max_order(self) -> int:  # type: ignore[override]
        """The degree of the interpolation's polynomials along an axis."""
        step = self.layout.interpolation.step
        return self.layout.interpolation.degree * (1 if step is None else len(step) - 1)

    @property
    def backend(self) -> str:
        """The name of the backend on the table's device: torch, native, triton or tcnn."""
        return self.backend_on(self.params.device)

    def backend_on(self, device: torch.device) -> str:
        """The name of the backend that the encoding uses on a device."""
        kind = "cuda" if device.type == "cuda" else "cpu"
        if kind not in self._backends:
            dtype = self.params.dtype
            self._backends[kind] = select_backend(self._backend, self.layout, dtype, kind)
        return self._backends[kind]

    def _check(self, x: Tensor) -> None:
        super()._check(x)
        if x.dtype != self.params.dtype:
            raise ValueError(
                f"points have the dtype {x.dtype} (a field's have its network's), the table has "
                f"{self.params.dtype}: bring them together with .to()"
            )

    def _check_fixed(self, x: Tensor) -> None:
        super()._check_fixed(x)
        if x.device != self.params.device:
            raise ValueError(
                f"points are on {x.device}, the table is on {self.params.device}: "
                "bring them together with .to()"
            )


def _uniform(size: int, dtype: torch.dtype, seed: int | None) -> Tensor:
    """``size`` random numbers from U(-1, 1)."""
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    return torch.rand(size, dtype=dtype, generator=generator).mul_(2).sub_(1)


class _GridEncodingPlan(EncodingPlan):
    def __init__(self, encoding: GridEncoding, plan: GridPlan, rows: tuple[Row, ...]) -> None:
        self._encoding, self._latest, self._rows = encoding, plan, rows
        self._made_for = encoding.params.dtype, encoding.params.device
        self._kernel_input: GridRows | None = None

    def _plan(self, params: Tensor) -> GridPlan:
        """The plan for the table; it is made anew if the table's device or type has changed."""
        if (params.dtype, params.device) != self._made_for:
            x, encoding = self._latest.plan.x.to(params.device), self._encoding
            alphas, backend = expanded(self._rows)[0], encoding.backend_on(params.device)
            self._latest = grid_plan(x, encoding.layout, alphas, params.dtype, backend)
            self._made_for, self._kernel_input = (params.dtype, params.device), None
        return self._latest

    def jet(self) -> Jet:
        params = self._encoding._table()
        return Jet(combined(self._plan(params).gather(params), self._rows), self._rows)

    def jet_and_vjp(self) -> tuple[Jet, Vjp | None]:
        params = self._encoding._table()
        plan = self._plan(params)

        def vjp(g: Tensor) -> None:
            add_gradient(params, plan.scatter(combined_gradient(g, self._rows)))

        with torch.no_grad():
            jet = Jet(combined(plan.gather(params), self._rows), self._rows)
        return jet, checked_vjp(vjp, jet) if params.requires_grad else None

    def kernel_input(self) -> Jet | GridRows | None:
        encoding = self._encoding
        params = encoding._table()
        plan, entries = self._plan(params), self._kernel_input
        if entries is None or entries.params is not params:
            kept = self._rows_and_weights(plan)
            if kept is None:
                return None
            entries = GridRows(params, *kept, encoding.n_features_per_level, encoding.layout.n_rows)
            self._kernel_input = entries
        return entries

    def _rows_and_weights(self, plan: GridPlan) -> tuple[Tensor, Tensor] | None:
        """Rows ``[N, L, T]`` and weights ``[N, L, K, T]``; None if the plan does not store them."""
        if (kept := plan.rows_and_weights) is None:
            return None
        rows, weights = kept
        return rows, combined(weights[..., None], self._rows)[..., 0].contiguous()

    def move(self, x: Tensor) -> bool:
        plan = self._plan(self._encoding._table())
        plan.move(x.to(plan.plan.x.device), self._made_for[0])
        if self._kernel_input is not None:
            moved = self._rows_and_weights(plan)
            assert moved is not None
            # Weights of sums of derivatives are in memory of their own.
            if moved[1].data_ptr() != self._kernel_input.weights.data_ptr():
                self._kernel_input.weights.copy_(moved[1])
        return True

    def at(self, index: Tensor) -> PartialPlan | None:
        if self._plan(self._encoding._table()).rows_and_weights is None:
            return None
        return _GridEncodingPart(self, index)


class _GridInParts(Unplanned):
    """A plan that stores nothing but its points."""

    _encoding: GridEncoding

    def at(self, index: Tensor) -> PartialPlan | None:
        if self._encoding.backend != "native":
            return None
        return _MovedPart(self._encoding, self._x, index, self._rows)


class _MovedPart(PartialPlan):
    """A partial plan that computes the rows and weights of its points in `take`."""

    def __init__(
        self, encoding: GridEncoding, x: Tensor, index: Tensor, rows: tuple[Row, ...]
    ) -> None:
        self._x, self._plan = x, encoding.plan(x[index], rows)

    def take(self, index: Tensor) -> None:
        self._plan.move(self._x[index])

    def jet(self) -> Jet:
        return self._plan.jet()

    def jet_and_vjp(self) -> tuple[Jet, Vjp | None]:
        return self._plan.jet_and_vjp()

    def kernel_input(self) -> Jet | GridRows | None:
        return self._plan.kernel_input()


class _GridEncodingPart(PartialPlan):
    """A partial plan of a grid, which copies the rows and weights of its points when a kernel reads
    them."""

    def __init__(self, whole: _GridEncodingPlan, index: Tensor) -> None:
        self._whole, self._index = whole, index
        self._memory = torch.empty(0), torch.empty(0)
        self._kernel_input: GridRows | None = None

    def take(self, index: Tensor) -> None:
        self._index, self._kernel_input = index, None

    def kernel_input(self) -> Jet | GridRows | None:
        whole = self._whole.kernel_input()
        if not isinstance(whole, GridRows):
            return None
        entries = self._kernel_input
        if entries is None or entries.params is not whole.params:
            self._memory = (
                selected(whole.rows, 0, self._index, self._memory[0]),
                selected(whole.weights, 0, self._index, self._memory[1]),
            )
            n_features, n_rows = whole.n_features, whole.n_rows
            entries = GridRows(whole.params, *self._memory, n_features, n_rows)
            self._kernel_input = entries
        return entries

    def _plan(self) -> _GridEncodingPlan:
        encoding = self._whole._encoding
        plan = self._whole._plan(encoding._table()).at(self._index)
        return _GridEncodingPlan(encoding, plan, self._whole._rows)

    def jet(self) -> Jet:
        return self._plan().jet()

    def jet_and_vjp(self) -> tuple[Jet, Vjp | None]:
        return self._plan().jet_and_vjp()
