"""Encodings in JAX: the rows that enter the network of `benchmarks.jax_step`, at fixed points.

The rows of a grid are y = A θ, with a sparse A that depends on the points alone. ``gather`` reads
the touched rows of θ; its backward pass adds up, for each point and touched row, the contributions
of all derivatives, before it scatters them. ``dense`` multiplies with A, level by level.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Any

import jax  # pyright: ignore[reportMissingImports]
import jax.numpy as jnp  # pyright: ignore[reportMissingImports]
import numpy as np
import torch

from benchmarks.case import Case, LossTerm
from diffhash.encodings import GridEncoding
from diffhash.ops.layout import GridLayout, locate

Array = Any  # jax.Array, or a tracer
# The values [C, N] at all points; at the residual's points, ∂_j for every axis of D', and D'. One
# column may stand for all points.
Rows = tuple[Array, tuple[Array, ...], Array]
Features = Callable[[Any, Any], Rows]  # arguments: data of the points alone, and θ [rows, F]

MAX_DENSE_BYTES = 2**28


def features_of(case: Case, encode: str) -> tuple[Features, Any]:
    """The encoding as a function of data and table, and the data."""
    if not isinstance(case.encoding, GridEncoding):
        return (lambda rows, _: rows), _constant_rows(case)
    return {"gather": _gather, "dense": _dense}[encode](case, case.encoding)


def encodes(case: Case) -> tuple[str, ...]:
    """The ways to compute a case's encoding; there is one for an encoding that is not trained."""
    if not isinstance(case.encoding, GridEncoding):
        return ("constant",)
    entries = case.encoding.layout.n_rows * case.n_rows
    small = entries * case.encoding.params.element_size() <= MAX_DENSE_BYTES
    return ("gather", "dense") if small else ("gather",)


def _residual(case: Case) -> LossTerm | None:
    """The last term, if it has derivatives."""
    return case.terms[-1] if case.terms[-1].n_rows > 1 else None


def _constant_rows(case: Case) -> Rows:
    """The rows of an encoding that training does not change."""
    jets = [case.encoding.plan(t.x, t.rows).jet().data.detach().mT for t in case.terms]
    value = torch.cat([jet[0] for jet in jets], dim=1)
    residual = _residual(case)
    if residual is None:
        return _array(value), (), _array(value[:, :0])
    weights = torch.tensor(residual.coefficients[1:], dtype=value.dtype)
    bent = torch.einsum("k,kcn->cn", weights, jets[-1][1:])
    firsts = tuple(_array(_one_column(jets[-1][k])) for k, _ in residual.pairs)
    return _array(value), firsts, _array(_one_column(bent))


def _one_column(rows: torch.Tensor) -> torch.Tensor:
    return rows[:, :1] if bool((rows == rows[:, :1]).all()) else rows


def _array(tensor: torch.Tensor) -> Array:
    return jnp.asarray(tensor.numpy())


@dataclass(frozen=True)
class _Stencil:
    """The rows of θ that a term's points touch, and their weights in `Rows`; ``[N, L, T]`` each."""

    index: np.ndarray
    value: np.ndarray
    firsts: tuple[np.ndarray, ...]
    bent: np.ndarray


def _stencil(layout: GridLayout, term: LossTerm) -> _Stencil:
    interpolation, d = layout.interpolation, layout.n_input_dims
    taps = torch.tensor(list(product(range(interpolation.taps), repeat=d)))
    highest = [max(ms) for ms in zip(*term.rows, strict=True)]
    indices, weights = [], []
    for level in layout.levels:
        cell, t = locate(level, term.x)
        vertices = cell[:, None] + taps + interpolation.first_tap
        indices.append(layout.rows(level, vertices))
        # [axis][order], [N, taps] each
        axes = [
            [interpolation.weights(t[:, j], m) * level.scales[j] ** m for m in range(order + 1)]
            for j, order in enumerate(highest)
        ]
        by_alpha = [
            torch.stack([axes[j][m][:, taps[:, j]] for j, m in enumerate(alpha)]).prod(dim=0)
            for alpha in term.rows
        ]
        weights.append(torch.stack(by_alpha))
    stacked = torch.stack(weights, dim=2)  # [K, N, L, T]
    coefficients = torch.tensor([0.0, *term.coefficients[1:]], dtype=stacked.dtype)
    bent = torch.einsum("k,knlt->nlt", coefficients, stacked)
    return _Stencil(
        torch.stack(indices, dim=1).numpy(),
        stacked[0].numpy(),
        tuple(stacked[k].numpy() for k, _ in term.pairs),
        bent.numpy(),
    )


