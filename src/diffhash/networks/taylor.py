"""The jet of a network's output from the jet of its input: Taylor mode.

An activation maps a jet by Faà di Bruno's formula (`diffhash.jets.composition`): with z the jet of
the pre-activation, σ(z), ∂_j = σ'(z) z_j, ∂_jj = σ'(z) z_jj + σ''(z) z_j², and so on. A linear
layer acts on every row of the jet alike, its bias on the value alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.library import Library

from diffhash.encodings.encoding import version
from diffhash.jets import Activation, Row, Term, composition, find_activation
from diffhash.jets.rows import read_rows, rows_text
from diffhash.networks.native_jet import NetworkKernel, library, network_kernel
from diffhash.ops.modes import is_recorded, own_precision, transforms_are_active


def network_jet(
    features: Tensor,
    params: Tensor,
    widths: tuple[int, ...],
    rows: tuple[Row, ...],
    activation: Activation,
) -> Tensor:
    """The jet of a network at the jet ``features`` of its input.

    Differentiable in features and parameters to any order, and by every transform of torch. Where
    the kernels cannot be used (transforms, forward mode, gradients of gradients) torch computes the
    jet, and also in compiled code, where fusing saves memory traffic.

    Args:
        features: ``[K, N, C_in]``, or ``[R, K, N, C_in]`` for replicas, which may share the former.
        params: `Network.params`, ``[P]`` or ``[R, P]``.
        widths: the widths of the layers, input and output included.
        rows: the rows of the jet.
        activation: the activation between the layers.

    Returns:
        ``[K, N, C_out]`` or ``[R, K, N, C_out]``.
    """
    with own_precision(features):
        if is_recorded() or transforms_are_active():
            return network_jet_reference(features, params, widths, rows, activation)
        if features.device.type == "cpu" and library(activation, features.dtype) is not None:
            return _NativeJet.apply(features, params, widths, rows, activation)
        return _torch_jet(features, params, widths, rows, activation, _TorchActivation.apply)


def network_jet_and_vjp(
    features: Tensor,
    params: Tensor,
    widths: tuple[int, ...],
    rows: tuple[Row, ...],
    activation: Activation,
    with_features: bool,
) -> tuple[Tensor, Callable[[Tensor], tuple[Tensor, Tensor | None]]]:
    """`network_jet` outside of autograd, and its vjp.

    Args:
        with_features: whether the gradient in the features is computed, too.

    Returns:
        The jet, and a function from the gradient in the jet to the gradients in ``params`` and
        ``features``.
    """
    if features.device.type == "cpu" and library(activation, features.dtype) is not None:
        native = _NativePass(features, params, widths, rows, activation, True)
        return native.out, partial(native.backward, with_features=with_features)
    leaves = [params.detach().requires_grad_(True)]
    if with_features:
        features = features.detach().requires_grad_(True)
        leaves.append(features)
    with torch.enable_grad():
        out = network_jet(features, leaves[0], widths, rows, activation)

    def vjp(g: Tensor) -> tuple[Tensor, Tensor | None]:
        params_grad, *rest = torch.autograd.grad(out, leaves, g)
        return params_grad, rest[0] if rest else None

    return out.detach(), vjp


def network_jet_reference(
    features: Tensor,
    params: Tensor,
    widths: tuple[int, ...],
    rows: tuple[Row, ...],
    activation: Activation,
) -> Tensor:
    """The readable reference for `network_jet`, differentiated by autograd."""
    return _torch_jet(features, params, widths, rows, activation, activate)


def _torch_jet(
    features: Tensor,
    params: Tensor,
    widths: tuple[int, ...],
    rows: tuple[Row, ...],
    activation: Activation,
    activate: Any,
) -> Tensor:
    data = features
    layers = split_layers(params, widths)
    for index, (weight, bias) in enumerate(layers):
        data = linear(data, weight, bias)
        if index < len(layers) - 1:
            data = activate(data, rows, activation)
    return data


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The jet of W x + b for each replica: one matrix product of all rows of the jet."""
    if weight.ndim == 2:
        return _add_bias(torch.nn.functional.linear(x, weight), bias)
    product = (x.flatten(-3, -2) @ weight.mT).unflatten(-2, x.shape[-3:-1])
    return _add_bias(product, bias)


def _add_bias(z: Tensor, bias: Tensor) -> Tensor:
    """z + bias in the value's row."""
    value = z[..., :1, :, :] + bias[..., None, None, :]
    return torch.cat([value, z[..., 1:, :, :]], dim=-3)


def activate(z: Tensor, rows: tuple[Row, ...], activation: Activation) -> Tensor:
    """The jet of σ(z) from the jet of z, ``[.., K, N, C]``."""
    given, table = z.unbind(-3), composition(rows)
    slopes = activation.slopes(given[0], _highest(table))
    out = []
    for terms in table:
        parts = [_product(term, slopes, given) for term in terms]
        out.append(sum(parts[1:], parts[0]))
    return torch.stack(out, dim=-3)


