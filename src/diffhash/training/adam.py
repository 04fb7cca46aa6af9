"""Adam without torch.optim's per-step overhead.

For few parameters, torch.optim's hooks, profiler marks and checks take as long as the arithmetic.
On a CPU a step is one C kernel; torch's fused kernel would also start threads that keep a core
busy.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import cache
from inspect import unwrap
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import increment_version
from torch.optim import Adam
from torch.optim.adam import adam

from diffhash.native import C_NAMES, CompilerError, call, compiled, n_threads, warn_slower


class LeanAdam(Adam):
    """The Adam of torch, with the same state and a step that is little more than the formula:

        m ← β₁ m + (1 - β₁) g,   v ← β₂ v + (1 - β₂) g²,
        θ ← θ - rate · m / (1 - β₁ᵗ) / (√(v / (1 - β₂ᵗ)) + ε).

    Args:
        parameters: the parameters θ.
        betas: β₁ and β₂.
        captured: whether steps are captured in a CUDA graph: the learning rate is then a tensor.

    The learning rate is set at every step (`set_rate`). A restored state keeps these β₁ and β₂.

    Raises:
        ValueError: a step raises it if a restored state has another size or dtype than its
            parameter, or belongs to another kind of Adam (weight decay, AMSGrad, maximising).
    """

    # Without torch's wrappers against compilation, which take seconds to import its compiler.
    add_param_group = unwrap(Adam.add_param_group)
    state_dict = unwrap(Adam.state_dict)
    load_state_dict = unwrap(Adam.load_state_dict)
    zero_grad = unwrap(Adam.zero_grad)

    def __init__(
        self,
        parameters: Sequence[Tensor],
        captured: bool,
        betas: tuple[float, float] = (0.9, 0.999),
    ) -> None:
        rate = torch.zeros((), device=parameters[0].device) if captured else 0.0
        super().__init__(parameters, lr=rate, betas=betas, capturable=captured, fused=True)
        self._betas = betas

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Take a step, with the interface of `torch.optim`."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.lean_step()
        return loss

    def lean_step(self) -> None:
        """Take a step, without closure, hooks and gradient scaling."""
        for group in self.param_groups:
            if group["weight_decay"] or group["amsgrad"] or group["maximize"]:
                raise ValueError(
                    "weight_decay, amsgrad and maximize are not in this Adam's formula, but a "
                    "group of its parameters has one"
                )
            by_torch: list[Tensor] = []
            stepped: list[Tensor] = []
            for parameter in group["params"]:
                gradient = parameter.grad
                if gradient is None:
                    continue
                kernel = kernel_of(parameter.dtype) if parameter.is_cpu else None
                if kernel is None:
                    by_torch.append(parameter)
                    continue
                state = self.state[parameter] or self._begin(parameter)
                _native_step(group, parameter, gradient, state, kernel)
                stepped.append(parameter)
            if stepped:  # autograd then detects saved tensors that have changed since
                increment_version(stepped)
            if by_torch:
                states = [self.state[p] or self._begin(p) for p in by_torch]
                with torch.no_grad():
                    self._torch_step(group, by_torch, states)

    def set_rate(self, rate: float) -> None:
        """Set the learning rate of the next step, in place where a graph reads it."""
        for group in self.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate

    def forget_gradients(self) -> None:
        """`zero_grad`, without its hooks."""
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    def set_captured(self, captured: bool) -> None:
        """Set whether steps are captured from now on. This also sets this optimizer's own β₁ and
        β₂, because a checkpoint may be from a run with others."""
        for group in self.param_groups:
            group["betas"] = self._betas
            device = group["params"][0].device
            group["capturable"] = captured
            group["lr"] = torch.zeros((), device=device) if captured else 0.0

    def _begin(self, parameter: Tensor) -> dict[str, Tensor]:
        self.state[parameter] = {
            "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.zeros_like(parameter),
        }
        return self.state[parameter]

    def _torch_step(
        self, group: dict[str, Any], parameters: list[Tensor], states: list[dict[str, Tensor]]
    ) -> None:
        # torch's kernels do not check strides and sizes either.
        for parameter, state in zip(parameters, states, strict=True):
            for name in ("exp_avg", "exp_avg_sq"):
                moment = state[name]
                if moment.shape != parameter.shape or moment.dtype != parameter.dtype:
                    raise ValueError(
                        f"Adam's {name} has {moment.dtype} of shape {list(moment.shape)}, its "
                        f"parameter {parameter.dtype} of shape {list(parameter.shape)}"
                    )
                state[name] = moment.contiguous()
            if not parameter.is_contiguous():
                parameter.data = parameter.data.contiguous()
        beta1, beta2 = group["betas"]
        adam(
            parameters,
            [p.grad.contiguous() for p in parameters if p.grad is not None],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            fused=True,
            capturable=group["capturable"],
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=group["lr"],
            weight_decay=0.0,
            eps=group["eps"],
            maximize=False,
        )


def _native_step(
    group: dict[str, Any],
    parameter: Tensor,
    gradient: Tensor,
    state: dict[str, Tensor],
    kernel: Any,
) -> None:
    dtype, shape, count = parameter.dtype, parameter.shape, state["step"]
    if count.dtype is torch.float64:  # torch counts in its default dtype if that is float64
        count = state["step"] = count.float()
    size = shape.numel()
    settings = _Settings(size, n_threads(size), group["lr"], *group["betas"], group["eps"])
    call(
        kernel,
        [settings],
        [("a gradient", gradient, dtype, shape)],
        [
            ("a parameter", parameter, dtype, shape),
            ("Adam's exp_avg", state["exp_avg"], dtype, shape),
            ("Adam's exp_avg_sq", state["exp_avg_sq"], dtype, shape),
            ("Adam's step", count, torch.float32, ()),
        ],
    )


class _Settings(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in ("n", "n_threads")),
        *((name, ctypes.c_double) for name in ("rate", "beta1", "beta2", "eps")),
    ]


@cache
def kernel_of(dtype: torch.dtype) -> Any:
    """The C kernel of a step for a type; None where it cannot be compiled."""
    if dtype not in C_NAMES:
        return None
    root = "sqrtf" if dtype == torch.float32 else "sqrt"
    try:
        step = compiled("adam.c", REAL=C_NAMES[dtype], SQRT=root).step
    except CompilerError as error:
        warn_slower("Adam's steps", "a few times", error)
        return None
    step.restype = None
    return step
