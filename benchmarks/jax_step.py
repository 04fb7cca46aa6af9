"""The step in JAX as an expert writes it: jitted, many steps in one `jax.lax.scan`.

Derivatives are computed together with the values. With the residual's operator D = c + D',
D' = Σ_j b_j ∂_j + Σ_j c_j ∂_jj, the pre-activations (z, ∂_j z, D'z) of a layer become

    σ(z),    σ'(z) ∂_j z,    σ'(z) D'z + σ''(z) Σ_j c_j (∂_j z)²,

so that a residual point has 2 + d rows. Arrays are ``[features, points]``, every row has a matrix
product of its own, and the activation's backward pass is written out. Quantities that depend on the
points alone are computed once, in float64. The variants are described in
results/benchmarks/README.md.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import torch

# This precedes the import of JAX, which must not reserve all memory of a GPU.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax  # pyright: ignore[reportMissingImports]
import jax.numpy as jnp  # pyright: ignore[reportMissingImports]
from jax.flatten_util import ravel_pytree  # pyright: ignore[reportMissingImports]

from benchmarks.case import Case, LossTerm
from benchmarks.jax_features import Rows, encodes, features_of
from benchmarks.sample import Sample

JAX = "jax"

Array = Any  # jax.Array, or a tracer
Layer = tuple[Array, Array]  # weight [n_outputs, n_inputs] and bias [n_outputs]
Parameters = tuple[Array | None, tuple[Layer, ...]]  # a grid's table [rows, F], and the network
Loss = Callable[[Parameters, Any], Array]  # arguments: the parameters, and data of the points alone

_STEPS = 100  # steps of one scan; fewer where the case is larger than the paper's
_ROWS = 700_000  # rows of one scan, over all its steps
_SHARDS = "shards"
_B1, _B2, _EPS = 0.9, 0.999, 1e-8  # Adam's settings, as in torch


def configure(device: torch.device, n_threads: int) -> bool:
    """Make JAX use torch's device; a CPU appears as one device per thread.

    To be called before JAX computes anything. The result says whether JAX sees the device.
    """
    jax.config.update("jax_num_cpu_devices", n_threads)
    return bool(_devices(device))


def variants(case: Case) -> list[tuple[str, int]]:
    """Every ``(encode, n_shards)`` that is possible for a case."""
    n_devices = len(_devices(case.device))
    counts = {n_devices, *(2**k for k in range(n_devices.bit_length()))}
    fitting = [n for n in sorted(counts) if all(len(term.x) % n == 0 for term in case.terms)]
    return list(product(encodes(case), fitting))


class JaxStep:
    """Training with Adam from the parameters of a case.

    Args:
        case: the training step.
        encode: the way to compute the encoding; see `benchmarks.jax_features`.
        n_shards: the number of devices that share the points of every term, and whose gradients are
            averaged. On a CPU, scatter and gather use one thread of each device.
    """

    name = JAX

    def __init__(self, case: Case, encode: str, n_shards: int = 1) -> None:
        self.variant = f"{encode} × {n_shards}"
        self._n_shards = n_shards
        self._n_steps = max(5, min(_STEPS, _ROWS // case.n_rows))
        devices = _devices(case.device)[:n_shards]
        self._mesh = jax.sharding.Mesh(np.array(devices), (_SHARDS,))
        with jax.default_device(devices[0]):
            shards = [_shard(case, index, n_shards) for index in range(n_shards)]
            features = [features_of(shard, encode) for shard in shards]
            data = [
                (points, [_array(term.target.T.to(case.dtype)) for term in shard.terms])
                for (_, points), shard in zip(features, shards, strict=True)
            ]
            data = jax.tree.map(lambda *parts: jnp.stack(parts), *data)
            state = _initial_state(_parameters(case))
        self._data = jax.device_put(data, self._sharding(_SHARDS))
        self._state = jax.device_put(state, self._sharding())
        gradient = partial(_gradient, _loss(shards[0], features[0][0]), n_shards)
        self._gradient = jax.jit(self._on_all_shards(gradient))
        steps = partial(_steps, gradient, case.learning_rate, case.cosine_epochs)
        self._steps = jax.jit(
            lambda n_steps, state, data: self._on_all_shards(partial(steps, n_steps))(state, data),
            static_argnums=0,
            donate_argnums=1,
        )

    def train(self, n_steps: int) -> Array:
        """Take ``n_steps`` steps; return the loss before each of them."""
        self._state, losses = self._steps(n_steps, self._state, self._data)
        return losses.block_until_ready()

    def sample(self, seconds: float) -> Sample:
        """Run scans for at least ``seconds``."""
        self.train(self._n_steps)
        n_steps, start = 0, time.perf_counter()
        while True:
            self.train(self._n_steps)
            n_steps += self._n_steps
            elapsed = time.perf_counter() - start
            if elapsed >= seconds:
                return Sample(1e3 * elapsed / n_steps)

    def loss_and_gradients(self) -> tuple[float, list[Array]]:
        """The loss and its gradients at the present parameters, ordered as `Case.parameters`."""
        loss, gradients = self._gradient(self._state[0], self._data)
        return float(loss), jax.tree.leaves(gradients)

    @property
    def parameters(self) -> list[Array]:
        """The present parameters, ordered as `Case.parameters`."""
        return jax.tree.leaves(self._state[0])

    def _sharding(self, *axes: str) -> Any:
        return jax.sharding.NamedSharding(self._mesh, jax.sharding.PartitionSpec(*axes))

    def _on_all_shards(self, function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        """``function(state, data)`` on all shards, with the whole state and each shard's data."""

        def on_one(state: Any, data: Any) -> Any:
            return function(state, jax.tree.map(lambda part: part[0], data))

        if self._n_shards == 1:
            return on_one
        spec = jax.sharding.PartitionSpec
        return jax.shard_map(
            on_one,
            mesh=self._mesh,
            in_specs=(spec(), spec(_SHARDS)),
            out_specs=spec(),
            check_vma=False,
        )


