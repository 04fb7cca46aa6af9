"""Gauss–Newton steps with Levenberg's and Marquardt's damping.

With residuals r and their Jacobian J a step δ solves

    (JᵀJ + λ D²) δ = -Jᵀ r

for the loss |r|², with the diagonal matrix D of `DampedSystem`. λ falls after a step that reduces
the loss. It falls by more where the gain ratio, the loss's decrease over the decrease
|r|² - |r + Jδ|² that the linearisation predicts, is near 1. While steps do not reduce the loss, λ
grows: 2, 8, 64 … times (Nielsen, IMM-REP-1999-05).
After λ has grown, later falls are smaller, because a step that fails costs a factorisation.

The error of the linearisation is known once a step is tried: r(θ + δ) - r - Jδ. The same factors
give a correction, which is half of the geodesic acceleration of Transtrum and Sethna
(arXiv:1201.5885), found without second derivatives; it is taken if it is short beside δ and
reduces the loss further. Nothing has to be tuned, and the damping makes the system regular where
rows of a table are unused or levels are redundant.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffhash.ops.memory import is_out_of_memory, physical_memory
from diffhash.optim.damped import DampedSystem, SingularError, Step, method_for
from diffhash.optim.determined import undetermined
from diffhash.optim.dissection import Dissection, find_dissection
from diffhash.optim.gauss_newton import GaussNewton, Method
from diffhash.optim.iterative import IterativeSystem
from diffhash.optim.jacobian import Jacobian, Products
from diffhash.optim.residuals import Residuals

_ROUND_OFF = 1e-26  # the round-off error of a loss, relative to the first loss
_REFINED = 0.1  # the fraction of a linear problem's loss by which another step must reduce it
_SMALL = 1e-18  # the fraction of the first loss below which `_REFINED` holds for any problem
_COARSE = 0.5  # the fraction of the loss by which another step on a coarse level must reduce it
_TRIALS = 40  # the number of trials of a step, after which no step is assumed to reduce the loss
_GROWTH, _SMALLEST = 2.0, 1e-15  # the first factor of growth, and the least, of the damping
# (gain ratio, factor): λ is multiplied by the factor from that gain ratio on. It falls after nearly
# every step that succeeds, so that steps follow narrow valleys (Transtrum and Sethna).
_FACTORS = ((0.8, 0.02), (0.05, 0.2), (0.0, 1.0))
_LEAST_FACTOR = 0.02
_SHORT = 0.2  # the largest length of a correction, relative to its step
_PART_OF_MEMORY = 0.25  # the fraction of memory that J may take


class LevenbergMarquardt(torch.optim.Optimizer):
    """The steps of `GaussNewton`; its state is λ, how fast λ grows and falls, the first loss, and
    the level.

    Where the splines of each level span those of the next coarser one, training begins on the
    coarsest level, whose steps cost little, and goes on to the next level when the loss hardly
    falls: training on each level then begins near its solution.

    Args:
        parameters: θ.
        settings: the settings of the steps.
        residuals: a function that gives the residuals of the loss, called at the first step; its
            argument is that of `Residuals`, ``of_entries``.

    Attributes:
        loss: |r|² after the latest step.
        parts: the contribution of each term to ``loss``.
        has_ended: whether training has ended: the latest step reduced the loss by no more than the
            tolerance, the loss is round-off or not finite, or a linear problem is solved.
    """

    def __init__(
        self,
        parameters: Sequence[Tensor],
        settings: GaussNewton,
        residuals: Callable[[bool], Residuals],
    ) -> None:
        state = {"damping": 0.0, "growth": _GROWTH, "fall": _LEAST_FACTOR, "first": 0.0, "stage": 0}
        super().__init__(parameters, state)
        self._settings, self._made_by = settings, residuals
        self._residuals: Residuals | None = None
        self._how: tuple[Method, Dissection | None] | None = None
        # Of the latest trial of a step: J, its system, λ, and its factors.
        self._latest: tuple[Jacobian, DampedSystem, float, Step] | None = None
        self.loss, self.parts, self.has_ended = math.nan, [math.nan], False

    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """θ ← θ + δ, with λ large enough that the loss falls.

        Raises:
            MemoryError: J or its products do not fit in memory.
        """
        if closure is not None:
            closure()
        residuals = self._residuals = self._residuals or self._begin()
        try:
            self._step(residuals)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            method = self._how[0] if self._how else self._settings.method
            raise MemoryError(
                f"a step of Gauss–Newton (method={method}) needs more memory than there is: take "
                "fewer points or a smaller field, another method, or an optimizer by gradients"
            ) from error

    def _begin(self) -> Residuals:
        method, residuals = self._settings.method, self._made_by(False)
        if method == "auto" and residuals.n_bytes > _PART_OF_MEMORY * physical_memory():
            method = "iterative"
        if method != "iterative":
            return residuals
        self._how = method, None
        return self._made_by(True)

    def _step(self, residuals: Residuals) -> None:
        (group,) = self.param_groups
        self._latest = None
        if residuals.is_linear:
            group["stage"] = residuals.n_stages - 1
        residuals.select(group["stage"])
        jacobian: Jacobian | Products
        if self._how is not None and self._how[0] == "iterative":
            r, jacobian = residuals.value_and_products()
        else:
            r, jacobian = residuals.value_and_jacobian()
        self.loss, self.parts = float(r @ r), residuals.parts(r)
        if not math.isfinite(self.loss):
            self.has_ended = True
            return
        system: DampedSystem | IterativeSystem
        if isinstance(jacobian, Products):
            system = IterativeSystem(jacobian, residuals.least_lengths, residuals.units)
        else:
            self._how = self._how or self._choose(jacobian, residuals)
            system = DampedSystem(jacobian, *self._how, residuals.least_lengths, residuals.units)
        begins = _SMALLEST if residuals.is_linear else self._settings.damping
        group["damping"] = group["damping"] or begins
        before = residuals.state()
        # One step solves a linear problem. Later steps reduce the error of round-off or damping.
        least = self._settings.tolerance
        if residuals.is_linear or self.loss <= _SMALL * group["first"]:
            least = max(least, _REFINED)
        if group["stage"] < residuals.n_stages - 1:
            least = _COARSE
        for trial in range(_TRIALS):
            promised, after = self._try(residuals, system, jacobian, r, group["damping"])
            new = float(after @ after)
            if has_fallen := new < self.loss and promised > 0:
                break
            residuals.restore(before)
            if promised <= least * self.loss:
                break
            if trial == 0:
                group["fall"] **= 0.5
            group["damping"] *= group["growth"]
            group["growth"] *= 2
        if not has_fallen:
            self._end_stage(group, residuals)
            return
        ratio = (self.loss - new) / promised
        is_refined = isinstance(system, DampedSystem) and residuals.is_linear
        is_solved = is_refined and group["damping"] <= _SMALLEST
        if trial == 0:
            group["fall"] = max(group["fall"] ** 2, _LEAST_FACTOR)
        factor = next(factor for least, factor in _FACTORS if ratio >= least)
        group["damping"] = max(group["damping"] * max(factor, group["fall"]), _SMALLEST)
        group["growth"] = _GROWTH
        group["first"] = group["first"] or self.loss
        if self.loss - new <= least * self.loss:
            self._end_stage(group, residuals)
        self.has_ended |= is_solved or new <= _ROUND_OFF * group["first"]
        self.loss, self.parts = new, residuals.parts(after)

    def undetermined(self, x: Tensor, errors: Callable[[], Tensor]) -> list[str]:
        """The names of the unknowns and coefficients that nothing determines, from J at the latest
        step. There are none where J is not known. The factors are released.

        Args:
            x: points that training has not used, ``[N, d]``.
            errors: a function that returns the residuals there, for the present parameters; see
                `diffhash.optim.determined`.
        """
        latest, residuals, self._latest = self._latest, self._residuals, None
        if latest is None or residuals is None:
            return []
        jacobian, system, damping, step = latest
        try:
            if damping > _SMALLEST:
                del latest, step  # their memory is needed
                step = system.factorised(_SMALLEST)
            return undetermined(residuals, jacobian, step, system.lengths, x, errors)
        except SingularError:
            return []

    def _end_stage(self, group: dict[str, Any], residuals: Residuals) -> None:
        """Go on with the next level, or end."""
        self.has_ended = group["stage"] == residuals.n_stages - 1
        if not self.has_ended:
            group["stage"] += 1
            group["growth"], self._how, self._latest = _GROWTH, None, None

    def _choose(self, jacobian: Jacobian, residuals: Residuals) -> tuple[Method, Dissection | None]:
        method, dissection = self._settings.method, None
        if method in ("auto", "sparse"):
            dissection = find_dissection(jacobian.table, *residuals.places(), jacobian.n_dense)
        if method == "auto":
            method = method_for(jacobian, dissection)
        return method, dissection if method == "sparse" else None

    def _try(
        self,
        residuals: Residuals,
        system: DampedSystem | IterativeSystem,
        jacobian: Jacobian | Products,
        r: np.ndarray,
        damping: float,
    ) -> tuple[float, np.ndarray]:
        """Try a step, and return the decrease of the loss that the linearisation predicts and r
        after the step; both are infinite where the system is singular."""
        try:
            self._latest = None  # before the factors of this trial need its memory
            step = system.factorised(damping)
            if isinstance(jacobian, Jacobian) and isinstance(system, DampedSystem):
                self._latest = jacobian, system, damping, step
            delta = step(r)
            expected = r + jacobian @ delta
            residuals.move(delta)
            after = residuals.value()
            has_factors = isinstance(system, DampedSystem)  # another step with these is cheap
            if has_factors and math.isfinite(after @ after):
                if residuals.is_linear:
                    after = self._refine(residuals, step, after)
                else:
                    after = self._correct(residuals, step(after - expected), delta, after)
        except SingularError:
            return math.inf, np.full(1, math.inf)
        return self.loss - float(expected @ expected), after

    def _refine(self, residuals: Residuals, step: Step, r: np.ndarray) -> np.ndarray:
        """r after steps of iterative refinement with the same factors."""
        while True:
            loss = float(r @ r)
            after = self._moved(residuals, step(r), r)
            if after is r or loss - float(after @ after) <= _REFINED * loss:
                return after
            r = after

    def _correct(
        self, residuals: Residuals, correction: np.ndarray, delta: np.ndarray, r: np.ndarray
    ) -> np.ndarray:
        """r after a step's correction, if that is short and reduces the loss; r otherwise."""
        units = residuals.units
        if np.linalg.norm(correction / units) > _SHORT * np.linalg.norm(delta / units):
            return r
        return self._moved(residuals, correction, r)

    def _moved(self, residuals: Residuals, step: np.ndarray, r: np.ndarray) -> np.ndarray:
        """r after a step; if the loss is no smaller, the step is undone and ``r`` returned."""
        before = residuals.state()
        residuals.move(step)
        after = residuals.value()
        if after @ after < r @ r:
            return after
        residuals.restore(before)
        return r
