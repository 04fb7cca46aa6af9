"""Coefficients of an equation that are unknown, and trained with the field."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn


class Coefficient(nn.Parameter):
    """An unknown number in an equation, which is trained with the field.

    A problem sets it in ``__init__``, ``self.nu = Coefficient(0.1, true=0.01)``, and its residuals
    use it as a float64 tensor of one number. Training reports its value and, with ``true``, its
    relative error ``error_nu``, which is absolute where the true value is 0.

    >>> Coefficient(0.1, true=0.01).item()
    0.1

    Args:
        start: the value with which training begins. Its size is the unit of the coefficient in
            steps of `diffhash.optim.GaussNewton` (1 if it is 0). Steps of Adam are as large as the
            learning rate whatever it is, so that it should be near 1 for Adam.
        true: the value that should be found, if it is known. It is used for the reported error
            and for targets that are ``"exact"``.

    Raises:
        ValueError: ``start`` or ``true`` is no finite number.
    """

    start: float
    true: float | None

    def __new__(cls, start: float, true: float | None = None) -> Coefficient:
        given: dict[str, Any] = {"start": start} | ({} if true is None else {"true": true})
        for name, value in given.items():
            try:
                is_number = math.isfinite(value)
            except (TypeError, ValueError):  # a list, a text, a tensor of several numbers
                is_number = False
            if not is_number:
                raise ValueError(
                    f"{name}={value!r}: give a finite number; each unknown number of an equation "
                    "is a Coefficient of its own"
                )
        data = torch.tensor(float(start), dtype=torch.float64)
        made: Any = torch.Tensor._make_subclass(cls, data, True)
        made.start = float(start)
        made.true = None if true is None else float(true)
        return made

    def __init__(self, start: float, true: float | None = None) -> None:
        """Declare the arguments, which ``__new__`` uses."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Coefficient:
        made = _restore(self.data.clone(), self.start, self.true)
        memo[id(self)] = made
        return made

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _restore, (self.data.clone(), self.start, self.true)


def _restore(data: Tensor, start: float, true: float | None) -> Coefficient:
    made: Any = Coefficient.__new__(Coefficient, start, true)
    made.data = data
    return made