def _devices(device: torch.device) -> list[Any]:
    """The devices of JAX that have the type of ``device``, but one GPU at most."""
    try:
        found = jax.devices("gpu" if device.type == "cuda" else "cpu")
    except RuntimeError:
        return []
    return found[:1] if device.type == "cuda" else found


def _shard(case: Case, index: int, n_shards: int) -> Case:
    """The case with one of ``n_shards`` parts of the points of every term."""

    def part(term: LossTerm) -> LossTerm:
        n = len(term.x) // n_shards
        rows = slice(index * n, (index + 1) * n)
        return replace(term, x=term.x[rows], target=term.target[rows])

    return replace(case, terms=tuple(part(term) for term in case.terms))


def _array(tensor: torch.Tensor) -> Array:
    return jnp.asarray(tensor.numpy())


def _parameters(case: Case) -> Parameters:
    table = None
    if case.table is not None:
        table = _array(case.table)
    return table, tuple((_array(weight), _array(bias)) for weight, bias in case.layers)


def _initial_state(parameters: Parameters) -> Any:
    """The parameters, Adam's two moments, and the number of steps."""
    zeros = partial(jax.tree.map, jnp.zeros_like)
    dtype = parameters[1][0][0].dtype
    return parameters, zeros(parameters), zeros(parameters), jnp.zeros((), dtype)


def _gradient(
    loss: Loss, n_shards: int, parameters: Parameters, data: Any
) -> tuple[Array, Parameters]:
    """The loss and its gradient, over the points of all shards."""
    value, gradient = jax.value_and_grad(loss)(parameters, data)
    if n_shards == 1:
        return value, gradient
    flat, unravel = ravel_pytree((value, gradient))  # one reduction is faster than many
    return unravel(jax.lax.pmean(flat, _SHARDS))


def _steps(
    gradient: Callable[[Parameters, Any], tuple[Array, Parameters]],
    learning_rate: float,
    cosine_epochs: int | None,
    n_steps: int,
    state: Any,
    data: Any,
) -> tuple[Any, Array]:
    def step(state: Any, _: None) -> tuple[Any, Array]:
        parameters, first, second, count = state
        value, gradients = gradient(parameters, data)
        rate = learning_rate
        if cosine_epochs is not None:
            rate = rate * (1 + jnp.cos(jnp.pi * count / cosine_epochs)) / 2
        count = count + 1
        first = jax.tree.map(lambda m, g: _B1 * m + (1 - _B1) * g, first, gradients)
        second = jax.tree.map(lambda v, g: _B2 * v + (1 - _B2) * g * g, second, gradients)
        scale = jnp.sqrt(1 - _B2**count)
        rate = rate / (1 - _B1**count)
        parameters = jax.tree.map(
            lambda p, m, v: p - rate * m / (jnp.sqrt(v) / scale + _EPS), parameters, first, second
        )
        return (parameters, first, second, count), value

    return jax.lax.scan(step, state, length=n_steps)