def _gather(case: Case, encoding: GridEncoding) -> tuple[Features, Any]:
    stencils = [_stencil(encoding.layout, term) for term in case.terms]
    has_residual = _residual(case) is not None
    last = stencils[-1]
    curved = has_residual and bool(last.bent.any())  # linear interpolation has no second derivative
    dtype = case.parameters[0].numpy().dtype

    def weights(values: np.ndarray) -> Array:
        return jnp.asarray(values.astype(dtype))

    data = (
        [jnp.asarray(s.index.astype(np.int32)) for s in stencils],
        [weights(s.value) for s in stencils],
        [weights(w) for w in last.firsts],
        [weights(last.bent)] if curved else [],
    )

    def weighted(table: Array, index: Array, weights: Array) -> Array:
        rows = table.at[index].get(mode="promise_in_bounds")
        return jnp.einsum("nltf,nlt->lfn", rows, weights).reshape(-1, len(index))

    def forward(data: Any, table: Array) -> tuple[Rows, Any]:
        index, value, firsts, bent = data
        values = [weighted(table, i, w) for i, w in zip(index, value, strict=True)]
        width = len(values[0])
        flat = jnp.zeros((width, 1 if has_residual else 0), table.dtype)
        rows = (
            jnp.concatenate(values, axis=1),
            tuple(weighted(table, index[-1], w) for w in firsts),
            weighted(table, index[-1], bent[0]) if bent else flat,
        )
        return rows, (data, table.shape)

    def backward(saved: Any, gradients: Rows) -> tuple[None, Array]:
        (index, value, firsts, bent), shape = saved
        g_value, g_firsts, g_bent = gradients
        n_levels = value[0].shape[1]

        def contributions(gradient: Array, weights: Array) -> Array:
            by_level = gradient.reshape(n_levels, -1, gradient.shape[1])
            return jnp.einsum("lfn,nlt->nltf", by_level, weights)

        ends = np.cumsum([len(i) for i in index])[:-1]
        parts = [
            contributions(g, w)
            for g, w in zip(jnp.split(g_value, ends, axis=1), value, strict=True)
        ]
        pairs = [*zip(g_firsts, firsts, strict=True), *((g_bent, w) for w in bent)]
        parts[-1] += sum((contributions(g, w) for g, w in pairs), start=0.0)
        total = jnp.zeros(shape, g_value.dtype)
        for i, part in zip(index, parts, strict=True):
            total = total.at[i].add(part, mode="promise_in_bounds")
        return None, total

    gather = jax.custom_vjp(lambda data, table: forward(data, table)[0])
    gather.defvjp(forward, backward)
    return gather, data


def _dense(case: Case, encoding: GridEncoding) -> tuple[Features, Any]:
    stencils = [_stencil(encoding.layout, term) for term in case.terms]
    last = stencils[-1]
    levels = encoding.layout.levels
    has_residual = _residual(case) is not None
    dtype = case.parameters[0].numpy().dtype

    def matrices(index: np.ndarray, weights: np.ndarray) -> list[Array]:
        """The matrix Aᵀ ``[rows, N]`` of each level."""
        result = []
        for k, level in enumerate(levels):
            matrix = np.zeros((level.n_rows, len(index)))
            points = np.arange(len(index))[:, None]
            np.add.at(matrix, (index[:, k] - level.first_row, points), weights[:, k])
            result.append(jnp.asarray(matrix.astype(dtype)))
        return result

    index = np.concatenate([s.index for s in stencils])
    data = (
        matrices(index, np.concatenate([s.value for s in stencils])),
        [matrices(last.index, w) for w in last.firsts],
        [matrices(last.index, last.bent)] if has_residual and last.bent.any() else [],
    )

    def features(data: Any, table: Array) -> Rows:
        value, firsts, bent = data
        parts = [table[level.first_row : level.first_row + level.n_rows] for level in levels]

        def multiplied(matrices: list[Array]) -> Array:
            pairs = zip(parts, matrices, strict=True)
            return jnp.concatenate([part.T @ matrix for part, matrix in pairs])

        width = table.shape[1] * len(levels)
        flat = jnp.zeros((width, 1 if has_residual else 0), table.dtype)
        return (
            multiplied(value),
            tuple(multiplied(m) for m in firsts),
            multiplied(bent[0]) if bent else flat,
        )

    return features, data
