"""Gauss–Newton steps: the library, and dense Jacobians by `torch.func`.

The problem is the paper's PINN task, with a grid and a network in float64. A step consists of r and
J, one factorisation, and r at the point reached. The implementations with `torch.func` take
derivatives in x by nested `torch.func.grad`, with the per-level loop of `benchmarks.baselines` for
the grid, over all points by `torch.func.vmap`. They take J by `torch.func.jacrev`: of the whole
vector r, as one would write it first, or of the residual at a point, over all points. The normal
equations are those in the parameters or the residuals, whichever are fewer. ``jacrev`` of r goes
through all points for each element of r, which takes hours for one J: the time for some of the
elements is measured and multiplied.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd
import torch
from omegaconf import DictConfig
from torch import Tensor
from torch.func import functional_call, grad, jacrev, vmap

from benchmarks.case import build_case, build_objective, compose_config
from benchmarks.machine import environment_columns
from benchmarks.ours import OURS
from benchmarks.sample import Contender, Sample, compared, ratios, take_turns
from benchmarks.steps import Options
from benchmarks.straightforward import StraightforwardTraining
from diffhash.experiment.build import build
from diffhash.networks import Field
from diffhash.optim import GaussNewton
from diffhash.optim.residuals import Residuals

JACREV = "torch.func.jacrev"
JACREV_BY_POINT = "torch.func.jacrev by point"
# The paper's preset, and a grid and a network with fewer parameters than residuals.
CASES = {
    "cubic": ("encoder=cubic",),
    "cubic, small": (
        "encoder=cubic", "encoder.encoding.n_levels=8", "encoder.encoding.base_resolution=2",
        "encoder.encoding.per_level_scale=2", "encoder.network.width=32",
        "encoder.network.depth=1", "task.n_residual=2000",
    ),
}  # fmt: skip
COLUMNS = (
    *("case", "parameters", "residuals"),
    *("contender", "ms", "ms_min", "ms_max", "repetitions", "ours_over_this"),
)
_DAMPING = 1e-6
_CHUNK = 250  # points whose derivatives are taken together; fewer and more are slower
# Rows of J that are computed together by `DenseStepsOfAll`, each from all points; only these are
# timed. A larger number is not faster.
_ROWS = 8


class OurSteps:
    """Steps of `GaussNewton`, each with as many trials of its damping as it needs."""

    name = OURS

    def __init__(self, cfg: DictConfig) -> None:
        setup = build(cfg)
        assert isinstance(setup.field, Field)
        self._field, problem = setup.field, setup.problem
        self.residuals = Residuals(build_objective(cfg, setup), self._field)
        self._start = self.residuals.state()
        self._new = lambda: GaussNewton().make(self._field, problem, lambda _: self.residuals)

    def sample(self, seconds: float) -> Sample:
        """Take steps from the initial parameters, after a first step that is not timed."""
        self.residuals.restore(self._start)
        optimizer = self._new()
        optimizer.step()
        return _timed(optimizer.step, seconds)


class DenseSteps:
    """Steps with dense Jacobians, point by point, and a single trial of the damping.

    Every step starts from the initial parameters.

    Args:
        cfg: the config of a run.
    """

    name = JACREV_BY_POINT

    def __init__(self, cfg: DictConfig) -> None:
        self._case = build_case(cfg)
        self._module = StraightforwardTraining(self._case)

    def parameters(self) -> dict[str, Tensor]:
        """The initial parameters by name."""
        return {name: p.detach() for name, p in self._module.named_parameters()}

    def value(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """The residuals r ``[M]``."""
        return self._mapped(self._residual, parameters)

    def jacobian(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """The Jacobian J ``[M, P]`` of r, in the order of the module's parameters."""

        def row(parameters: Any, *point: Any) -> Tensor:
            parts = jacrev(self._residual)(parameters, *point)
            return torch.cat([part.flatten() for part in parts.values()])

        return self._mapped(row, parameters)

    def sample(self, seconds: float) -> Sample:
        """Take steps for at least ``seconds``."""
        return _timed(self._step, seconds)

    def _step(self) -> None:
        start = self.parameters()
        with torch.no_grad():
            r, jacobian = self.value(start), self.jacobian(start)
            is_wide = jacobian.shape[0] < jacobian.shape[1]
            matrix = jacobian @ jacobian.T if is_wide else jacobian.T @ jacobian
            matrix.diagonal().add_(_DAMPING * matrix.diagonal().max())
            right = r if is_wide else jacobian.T @ r
            solved = torch.cholesky_solve(right[:, None], torch.linalg.cholesky(matrix))[:, 0]
            step = jacobian.T @ solved if is_wide else solved
            parts = step.split([p.numel() for p in start.values()])
            moved = {
                name: p - part.view_as(p)
                for (name, p), part in zip(start.items(), parts, strict=True)
            }
            self.value(moved)

    def _mapped(self, function: Callable[..., Tensor], parameters: Mapping[str, Tensor]) -> Tensor:
        parts = []
        for term in self._case.terms:
            scale = (term.weight / len(term.x)) ** 0.5
            by_point = vmap(function, (None, 0, 0, None), chunk_size=_CHUNK)
            coefficients = dict(zip(term.rows, term.coefficients, strict=True))
            parts.append(scale * by_point(parameters, term.x, term.target, coefficients))
        return torch.cat(parts)

    def _residual(
        self,
        parameters: Mapping[str, Tensor],
        x: Tensor,
        target: Tensor,
        coefficients: Mapping[tuple[int, ...], float],
    ) -> Tensor:
        """The residual Σ_α coefficients_α ∂^α u - target at a point ``[d]``."""

        def u(x: Tensor) -> Tensor:
            return functional_call(self._module, dict(parameters), (x[None],))[0, 0]

        result = -target[0]
        for alpha, coefficient in coefficients.items():
            if coefficient:
                derivative = u
                for axis, times in enumerate(alpha):
                    for _ in range(times):
                        derivative = _along(derivative, axis)
                result = result + coefficient * derivative(x)
        return result


