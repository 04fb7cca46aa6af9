"""The contenders of `benchmarks.ops`: the library, and grids as other code computes them.

Every contender computes these rows at points x [N, d], in the dtype of its tables:

    u = y(x)·w,    ∂u/∂x_0,    ∂²u/∂x_0²        (as many as the order asks for, [N] each)

The encoding is y [N, L·F]; w [L·F] is a fixed read-out, like the first layer of a network.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import grid_sample

from diffhash import GridEncoding
from diffhash.ops.backends import MultiIndex
from diffhash.ops.layout import PRIMES, Level

Rows = Callable[[int], tuple[Tensor, ...]]

DIFFHASH, PLANNED, COMPILED = "diffhash", "diffhash, planned", "diffhash compiled"
LOOP, GRID_SAMPLE, TINY_CUDA_NN = "loop", "grid_sample", "tiny-cuda-nn"


@dataclass(frozen=True)
class Contender:
    """One way to compute the rows.

    Attributes:
        name: the name in the results.
        encoding: the encoding whose values the contender must give.
        tables: the parameters; rows are differentiable in those that require a gradient.
        prepare: ``prepare(points, order)``, which is not timed, returns the function that is
            timed. From the repetition's number i, this gives the rows at
            ``points[i % len(points)]``; with a plan, always at ``points[0]``.
        max_order: the highest available order of derivatives, counting one in the tables.
        bytes_per_point: estimates the memory of a call per point, from the order; None where the
            tensors of the call can be measured.
        flat: puts the gradients of ``tables`` in the order of ``encoding.params``.
    """

    name: str
    encoding: GridEncoding
    tables: tuple[Tensor, ...]
    prepare: Callable[[Sequence[Tensor], int], Rows]
    max_order: int = 3
    bytes_per_point: Callable[[int], int] | None = None
    flat: Callable[[Sequence[Tensor]], Tensor] = lambda gradients: gradients[0].flatten()


def contenders(
    encoding: GridEncoding, read_out: Tensor, with_compiled: bool = False
) -> list[Contender]:
    """Every contender that can compute ``encoding`` on its device; `DIFFHASH` comes first."""
    d, name = encoding.n_input_dims, encoding.layout.interpolation.name
    result = [diffhash(encoding, read_out), planned(encoding, read_out), loop(encoding, read_out)]
    if with_compiled:
        result.insert(2, compiled(encoding, read_out))
    if name == "linear" and d in (2, 3):
        result.append(torch_grid_sample(encoding, read_out))
    on_cuda = encoding.params.device.type == "cuda"
    if name in ("linear", "s1") and d in (2, 3) and on_cuda and _has_tcnn():
        result.append(tiny_cuda_nn(encoding, read_out))
    return result


def diffhash(encoding: GridEncoding, read_out: Tensor) -> Contender:
    """`GridEncoding` at points that change from call to call."""

    def prepare(points: Sequence[Tensor], order: int) -> Rows:
        return lambda i: _jet_rows(encoding, points[i % len(points)], read_out, order)

    return Contender(DIFFHASH, encoding, (encoding.params,), prepare)


def planned(encoding: GridEncoding, read_out: Tensor) -> Contender:
    """`GridEncoding.plan` at the first of the points; making the plan is not timed."""

    def prepare(points: Sequence[Tensor], order: int) -> Rows:
        plan = encoding.plan(points[0], _row(encoding, order))
        return lambda i: (plan.jet().data @ read_out).unbind()

    return Contender(PLANNED, encoding, (encoding.params,), prepare)


def compiled(encoding: GridEncoding, read_out: Tensor) -> Contender:
    """`diffhash` under `torch.compile`; the compilation is not timed."""

    def prepare(points: Sequence[Tensor], order: int) -> Rows:
        torch.compiler.reset()  # otherwise earlier shapes fill the limit of the cache
        rows = torch.compile(_jet_rows, fullgraph=True, dynamic=False)
        return lambda i: rows(encoding, points[i % len(points)], read_out, order)

    stencil = encoding.layout.n_taps * len(encoding.layout.levels)

    def bytes_per_point(order: int) -> int:  # weights and table rows, and as much for the gradient
        return 2 * 4 * stencil * (order + 1 + encoding.n_features_per_level)

    return Contender(
        COMPILED, encoding, (encoding.params,), prepare, bytes_per_point=bytes_per_point
    )


def loop(encoding: GridEncoding, read_out: Tensor) -> Contender:
    """`LoopGrid` with the encoding's table and with derivatives by autograd."""
    grid = LoopGrid(encoding)
    return Contender(LOOP, encoding, (grid.table,), _by_autograd(grid, read_out))


