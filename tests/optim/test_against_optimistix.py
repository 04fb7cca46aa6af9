"""Damped steps beside those of optimistix, in JAX, for residuals that are written again there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from diffhash import MLP, Field
from diffhash.encodings import Identity
from diffhash.optim import Task
from diffhash.optim.damped import DampedSystem
from diffhash.optim.residuals import Residuals
from tests.optim.decay import Decay

_STEPS, _POINTS, _WIDTH = 10, 20, 5
_GOOD, _BAD = 0.99, 0.01  # optimistix's rule: gain ratios, and what 1/λ is multiplied by
_LARGER, _SMALLER = 3.5, 0.25


def residuals() -> Residuals:
    """Residuals of u′ + k u³ = 0 with an unknown k, for a network of one hidden layer; from k = -3,
    where the first steps fail."""
    problem = Decay()
    problem.k.data.fill_(-3.0)
    torch.manual_seed(0)
    network = MLP(1, 1, width=_WIDTH, depth=1, dtype=torch.float64)
    encoding = Identity(1, dtype=torch.float64)
    field = Field(encoding, network, problem.domain.bounds, problem.names)
    task = Task(n_residual=_POINTS, n_boundary=1, wave_number=None)
    return Residuals(task.objective(problem), field)


def values(residuals: Residuals) -> np.ndarray:
    return torch.cat([p.detach().flatten() for p in residuals.parameters]).numpy()


def our_path(residuals: Residuals) -> list[tuple[np.ndarray, float]]:
    """The parameters after each step, tried or accepted, and its damping, by optimistix's rule."""
    path: list[tuple[np.ndarray, float]] = []
    size = 1.0
    while len(path) < _STEPS:
        r, jacobian = residuals.value_and_jacobian()
        longest = np.linalg.norm(jacobian.dense, axis=0).max()
        system, before = DampedSystem(jacobian, "primal"), residuals.state()
        is_accepted = False
        while not is_accepted and len(path) < _STEPS:
            # λ is relative to the longest column.
            step = system.factorised(1 / size / longest**2)(r)
            residuals.move(step)
            path.append((values(residuals), size))
            promised = np.square(r + jacobian @ step).sum() - r @ r
            gained = np.square(residuals.value()).sum() - r @ r
            is_accepted = gained <= _BAD * promised
            if gained < _GOOD * promised:
                size *= _LARGER
            elif not is_accepted:
                size *= _SMALLER
                residuals.restore(before)
    return path


def their_path(start: np.ndarray, x: np.ndarray) -> list[tuple[np.ndarray, float]]:
    equinox, jax = pytest.importorskip("equinox"), pytest.importorskip("jax")
    optimistix = pytest.importorskip("optimistix", reason="the extra bench is not installed")
    jnp = jax.numpy

    def decay(theta: Any, _: Any) -> tuple[Any, None]:
        w, b, v, c, k = jnp.split(theta, np.cumsum([_WIDTH, _WIDTH, _WIDTH, 1]))

        def u(t: Any) -> Any:
            return v @ jnp.tanh(w * t + b) + c[0]

        at, slope = jax.vmap(u)(x), jax.vmap(jax.grad(u))(x)
        equation = (slope + k * at**3) / len(x) ** 0.5
        ends = jnp.stack([u(0.0) - 1, u(1.0) - 3**-0.5])
        return jnp.concatenate([equation, ends]), None

    with jax.enable_x64(True):
        solver, y = optimistix.LevenbergMarquardt(rtol=0.0, atol=0.0), jnp.asarray(start)
        shape = jax.eval_shape(lambda: decay(y, None)[0])
        state = solver.init(decay, y, None, {}, shape, None, frozenset())
        step = equinox.filter_jit(
            lambda y, state: solver.step(decay, y, None, {}, state, frozenset())[:2]
        )
        path = []
        for _ in range(_STEPS):
            y, state = step(y, state)
            path.append((np.asarray(state.y_eval), float(state.search_state.step_size)))
    return path


@pytest.mark.slow
def test_ten_steps_are_those_of_optimistix() -> None:
    """λ follows optimistix's rule; our steps are from normal equations, optimistix's by QR."""
    ours = residuals()
    x = np.asarray(ours._objective.terms[0].x[:, 0])
    theirs = their_path(values(ours), x)
    for (own, size), (other, other_size) in zip(our_path(ours), theirs, strict=True):
        assert size == pytest.approx(other_size)
        np.testing.assert_allclose(own, other, rtol=1e-9, atol=1e-11)
