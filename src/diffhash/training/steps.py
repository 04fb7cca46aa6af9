"""An optimizer step, in three executions with the same result.

- ``eager``: operation by operation. On a CPU the grid and the network are one C kernel for the
  forward pass and one for the backward pass, so that few operations remain that could be fused.
- ``compile``: losses and their gradients through `torch.compile` (8 to 25 s before the first step).
- ``cudagraph``: the whole step, optimizer included, is captured once and replayed, without delays
  between kernels. Values that change during training are in tensors that the graph reads: the
  learning rate in the optimizer, weights in the task's terms.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim import Optimizer

from diffhash.optim.first_order import Views
from diffhash.training.adam import LeanAdam

Execution = Literal["eager", "compile", "cudagraph"]
Rows = Sequence[Tensor] | None  # indices of the points of every term; None for all points
Loss = Callable[[Rows], Tensor]  # the losses of the replicas, or a scalar
Backward = Callable[[Rows], Tensor]  # the same, and adds the gradients to the parameters' grad

_WARM_UPS = 3  # steps that initialise CUDA's libraries, before a capture


def autograd(loss: Loss) -> Backward:
    """A function that computes a loss and its backward pass by autograd."""

    def backward(rows: Rows) -> Tensor:
        value = loss(rows)
        # Replicas share no parameters: the gradient of the sum has the gradient of each replica.
        value.backward(torch.ones_like(value))
        return value.detach()

    return backward


class EagerStep:
    """The steps of Adam, operation by operation: zero_grad, loss, backward, step.

    Args:
        backward: a function that computes the losses over the rows of a step, and their gradients.
        optimizer: the optimizer of all parameters.
        reduce: a function that is called with the losses after the backward pass, to sum losses and
            gradients over processes.
    """

    def __init__(
        self,
        backward: Backward,
        optimizer: LeanAdam,
        reduce: Callable[[Tensor], None] | None = None,
    ) -> None:
        self._backward = backward
        self._optimizer = optimizer
        self._reduce = reduce

    def prepare(self) -> None:
        """Compile everything that the first call would compile, without changing parameters."""

    def __call__(
        self, rate: float, rows: Rows = None, step: Callable[[], object] | None = None
    ) -> Tensor:
        """Take a step at a learning rate, and return the losses before it.

        Args:
            rate: the learning rate.
            rows: indices of the points of each term; None for all points.
            step: a function that is called instead of the optimizer's ``step``, and calls it.
        """
        self._optimizer.set_rate(rate)
        loss = self.backward(rows)
        (step or self._optimizer.lean_step)()
        return loss

    def backward(self, rows: Rows = None) -> Tensor:
        """Compute the losses, and their gradients in ``grad`` of the parameters."""
        self._optimizer.forget_gradients()
        loss = self._backward(rows)
        if self._reduce is not None:
            self._reduce(loss)
        return loss


class GradientStep:
    """The steps of an optimizer that `FirstOrder` has made.

    Args:
        backward: a function that computes the losses over the rows of a step, and their gradients.
        optimizer: the optimizer of all parameters.
        reduce: see `EagerStep`.
    """

    def __init__(
        self,
        backward: Backward,
        optimizer: Optimizer,
        reduce: Callable[[Tensor], None] | None = None,
    ) -> None:
        self._backward, self._optimizer, self._reduce = backward, optimizer, reduce
        self._views = Views(optimizer)

    def __call__(
        self, rate: float, rows: Rows = None, step: Callable[[], object] | None = None
    ) -> Tensor:
        """Take a step at a learning rate, and return the losses before it."""
        self._views.forget_gradients()
        loss = self._backward(rows)
        if self._reduce is not None:
            self._reduce(loss)
        self._views.set_rate(rate)
        self._views.hand_on_gradients()
        (step or self._optimizer.step)()
        self._views.tell_changes()
        return loss


class ClosureStep:
    """The steps of an optimizer that evaluates losses and gradients at parameters of its choice.

    Args:
        backward: a function that computes the loss over all points, and its gradients.
        optimizer: the optimizer of all parameters, with the attribute ``has_ended``.
        parts: a function that returns the value that each term added to the latest loss.
    """

    def __init__(
        self, backward: Backward, optimizer: Any, parts: Callable[[], list[Tensor]]
    ) -> None:
        self._backward, self._optimizer, self._parts_now = backward, optimizer, parts
        self._parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self._at: list[Tensor] = []  # the parameters at which the gradients were computed
        self._loss: Tensor
        self.parts: list[Tensor] = []  # the terms' contributions before the latest step
        self.evaluations = 0

    def __call__(
        self, rate: float, rows: Rows = None, step: Callable[..., object] | None = None
    ) -> Tensor:
        """Take a step, and return the loss before it. The learning rate is not read."""
        assert rows is None
        before = self._evaluate()
        self.parts = [part.clone() for part in self._parts_now()]
        (step or self._optimizer.step)(self._evaluate)
        return before

    def _evaluate(self) -> Tensor:
        """The loss and its gradients, computed once for the same parameters."""
        if not self._at or not all(map(torch.equal, self._parameters, self._at)):
            for parameter in self._parameters:
                parameter.grad = None
            self._loss = self._backward(None).clone()
            self._at = [p.detach().clone() for p in self._parameters]
            self.evaluations += 1
        return self._loss

    @property
    def has_ended(self) -> bool:
        """Whether the optimizer has ended by itself."""
        return bool(self._optimizer.has_ended)


class ResidualStep:
    """The steps of an optimizer that computes residuals itself, such as that of `GaussNewton`.

    Args:
        optimizer: the optimizer, with the attributes ``loss``, ``parts`` and ``has_ended``.
        dtype: the type of the losses.
    """

    def __init__(self, optimizer: Any, dtype: torch.dtype) -> None:
        self._optimizer, self._dtype = optimizer, dtype

    def __call__(
        self, rate: float, rows: Rows = None, step: Callable[[], object] | None = None
    ) -> Tensor:
        """Take a step, and return the loss after it. The learning rate is not read."""
        assert rows is None
        (step or self._optimizer.step)()
        return torch.tensor(self._optimizer.loss, dtype=self._dtype)

    @property
    def parts(self) -> list[Tensor]:
        """The value that each term added to the loss."""
        return [torch.tensor(part, dtype=self._dtype) for part in self._optimizer.parts]

    @property
    def has_ended(self) -> bool:
        """Whether the optimizer has ended by itself."""
        return bool(self._optimizer.has_ended)


class CompiledStep(EagerStep):
    """An `EagerStep` whose losses and gradients are compiled."""

    def __init__(
        self, loss: Loss, optimizer: LeanAdam, reduce: Callable[[Tensor], None] | None = None
    ) -> None:
        super().__init__(autograd(torch.compile(loss)), optimizer, reduce)

    def prepare(self) -> None:
        self.backward()
        self._optimizer.forget_gradients()


class GraphedStep:
    """An `EagerStep` that is one CUDA graph, for steps over all points.

    The first step is not captured, because it makes the state of Adam. The second step is captured.
    """

    def __init__(self, loss: Loss, optimizer: LeanAdam) -> None:
        self._eager = EagerStep(autograd(loss), optimizer)
        self._optimizer = optimizer
        self._graph: torch.cuda.CUDAGraph | None = None
        self._captured_loss = torch.empty(0)

    def prepare(self) -> None:
        """Run the losses and their backward pass on a stream of their own, as CUDA requires before
        a capture."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UPS):
                self._eager.backward()
        torch.cuda.current_stream().wait_stream(stream)
        self._optimizer.forget_gradients()

    def __call__(self, rate: float, rows: Rows = None) -> Tensor:
        """Take a step at a learning rate, and return the losses before it."""
        assert rows is None
        self._optimizer.set_rate(rate)
        if self._graph is None:
            if not self._optimizer.state:
                return self._eager(rate)
            self._optimizer.forget_gradients()
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph):
                self._captured_loss = self._eager.backward()
                self._optimizer.lean_step()
        self._graph.replay()
        return self._captured_loss.clone()
