"""The interface of encodings: values, jets, and jets at fixed points."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from diffhash.jets import Jet, Row, Rows, jet_rows
from diffhash.ops.modes import is_plain
from diffhash.ops.settings import NoTorchScript


class GridRows(NamedTuple):
    """The table rows and weights whose sum is a planned jet.

    Attributes:
        params: the table, ``[n_rows · F]`` or ``[R, n_rows · F]``.
        rows: the table rows of each point and level, ``[N, L, T]``, 32-bit and below ``n_rows``.
        weights: the weights of these rows for each of the jet's rows, ``[N, L, K, T]``.
        n_features: F, the number of features of a table row.
        n_rows: the number of rows of the table.
    """

    params: Tensor
    rows: Tensor
    weights: Tensor
    n_features: int
    n_rows: int


Vjp = Callable[[Tensor], None]  # takes the gradient in a jet's data, adds to the parameters' grad


class EncodingPlan(ABC):
    """The quantities at fixed points that do not depend on trained parameters, computed once.

    A plan keeps its points even if the tensor from which it was made changes. It uses the present
    parameters of its encoding, so that its values are those of a new plan.
    """

    @abstractmethod
    def jet(self) -> Jet:
        """The encoding's jet at the points, with its present parameters."""

    def jet_and_vjp(self) -> tuple[Jet, Vjp | None]:
        """The jet outside of autograd, and a function that is its backward pass.

        ``vjp(g)``, for ``g`` of the shape of the jet's data, adds to ``grad`` of the parameters. It
        is None if no parameters are trained. A step of training thus needs no graph.
        """
        with torch.enable_grad():
            jet = self.jet()
        vjp = jet.data.backward if jet.data.requires_grad else None
        return Jet(jet.data.detach(), jet.rows), vjp

    def kernel_input(self) -> Jet | GridRows | None:
        """The input of kernels that compute the jet: a constant jet, or rows of a table; None if
        the plan has neither."""
        return None

    def move(self, x: Tensor) -> bool:
        """Move to as many other points, and update everything that depends on them in place.

        Returns False if that is impossible, and a new plan must be made.
        """
        return False

    def at(self, index: Tensor) -> PartialPlan | None:
        """A plan of some of the points, by their indices ``[n]``, that copies from this plan; None
        if this plan has nothing to copy."""
        return None


class PartialPlan(EncodingPlan):
    """A plan of some of the points of another plan, which `take` changes."""

    @abstractmethod
    def take(self, index: Tensor) -> None:
        """Move to as many other points of the whole plan, by their indices ``[n]``, in place."""


