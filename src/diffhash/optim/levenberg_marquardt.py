"""Gauss–Newton steps with Levenberg's and Marquardt's damping.

With residuals r and their Jacobian J a step δ solves

    (JᵀJ + λ) δ = -Jᵀ r

for the loss |r|². λ follows the gain ratio ρ, the loss's fall over what |r + Jδ|² promises
(Nielsen, IMM-REP-1999-05): nothing has to be tuned, and neither unused rows of a table nor
redundant levels are an obstacle.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from scipy import linalg, sparse
from scipy.sparse.linalg import splu
from torch import Tensor

from diffhash.networks import Field
from diffhash.optim.gauss_newton import GaussNewton, Method
from diffhash.optim.objective import Objective
from diffhash.optim.residuals import Jacobian, Residuals

_DENSE = 6000  # rows of a matrix that is factorised without regard to zeros
_ROUND_OFF = 1e-26  # of a loss, relative to the first
_TRIALS = 40  # of a step; after them no step makes the loss smaller
_GROWTH, _LEAST, _SMALLEST = 2.0, 1e-2, 1e-16  # of the damping; the latter relative to JᵀJ


class SingularError(ArithmeticError):
    """A system that could not be solved."""


def method_for(jacobian: Jacobian) -> Method:
    """How its steps are computed, from its sizes: with the smaller of JᵀJ (primal) and JJᵀ (dual)
    where that is not large, and else with JᵀJ of the table as a sparse matrix."""
    n_rows, n_columns = jacobian.shape
    if min(n_rows, n_columns) > _DENSE:
        return "sparse"
    return "primal" if n_columns <= n_rows else "dual"


class DampedSystem:
    """(JᵀJ + λ) δ = -Jᵀ r for one J and several λ.

    Args:
        jacobian: J.
        r: residuals.
        method: see `method_for`.
    """

    def __init__(self, jacobian: Jacobian, r: np.ndarray, method: Method) -> None:
        self._jacobian, self._r, self._method = jacobian, r, method
        self.gradient = jacobian.transposed(r)
        table, dense = jacobian.table, jacobian.dense
        n = jacobian.shape[1] - dense.shape[1]
        if method == "dual":
            self._matrix = (table @ table.T).toarray() + dense @ dense.T
            return
        by_table = (table.T @ table).tocsc()
        by_both = table.T @ dense
        by_dense = dense.T @ dense
        if method == "primal":
            self._matrix = np.empty((n + len(by_dense), n + len(by_dense)))
            self._matrix[:n, :n] = by_table.toarray()
            self._matrix[:n, n:], self._matrix[n:, :n] = by_both, by_both.T
            self._matrix[n:, n:] = by_dense
            return
        self._parts = by_table, by_both, by_dense

    @property
    def scale(self) -> float:
        """The largest diagonal entry of JᵀJ."""
        squares = [np.square(self._jacobian.dense).sum(axis=0)]
        squares.append(np.asarray(self._jacobian.table.power(2).sum(axis=0)).ravel())
        return float(max((s.max() for s in squares if s.size), default=0.0))

    def step(self, damping: float) -> np.ndarray:
        """δ.

        Raises:
            SingularError: the matrix is not positive definite in floating-point numbers.
        """
        try:
            with np.errstate(all="ignore"):
                delta = self._solve(damping)
        except (linalg.LinAlgError, RuntimeError, ValueError) as error:
            raise SingularError(str(error)) from error
        if not np.isfinite(delta).all():
            raise SingularError("the step is not finite")
        return delta

    def _solve(self, damping: float) -> np.ndarray:
        if self._method == "sparse":
            return self._by_blocks(damping)
        matrix = self._matrix.copy()
        matrix.flat[:: len(matrix) + 1] += damping
        factor = linalg.cho_factor(matrix, lower=True, overwrite_a=True, check_finite=False)
        if self._method == "dual":
            w = linalg.cho_solve(factor, self._r, check_finite=False)
            return -self._jacobian.transposed(w)
        return -linalg.cho_solve(factor, self.gradient, check_finite=False)

    def _by_blocks(self, damping: float) -> np.ndarray:
        """The table is eliminated: the Schur complement is a matrix of the dense part alone."""
        by_table, by_both, by_dense = self._parts
        n = by_table.shape[0]
        identity = sparse.eye_array(n, format="csc")
        factor = splu(
            by_table + damping * identity, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0,
            options={"SymmetricMode": True},
        )  # fmt: skip
        first, second = self.gradient[:n], self.gradient[n:]
        solved = factor.solve(np.column_stack([by_both, first]))
        schur = by_dense - by_both.T @ solved[:, :-1]
        schur.flat[:: len(schur) + 1] += damping
        right = second - by_both.T @ solved[:, -1]
        delta = linalg.solve(schur, -right, assume_a="pos") if len(schur) else -right
        return np.concatenate([-solved[:, -1] - solved[:, :-1] @ delta, delta])


class LevenbergMarquardt(torch.optim.Optimizer):
    """The steps of `GaussNewton`; its state is λ, how fast it grows, and the first loss.

    Args:
        parameters: θ.
        settings: of the steps.
        objective: whose loss is |r|².
        field: that is trained.

    Attributes:
        loss: |r|² before the latest step.
        parts: of it, by term.
        has_ended: whether the latest step made the loss smaller by no more than the tolerance, or
            it is round-off.
    """

    def __init__(
        self,
        parameters: Sequence[Tensor],
        settings: GaussNewton,
        objective: Objective,
        field: Field,
    ) -> None:
        super().__init__(parameters, {"damping": 0.0, "growth": _GROWTH, "first": 0.0})
        self._settings, self._made_of = settings, (objective, field)
        self._residuals: Residuals | None = None
        self.loss, self.parts, self.has_ended = math.nan, [math.nan], False

    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """θ ← θ + δ, with λ large enough that the loss falls."""
        if closure is not None:
            closure()
        (group,) = self.param_groups
        residuals = self._residuals = self._residuals or Residuals(*self._made_of)
        r, jacobian = residuals.value_and_jacobian()
        self.loss, self.parts = float(r @ r), residuals.parts(r)
        if not math.isfinite(self.loss):
            self.has_ended = True
            return
        method = self._settings.method
        system = DampedSystem(jacobian, r, method_for(jacobian) if method == "auto" else method)
        group["damping"] = group["damping"] or self._settings.damping * system.scale
        before = residuals.state()
        for _ in range(_TRIALS):
            gain = self._try(residuals, system, jacobian, r, group["damping"])
            if gain is not None:
                break
            residuals.restore(before)
            group["damping"] *= group["growth"]
            group["growth"] *= 2
        else:
            self.has_ended = True
            return
        ratio, new = gain
        group["damping"] *= max(_LEAST, 1 - (2 * ratio - 1) ** 3)
        group["damping"] = max(group["damping"], _SMALLEST * system.scale)
        group["growth"] = _GROWTH
        group["first"] = group["first"] or self.loss
        falls_no_more = self.loss - new <= self._settings.tolerance * self.loss
        self.has_ended = falls_no_more or new <= _ROUND_OFF * group["first"]

    def _try(
        self,
        residuals: Residuals,
        system: DampedSystem,
        jacobian: Jacobian,
        r: np.ndarray,
        damping: float,
    ) -> tuple[float, float] | None:
        """The gain ratio of a step, and the loss after it; None if that is not smaller."""
        try:
            delta = system.step(damping)
        except SingularError:
            return None
        promised = self.loss - float(np.square(r + jacobian @ delta).sum())
        residuals.move(delta)
        after = residuals.value()
        new = float(after @ after)
        if not new < self.loss or promised <= 0:
            return None
        return (self.loss - new) / promised, new
