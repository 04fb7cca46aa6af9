"""A double of the package tinycudann on the CPU, for `diffhash.ops.backends.tcnn_backend`.

It is written from tiny-cuda-nn's documented contract and the behaviour of its Python bindings, in
numpy, and shares nothing with the library. It is as strict as the bindings: float32 and contiguous
tensors, batches in multiples of 256, gradients only of tensors that require them, a context only
where the forward pass had something to prepare; and its double backward leaves no graph.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import math
from dataclasses import dataclass, field
from itertools import product
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

GRANULARITY = 256
PRIMES = (1, 2654435761, 805459861, 3674653429)
# The functions that tiny-cuda-nn calls: not numpy's, which differ between processors.
_LIBM = ctypes.CDLL(ctypes.util.find_library("m"))
_LIBM.log2f.argtypes = _LIBM.exp2f.argtypes = [ctypes.c_float]
_LIBM.log2f.restype = _LIBM.exp2f.restype = ctypes.c_float
# Columns beyond L·F in every output, as modules padded for a network have; they hold no features.
EXTRA_COLUMNS = 0

modules = SimpleNamespace(_C=SimpleNamespace(batch_size_granularity=lambda: GRANULARITY))


class Encoding:
    """The double of ``tinycudann.Encoding``."""

    def __init__(
        self,
        n_input_dims: int,
        encoding_config: dict[str, Any],
        seed: int = 1337,
        dtype: torch.dtype | None = None,
    ) -> None:
        if dtype != torch.float32:
            raise ValueError("the double computes in float32 alone")  # the default there is half
        self.native_tcnn_module = Native(n_input_dims, **encoding_config)
        self.params = torch.nn.Parameter(torch.zeros(self.native_tcnn_module.n_params()))


@dataclass(frozen=True)
class _Level:
    scale: float
    resolution: int
    n_rows: int
    first_row: int


@dataclass
class _Context:
    """The context of a call: empty in inference mode, with ``dy_dx`` if x requires a gradient."""

    valid: bool = False
    dy_dx: NDArray[np.float64] | None = None


@dataclass
class Native:
    """The double of the bindings' ``Module`` for a hash grid."""

    dims: int
    otype: str
    type: str
    n_levels: int
    n_features_per_level: int
    log2_hashmap_size: int
    base_resolution: int
    per_level_scale: float
    interpolation: str
    calls: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        _require(self.otype in ("Grid", "HashGrid") and self.type == "Hash", "grid type")
        _require(self.dims in (2, 3, 4), "number of input dims must be 2, 3 or 4")
        _require(self.n_features_per_level in (1, 2, 4, 8), "n_features_per_level")
        _require(self.interpolation in ("Linear", "Smoothstep"), "interpolation")
        self._levels: list[_Level] = []
        first = 0
        growth = np.float32(_LIBM.log2f(self.per_level_scale))
        for l in range(self.n_levels):
            scale = np.float32(_LIBM.exp2f(np.float32(l) * growth))
            scale *= np.float32(self.base_resolution)
            scale -= np.float32(1)
            resolution = math.ceil(scale) + 1
            n_rows = min((resolution**self.dims + 7) // 8 * 8, 2**self.log2_hashmap_size)
            self._levels.append(_Level(float(scale), resolution, n_rows, first))
            first += n_rows
        self._n_rows = first

    def n_params(self) -> int:
        return self._n_rows * self.n_features_per_level

    def n_output_dims(self) -> int:
        return self.n_levels * self.n_features_per_level + EXTRA_COLUMNS

    def fwd(self, x: Tensor, params: Tensor) -> tuple[_Context, Tensor]:
        self.calls.append("fwd")
        self._check(x, params)
        context = _Context(valid=x.requires_grad or params.requires_grad)
        if x.requires_grad:
            rows = [self._gather(x, params, axis) for axis in self._axes()]
            context.dy_dx = np.stack(rows)
        return context, self._output(self._gather(x, params, (0,) * self.dims))

    def bwd(
        self, context: _Context, x: Tensor, params: Tensor, y: Tensor, dy: Tensor
    ) -> tuple[Tensor | None, Tensor | None]:
        self.calls.append("bwd")
        _require(context.valid, "called with invalid context. fwd ran in inference mode")
        self._check(x, params, y, dy)
        dx = dparams = None
        g = self._columns(dy)
        if x.requires_grad:
            _require(context.dy_dx is not None, "dy_dx was not prepared")
            assert context.dy_dx is not None
            dx = torch.tensor(np.einsum("dnc,nc->nd", context.dy_dx, g), dtype=torch.float32)
        if params.requires_grad:
            dparams = self._scatter(x, g, {(0,) * self.dims: np.ones(len(g))})
        return dx, dparams

    def bwd_bwd_input(
        self, context: _Context, x: Tensor, params: Tensor, v: Tensor, dy: Tensor
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Gradients of ⟨v, dx⟩, where dx = Jᵀ dy, in dy, the parameters and x."""
        self.calls.append("bwd_bwd_input")
        _require(context.valid, "called with invalid context. fwd ran in inference mode")
        self._check(x, params, v, dy)
        _require(v.shape[1] == self.dims and dy.shape[1] == self.n_output_dims(), "sizes")
        d_dy = dparams = None
        g, direction = self._columns(dy), v.detach().numpy().astype(np.float64)
        if dy.requires_grad:
            _require(context.dy_dx is not None, "dy_dx was not prepared")
            assert context.dy_dx is not None
            d_dy = self._output(np.einsum("dnc,nd->nc", context.dy_dx, direction))
        if params.requires_grad:
            along = {axis: direction[:, j] for j, axis in enumerate(self._axes())}
            dparams = self._scatter(x, g, along)
        dx = torch.zeros_like(x) if x.requires_grad else None
        if dx is not None and (dy.requires_grad or params.requires_grad):
            for j, one in enumerate(self._axes()):
                for k, other in enumerate(self._axes()):
                    both = tuple(a + b for a, b in zip(one, other, strict=True))
                    hessian = self._gather(x, params, both)
                    dx[:, k] += torch.tensor(direction[:, j] * (hessian * g).sum(axis=1))
        return d_dy, dparams, dx

    def _check(self, x: Tensor, params: Tensor, *others: Tensor) -> None:
        for tensor in (x, params, *others):
            _require(tensor.dtype == torch.float32, "float32")
            _require(tensor.is_contiguous(), "is_contiguous()")
        for tensor in (x, *others):
            _require(len(tensor) == len(x), "batch sizes")
        _require(len(x) > 0 and len(x) % GRANULARITY == 0, "batch size % 256 == 0")
        _require(x.shape[1] == self.dims and params.shape == (self.n_params(),), "sizes")

    def _axes(self) -> list[tuple[int, ...]]:
        return [tuple(int(j == axis) for j in range(self.dims)) for axis in range(self.dims)]

    def _corners(
        self, level: _Level, x: Tensor, alpha: tuple[int, ...]
    ) -> list[tuple[NDArray[np.int64], NDArray[np.float64]]]:
        """Rows of the table and weights of ∂^α, for each of the 2^d corners of the points' cells.

        Negative cells wrap around as unsigned numbers; a NaN is in cell 0.
        """
        pos = x.detach().numpy().astype(np.float64) * level.scale + 0.5
        cell = np.floor(pos)
        t = pos - cell
        if self.interpolation == "Linear":
            upper = (t, np.ones_like(t), np.zeros_like(t))
        else:
            upper = (t * t * (3 - 2 * t), 6 * t * (1 - t), 6 - 12 * t)
        vertex = np.nan_to_num(cell).astype(np.int64)
        corners = []
        for bits in product((0, 1), repeat=self.dims):
            weight = np.full(len(pos), level.scale ** sum(alpha))
            index, stride = np.zeros(len(pos), dtype=np.int64), 1
            hashed = np.zeros(len(pos), dtype=np.int64)
            for j, (bit, order) in enumerate(zip(bits, alpha, strict=True)):
                w = upper[order][:, j]
                weight *= w if bit else float(order == 0) - w
                index += (vertex[:, j] + bit) * stride
                hashed ^= (vertex[:, j] + bit) * PRIMES[j] % 2**32
                stride *= level.resolution
            row = (hashed if level.n_rows < stride else index % 2**32) % level.n_rows
            corners.append((level.first_row + row, weight))
        return corners

    def _gather(self, x: Tensor, params: Tensor, alpha: tuple[int, ...]) -> NDArray[np.float64]:
        table = params.detach().numpy().reshape(-1, self.n_features_per_level)
        columns = [
            sum(weight[:, None] * table[row] for row, weight in self._corners(level, x, alpha))
            for level in self._levels
        ]
        return np.concatenate(columns, axis=1)

    def _scatter(
        self,
        x: Tensor,
        g: NDArray[np.float64],
        alphas: dict[tuple[int, ...], NDArray[np.float64]],
    ) -> Tensor:
        """Σ_α G_αᵀ (factor_α · g), with a factor for each point."""
        total = np.zeros((self._n_rows, self.n_features_per_level))
        for l, level in enumerate(self._levels):
            columns = g[:, l * self.n_features_per_level : (l + 1) * self.n_features_per_level]
            for alpha, factor in alphas.items():
                for row, weight in self._corners(level, x, alpha):
                    np.add.at(total, row, (factor * weight)[:, None] * columns)
        return torch.tensor(total.ravel(), dtype=torch.float32)

    def _columns(self, dy: Tensor) -> NDArray[np.float64]:
        return dy.detach().numpy()[:, : self.n_levels * self.n_features_per_level].astype(float)

    def _output(self, y: NDArray[np.float64]) -> Tensor:
        extra = np.full((len(y), EXTRA_COLUMNS), np.nan)
        return torch.tensor(np.concatenate([y, extra], axis=1), dtype=torch.float32)


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise RuntimeError(f"tiny-cuda-nn: check failed: {what}")
