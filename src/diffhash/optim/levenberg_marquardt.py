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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from scipy import sparse
from scipy.linalg import cho_solve
from scipy.sparse.linalg import splu
from torch import Tensor

from diffhash.ops.memory import is_out_of_memory, physical_memory
from diffhash.optim.determined import Step, undetermined
from diffhash.optim.dissection import ENLARGED, Dissection, cholesky, find_dissection, gram
from diffhash.optim.gauss_newton import GaussNewton, Method
from diffhash.optim.iterative import IterativeSystem
from diffhash.optim.jacobian import Jacobian, Products
from diffhash.optim.residuals import Residuals

_DENSE = 6000  # the largest number of rows of a matrix that is factorised as a dense one
_SPARSE = 100  # dense operations in the time of one operation of a product of sparse matrices
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


class SingularError(ArithmeticError):
    """A system that could not be solved."""


def method_for(jacobian: Jacobian, dissection: Dissection | None) -> Method:
    """The method with the fewest operations: the dense matrix JᵀJ (primal), the dense matrix JJᵀ
    (dual), or the sparse matrix JᵀJ (sparse)."""
    n_rows, n_columns = jacobian.shape
    n_dense = jacobian.n_dense
    costs: dict[Method, float] = {}
    if n_columns <= _DENSE:
        costs["primal"] = n_columns**3 / 3 + n_rows * n_dense**2
    if n_rows <= _DENSE:
        cost = sum(layer.cost for layer in jacobian.layers) + jacobian.rest.shape[1]
        costs["dual"] = n_rows**3 / 3 + n_rows**2 * cost + _SPARSE * jacobian.table.nnz
    if dissection is not None:
        costs["sparse"] = dissection.cost(n_dense)
    return min(costs, key=costs.__getitem__) if costs else "sparse"


class DampedSystem:
    """(JᵀJ + λ D²) δ = -Jᵀ r for one J, several λ and r.

    D is diagonal: the length of each column of J (Marquardt), but at least a fraction of the
    longest, so that λ is a number without units. Lengths are compared for unknowns in multiples of
    their units, so that a step does not depend on the units of an equation's coefficients.

    Args:
        jacobian: J.
        method: see `method_for`; not iterative.
        dissection: a dissection of J's table, for the method sparse; None to factorise by SuperLU.
        least: that fraction for each column; see `Residuals.least_lengths`.
        units: the unit of each column's unknown; see `Residuals.units`.

    Attributes:
        lengths: the diagonal of D, without λ's unit.
    """

    def __init__(
        self,
        jacobian: Jacobian,
        method: Method,
        dissection: Dissection | None = None,
        least: np.ndarray | float = 1.0,
        units: np.ndarray | float = 1.0,
    ) -> None:
        self._method, self._dissection = method, dissection
        lengths = np.sqrt(jacobian.squares()) * units
        longest = lengths.max(initial=0.0) or 1.0
        # λ is multiplied by the unit, and columns are divided by the lengths.
        self._unit, self.lengths = longest**2, np.maximum(lengths / longest, least) / units
        if np.any(self.lengths != 1):
            jacobian = jacobian.divided(self.lengths)
        self._jacobian = jacobian
        if method == "dual":
            self._matrix = jacobian.gram()
            return
        table, dense = jacobian.table, jacobian.dense
        n_table, n = jacobian.shape[1] - dense.shape[1], jacobian.shape[1]
        # The inner unknowns have a sparse matrix; all other unknowns are its border.
        self._inner, rest = np.arange(0), np.arange(n_table)
        if method == "sparse":
            self._inner, rest = rest, self._inner
            if dissection is not None:
                self._inner, rest = dissection.order, dissection.rest
        self._outer = np.concatenate([rest, np.arange(n_table, n)])
        own = table
        if len(rest) < n_table:
            own = sparse.csr_array(table[:, rest] if len(rest) else (len(dense), 0))
        self._by_both = np.empty((0, len(self._outer)))
        if len(self._inner):
            by_both = np.hstack([(table.T @ own).toarray(), table.T @ dense])
            self._by_both = by_both[self._inner]
        beside = own.T @ dense
        self._by_border = np.block([[gram(own), beside], [beside.T, dense.T @ dense]])

    def factorised(self, damping: float) -> Callable[[np.ndarray], np.ndarray]:
        """Return a function from r to δ, which raises `SingularError` too.

        Raises:
            SingularError: the matrix is not positive definite in floating-point numbers.
        """
        damping *= self._unit
        with _singular():
            solve = self._of_dual(damping) if self._method == "dual" else self._of_primal(damping)

        def step(r: np.ndarray) -> np.ndarray:
            with _singular():
                delta = solve(r) / self.lengths
                if not np.isfinite(delta).all():
                    raise ArithmeticError("the step is not finite")
            return delta

        return step

    def _of_dual(self, damping: float) -> Callable[[np.ndarray], np.ndarray]:
        """δ = -Jᵀ (JJᵀ + λ)⁻¹ r."""
        solve = _cholesky(self._matrix.copy(), damping)
        return lambda r: -self._jacobian.transposed(solve(r))

    def _of_primal(self, damping: float) -> Callable[[np.ndarray], np.ndarray]:
        """δ, by elimination of the inner unknowns: the unknowns of the border are solved for with
        the Schur complement."""
        inner, outer, schur = self._inner, self._outer, self._by_border.copy()
        most = damping
        solve_inner = self._eliminated(damping) if len(inner) else np.copy
        by_inner = solve_inner(self._by_both)
        if len(inner):
            schur -= self._by_both.T @ by_inner
            most *= ENLARGED  # cheaper than to eliminate the inner unknowns with a larger λ
        solve_outer = _cholesky(schur, damping, most) if len(schur) else np.copy

        def solve(r: np.ndarray) -> np.ndarray:
            delta = -self._jacobian.transposed(r)
            delta[inner] = solve_inner(delta[inner, None])[:, 0]
            delta[outer] = solve_outer(delta[outer] - self._by_both.T @ delta[inner])
            delta[inner] -= by_inner @ delta[outer]
            return delta

        return solve

    def _eliminated(self, damping: float) -> Callable[[np.ndarray], np.ndarray]:
        """b ``[n, k]`` → (JᵀJ + λ)⁻¹ b for the inner unknowns."""
        if self._dissection is not None:
            return self._dissection.factorised(self._jacobian.table, damping).solve
        table, n = self._jacobian.table, len(self._inner)
        factor = splu(
            sparse.csc_array(table.T @ table) + damping * sparse.eye_array(n, format="csc"),
            permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True},
        )  # fmt: skip
        return factor.solve