def torch_grid_sample(encoding: GridEncoding, read_out: Tensor) -> Contender:
    """`GridSample`, which does comparable work but gives other values.

    Its levels have the resolutions of the linear levels of ``encoding``, but they are nested and
    dense, where those may have tiny-cuda-nn's layout and be hashed. `Contender.encoding` is a
    `GridEncoding` with the same levels. `grid_sample` has only first derivatives before torch 2.13.
    """
    layout = encoding.layout
    _, _, n_levels, _, base_resolution, per_level_scale, *_ = layout.settings
    twin = GridEncoding(
        encoding.n_input_dims,
        n_levels,
        encoding.n_features_per_level,
        log2_hashmap_size=30,
        base_resolution=base_resolution,
        per_level_scale=per_level_scale,
        interpolation="linear",
        level_offset=True,  # otherwise linear levels are tiny-cuda-nn's, which wrap around at x = 1
        init_scale=1.0,
        dtype=encoding.params.dtype,
        seed=0,
    ).to(encoding.params.device)
    grid = GridSample(twin)
    prepare = _by_autograd(grid, read_out)
    return Contender(GRID_SAMPLE, twin, tuple(grid.tables), prepare, flat=grid.flat)


def tiny_cuda_nn(encoding: GridEncoding, read_out: Tensor) -> Contender:
    """tiny-cuda-nn's own module with the encoding's table; it has derivatives up to the second."""
    import tinycudann as tcnn  # pyright: ignore[reportMissingImports]

    _, name, n_levels, log2_size, base_resolution, per_level_scale, *_ = encoding.layout.settings
    config = {
        "otype": "HashGrid",
        "n_levels": n_levels,
        "n_features_per_level": encoding.n_features_per_level,
        "log2_hashmap_size": log2_size,
        "base_resolution": base_resolution,
        "per_level_scale": per_level_scale,
        "interpolation": {"linear": "Linear", "s1": "Smoothstep"}[name],
    }
    grid = tcnn.Encoding(encoding.n_input_dims, config, dtype=torch.float32)
    grid.params.data.copy_(encoding.params.detach())
    prepare = _by_autograd(grid, read_out)
    return Contender(TINY_CUDA_NN, encoding, (grid.params,), prepare, max_order=2)


def _has_tcnn() -> bool:
    try:
        import tinycudann  # noqa: F401 # pyright: ignore[reportMissingImports]
    except (ImportError, OSError):  # OSError: a build for another GPU
        return False
    return True


def _row(encoding: GridEncoding, order: int) -> MultiIndex:
    return order, *[0] * (encoding.n_input_dims - 1)


def _jet_rows(
    encoding: GridEncoding, x: Tensor, read_out: Tensor, order: int
) -> tuple[Tensor, ...]:
    if order == 0:
        return (encoding(x) @ read_out,)
    return (encoding.jet(x, _row(encoding, order)).data @ read_out).unbind()


def _by_autograd(
    grid: Callable[[Tensor], Tensor], read_out: Tensor
) -> Callable[[Sequence[Tensor], int], Rows]:
    """Rows as most PINN code computes them: by repeated differentiation of u.sum()."""

    def prepare(points: Sequence[Tensor], order: int) -> Rows:
        return lambda i: autograd_rows(grid, points[i % len(points)], read_out, order)

    return prepare


def autograd_rows(
    grid: Callable[[Tensor], Tensor], x: Tensor, read_out: Tensor, order: int
) -> tuple[Tensor, ...]:
    """u and its derivatives in x_0 up to ``order``, by nested reverse mode: ``[N]`` each."""
    x = x.detach().requires_grad_(order > 0)
    row = grid(x) @ read_out
    rows = [row]
    with_tables = isinstance(grid, nn.Module) and any(p.requires_grad for p in grid.parameters())
    for m in range(1, order + 1):
        if row.requires_grad:
            (gradient,) = torch.autograd.grad(
                row.sum(), x, create_graph=m < order or with_tables, allow_unused=True
            )
        else:
            gradient = None
        # None: u is a polynomial of a lower degree, so that this derivative is 0.
        row = x.new_zeros(len(x)) if gradient is None else gradient[:, 0]
        rows.append(row)
    return tuple(rows)


def _bspline2(t: Tensor) -> list[Tensor]:
    return [(1 - t) ** 2 / 2, 0.5 + t * (1 - t), t**2 / 2]


def _bspline3(t: Tensor) -> list[Tensor]:
    t2 = t * t
    t3 = t2 * t
    return [(1 - t) ** 3 / 6, (4 - 6 * t2 + 3 * t3) / 6, (1 + 3 * (t + t2 - t3)) / 6, t3 / 6]


def _bspline5(t: Tensor) -> list[Tensor]:
    t2 = t * t
    return [
        (1 - t) ** 5 / 120,
        (26 + t * (-50 + t * (20 + t * (20 + t * (-20 + 5 * t))))) / 120,
        (66 + t2 * (-60 + t2 * (30 - 10 * t))) / 120,
        (26 + t * (50 + t * (20 + t * (-20 + t * (-20 + 10 * t))))) / 120,
        (1 + t * (5 + t * (10 + t * (10 + t * (5 - 5 * t))))) / 120,
        t**5 / 120,
    ]


def _catmull_rom(t: Tensor) -> list[Tensor]:
    t2 = t * t
    return [
        0.5 * t * (t * (2 - t) - 1),
        1 + t2 * (1.5 * t - 2.5),
        0.5 * t * (1 + t * (4 - 3 * t)),
        0.5 * t2 * (t - 1),
    ]