class Encoding(NoTorchScript, nn.Module, ABC):
    """A map ``[N, n_input_dims] → [N, n_output_dims]`` of coordinates in [0, 1].

    Attributes:
        takes_replicas: whether it also works with a leading axis R in its parameters and buffers
            (`diffhash.networks.stack_fields`); its outputs then have a leading R, too.
        max_order: the highest order along an axis of derivatives that are not zero everywhere
            whatever the parameters are; None without a limit.
    """

    n_input_dims: int
    n_output_dims: int
    takes_replicas = False
    max_order: int | None = None

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Features ``[N, n_output_dims]``; differentiable by autograd in x and the parameters."""

    def jet(self, x: Tensor, rows: Rows = 2) -> Jet:
        """The features and their derivatives, in one pass.

        Args:
            x: points ``[N, d]``.
            rows: the derivatives, as in `diffhash.jets.jet_rows`, which adds those below them. The
                default is all derivatives of first and second order.

        Raises:
            ValueError: a row is no derivative, or ``x`` has a wrong shape.
        """
        rows = jet_rows(rows, self.n_input_dims)
        self._check(x)
        return self._jet(x, rows)

    def plan(self, x: Tensor, rows: Rows = 2) -> EncodingPlan:
        """Prepare `jet` at fixed points, which may be float64 whatever the parameters' type is.

        Raises:
            ValueError: as in `jet`, or ``x`` requires a gradient, which fixed points cannot have.
        """
        rows = jet_rows(rows, self.n_input_dims)
        self._check_fixed(x)
        if x.requires_grad:
            raise ValueError("x requires a gradient, a plan's points are fixed: use jet(x) instead")
        if not is_plain(x):
            return Unplanned(self, x, rows)
        return self._plan(x, rows)

    def plan_in_parts(self, x: Tensor, rows: Rows) -> EncodingPlan:
        """The same as `plan`, for a plan that is used by `EncodingPlan.at` alone."""
        return self.plan(x, rows)

    def _check(self, x: Tensor) -> None:
        """Raise `ValueError` for points that `forward` and `jet` do not take."""
        self._check_fixed(x)

    def _check_fixed(self, x: Tensor) -> None:
        """Raise `ValueError` for points that `plan` does not take."""
        check_points(x, self.n_input_dims)

    @abstractmethod
    def _jet(self, x: Tensor, rows: tuple[Row, ...]) -> Jet: ...

    @abstractmethod
    def _plan(self, x: Tensor, rows: tuple[Row, ...]) -> EncodingPlan: ...


class Unplanned(EncodingPlan):
    """A plan that computes the jet at every call.

    It is for points in a function that torch traces or transforms, which are not constant.
    """

    def __init__(self, encoding: Encoding, x: Tensor, rows: tuple[Row, ...]) -> None:
        self._encoding, self._x, self._rows = encoding, x, rows

    def jet(self) -> Jet:
        return self._encoding._jet(self._x, self._rows)

    def move(self, x: Tensor) -> bool:
        self._x.copy_(x)
        return True


class UnplannedPart(PartialPlan):
    """A partial plan that computes the jet at every call.

    Args:
        encoding: the encoding.
        points: a function that returns the points with given indices.
        index: the indices of the first points.
        rows: the rows of the jet.
    """

    def __init__(
        self,
        encoding: Encoding,
        points: Callable[[Tensor], Tensor],
        index: Tensor,
        rows: tuple[Row, ...],
    ) -> None:
        self._encoding, self._points, self._rows = encoding, points, rows
        self.take(index)

    def take(self, index: Tensor) -> None:
        self._x = self._points(index)

    def jet(self) -> Jet:
        return self._encoding._jet(self._x, self._rows)


class ConstantPlan(EncodingPlan):
    """The plan of an encoding without parameters: its jet, computed anew only after a change.

    Args:
        encoding: the encoding, whose jets depend on its own buffers alone.
        x: points ``[N, d]``.
        rows: the rows of the jet.
    """

    def __init__(self, encoding: Encoding, x: Tensor, rows: tuple[Row, ...]) -> None:
        self._encoding, self._rows = encoding, rows
        with torch.inference_mode(False):  # tensors of inference mode cannot be differentiated
            self._x = x.detach().clone()
        self._make()

    def _make(self) -> None:
        x = self._x
        for buffer in self._encoding.buffers(recurse=False):
            x = x.to(buffer.device)
        with torch.inference_mode(False), torch.no_grad():
            self._jet = self._encoding._jet(x, self._rows)
        self._made = self._state()

    def _state(self) -> list[int]:
        """Numbers that differ after a change of the buffers, or an in-place change of the jet."""
        jet = self._jet.data
        state = [jet._version, jet.data_ptr()]
        for buffer in self._encoding._buffers.values():
            if buffer is not None:
                state += id(buffer), version(buffer), buffer.data_ptr()
        return state

    def jet(self) -> Jet:
        """The jet of the plan itself, which must not be changed."""
        if not torch.compiler.is_compiling() and self._state() != self._made:
            self._make()
        return self._jet

    def jet_and_vjp(self) -> tuple[Jet, Vjp | None]:
        return self.jet(), None

    def kernel_input(self) -> Jet | GridRows | None:
        return self.jet()

    def move(self, x: Tensor) -> bool:
        before = self.jet().data
        self._x = x.detach().clone()
        self._make()
        before.copy_(self._jet.data)
        self._jet = Jet(before, self._rows)
        self._made = self._state()
        return True

    def at(self, index: Tensor) -> PartialPlan:
        return _ConstantPart(self, index)


class _ConstantPart(PartialPlan):
    """A partial plan of a constant jet."""

    def __init__(self, whole: ConstantPlan, index: Tensor) -> None:
        self._whole, self._index = whole, index
        self._data = torch.empty(0)

    def take(self, index: Tensor) -> None:
        self._index = index

    def jet(self) -> Jet:
        jet = self._whole.jet()
        self._data = selected(jet.data, -2, self._index, self._data)
        return Jet(self._data, jet.rows)

    def jet_and_vjp(self) -> tuple[Jet, Vjp | None]:
        return self.jet(), None

    def kernel_input(self) -> Jet | GridRows | None:
        return self.jet()


def selected(whole: Tensor, dim: int, index: Tensor, memory: Tensor) -> Tensor:
    """Select entries of a tensor, into ``memory`` if that has their shape, dtype and device."""
    shape = list(whole.shape)
    shape[dim] = len(index)
    fits = list(memory.shape) == shape
    if fits and memory.dtype == whole.dtype and memory.device == whole.device:
        return torch.index_select(whole, dim, index, out=memory)
    return torch.index_select(whole, dim, index)


def version(tensor: Tensor) -> int:
    """The number of in-place changes of a tensor; 0 for a tensor of inference mode."""
    return 0 if tensor.is_inference() else tensor._version


def add_gradient(parameter: Tensor, gradient: Tensor) -> None:
    """Add a gradient to ``parameter.grad``, as a backward pass does."""
    if parameter.grad_fn is not None:  # it is computed from trained parameters
        parameter.backward(gradient)
    elif parameter.grad is None:
        parameter.grad = gradient
    else:
        parameter.grad.add_(gradient)


def checked_vjp(vjp: Vjp, jet: Jet) -> Vjp:
    """``vjp`` with a check, which raises `ValueError` for another shape or dtype than that of
    ``jet.data``."""
    dtype, shape = jet.data.dtype, jet.data.shape

    def checked(g: Tensor) -> None:
        if g.dtype != dtype or g.shape != shape:
            raise ValueError(
                f"a gradient of the jet must have its dtype {dtype} and shape {list(shape)}, "
                f"got {g.dtype} of shape {list(g.shape)}"
            )
        vjp(g)

    return checked


def check_points(x: Tensor, n_input_dims: int) -> None:
    """Raise `ValueError` unless ``x`` is a floating-point ``[N, n_input_dims]``."""
    if not isinstance(x, Tensor):
        raise ValueError(f"points must be a tensor, got {type(x).__name__}: use torch.as_tensor")
    if x.ndim != 2 or x.shape[1] != n_input_dims or not x.is_floating_point():
        raise ValueError(
            f"points must be a floating-point tensor of shape [N, {n_input_dims}], "
            f"got {x.dtype} of shape {list(x.shape)}"
        )