@contextmanager
def _singular() -> Iterator[None]:
    """Turn the errors of linear algebra into `SingularError`."""
    try:
        with np.errstate(all="ignore"):
            yield
    except (ArithmeticError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        raise SingularError(str(error)) from error


def _cholesky(
    matrix: np.ndarray, damping: float, most: float = 0.0
) -> Callable[[np.ndarray], np.ndarray]:
    """b ``[n]`` → (matrix + λ)⁻¹ b for a symmetric matrix, of which only the upper triangle is
    read; see `cholesky`."""
    factor, _ = cholesky(torch.from_numpy(matrix).mT, damping, most)
    lower = np.asfortranarray(factor.numpy())  # no copy, unlike torch's own solve
    return lambda b: cho_solve((lower, True), b, check_finite=False)


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

    def undetermined(self) -> list[str]:
        """The names of the unknowns and coefficients that nothing determines, from J at the latest
        step; see `diffhash.optim.determined`. There are none where J is not known, has fewer rows
        than columns, or is of a coarse level. The factors are released."""
        latest, residuals, self._latest = self._latest, self._residuals, None
        (group,) = self.param_groups
        if latest is None or residuals is None or group["stage"] < residuals.n_stages - 1:
            return []
        jacobian, system, damping, step = latest
        if jacobian.shape[0] < jacobian.shape[1]:
            return []
        try:
            if damping > _SMALLEST:
                del latest, step  # their memory is needed
                step = system.factorised(_SMALLEST)
            return undetermined(residuals, jacobian, step, system.lengths)
        except SingularError:
            return []

    def _end_stage(self, group: dict[str, Any], residuals: Residuals) -> None:
        """Go on with the next level, or end."""
        self.has_ended = group["stage"] == residuals.n_stages - 1
        if not self.has_ended:
            group["stage"] += 1
            group["growth"], self._how = _GROWTH, None

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

    def _refine(
        self, residuals: Residuals, step: Callable[[np.ndarray], np.ndarray], r: np.ndarray
    ) -> np.ndarray:
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
