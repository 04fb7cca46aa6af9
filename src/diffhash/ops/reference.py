"""The readable truth: the encoding as plain torch operations, differentiated by autograd.

Slow and obvious. Every fast path is tested against it, outputs and gradients.
"""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor

from diffhash.ops.interpolation import evaluate
from diffhash.ops.layout import GridLayout, locate


def encode(x: Tensor, params: Tensor, layout: GridLayout, n_features_per_level: int) -> Tensor:
    """y_l(x) = Σ_k Π_j B_{k_j}(t_j) · θ[row_l(cell + k)]   (Eqs. 5, 8 and 11 of the paper).

    Args:
        x: ``[N, d]``.
        params: flat table ``[n_rows · F]``.

    Returns:
        ``[N, L·F]``, column ``l·F + f``.
    """
    table = params.view(-1, n_features_per_level)
    stencil = layout.interpolation
    outputs = []
    for level in layout.levels:
        cell, t = locate(level, x)
        weights = stencil.weights(t)  # [N, d, taps]
        y = x.new_zeros(len(x), n_features_per_level)
        for taps in product(range(stencil.taps), repeat=layout.n_input_dims):
            vertex = cell + torch.tensor(taps, device=x.device) + stencil.first_tap
            weight = torch.stack([weights[:, j, k] for j, k in enumerate(taps)]).prod(dim=0)
            if stencil.step is not None:  # Eq. 10
                (weight,) = evaluate((stencil.step,), weight)
            y = y + weight[:, None] * table[layout.rows(level, vertex)]
        outputs.append(y)
    return torch.cat(outputs, dim=1)