def _step(step: Callable[[Tensor], Tensor]) -> Callable[[Tensor], list[Tensor]]:
    def weights(t: Tensor) -> list[Tensor]:
        s = step(t)
        return [1 - s, s]

    return weights


# The weights of a cell's taps along an axis, in closed form: [N, d] for each tap, from t [N, d].
WEIGHTS: dict[str, Callable[[Tensor], list[Tensor]]] = {
    "linear": _step(lambda t: t),
    "s1": _step(lambda t: t * t * (3 - 2 * t)),
    "s2": _step(lambda t: t**3 * (10 + t * (6 * t - 15))),
    "s3": _step(lambda t: t**4 * (35 + t * (-84 + t * (70 - 20 * t)))),
    "quadratic": _bspline2,
    "cubic": _bspline3,
    "quintic": _bspline5,
    "catmull_rom": _catmull_rom,
}


class LoopGrid(nn.Module):
    """A hash grid as most ports compute it: level by level, corner by corner, with autograd.

    It shares only the settings of the levels and the layout of the table with the library.
    Quantities that depend on one axis alone are computed once per axis and not at every corner.
    """

    def __init__(self, encoding: GridEncoding) -> None:
        super().__init__()
        self.levels, self.wraps = encoding.layout.levels, encoding.layout.tcnn
        stencil = encoding.layout.interpolation
        self.first_tap, self.weights = stencil.first_tap, WEIGHTS[stencil.name]
        table = encoding.params.detach().clone().view(-1, encoding.n_features_per_level)
        self.table = nn.Parameter(table)

    def forward(self, x: Tensor) -> Tensor:
        """The encoding ``[N, L·F]`` at points ``[N, d]``."""
        return torch.cat([self._level(level, x) for level in self.levels], dim=1)

    def _level(self, level: Level, x: Tensor) -> Tensor:
        position = x * level.scales[0] + level.shift
        cell = position.detach().floor().clamp(0, level.max_cells[0])
        weights = [w.unbind(1) for w in self.weights(position - cell)]  # [taps][d], [N] each
        first = cell.long() + (self.first_tap + level.pad)
        parts = [_index_parts(level, first + k) for k in range(len(weights))]
        y = torch.zeros((), dtype=x.dtype, device=x.device)
        for corner in product(range(len(weights)), repeat=x.shape[1]):
            index, weight = parts[corner[0]][0], weights[corner[0]][0]
            for j, k in enumerate(corner[1:], start=1):
                index = index ^ parts[k][j] if level.hashed else index + parts[k][j]
                weight = weight * weights[k][j]
            if level.hashed:
                index = index & (level.n_rows - 1)
            elif self.wraps:
                index = index % level.n_rows
            # As fast as table[index] or an embedding forward, and faster in the backward pass.
            y = y + weight[:, None] * self.table.index_select(0, index + level.first_row)
        return y


def _index_parts(level: Level, vertex: Tensor) -> tuple[Tensor, ...]:
    """The contribution of each axis to the table index of ``vertex [N, d]``, to add or to xor."""
    factors = PRIMES if level.hashed else [level.resolutions[0] ** j for j in range(4)]
    return tuple(v * factors[j] for j, v in enumerate(vertex.unbind(1)))


class GridSample(nn.Module):
    """Dense linear levels by `torch.nn.functional.grid_sample`, in 2-D and 3-D.

    The values are those of ``encoding``, which must be linear, nested and dense.
    """

    def __init__(self, encoding: GridEncoding) -> None:
        super().__init__()
        self.encoding_levels = encoding.layout.levels
        self.d, features = encoding.n_input_dims, encoding.n_features_per_level
        table = encoding.params.detach().view(-1, features)
        images = []
        for level in self.encoding_levels:
            rows = table[level.first_row : level.first_row + level.resolutions[0] ** self.d]
            image = rows.T.reshape(1, features, *[level.resolutions[0]] * self.d)
            images.append(nn.Parameter(image.clone()))
        self.tables = nn.ParameterList(images)

    def forward(self, x: Tensor) -> Tensor:
        """The encoding ``[N, L·F]`` at points ``[N, d]``."""
        outputs = []
        for level, image in zip(self.encoding_levels, self.tables, strict=True):
            position = x * level.scales[0] + level.shift
            at = position * (2 / (level.resolutions[0] - 1)) - 1
            sampled = grid_sample(
                image, at.view(1, -1, *[1] * (self.d - 1), self.d), align_corners=True
            )
            outputs.append(sampled.flatten(2)[0].T)
        return torch.cat(outputs, dim=1)

    def flat(self, gradients: Sequence[Tensor]) -> Tensor:
        """The gradients of ``tables`` in the order of the encoding's parameters."""
        parts: list[Any] = []
        for level, gradient in zip(self.encoding_levels, gradients, strict=True):
            rows = gradient[0].flatten(1).T
            parts.append(rows.new_zeros(level.n_rows, rows.shape[1]))
            parts[-1][: len(rows)] = rows
        return torch.cat(parts).flatten()