def _highest(table: tuple[tuple[Term, ...], ...]) -> int:
    """The order of the highest derivative of σ in the table."""
    return max(term.slope for terms in table for term in terms)


def _product(term: Term, slopes: Sequence[Tensor], z: Sequence[Tensor]) -> Tensor:
    product = slopes[term.slope]
    for factor in term.factors:
        product = product * z[factor]
    return product if term.coefficient == 1 else term.coefficient * product


def split_layers(params: Tensor, widths: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
    """Views of ``params [.., P]``: each layer's weight ``[.., C_out, C_in]``, bias ``[.., C_out]``.

    The parameters of a layer follow those of the layer before: the weight row by row, then the
    bias.
    """
    layers, start = [], 0
    for n_inputs, n_outputs in pairwise(widths):
        middle, end = start + n_outputs * n_inputs, start + n_outputs * (n_inputs + 1)
        weight = params[..., start:middle].unflatten(-1, (n_outputs, n_inputs))
        layers.append((weight, params[..., middle:end]))
        start = end
    return layers


def _gradients(
    out: Tensor, inputs: Sequence[Tensor], needed: Sequence[bool], g: Tensor
) -> list[Tensor | None]:
    """Differentiable gradients of ``out`` in the ``inputs`` that are needed."""
    wanted = [tensor for tensor, wants in zip(inputs, needed, strict=True) if wants]
    found = iter(torch.autograd.grad(out, wanted, g, create_graph=True))
    return [next(found) if wants else None for wants in needed]


class _TorchActivation(Function):
    """The same as `activate`, with less memory traffic."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, rows: tuple[Row, ...], activation: Activation) -> Tensor:
        table, given, out = composition(rows), z.unbind(-3), torch.empty_like(z)
        slopes = activation.slopes(given[0], _highest(table) + 1)
        for result, terms in zip(out.unbind(-3), table, strict=True):
            _add_products(result, terms, slopes, given)
        ctx.save_for_backward(z, *slopes)
        ctx.rows, ctx.activation = rows, activation
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        z, *slopes = ctx.saved_tensors
        if torch.is_grad_enabled():  # this will be differentiated again
            out = activate(z, ctx.rows, ctx.activation)
            return *_gradients(out, [z], [True], grads[0]), None, None
        given, g = z.unbind(-3), grads[0].unbind(-3)
        grad = torch.zeros_like(z)
        towards = grad.unbind(-3)
        part = torch.empty_like(g[0])
        for terms, row_grad in zip(composition(ctx.rows), g, strict=True):
            raised = [Term(t.coefficient, t.slope + 1, t.factors) for t in terms]
            _add_products(part, raised, slopes, given)
            towards[0].addcmul_(part, row_grad)
            for term in terms:
                for factor in dict.fromkeys(term.factors):
                    others = list(term.factors)
                    others.remove(factor)
                    c = term.coefficient * term.factors.count(factor)
                    product = _product(Term(1, term.slope, tuple(others)), slopes, given)
                    towards[factor].addcmul_(product, row_grad, value=c)
        return grad, None, None


def _add_products(
    result: Tensor, terms: Sequence[Term], slopes: Sequence[Tensor], z: Sequence[Tensor]
) -> None:
    """Write the sum of the terms into ``result``."""
    first, *others = terms
    result.copy_(_product(first, slopes, z))
    for term in others:
        *leading, last = term.factors
        product = _product(Term(1, term.slope, tuple(leading)), slopes, z)
        result.addcmul_(product, z[last], value=term.coefficient)


def _kernel(
    features: Tensor,
    params: Tensor,
    widths: Sequence[int],
    rows: tuple[Row, ...],
    activation: Activation,
) -> NetworkKernel:
    if features.ndim < 3 or params.ndim < 1:
        raise ValueError(
            f"features of shape {list(features.shape)} and params of shape "
            f"{list(params.shape)}: give [(R,) K, N, C] and [(R,) P]"
        )
    n_inputs = features.shape[-1]
    if n_inputs != widths[0]:
        raise ValueError(f"features have {n_inputs} channels, the network reads {widths[0]}")
    return network_kernel(
        tuple(widths),
        rows,
        features.shape[-2],
        params.shape[:-1],
        features.ndim == 3,
        activation,
        features.dtype,
        torch.get_num_threads(),
    )


class _NativePass:
    """The kernels' forward pass, and their backward pass if ``states`` are stored for it."""

    def __init__(
        self,
        features: Tensor,
        params: Tensor,
        widths: tuple[int, ...],
        rows: tuple[Row, ...],
        activation: Activation,
        keep_states: bool,
    ) -> None:
        # Detached from the graph; the present data, because ``.data`` may be replaced later.
        self._features, self._params = features.detach(), params.detach()
        self._versions = version(features), version(params)
        self._kernel = _kernel(features, params, widths, rows, activation)
        self.out, self._states = self._kernel.forward(features, params, keep_states)

    def backward(self, g: Tensor, with_features: bool) -> tuple[Tensor, Tensor | None]:
        """The gradients in the parameters and, ``with_features``, in the features."""
        features, params = self._features, self._params
        assert self._states is not None
        if (version(features), version(params)) != self._versions:
            raise RuntimeError(
                "the network's params or features were modified by an inplace operation after "
                "the jet: take the jet anew, or its gradient before"
            )
        params_grad, features_grad = self._kernel.backward(
            features, params, self._states, g, with_features
        )
        if features_grad is not None and features_grad.ndim > features.ndim:
            features_grad = features_grad.sum(dim=0)
        return params_grad, features_grad


class _NativeJet(Function):
    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        params: Tensor,
        widths: tuple[int, ...],
        rows: tuple[Row, ...],
        activation: Activation,
    ) -> Tensor:
        needed = any(ctx.needs_input_grad)
        settings = (widths, rows_text(rows), activation.name, activation.parameter)
        with torch._C._AutoDispatchBelowAutograd():
            out, states = _jet(features, params, *settings, needed)
        if needed:
            ctx.settings, ctx.activation = settings, activation
            ctx.save_for_backward(features, params, states)
            ctx.params = params.detach()  # the present data: ``.data`` may be replaced
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        features, params, states = ctx.saved_tensors
        needed = ctx.needs_input_grad[:2]
        if torch.is_grad_enabled():  # this will be differentiated again
            widths, rows, *_ = ctx.settings
            rows = read_rows(rows)
            out = network_jet_reference(features, params, widths, rows, ctx.activation)
            found = _gradients(out, [features, params], needed, grads[0])
            return *found, None, None, None
        with torch._C._AutoDispatchBelowAutograd():
            params_grad, features_grad = _jet_backward(
                features, ctx.params, states, grads[0], *ctx.settings, needed[0]
            )
        return features_grad if needed[0] else None, params_grad, None, None, None


