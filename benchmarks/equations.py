"""Training steps for equations in 2-D: the library, nested autograd, and hand-written JAX.

The equations are Poisson's and the steady Navier-Stokes equations with three unknowns, at 4096
points of the unit square. An MLP 3 × 64 reads the coordinates and trains with full batches and
Adam in float32. JAX computes values, first derivatives and the Laplacian forward, with the
activation's backward pass written out, as in `benchmarks.jax_step`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from benchmarks.machine import environment_columns
from benchmarks.ours import OURS, Clock, fit
from benchmarks.sample import Contender, Sample, compared, ratios, take_turns
from benchmarks.steps import Options
from diffhash.encodings import Identity
from diffhash.geometry import Box
from diffhash.networks import MLP, Field
from diffhash.optim import Task
from diffhash.problems import Condition, Derivatives, Problem, stack
from diffhash.training import Evaluation, FieldTraining

NESTED, GRAPH, JAX = "nested autograd", "ours, CUDA graph", "jax"
COLUMNS = (*("equation", "contender", "ms", "ms_min", "ms_max", "repetitions", "ours_over_this"),)
N_POINTS, _RATE, _NU = 4096, 1e-3, 0.025
_CHUNK, _JAX_STEPS = 10, 20
_CPU = torch.device("cpu")


class Laplace(Problem):
    """Poisson's equation Δu = sin πx sin πy."""

    domain = Box(x=(0, 1), y=(0, 1))

    def conditions(self) -> list[Condition]:
        """The equation."""
        return [Condition("residual", self.domain, lambda x, d: d.u_xx + d.u_yy, _source)]


class NavierStokes(Problem):
    """The steady Navier-Stokes equations u·∇u + ∇p = ν Δu, ∇·u = 0."""

    unknowns = ("u", "v", "p")
    domain = Box(x=(0, 1), y=(0, 1))

    def conditions(self) -> list[Condition]:
        """The equations."""
        return [Condition("residual", self.domain, self._equations)]

    def _equations(self, x: Tensor, d: Derivatives) -> Tensor:
        return stack(
            d.u * d.u_x + d.v * d.u_y + d.p_x - _NU * (d.u_xx + d.u_yy),
            d.u * d.v_x + d.v * d.v_y + d.p_y - _NU * (d.v_xx + d.v_yy),
            d.u_x + d.v_y,
        )


def _source(x: Tensor) -> Tensor:
    return (torch.pi * x).sin().prod(dim=1)


PROBLEMS: dict[str, Callable[[], Problem]] = {"laplacian": Laplace, "navier-stokes": NavierStokes}


class Library:
    """Training of a problem under Lightning's ``fit``.

    Args:
        problem: makes the problem.
        name: the contender: `OURS`, `GRAPH` (with a CUDA graph) or `NESTED` (with derivatives by
            nested reverse mode).
        device: the device of the training.
    """

    def __init__(
        self, problem: Callable[[], Problem], name: str, device: torch.device = _CPU
    ) -> None:
        self._problem, self.name = problem, name
        self._accelerator = "gpu" if device.type == "cuda" else "cpu"

    def training(self) -> FieldTraining:
        """A new training, with the parameters of seed 0."""
        problem = self._problem()
        torch.manual_seed(0)
        network = MLP(2, len(problem.unknowns))
        field = Field(Identity(2), network, problem.domain.bounds, problem.names)
        return FieldTraining(
            field,
            Task(n_residual=N_POINTS).objective(problem),
            Evaluation(problem, 100),
            epochs=10**9,
            learning_rate=_RATE,
            chunk=_CHUNK,
            derivatives="autograd" if self.name == NESTED else "taylor",
            execution="cudagraph" if self.name == GRAPH else "eager",
        )

    def sample(self, seconds: float) -> Sample:
        """Train in chunks for at least ``seconds``."""
        training = self.training()

        def read() -> tuple[float, ...]:
            return time.perf_counter(), training.train_seconds

        clock = Clock(1, seconds, read)
        fit(training, self._accelerator, clock)
        wall, train = clock.elapsed
        steps = clock.n_batches * _CHUNK
        return Sample(1e3 * wall / steps, 1e3 * train / steps)


