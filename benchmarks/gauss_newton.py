"""A Gauss–Newton step: the library, and dense Jacobians by `torch.func`.

The paper's task with residuals, by a grid and a network in float64: r and J, one factorisation, and
r at the point reached. The others take derivatives in x by nested `torch.func.grad`, with the
per-level loop of `benchmarks.baselines` for the grid, over all points by `torch.func.vmap`; J by
`torch.func.jacrev`, of the whole vector r, as one would write it first, or of the residual at a
point, over all points; then the normal equations of whichever is smaller, parameters or residuals.
``jacrev`` of r goes through all points again for each of its elements, which takes hours for one J:
it is timed for some of the elements, and the time is multiplied.
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
# Grids of the paper's preset, and of fewer parameters than residuals.
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
_CHUNK = 250  # points whose derivatives are taken at a time: fewer and more are slower
# Of J at a time, where each goes through all points: more are not faster. So many are timed.
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
        """From the start, after one step that finds out how to compute them."""
        self.residuals.restore(self._start)
        optimizer = self._new()
        optimizer.step()
        return _timed(optimizer.step, seconds)


class DenseSteps:
    """Steps with dense Jacobians, taken point by point, of one trial each; the first is repeated.

    Args:
        cfg: of a run.
    """

    name = JACREV_BY_POINT

    def __init__(self, cfg: DictConfig) -> None:
        self._case = build_case(cfg)
        self._module = StraightforwardTraining(self._case)

    def parameters(self) -> dict[str, Tensor]:
        """Those at the start."""
        return {name: p.detach() for name, p in self._module.named_parameters()}

    def value(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """r ``[M]``."""
        return self._mapped(self._residual, parameters)

    def jacobian(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """J ``[M, P]``, in the order of the module's parameters."""

        def row(parameters: Any, *point: Any) -> Tensor:
            parts = jacrev(self._residual)(parameters, *point)
            return torch.cat([part.flatten() for part in parts.values()])

        return self._mapped(row, parameters)

    def sample(self, seconds: float) -> Sample:
        """At the initial parameters."""
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
        """Σ_α coefficients_α ∂^α u - target, at a point ``[d]``."""

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
    """As `DenseSteps`, by ``jacrev`` of the whole r.

    A sample is less than a step: it is the time of J alone, from that of a part of its rows.
    """

    name = JACREV

    def jacobian(self, parameters: Mapping[str, Tensor], n_rows: int | None = None) -> Tensor:
        """J, or its first rows."""
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
    """Of one of `CASES`, with further overrides."""
    return compose_config([*CASES[case], "task=pinn", "trainer.precision=float64", *changes])


def n_cases() -> int:
    """How often `measure` calls ``advance``."""
    return len(CASES)


def measure(options: Options, advance: Callable[[str], None]) -> pd.DataFrame:
    """One row for each case and contender; milliseconds per step, median and range.

    Args:
        advance: told what comes next.
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
    """A line for each case: our step, and its ratio to the other."""
    cases = frame.groupby("case", sort=False)
    return [f"{case}: {ratios(rows, OURS, 'times')}" for case, rows in cases]
