"""Jacobians of jets in a field's parameters, point by point.

A jet at a point depends on that point alone, so that one backward pass of all points, each with its
own gradient, gives a row of the Jacobian for every point: dense in the network's parameters, and in
a grid's table only where the point reads it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from diffhash.encodings.encoding import GridRows
from diffhash.jets import Activation, Row
from diffhash.networks.taylor import activate, split_layers


class JacobianRows(NamedTuple):
    """A row of a Jacobian for each of N points.

    Attributes:
        network: the derivatives in the network's parameters, ``[N, P]``.
        columns: the columns of the table's entries that a point reads, ``[N, M]``; None without a
            table. A column may occur more than once, and its derivatives then add up.
        table: the derivatives in the entries of these columns, ``[N, M]``.
    """

    network: Tensor
    columns: Tensor | None = None
    table: Tensor | None = None


Pullback = Callable[[Tensor], tuple[Tensor, Tensor]]


def network_jet_and_rows(
    features: Tensor,
    params: Tensor,
    widths: tuple[int, ...],
    rows: tuple[Row, ...],
    activation: Activation,
) -> tuple[Tensor, Pullback]:
    """The jet ``[K, N, C]`` of a network, and a function that differentiates one number a point.

    For numbers with the gradients ``g [K, N, C]`` in the jet at their points, ``pullback(g)`` holds
    their derivatives in the parameters, ``[N, P]``, and in the features, ``[K, N, I]``:

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

    def pullback(g: Tensor) -> tuple[Tensor, Tensor]:
        by_params = g.new_empty(g.shape[1], params.numel())
        parts = split_layers(by_params, widths)
        for index in range(len(layers) - 1, -1, -1):
            y, (by_weight, by_bias) = inputs[index], parts[index]
            by_weight.copy_(torch.einsum("kno,kni->noi", g, y.detach()))
            by_bias.copy_(g[0])
            g = g @ layers[index][0]
            if index:
                (g,) = torch.autograd.grad(y, before[index - 1], g, retain_graph=True)
        return by_params, g

    return out, pullback


def spline_rows(entries: GridRows, g: Tensor) -> tuple[Tensor, Tensor]:
    """Columns and derivatives ``[N, L·T·C]`` in the coefficients of a linear field's splines, a row
    of C for each of the table's, from gradients ``[K, N, C]`` in the network's jet."""
    n_levels = entries.rows.shape[1]
    every_level = g[:, :, None].expand(-1, -1, n_levels, -1).flatten(2)
    return table_rows(entries._replace(n_features=g.shape[-1]), every_level)


def table_rows(entries: GridRows, g: Tensor) -> tuple[Tensor, Tensor]:
    """Columns and derivatives ``[N, L·T·F]`` in a table, from those in features ``[K, N, L·F]``."""
    n_features = entries.n_features
    by_level = g.unflatten(-1, (-1, n_features))  # [K, N, L, F]
    values = torch.einsum("nlkt,knlf->nltf", entries.weights.to(g.dtype), by_level)
    columns = entries.rows.to(torch.int64)[..., None] * n_features
    columns = columns + torch.arange(n_features, device=g.device)
    return columns.flatten(1), values.flatten(1)
