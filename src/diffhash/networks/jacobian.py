"""Jacobians of jets in a field's parameters, point by point.

A jet at a point depends on that point alone, so that one backward pass of all points, each with its
own gradient, gives a row of the Jacobian for every point. The row is dense in the network's
parameters, and sparse in a grid's table, of which a point reads few entries.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from diffhash.encodings.encoding import GridRows
from diffhash.jets import Activation, Row
from diffhash.networks.taylor import activate, split_layers


class LayerRows(NamedTuple):
    """A row of a Jacobian for each of N points, in the parameters of a dense layer:

        Σ_k g_k y_kᵀ,

    for the weights ``[O, I]`` and, as the last column, for the biases ``[O]``.

    Attributes:
        inputs: the jet y of the layer's input and of 1, ``[K, N, I + 1]``.
        gradients: the gradients g in the jet of the layer's output, ``[K, N, O]``.
    """

    inputs: Tensor
    gradients: Tensor

    @property
    def n_columns(self) -> int:
        """The number O (I + 1) of the layer's parameters."""
        return self.inputs.shape[-1] * self.gradients.shape[-1]

    def write(self, out: Tensor) -> None:
        """Write the rows into ``out [N, O (I + 1)]``, weights before biases."""
        n_outputs, (y, g) = self.gradients.shape[-1], self
        weights = out[:, :-n_outputs].unflatten(1, (n_outputs, -1))
        weights.copy_(torch.einsum("kno,kni->noi", g, y[..., :-1]))
        out[:, -n_outputs:] = torch.einsum("kno,kn->no", g, y[..., -1])

    def dense(self) -> Tensor:
        """The rows as a matrix ``[N, O (I + 1)]``."""
        out = self.gradients.new_empty(self.gradients.shape[1], self.n_columns)
        self.write(out)
        return out


class JacobianRows(NamedTuple):
    """A row of a Jacobian for each of N points.

    Attributes:
        network: the derivatives in the parameters of each of the network's layers.
        columns: the columns of the table's entries that a point reads, ``[N, M]``; None without a
            table. A column may occur more than once, and its derivatives then add up.
        table: the derivatives in the entries of these columns, ``[N, M]``.
    """

    network: tuple[LayerRows, ...]
    columns: Tensor | None = None
    table: Tensor | None = None


def layer_rows(y: Tensor, g: Tensor) -> LayerRows:
    """The rows in a layer's parameters, from the jet ``[K, N, I]`` of the layer's input and the
    gradients ``[K, N, O]`` in the jet of its output."""
    one = y.new_zeros(*y.shape[:2], 1)
    one[0] = 1
    return LayerRows(torch.cat([y, one], dim=-1), g)


Pullback = Callable[[Tensor], tuple[tuple[LayerRows, ...], Tensor]]


def network_jet_and_rows(
    features: Tensor,
    params: Tensor,
    widths: tuple[int, ...],
    rows: tuple[Row, ...],
    activation: Activation,
) -> tuple[Tensor, Pullback]:
    """The jet ``[K, N, C]`` of a network, and a function that differentiates a number per point.

    For numbers with the gradients ``g [K, N, C]`` in the jet at their points, ``pullback(g)`` holds
    their derivatives in the parameters of each layer, and in the features, ``[K, N, I]``:

        ∂/∂W = Σ_k g_k y_kᵀ,  ∂/∂b = g_0,  g_y = Wᵀ g,  g_z from g_y through σ's jet.

    Args:
        features: the jet of the input, ``[K, N, I]``.
        params: the parameters of the network, without a replica axis.
    """
    layers = [(w.detach(), b.detach()) for w, b in split_layers(params, widths)]
    inputs, before = [features.detach()], []
    for weight, bias in layers[:-1]:
        z = inputs[-1] @ weight.mT
        z[0] += bias
        z.requires_grad_(True)
        before.append(z)
        with torch.enable_grad():
            inputs.append(activate(z, rows, activation))
    weight, bias = layers[-1]
    out = inputs[-1].detach() @ weight.mT
    out[0] += bias

    def pullback(g: Tensor) -> tuple[tuple[LayerRows, ...], Tensor]:
        found = []
        for index in range(len(layers) - 1, -1, -1):
            y = inputs[index]
            found.append(layer_rows(y.detach(), g))
            g = g @ layers[index][0]
            if index:
                (g,) = torch.autograd.grad(y, before[index - 1], g, retain_graph=True)
        return tuple(found[::-1]), g

    return out, pullback


def spline_rows(entries: GridRows, g: Tensor) -> tuple[Tensor, Tensor]:
    """Columns and derivatives ``[N, L·T·C]`` in the coefficients of a linear field's splines, C for
    each row of the table, from gradients ``[K, N, C]`` in the network's jet."""
    n_levels = entries.rows.shape[1]
    every_level = g[:, :, None].expand(-1, -1, n_levels, -1).flatten(2)
    return table_rows(entries._replace(n_features=g.shape[-1]), every_level)


def table_rows(entries: GridRows, g: Tensor) -> tuple[Tensor, Tensor]:
    """Columns and derivatives ``[N, L·T·F]`` in a table, from gradients ``[K, N, L·F]`` in the jet
    of the features."""
    n_features = entries.n_features
    by_level = g.unflatten(-1, (-1, n_features))  # [K, N, L, F]
    values = torch.einsum("nlkt,knlf->nltf", entries.weights.to(g.dtype), by_level)
    columns = entries.rows.to(torch.int64)[..., None] * n_features
    columns = columns + torch.arange(n_features, device=g.device)
    return columns.flatten(1), values.flatten(1)
