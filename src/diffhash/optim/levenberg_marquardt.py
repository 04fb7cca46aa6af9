"""Gauss–Newton steps with Levenberg's and Marquardt's damping.

With residuals r and their Jacobian J a step δ solves

    (JᵀJ + λ) δ = -Jᵀ r

for the loss |r|². λ falls after a step that makes the loss smaller, by more where the gain ratio,
the loss's fall over what |r + Jδ|² promises, is near 1, and grows until one does: 2, 8, 64 … times
(Nielsen, IMM-REP-1999-05). Nothing has to be tuned, and neither unused rows of a table nor
redundant levels are an obstacle.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from scipy import sparse
from scipy.sparse.linalg import splu
from torch import Tensor

from diffhash.optim.dissection import Dissection, find_dissection, gram
from diffhash.optim.gauss_newton import GaussNewton, Method
from diffhash.optim.residuals import Jacobian, Residuals

_DENSE = 6000  # rows of a matrix that is factorised without regard to zeros
_SPARSE = 100  # operations that one of a product of sparse matrices takes as long as
_ROUND_OFF = 1e-26  # of a loss, relative to the first
_REFINED = 0.1  # of a linear problem's loss, that another step must take away
_COARSE = 0.5  # of the loss, that another step on a coarse level must take away
_TRIALS = 40  # of a step; after them no step makes the loss smaller
_GROWTH, _SMALLEST = 2.0, 1e-15  # of the damping
# What it is multiplied by after a step, from the gain ratio on: it falls whenever a step succeeds,
# which finds its way along narrow valleys (Transtrum and Sethna, arXiv:1201.5885).
_FACTORS = ((0.8, 0.02), (0.05, 0.2), (0.0, 1.0))
_SHORTEST = 1e-8  # column of J, relative to the longest


class SingularError(ArithmeticError):
    """A system that could not be solved."""


def method_for(jacobian: Jacobian, dissection: Dissection | None) -> Method:
    """How its steps are computed: by whichever takes the fewest operations of JᵀJ as a dense matrix
    (primal), JJᵀ likewise (dual), and JᵀJ as a sparse matrix."""
    n_rows, n_columns = jacobian.shape
    n_dense = jacobian.dense.shape[1]
    costs: dict[Method, float] = {}
    if n_columns <= _DENSE:
        costs["primal"] = n_columns**3 / 3 + n_rows * n_dense**2
    if n_rows <= _DENSE:
        costs["dual"] = n_rows**3 / 3 + n_rows**2 * n_dense + _SPARSE * jacobian.table.nnz
    if dissection is not None:
        costs["sparse"] = dissection.cost(n_dense)
    return min(costs, key=costs.__getitem__) if costs else "sparse"


class DampedSystem:
    """(JᵀJ + λ D²) δ = -Jᵀ r for one J and several λ.

    D is the length of J's longest column, so that λ is a number without units. For coefficients of
    splines it is the length of each (Marquardt's), because those at the edge of a grid have short
    ones; but columns that are nearly 0, such as of unused rows, count as a small part of the
    longest.

    Args:
        jacobian: J.
        r: residuals.
        method: see `method_for`.
        dissection: of J's table, for the method sparse; without it SuperLU takes a table apart.
        of_splines: whether the columns are of splines' coefficients.
    """

    def __init__(
        self,
        jacobian: Jacobian,
        r: np.ndarray,
        method: Method,
        dissection: Dissection | None = None,
        of_splines: bool = False,
    ) -> None:
        self._r, self._method = r, method
        self._lengths = _lengths(jacobian, _SHORTEST if of_splines else 1.0)
        self._jacobian = jacobian = jacobian.divided(self._lengths)
        self._gradient = jacobian.transposed(r)
        table, dense = jacobian.table, jacobian.dense
        if method == "dual":
            self._matrix = (table @ table.T).toarray() + dense @ dense.T
            return
        n_table, n = jacobian.shape[1] - dense.shape[1], jacobian.shape[1]
        self._dissection = dissection
        # Unknowns of the matrix that is sparse, and all others: its border.
        self._inner, rest = np.arange(0), np.arange(n_table)
        if method == "sparse":
            self._inner, rest = rest, self._inner
            if dissection is not None:
                self._inner, rest = dissection.order, dissection.rest
        self._outer = np.concatenate([rest, np.arange(n_table, n)])
        own = sparse.csr_array(table[:, rest])
        self._by_both = np.empty((0, len(self._outer)))
        if len(self._inner):
            by_both = np.hstack([(table.T @ own).toarray(), table.T @ dense])
            self._by_both = by_both[self._inner]
        beside = own.T @ dense
        self._by_border = np.block([[gram(own), beside], [beside.T, dense.T @ dense]])

    def step(self, damping: float) -> np.ndarray:
        """δ.

        Raises:
            SingularError: the matrix is not positive definite in floating-point numbers.
        """
        try:
            with np.errstate(all="ignore"):
                delta = self._solve(damping) / self._lengths
        except (ArithmeticError, RuntimeError) as error:
            raise SingularError(str(error)) from error
        if not np.isfinite(delta).all():
            raise SingularError("the step is not finite")
        return delta

    def _solve(self, damping: float) -> np.ndarray:
        if self._method == "dual":
            matrix = self._matrix.copy()
            matrix.flat[:: len(matrix) + 1] += damping
            w = _solved(matrix, self._r)
            return -self._jacobian.transposed(w)
        # The inner unknowns are eliminated: the Schur complement is a matrix of the border.
        first, second = self._gradient[self._inner], self._gradient[self._outer]
        schur, right = self._by_border.copy(), second
        schur.flat[:: len(schur) + 1] += damping
        solved = np.zeros((len(first), len(schur) + 1))
        if len(first):
            solved = self._eliminated(damping, np.column_stack([self._by_both, first]))
            schur -= self._by_both.T @ solved[:, :-1]
            right = second - self._by_both.T @ solved[:, -1]
        delta = np.empty(len(self._gradient))
        delta[self._outer] = outer = _solved(schur, -right) if len(schur) else -right
        delta[self._inner] = -solved[:, -1] - solved[:, :-1] @ outer
        return delta

    def _eliminated(self, damping: float, right: np.ndarray) -> np.ndarray:
        """(JᵀJ + λ)⁻¹ right, of the inner unknowns."""
        if self._dissection is not None:
            factors = self._dissection.factorised(self._jacobian.table, damping)
            return factors.solve(right)
        table, identity = self._jacobian.table, sparse.eye_array(len(right), format="csc")
        factor = splu(
            sparse.csc_array(table.T @ table) + damping * identity,
            permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True},
        )  # fmt: skip
        return factor.solve(right)


def _lengths(jacobian: Jacobian, least: float) -> np.ndarray:
    """Of the columns of J, each at least this part of the longest."""
    table, dense = jacobian.table, jacobian.dense
    n = jacobian.shape[1] - dense.shape[1]
    by_table = np.bincount(table.indices, np.square(table.data), n)
    lengths = np.sqrt(np.concatenate([by_table, np.square(dense).sum(axis=0)]))
    return np.maximum(lengths, least * lengths.max(initial=0.0) or 1.0)


def _solved(matrix: np.ndarray, right: np.ndarray) -> np.ndarray:
    """matrix⁻¹ right, of a symmetric one, which is lost."""
    a = torch.from_numpy(matrix)
    factor, info = torch.linalg.cholesky_ex(a)
    if info.item():
        raise ArithmeticError("JᵀJ with its damping is not positive definite")
    return torch.cholesky_solve(torch.from_numpy(right)[:, None], factor)[:, 0].numpy()


class LevenbergMarquardt(torch.optim.Optimizer):
    """The steps of `GaussNewton`; its state is λ, how fast it grows, the first loss, and the level.

    Where levels of splines contain each other, it begins with the coarsest one, whose steps cost
    little, and goes on to the next when the loss hardly falls: each then begins near its solution.

    Args:
        parameters: θ.
        settings: of the steps.
        residuals: r and J, asked for at the first step.

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
        residuals: Callable[[], Residuals],
    ) -> None:
        state = {"damping": 0.0, "growth": _GROWTH, "first": 0.0, "stage": 0}
        super().__init__(parameters, state)
        self._settings, self._made_by = settings, residuals
        self._residuals: Residuals | None = None
        self._how: tuple[Method, Dissection | None] | None = None
        self.loss, self.parts, self.has_ended = math.nan, [math.nan], False

    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """θ ← θ + δ, with λ large enough that the loss falls."""
        if closure is not None:
            closure()
        (group,) = self.param_groups
        residuals = self._residuals = self._residuals or self._made_by()
        if residuals.is_linear:
            group["stage"] = residuals.n_stages - 1
        residuals.select(group["stage"])
        r, jacobian = residuals.value_and_jacobian()
        self.loss, self.parts = float(r @ r), residuals.parts(r)
        if not math.isfinite(self.loss):
            self.has_ended = True
            return
        if self._how is None:
            self._how = self._choose(jacobian, residuals)
        system = DampedSystem(jacobian, r, *self._how, residuals.of_splines)
        begins = _SMALLEST if residuals.is_linear else self._settings.damping
        group["damping"] = group["damping"] or begins
        before = residuals.state()
        for _ in range(_TRIALS):
            gain = self._try(residuals, system, jacobian, r, group["damping"])
            if gain is not None:
                break
            residuals.restore(before)
            group["damping"] *= group["growth"]
            group["growth"] *= 2
        else:
            self._end_stage(group, residuals)
            return
        ratio, new = gain
        group["damping"] *= next(factor for least, factor in _FACTORS if ratio >= least)
        group["damping"] = max(group["damping"], _SMALLEST)
        group["growth"] = _GROWTH
        group["first"] = group["first"] or self.loss
        # One step solves a linear problem, those after it take out what round-off left.
        least = _REFINED if residuals.is_linear else self._settings.tolerance
        if group["stage"] < residuals.n_stages - 1:
            least = _COARSE
        if self.loss - new <= least * self.loss:
            self._end_stage(group, residuals)
        self.has_ended |= new <= _ROUND_OFF * group["first"]

    def _end_stage(self, group: dict[str, Any], residuals: Residuals) -> None:
        """Go on with the next level, or end."""
        self.has_ended = group["stage"] == residuals.n_stages - 1
        if not self.has_ended:
            group["stage"] += 1
            group["growth"], self._how = _GROWTH, None

    def _choose(self, jacobian: Jacobian, residuals: Residuals) -> tuple[Method, Dissection | None]:
        method, dissection = self._settings.method, None
        if method in ("auto", "sparse"):
            n_dense = jacobian.dense.shape[1]
            dissection = find_dissection(jacobian.table, *residuals.places(), n_dense)
        if method == "auto":
            method = method_for(jacobian, dissection)
        return method, dissection if method == "sparse" else None

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