class DenseStepsOfAll(DenseSteps):
    """Steps like those of `DenseSteps`, with J from ``jacrev`` of the whole vector r.

    A sample is less than a step: the time of J alone, extrapolated from a part of its rows.
    """

    name = JACREV

    def jacobian(self, parameters: Mapping[str, Tensor], n_rows: int | None = None) -> Tensor:
        """The Jacobian J, or its first ``n_rows`` rows."""
        first = jacrev(lambda p: self.value(p)[:n_rows], chunk_size=_ROWS)
        parts = first(dict(parameters))
        return torch.cat([part.flatten(1) for part in parts.values()], dim=1)

    def sample(self, seconds: float) -> Sample:
        start = self.parameters()
        sample = _timed(lambda: self.jacobian(start, _ROWS), seconds)
        return Sample(sample.ms * len(self.value(start)) / _ROWS)


def _along(function: Callable[[Tensor], Tensor], axis: int) -> Callable[[Tensor], Tensor]:
    return lambda x: grad(function)(x)[axis]


def _timed(step: Callable[[], Any], seconds: float) -> Sample:
    n_steps, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds or not n_steps:
        step()
        n_steps += 1
    return Sample(1e3 * elapsed / n_steps)


def config(case: str, changes: Sequence[str] = ()) -> DictConfig:
    """The config of one of `CASES`, with further overrides."""
    return compose_config([*CASES[case], "task=pinn", "trainer.precision=float64", *changes])


def n_cases() -> int:
    """The number of calls of ``advance`` by `measure`."""
    return len(CASES)


def measure(options: Options, advance: Callable[[str], None]) -> pd.DataFrame:
    """One row for each case and contender: median and range of the milliseconds per step.

    Args:
        advance: called with the name of each case before it is measured.
    """
    return pd.DataFrame(_rows(options, advance)).assign(**environment_columns(options.device))


def _rows(options: Options, advance: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    for case in CASES:
        advance(case)
        ours = OurSteps(config(case))
        dense = (make(config(case)) for make in (DenseSteps, DenseStepsOfAll))
        contenders: list[Contender] = [ours, *dense]
        samples = take_turns(contenders, options.repetitions, options.seconds, options.n_threads)
        r, jacobian = ours.residuals.value_and_jacobian()
        for row in compared(samples, OURS, whole={*samples}):
            yield {"case": case, "parameters": jacobian.shape[1], "residuals": len(r)} | row


def summary(frame: pd.DataFrame) -> list[str]:
    """A line for each case: the time of our step, and its ratios to the others'."""
    cases = frame.groupby("case", sort=False)
    return [f"{case}: {ratios(rows, OURS, 'times')}" for case, rows in cases]
