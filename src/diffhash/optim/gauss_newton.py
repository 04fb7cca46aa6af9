"""Settings of Gauss–Newton training; its steps are in `diffhash.optim.levenberg_marquardt`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from torch import Tensor
from torch.optim import Optimizer

Method = Literal["primal", "dual", "sparse"]


@dataclass(frozen=True)
class GaussNewton:
    """Gauss–Newton instead of Adam: an epoch is one step over all points.

    Args:
        damping: λ of the first step, relative to the largest diagonal entry of JᵀJ.
        tolerance: training ends when a step makes the loss smaller by less than this part of it.
        method: how steps are computed: primal or dual, with dense matrices; sparse, for
            large tables; or auto, the cheapest of them.

    Raises:
        ValueError: a number out of range, or a method that there is not.
    """

    damping: float = 1e-6
    tolerance: float = 1e-8
    method: Literal["auto", "primal", "dual", "sparse"] = "auto"

    def __post_init__(self) -> None:
        for name in ("damping", "tolerance"):
            value = getattr(self, name)
            if not (isinstance(value, float | int) and 0 < value < math.inf):
                raise ValueError(f"optimizer: {name}={value}: give a positive number")
        if self.method not in (methods := ("auto", *get_args(Method))):
            raise ValueError(f"optimizer: method={self.method!r}: give one of {', '.join(methods)}")

    def optimizer(self, parameters: Sequence[Tensor], objective: Any, field: Any) -> Optimizer:
        """What takes the steps; `diffhash.optim.levenberg_marquardt.LevenbergMarquardt`."""
        from diffhash.optim.levenberg_marquardt import LevenbergMarquardt  # SciPy takes a while

        return LevenbergMarquardt(parameters, self, objective, field)
