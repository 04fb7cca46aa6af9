"""Quasi-Newton methods: curvature from the gradients of earlier steps.

L-BFGS is torch's, with a line search that satisfies the strong Wolfe conditions and without torch's
tolerances, which would end it early. The self-scaled method of Broyden is that of Al-Baali and
Khalfan (2005), which Urbán, Stefanou and Pons (J. Comput. Phys. 523, 2025) found to train
physics-informed networks best: with the step s, the change y of the gradient and the approximation
H of the inverse Hessian,

    H ← (H - Hy yᵀH / yᵀHy + φ v vᵀ) / τ + s sᵀ / yᵀs,   v = √(yᵀHy) (s / yᵀs - Hy / yᵀHy).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from diffhash.networks import Field
from diffhash.optim.settings import Needs, OptimizerSettings, check_choice, check_count
from diffhash.problems import Problem

_MAX_HISTORY = 10_000
_MAX_DENSE = 10_000  # the largest number of parameters, with which H takes 0.8 GB
_TRIALS = 30  # the largest number of iterations of a line search


@dataclass(frozen=True)
class LBFGS(OptimizerSettings):
    """L-BFGS of torch: an epoch is one iteration, with one or more evaluations of the loss.

    Where a line search fails, the method starts again from the gradient; training ends where the
    line search along the gradient fails as well.

    >>> settings = LBFGS(history=50, adam_epochs=500)

    Args:
        history: the number of steps from which the curvature is computed.
        adam_epochs: the number of epochs of Adam before the first step of this optimizer.

    Raises:
        ValueError: a number is out of range.
    """

    needs: ClassVar[Needs] = "closure"
    history: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count(1, _MAX_HISTORY, history=self.history)

    def make(self, field: Field, problem: Problem, residuals: object) -> Optimizer:
        """Make a `torch.optim.LBFGS` with the attribute ``has_ended``."""
        return _RestartedLBFGS(
            [*field.parameters(), *problem.parameters()], lr=1.0, max_iter=1, max_eval=_TRIALS,
            history_size=self.history, tolerance_grad=0.0, tolerance_change=0.0,
            line_search_fn="strong_wolfe",
        )  # fmt: skip


@dataclass(frozen=True)
class SSBroyden(OptimizerSettings):
    """The self-scaled method of Broyden for up to 10,000 parameters: an epoch is one iteration.

    The update of the inverse Hessian is in the description of this module.

    >>> settings = SSBroyden(adam_epochs=500)

    Args:
        update: ``"broyden"`` or ``"bfgs"``, both self-scaled.
        adam_epochs: the number of epochs of Adam before the first step of this optimizer.

    Raises:
        ValueError: a number is out of range, or the update is unknown. `make` raises it for more
            parameters than 10,000.
    """

    needs: ClassVar[Needs] = "closure"
    update: str = "broyden"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("update", self.update, ("broyden", "bfgs"))

    def make(self, field: Field, problem: Problem, residuals: object) -> Optimizer:
        """Make the optimizer of a field's parameters and a problem's coefficients."""
        parameters = [*field.parameters(), *problem.parameters()]
        n = sum(p.numel() for p in parameters)
        if n > _MAX_DENSE:
            raise ValueError(
                f"optimizer=SSBroyden: keeps a matrix of the parameters, {n}, and takes at most "
                f"{_MAX_DENSE}; give a smaller field, or lbfgs or gauss_newton"
            )
        return _SelfScaled(parameters, self.update)


def _values(parameters: Sequence[Tensor]) -> Tensor:
    return torch.cat([p.detach().flatten() for p in parameters])


class _RestartedLBFGS(torch.optim.LBFGS):
    has_ended = False

    def step(self, closure: Callable[[], Any]) -> Any:  # type: ignore[override]
        parameters = self.param_groups[0]["params"]
        before = _values(parameters)
        loss = super().step(closure)
        if torch.equal(_values(parameters), before):
            self.state.clear()
            super().step(closure)
            self.has_ended = torch.equal(_values(parameters), before)
        return loss


class _SelfScaled(Optimizer):
    """H is the state of the first parameter."""

    def __init__(self, parameters: Sequence[nn.Parameter], update: str) -> None:
        super().__init__(parameters, {})
        self._update, self.has_ended = update, False

    def step(self, closure: Callable[[], Any]) -> None:  # type: ignore[override]
        """One iteration."""
        from scipy.optimize import line_search  # importing SciPy is slow

        parameters = self.param_groups[0]["params"]
        state = self.state[parameters[0]]
        known: dict[bytes, tuple[float, np.ndarray]] = {}

        def evaluated(x: np.ndarray) -> tuple[float, np.ndarray]:
            key = x.tobytes()
            if key not in known:
                _write(parameters, x)
                with torch.enable_grad():
                    loss = float(closure())
                grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
                known[key] = loss, _values(grads).double().numpy()
            return known[key]

        x = _values(parameters).double().numpy()
        loss, g = evaluated(x)
        if not np.isfinite(loss):
            self.has_ended = True
            return
        found = None
        while found is None:
            inverse = state.get("inverse")
            is_new = inverse is None
            if inverse is None:
                size = max(1.0, float(np.linalg.norm(g)))
                inverse = torch.eye(len(x), dtype=torch.float64) / size
            direction = -inverse.numpy() @ g
            with warnings.catch_warnings():
                # A search that fails is started again from the gradient.
                warnings.filterwarnings("ignore", "The line search algorithm", RuntimeWarning)
                alpha = line_search(
                    lambda x: evaluated(x)[0], lambda x: evaluated(x)[1], x, direction, g, loss,
                    c1=1e-4, c2=0.9, maxiter=_TRIALS,
                )[0]  # fmt: skip
            if alpha is not None and evaluated(x + alpha * direction)[0] < loss:
                found = float(alpha), direction, inverse.numpy()
                continue
            state.clear()
            if is_new:  # the search along the gradient has failed
                _write(parameters, x)
                self.has_ended = True
                return
        alpha, direction, h = found
        s = alpha * direction
        new = evaluated(x + s)[1]
        _write(parameters, x + s)
        state["inverse"] = torch.from_numpy(_updated(h, s, new - g, -alpha * g, self._update))


def _write(parameters: Sequence[Tensor], x: np.ndarray) -> None:
    values = torch.from_numpy(x).split([p.numel() for p in parameters])
    with torch.no_grad():
        for p, part in zip(parameters, values, strict=True):
            p.copy_(part.reshape(p.shape))


def _updated(
    h: np.ndarray, s: np.ndarray, y: np.ndarray, bs: np.ndarray, update: str
) -> np.ndarray:
    """The next H; ``bs`` is H⁻¹ s. Names as in the paper of Urbán et al., Eqs. 14 to 19."""
    ys = float(y @ s)
    if ys <= 0:
        return h
    hy = h @ y
    yhy = float(y @ hy)
    b, ratio = float(s @ bs) / ys, yhy / ys
    a = max(ratio * b - 1.0, 0.0)
    tau = min(1.0, 1.0 / b)
    phi = 1.0
    if update == "broyden" and a > 1e-14:
        n = len(s)
        rho = min(1.0, ratio * (1.0 - np.sqrt(a / (1.0 + a))))
        theta = max((rho - 1.0) / a, min(1.0 / rho, (1.0 - b) / b))
        sigma = 1.0 + theta * a
        phi = (1.0 - theta) / (1.0 + a * theta)
        root = sigma ** (-1.0 / max(1, n - 1))
        tau *= min(root, 1.0 / theta) if theta > 0 else root
        tau = min(tau, sigma) if theta <= 0 else tau
    v = np.sqrt(yhy) * (s / ys - hy / yhy)
    new = h - np.outer(hy, hy) / yhy
    new += phi * np.outer(v, v)
    new /= tau
    new += np.outer(s, s) / ys
    return new
