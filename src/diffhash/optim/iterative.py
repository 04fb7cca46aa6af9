"""Damped steps by conjugate gradients, from products with J alone."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy.sparse.linalg import LinearOperator, lsmr

from diffhash.optim.jacobian import Products

_PROBES = 16  # random vectors by which the lengths of columns are estimated
_SHORTEST = 1e-3  # the largest bound that `least` sets on a length, relative to the longest
_ACCURACY = 1e-10  # LSMR's tolerances
_ITERATIONS = 500  # at most for a step; an inexact step is followed by another


class IterativeSystem:
    """(JᵀJ + λ D²) δ = -Jᵀ r for one J, several λ and r, without a matrix.

    LSMR (Fong and Saunders, SIAM J. Sci. Comput. 33, 2011) minimises |Jδ + r|² + λ|Dδ|² by a
    product with J and one with Jᵀ an iteration. D, its preconditioner, is the length of each column
    of J, estimated from products with vectors z of random signs: the expectation of (Jᵀz)² is the
    square of the length (Bekas, Kokiopoulou and Saad, Appl. Numer. Math. 57, 2007).

    Args:
        products: products with J and Jᵀ.
        least: the least length of each column, relative to the longest; a thousandth where it is
            more than that.
        units: the unit of each column's unknown; lengths are compared for multiples of it.

    Attributes:
        lengths: the diagonal of D.
    """

    def __init__(
        self,
        products: Products,
        least: np.ndarray | float = 1.0,
        units: np.ndarray | float = 1.0,
    ) -> None:
        generator, n_rows = np.random.default_rng(0), products.shape[0]
        squares = np.zeros(products.shape[1])
        for _ in range(_PROBES):
            signs = generator.integers(0, 2, n_rows) * 2.0 - 1
            squares += products.transposed(signs) ** 2
        lengths = np.sqrt(squares / _PROBES) * units
        longest = lengths.max(initial=0.0) or 1.0
        self.lengths = np.maximum(lengths, np.minimum(least, _SHORTEST) * longest) / units
        self._scaled = _Scaled(products, self.lengths)

    def factorised(self, damping: float) -> Callable[[np.ndarray], np.ndarray]:
        """Return a function from r to δ for the damping λ."""

        def step(r: np.ndarray) -> np.ndarray:
            delta, *_ = lsmr(
                self._scaled, -r, math.sqrt(damping), _ACCURACY, _ACCURACY,
                conlim=0.0, maxiter=_ITERATIONS,
            )  # fmt: skip
            return delta / self.lengths

        return step


class _Scaled(LinearOperator):
    """J D⁻¹."""

    def __init__(self, products: Products, lengths: np.ndarray) -> None:
        super().__init__(np.float64, products.shape)
        self._products, self._lengths = products, lengths

    def _matvec(self, x: np.ndarray) -> np.ndarray:
        return self._products @ (x.ravel() / self._lengths)

    def _rmatvec(self, x: np.ndarray) -> np.ndarray:
        return self._products.transposed(x.ravel()) / self._lengths
