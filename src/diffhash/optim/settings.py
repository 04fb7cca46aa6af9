"""Settings of an optimizer, and the quantities from which training must compute its steps."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

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
    """Settings of an optimizer other than Adam, and the method `make` that makes the optimizer.

    Args:
        adam_epochs: the number of epochs of Adam before the first step of this optimizer; a
            schedule of the learning rate is over those epochs alone.

    Attributes:
        needs: what a step is computed from. ``"gradient"``: the gradient of the loss at the present
            parameters, as for Adam. ``"closure"``: losses and gradients at parameters that the
            optimizer chooses. ``"residuals"``: the vector whose square is the loss, and its
            Jacobian. The latter two need all points at every step and end by themselves: their
            optimizers have an attribute ``has_ended``. Those of ``"residuals"`` also have the
            ``loss`` after the latest step and ``parts``, what each term added to it. They may have
            `LevenbergMarquardt.undetermined`.

    Raises:
        ValueError: a number is out of range, or a subclass does not define ``needs``.
    """

    needs: ClassVar[Needs]
    adam_epochs: int = 0

    def __post_init__(self) -> None:
        check_count(0, MAX_EPOCHS, adam_epochs=self.adam_epochs)
        needs = getattr(self, "needs", None)
        if needs not in get_args(Needs):
            raise ValueError(
                f"{type(self).__name__}.needs={needs!r}: give the class one of "
                f"{', '.join(get_args(Needs))}"
            )

    @abstractmethod
    def make(
        self, field: Field, problem: Problem, residuals: Callable[[bool], Residuals]
    ) -> Optimizer:
        """Make the optimizer of a field's parameters and a problem's coefficients.

        Args:
            field: the field that is trained.
            problem: the problem whose coefficients are trained.
            residuals: a function that gives the residuals of the loss, called at the first step;
                its argument is that of `Residuals`, ``of_entries``.
        """


def check_count(low: int, high: int, **settings: int) -> None:
    """Raise `ValueError` unless each setting is an integer from ``low`` to ``high``."""
    try:
        check_sizes(low, high, **settings)
    except ValueError as error:
        raise ValueError(f"optimizer: {error}") from error


def check_positive(**settings: float) -> None:
    """Raise `ValueError` unless each setting is a finite number above 0."""
    for name, value in settings.items():
        if not (isinstance(value, float | int) and 0 < value < math.inf):
            raise ValueError(f"optimizer: {name}={value!r}: give a positive number")


def check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """Raise `ValueError` unless the setting ``name`` has one of the values ``choices``."""
    if value not in choices:
        raise ValueError(f"optimizer: {name}={value!r}: give one of {', '.join(choices)}")
