"""What an optimizer is, as far as training has to know."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from torch.optim import Optimizer

from diffhash.networks import Field
from diffhash.ops.sizes import check_sizes
from diffhash.problems import Problem

if TYPE_CHECKING:
    from diffhash.optim.residuals import Residuals

Needs = Literal["gradient", "closure", "residuals"]
MAX_EPOCHS = 10**12


@dataclass(frozen=True)
class OptimizerSettings(ABC):
    """Settings of an optimizer other than Adam, and what makes it.

    Args:
        adam_epochs: epochs of Adam before the first step of this optimizer; a schedule of the
            learning rate is over those alone.

    Attributes:
        needs: what a step is made from. ``gradient``: of the loss at the present parameters, like
            Adam. ``closure``: losses and gradients at parameters that the optimizer chooses.
            ``residuals``: the vector whose square is the loss, and its Jacobian. The latter two
            need all points at every step, and end by themselves: their optimizers have an attribute
            ``has_ended``.
    """

    needs: ClassVar[Needs]
    adam_epochs: int = 0

    def __post_init__(self) -> None:
        check_count(0, MAX_EPOCHS, adam_epochs=self.adam_epochs)

    @abstractmethod
    def make(self, field: Field, problem: Problem, residuals: Callable[[], Residuals]) -> Optimizer:
        """The optimizer of a field's parameters and a problem's coefficients.

        Args:
            residuals: of the objective, when steps are taken.
        """


def check_count(low: int, high: int, **settings: int) -> None:
    """Raise `ValueError` unless these are integers between two."""
    try:
        check_sizes(low, high, **settings)
    except ValueError as error:
        raise ValueError(f"optimizer: {error}") from error


def check_positive(**settings: float) -> None:
    """Raise `ValueError` unless these are finite and above 0."""
    for name, value in settings.items():
        if not (isinstance(value, float | int) and 0 < value < math.inf):
            raise ValueError(f"optimizer: {name}={value}: give a positive number")


def check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """Raise `ValueError` unless it is one of these."""
    if value not in choices:
        raise ValueError(f"optimizer: {name}={value!r}: give one of {', '.join(choices)}")
