"""Settings of Gauss–Newton training; its steps are in `diffhash.optim.levenberg_marquardt`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

from torch.optim import Optimizer

from diffhash.networks import Field
from diffhash.optim.settings import Needs, OptimizerSettings, check_choice, check_positive
from diffhash.problems import Problem

if TYPE_CHECKING:
    from diffhash.optim.residuals import Residuals

Method = Literal["primal", "dual", "sparse", "iterative"]


@dataclass(frozen=True)
class GaussNewton(OptimizerSettings):
    """Gauss–Newton with Levenberg's and Marquardt's damping: an epoch is one step over all points.

    A linear problem with a linear field is solved in one step, by least squares; steps of iterative
    refinement with the same factors then reduce the round-off error, for as long as the loss falls.

    Args:
        damping: λ of the first step where the residuals are not linear, relative to the diagonal
            of JᵀJ with lower bounds on its entries.
        tolerance: training ends when a step reduces the loss by no more than this fraction of it;
            where the problem is linear, or the loss below 10⁻¹⁸ of the first, by no more than a
            tenth.
        method: how steps are computed: primal or dual, with dense matrices; sparse, for
            large tables; iterative, by conjugate gradients without a matrix; or auto, the cheapest
            of the first three if the Jacobian fits into a quarter of memory, and else iterative.
        adam_epochs: the number of epochs of Adam before the first step of this optimizer.

    Raises:
        ValueError: a number out of range, or an unknown method.
    """

    needs: ClassVar[Needs] = "residuals"
    damping: float = 1e-6
    tolerance: float = 1e-8
    method: Literal["auto", "primal", "dual", "sparse", "iterative"] = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(damping=self.damping, tolerance=self.tolerance)
        check_choice("method", self.method, ("auto", *get_args(Method)))

    def make(
        self, field: Field, problem: Problem, residuals: Callable[[bool], Residuals]
    ) -> Optimizer:
        """Make a `diffhash.optim.levenberg_marquardt.LevenbergMarquardt`."""
        from diffhash.optim.levenberg_marquardt import LevenbergMarquardt  # importing SciPy is slow

        return LevenbergMarquardt([*field.parameters(), *problem.parameters()], self, residuals)