class JaxEquations:
    """The same step in jitted JAX.

    Args:
        problem: a key of `PROBLEMS`.
    """

    name = JAX

    def __init__(self, problem: str) -> None:
        import jax  # pyright: ignore[reportMissingImports]
        import jax.numpy as jnp  # pyright: ignore[reportMissingImports]

        from benchmarks.jax_step import _activation, _initial_state, _steps

        training = Library(PROBLEMS[problem], OURS).training()
        (term,) = training.objective.terms
        x = jnp.asarray(term.x.T.float().numpy())
        target = jnp.asarray(term.target.T.float().numpy())
        activate = _activation(None, 0, (1.0, 1.0))
        layers = tuple(
            (jnp.asarray(w.detach().numpy()), jnp.asarray(b.detach().numpy()))
            for w, b in training.field.network.layers
        )
        unit = jnp.eye(2, dtype=x.dtype)[:, :, None]

        def loss(parameters: Any, data: Any) -> Any:
            x, target = data
            _, layers = parameters
            first_weight, first_bias = layers[0]
            value = first_weight @ x + first_bias[:, None]
            firsts = tuple(jnp.broadcast_to(first_weight @ unit[j], value.shape) for j in range(2))
            bent = jnp.zeros_like(value)
            value, firsts, bent = activate(value, firsts, bent)
            for weight, bias in layers[1:-1]:
                value, firsts, bent = activate(
                    weight @ value + bias[:, None], tuple(weight @ f for f in firsts), weight @ bent
                )
            weight, bias = layers[-1]
            laplacian = weight @ bent
            if problem == "laplacian":
                return jnp.mean((laplacian - target) ** 2)
            u = weight @ value + bias[:, None]
            u_x, u_y = (weight @ f for f in firsts)
            residuals = jnp.stack(
                [
                    u[0] * u_x[0] + u[1] * u_y[0] + u_x[2] - _NU * laplacian[0],
                    u[0] * u_x[1] + u[1] * u_y[1] + u_y[2] - _NU * laplacian[1],
                    u_x[0] + u_y[1],
                ]
            )
            return jnp.mean((residuals - target) ** 2)

        self._gradient = jax.jit(jax.value_and_grad(loss))
        steps = partial(_steps, self._gradient, _RATE, None)
        self._steps = jax.jit(steps, static_argnums=0, donate_argnums=1)
        self._state, self._data = _initial_state((None, layers)), (x, target)

    def loss(self) -> float:
        """The loss at the present parameters."""
        return float(self._gradient(self._state[0], self._data)[0])

    def _train(self) -> None:
        self._state, losses = self._steps(_JAX_STEPS, self._state, self._data)
        losses.block_until_ready()

    def sample(self, seconds: float) -> Sample:
        """Run scans for at least ``seconds``."""
        self._train()
        n_steps, start = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - start) < seconds:
            self._train()
            n_steps += _JAX_STEPS
        return Sample(1e3 * elapsed / n_steps)


def n_cases() -> int:
    """The number of calls of ``advance`` by `measure`."""
    return len(PROBLEMS)


def measure(options: Options, advance: Callable[[str], None]) -> pd.DataFrame:
    """One row for each equation and contender: median and range of the milliseconds per step.

    Args:
        advance: called with the name of each equation before it is measured.
    """
    return pd.DataFrame(_rows(options, advance)).assign(**environment_columns(options.device))


def _rows(options: Options, advance: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    names = [OURS, *([GRAPH] if options.device.type == "cuda" else []), NESTED]
    for equation, problem in PROBLEMS.items():
        advance(equation)
        contenders: list[Contender] = [Library(problem, name, options.device) for name in names]
        if options.with_jax:
            contenders.append(JaxEquations(equation))
        samples = take_turns(contenders, options.repetitions, options.seconds, options.n_threads)
        for row in compared(samples, OURS, whole={JAX}):
            yield {"equation": equation} | row


def summary(frame: pd.DataFrame) -> list[str]:
    """A line for each equation: the time of our step, and its ratios to the others'."""
    equations = frame.groupby("equation", sort=False)
    return [f"{equation}: {ratios(rows, OURS, 'times')}" for equation, rows in equations]