def _loss(case: Case, features: Callable[[Any, Array], Rows]) -> Loss:
    """The loss of a case; only its last term may be a residual."""
    labels = [term for term in case.terms if term.n_rows == 1]
    residuals = [term for term in case.terms if term.n_rows > 1]
    n_labels = sum(len(term.x) for term in labels)
    second = tuple(t.coefficients[k] for t in residuals for _, k in t.pairs)
    activate = _activation(case.omega, n_labels, second)

    def loss(parameters: Parameters, data: Any) -> Array:
        table, layers = parameters
        points, targets = data
        value, firsts, bent = features(points, table)
        n_residual = value.shape[1] - n_labels
        for weight, bias in layers[:-1]:
            value, firsts, bent = activate(
                weight @ value + bias[:, None],
                tuple(_multiply(weight, first, n_residual) for first in firsts),
                _multiply(weight, bent, n_residual),
            )
        weight, bias = layers[-1]
        total = 0.0
        start = 0
        for term, target in zip(labels, targets, strict=False):
            u = weight @ value[:, start : start + len(term.x)] + bias
            total += term.weight * jnp.mean((u - target) ** 2)
            start += len(term.x)
        for term in residuals:
            left = weight @ bent
            if term.coefficients[0]:
                left += term.coefficients[0] * (weight @ value[:, n_labels:] + bias)
            total += term.weight * jnp.mean((left - targets[-1]) ** 2)
        return total

    return loss


def _multiply(weight: Array, rows: Array, n: int) -> Array:
    """The product weight @ rows ``[.., n]``, where one column of rows may stand for n of them."""
    return jnp.broadcast_to(weight @ rows, (len(weight), n))


def _activation(
    omega: float | None, n_labels: int, second: tuple[float, ...]
) -> Callable[[Array, tuple[Array, ...], Array], Rows]:
    """The activation σ of the values at all points, and of the derivatives at residual points.

    Args:
        omega: ω of sin(ω z); None for tanh.
        n_labels: the number of labels, which are the first columns of z.
        second: the coefficients c_j of D'.
    """

    def at(z: Array) -> tuple[Array, ...]:
        return (jnp.tanh(z),) if omega is None else _sin_cos(omega * z)

    def slopes(*at: Array) -> tuple[Array, Array, Array]:
        if omega is None:
            (a,) = at
            s1 = 1 - a * a
            return s1, -2 * a * s1, (6 * a * a - 2) * s1
        sin, cos = at
        return omega * cos, -(omega**2) * sin, -(omega**3) * cos

    def curvature(firsts: tuple[Array, ...]) -> Array:
        return sum((c * f * f for c, f in zip(second, firsts, strict=True)), start=0.0)

    def forward(z: Array, firsts: tuple[Array, ...], bent: Array) -> tuple[Rows, Any]:
        saved = at(z)
        s1, s2, _ = slopes(*(a[:, n_labels:] for a in saved))
        rows = saved[0], tuple(s1 * f for f in firsts), s1 * bent + s2 * curvature(firsts)
        return rows, (saved, firsts, bent)

    def backward(saved: Any, gradients: Rows) -> Rows:
        saved, firsts, bent = saved
        g_value, g_firsts, g_bent = gradients
        s1_labels, _, _ = slopes(*(a[:, :n_labels] for a in saved))
        s1, s2, s3 = slopes(*(a[:, n_labels:] for a in saved))
        along = sum((f * g for f, g in zip(firsts, g_firsts, strict=True)), start=bent * g_bent)
        g_z = s1 * g_value[:, n_labels:] + s2 * along + s3 * curvature(firsts) * g_bent
        g_z = jnp.concatenate([s1_labels * g_value[:, :n_labels], g_z], axis=1)
        pairs = zip(second, firsts, g_firsts, strict=True)
        return g_z, tuple(s1 * g + 2 * c * s2 * f * g_bent for c, f, g in pairs), s1 * g_bent

    activate = jax.custom_vjp(lambda *rows: forward(*rows)[0])
    activate.defvjp(forward, backward)
    return activate


def _sin_cos(x: Array) -> tuple[Array, Array]:
    """sin x and cos x, in float32 from polynomials on [-π/4, π/4].

    On a CPU, XLA calls the C library for each number, which costs three times as much as a whole
    SIREN step with these polynomials. Their coefficients, and the parts of π/2 that keep the
    remainder exact up to an |x| of some thousands, are from Cephes (sinf.c, S. L. Moshier).
    """
    if x.dtype != jnp.float32:
        return jnp.sin(x), jnp.cos(x)
    quarter = jnp.round(x * (2 / math.pi))
    r = x - quarter * 1.5703125 - quarter * 4.837512969970703e-4 - quarter * 7.549789954891882e-8
    r2 = r * r
    sin = ((-1.9515295891e-4 * r2 + 8.3321608736e-3) * r2 - 1.6666654611e-1) * r2 * r + r
    cos = (2.443315711809948e-5 * r2 - 1.388731625493765e-3) * r2 + 4.166664568298827e-2
    cos = cos * r2 * r2 - 0.5 * r2 + 1
    quadrant = quarter.astype(jnp.int32)
    odd = (quadrant & 1) == 1
    sign_of_sin = 1 - (quadrant & 2).astype(x.dtype)
    sign_of_cos = 1 - ((quadrant + 1) & 2).astype(x.dtype)
    return jnp.where(odd, cos, sin) * sign_of_sin, jnp.where(odd, sin, cos) * sign_of_cos