# The kernels as operators of torch's dispatcher, for its compilers, tracers and fake tensors.
_LIBRARY = Library("diffhash", "FRAGMENT")
_SETTINGS = "int[] widths, str rows, str activation, float parameter"


def _jet_kernel(
    features: Tensor,
    params: Tensor,
    widths: Sequence[int],
    rows: str,
    activation: str,
    parameter: float,
    keep_states: bool,
) -> tuple[Tensor, Tensor]:
    kernel = _kernel(
        features, params, widths, read_rows(rows), find_activation(activation, parameter)
    )
    out, states = kernel.forward(features, params, keep_states)
    return out, features.new_empty(0) if states is None else states


def _jet_fake(
    features: Tensor,
    params: Tensor,
    widths: Sequence[int],
    rows: str,
    activation: str,
    parameter: float,
    keep_states: bool,
) -> tuple[Tensor, Tensor]:
    out = features.new_empty(*params.shape[:-1], *features.shape[-3:-1], widths[-1])
    if not keep_states:
        return out, features.new_empty(0)
    one = features.new_empty(*features.shape[:-2], 1, widths[0])  # states are stored by block
    kernel = _kernel(one, params, widths, read_rows(rows), find_activation(activation, parameter))
    n_blocks = (features.shape[-2] + kernel.block - 1) // kernel.block
    return out, features.new_empty(n_blocks * kernel.state_size)


def _jet_backward_kernel(
    features: Tensor,
    params: Tensor,
    states: Tensor,
    grad: Tensor,
    widths: Sequence[int],
    rows: str,
    activation: str,
    parameter: float,
    with_features: bool,
) -> tuple[Tensor, Tensor]:
    kernel = _kernel(
        features, params, widths, read_rows(rows), find_activation(activation, parameter)
    )
    params_grad, features_grad = kernel.backward(features, params, states, grad, with_features)
    if features_grad is None:
        return params_grad, features.new_empty(0)
    if features_grad.ndim > features.ndim:  # all replicas share one input
        features_grad = features_grad.sum(dim=0)
    return params_grad, features_grad


def _jet_backward_fake(
    features: Tensor, params: Tensor, states: Tensor, grad: Tensor, *rest: Any
) -> tuple[Tensor, Tensor]:
    *_, with_features = rest
    shape = features.shape if with_features else (0,)
    return params.new_empty(params.shape), features.new_empty(shape)


_LIBRARY.define(
    f"network_jet(Tensor features, Tensor params, {_SETTINGS}, bool keep_states)"
    " -> (Tensor, Tensor)"
)
_LIBRARY.define(
    "network_jet_backward(Tensor features, Tensor params, Tensor states, Tensor grad, "
    f"{_SETTINGS}, bool with_features) -> (Tensor, Tensor)"
)
_LIBRARY.impl("network_jet", _jet_kernel, "CPU")
_LIBRARY.impl("network_jet_backward", _jet_backward_kernel, "CPU")
_LIBRARY.impl("network_jet", _jet_fake, "Meta")
_LIBRARY.impl("network_jet_backward", _jet_backward_fake, "Meta")
_jet = torch.ops.diffhash.network_jet.default
_jet_backward = torch.ops.diffhash.network_jet_backward.default
