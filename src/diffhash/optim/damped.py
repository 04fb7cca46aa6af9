"""The damped normal equations of Gauss–Newton, solved by dense or sparse factors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from scipy import sparse
from scipy.linalg import cho_solve
from scipy.sparse.linalg import splu

from diffhash.ops.memory import is_out_of_memory
from diffhash.optim.dissection import ENLARGED, Dissection, cholesky, gram
from diffhash.optim.gauss_newton import Method
from diffhash.optim.jacobian import Jacobian

_DENSE = 6000  # the largest number of rows of a matrix that is factorised as a dense one
_SPARSE = 100  # dense operations in the time of one operation of a product of sparse matrices

Step = Callable[[np.ndarray], np.ndarray]
"""A function from residuals r to the change δ of the parameters."""


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

    def factorised(self, damping: float) -> Step:
        """Return the function from r to δ for one λ, which raises `SingularError` too.

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

    def _of_dual(self, damping: float) -> Step:
        """δ = -Jᵀ (JJᵀ + λ)⁻¹ r."""
        solve = _cholesky(self._matrix.copy(), damping)
        return lambda r: -self._jacobian.transposed(solve(r))

    def _of_primal(self, damping: float) -> Step:
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
